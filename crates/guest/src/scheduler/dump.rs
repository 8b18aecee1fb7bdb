//! What the kernel traces when it disables a scheduler.
//!
//! Besides handing its dump to the scheduler, which may not print it, the kernel writes each line of it to the trace
//! event `sched_ext_dump` (include/trace/events/sched_ext.h). Why it disables a scheduler without an error, such as
//! `cpu 3 going offline, exiting scheduler`, it tells the scheduler alone. So a probe of ours reads that where
//! `scx_vexit()` in kernel/sched/ext.c has written it. Both cost nothing until then.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ktstr_report::KernelExit;

/// A trace instance of our own, so that a test's own tracing has nothing of it.
const INSTANCE: &str = "/sys/kernel/tracing/instances/ktstr";

const DUMP_EVENT: &str = "events/sched_ext/sched_ext_dump/enable";

/// Where probes are made. They are shared by all instances, and on in none until told.
const PROBES: &str = "/sys/kernel/tracing/dynamic_events";

/// `struct scx_exit_info` as scx_vexit() leaves it, read by the names that the kernel's BTF has for its members
/// (Documentation/trace/fprobetrace.rst). A kernel that has another function or other members refuses it.
const EXIT_PROBE: &str = "f:ktstr/ktstr_scx_exit scx_vexit%return kind=sch->exit_info->kind:u32 \
     reason=sch->exit_info->reason:string message=sch->exit_info->msg:string";

const EXIT_EVENT: &str = "events/ktstr/ktstr_scx_exit/enable";

/// Room in the buffer of each CPU. A dump is a few KiB, and all of it comes from one CPU.
const BUFFER_KIB: &str = "256";

/// Most that is read back.
const MAX_BYTES: u64 = 1 << 20;

/// Collects dumps and exits.
#[derive(Debug)]
pub(super) struct DumpTrace {
    folder: PathBuf,
}

/// What was traced so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Traced {
    /// The lines of the dump.
    pub(super) dump: String,
    /// Exits that the kernel decided on, in order.
    pub(super) exits: Vec<KernelExit>,
}

impl DumpTrace {
    /// Switches the events on.
    pub(super) fn arm() -> io::Result<Self> {
        let folder = PathBuf::from(INSTANCE);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::write(folder.join("buffer_size_kb"), BUFFER_KIB)?;
        fs::write(folder.join(DUMP_EVENT), "1")?;
        // Without it the kernel's log still has the reasons.
        if add_probe().is_ok() {
            fs::write(folder.join(EXIT_EVENT), "1")?;
        }
        Ok(Self { folder })
    }

    pub(super) fn read(&self) -> io::Result<Traced> {
        let mut bytes = Vec::new();
        File::open(self.folder.join("trace"))?
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(parse(&String::from_utf8_lossy(&bytes)))
    }
}

fn add_probe() -> io::Result<()> {
    // Opened otherwise it would lose the probes of others.
    let mut probes = File::options().append(true).open(Path::new(PROBES))?;
    probes.write_all(EXIT_PROBE.as_bytes())
}

/// Reads the lines of a trace: `TASK-PID [CPU] FLAGS TIME: EVENT: TEXT`.
fn parse(trace: &str) -> Traced {
    let mut traced = Traced::default();
    for line in trace.lines() {
        let event = line.split_once("] ").and_then(|(_, rest)| {
            let (_, event) = rest.split_once(": ")?;
            event.split_once(": ")
        });
        match event {
            Some(("sched_ext_dump", text)) => {
                traced.dump.push_str(text.trim_end());
                traced.dump.push('\n');
            }
            Some(("ktstr_scx_exit", text)) => {
                // The kernel may ask again for what is on its way; the first asker has said why.
                let exit = exit(text).filter(|exit| traced.exits.last() != Some(exit));
                traced.exits.extend(exit);
            }
            _ => {}
        }
    }
    traced
}

/// `(CALLER <- scx_vexit) kind=66 reason="…" message="…"`.
fn exit(text: &str) -> Option<KernelExit> {
    let (_, fields) = text.split_once(" kind=")?;
    let (kind, fields) = fields.split_once(" reason=\"")?;
    let (reason, message) = fields.split_once("\" message=\"")?;
    Some(KernelExit {
        kind: kind.parse().ok(),
        reason: reason.to_owned(),
        message: message.strip_suffix('"').unwrap_or(message).to_owned(),
        uptime_ms: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernels_lines_are_kept_as_they_were() {
        let trace = "\
# tracer: nop
#
     kworker/u17:1-52      [001] d..1.     9.408: sched_ext_dump: CPU states
     kworker/u17:1-52      [001] d..1.     9.408: sched_ext_dump: \n\
     kworker/u17:1-52      [001] d..1.     9.408: sched_ext_dump:   R sh[188] -4336ms: x
     kworker/u17:1-52      [001] d..1.     9.408: other_event: x
";
        assert_eq!(parse(trace).dump, "CPU states\n\n  R sh[188] -4336ms: x\n");
        assert_eq!(parse(""), Traced::default());
    }

    #[test]
    fn fault_a5_the_trace_has_the_message_of_an_exit_without_an_error() {
        let trace = "\
         cpuhp/3-34      [003] ...1.    12.696222: ktstr_scx_exit: (__scx_exit+0x4f/0x70 <- scx_vexit) kind=66 reason=\"unregistered from the main kernel\" message=\"cpu 3 going offline, exiting scheduler\"
 scx_enable_help-154     [000] ...1.    16.212164: ktstr_scx_exit: (__scx_exit+0x4f/0x70 <- scx_vexit) kind=66 reason=\"unregistered from the main kernel\" message=\"expected hotplug seq 4 did not match actual 5\"
 scx_enable_help-154     [000] ...1.    16.212212: ktstr_scx_exit: (__scx_exit+0x4f/0x70 <- scx_vexit) kind=66 reason=\"unregistered from the main kernel\" message=\"expected hotplug seq 4 did not match actual 5\"
";
        let exits: Vec<String> = parse(trace).exits.iter().map(ToString::to_string).collect();
        assert_eq!(
            exits,
            [
                "unregistered from the main kernel: cpu 3 going offline, exiting scheduler",
                "unregistered from the main kernel: expected hotplug seq 4 did not match actual 5",
            ]
        );
    }

    proptest! {
        #[test]
        fn any_trace_is_read(trace in "( a-1 \\[0\\] 1: (ktstr_scx_exit|sched_ext_dump): )?(\\PC| kind=| reason=\"|\" message=\"){0,20}") {
            let _ = parse(&trace);
        }
    }
}
