//! What the kernel traces while a scheduler is loaded, and when it disables it.
//!
//! Besides handing its dump to the scheduler, which may not print it, the kernel writes each line of it to the trace
//! event `sched_ext_dump` (include/trace/events/sched_ext.h). Why it disables a scheduler without an error, such as
//! `cpu 3 going offline, exiting scheduler`, it tells the scheduler alone. So a probe of ours reads that where
//! `scx_vexit()` in kernel/sched/ext.c has written it. Both cost nothing until then. Calls of bpf(2), which tell whether
//! the kernel has refused to load a scheduler, are traced until it is attached.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ktstr_report::{FailedLoad, KernelExit};

use super::bpf_calls::{self, BpfCalls};

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

/// The system call's events, where the kernel has them (CONFIG_FTRACE_SYSCALLS).
const BPF_ENTERS: &str = "events/syscalls/sys_enter_bpf";
const BPF_EXITS: &str = "events/syscalls/sys_exit_bpf";

/// Most that is read back. Calls of bpf(2) come before a dump, and fill the buffers of many CPUs at worst.
const MAX_BYTES: u64 = 64 << 20;

/// Most that is kept of a dump.
const MAX_DUMP_BYTES: usize = 1 << 20;

/// Most exits that are kept.
const MAX_EXITS: usize = 64;

/// Collects dumps and exits.
#[derive(Debug)]
pub(super) struct DumpTrace {
    folder: PathBuf,
    /// Whether calls of bpf(2) are traced.
    has_calls: bool,
}

/// What was traced so far.
#[derive(Debug, Default)]
pub(super) struct Traced {
    /// The lines of the dump.
    pub(super) dump: String,
    /// Exits that the kernel decided on, in order.
    pub(super) exits: Vec<KernelExit>,
    /// What was loaded by bpf(2).
    calls: BpfCalls,
    /// Whether that is known.
    has_calls: bool,
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
        // Opened so, it forgets what an earlier life of the scheduler has left.
        File::create(folder.join("trace"))?;
        fs::write(folder.join(DUMP_EVENT), "1")?;
        // Without it the kernel's log still has the reasons.
        if add_probe().is_ok() {
            fs::write(folder.join(EXIT_EVENT), "1")?;
        }
        let has_calls = trace_calls(&folder).is_ok();
        Ok(Self { folder, has_calls })
    }

    /// The scheduler is attached: calls of bpf(2) say nothing more.
    pub(super) fn loaded(&self) -> io::Result<()> {
        for event in [BPF_ENTERS, BPF_EXITS].iter().filter(|_| self.has_calls) {
            fs::write(self.folder.join(event).join("enable"), "0")?;
        }
        Ok(())
    }

    pub(super) fn read(&self) -> io::Result<Traced> {
        let mut traced = Traced {
            has_calls: self.has_calls,
            ..Traced::default()
        };
        let file = File::open(self.folder.join("trace"))?.take(MAX_BYTES);
        for line in BufReader::new(file).split(b'\n') {
            traced.take(&String::from_utf8_lossy(&line?));
        }
        Ok(traced)
    }
}

fn trace_calls(folder: &Path) -> io::Result<()> {
    fs::write(folder.join(BPF_ENTERS).join("filter"), bpf_calls::filter())?;
    for event in [BPF_ENTERS, BPF_EXITS] {
        fs::write(folder.join(event).join("enable"), "1")?;
    }
    Ok(())
}

fn add_probe() -> io::Result<()> {
    // Opened otherwise it would lose the probes of others.
    let mut probes = File::options().append(true).open(Path::new(PROBES))?;
    probes.write_all(EXIT_PROBE.as_bytes())
}

impl Traced {
    /// What the program had the kernel load, if it ended by itself.
    pub(super) fn failed_load(&self) -> FailedLoad {
        match self.has_calls {
            true => self.calls.failed_load(),
            false => FailedLoad::default(),
        }
    }

    /// Takes a line of a trace: `TASK-PID [CPU] FLAGS TIME: EVENT`, where most events are `NAME: TEXT`.
    fn take(&mut self, line: &str) {
        let Some((task, rest)) = line.split_once(" [") else {
            return;
        };
        let Some((_, event)) = rest.split_once(": ") else {
            return;
        };
        match event.split_once(": ") {
            Some(("sched_ext_dump", text)) if self.dump.len() < MAX_DUMP_BYTES => {
                self.dump.push_str(text.trim_end());
                self.dump.push('\n');
            }
            Some(("ktstr_scx_exit", text)) if self.exits.len() < MAX_EXITS => {
                // The kernel may ask again for what is on its way; the first asker has said why.
                let exit = exit(text).filter(|exit| self.exits.last() != Some(exit));
                self.exits.extend(exit);
            }
            _ => {
                let tid = task.trim_end().rsplit_once('-');
                if let Some(tid) = tid.and_then(|(_, tid)| tid.parse().ok()) {
                    self.calls.take(tid, event);
                }
            }
        }
    }
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

    fn parse(trace: &str) -> Traced {
        let mut traced = Traced::default();
        trace.lines().for_each(|line| traced.take(line));
        traced
    }

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
        assert_eq!(parse("").dump, "");
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
