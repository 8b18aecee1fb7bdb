//! The state that the kernel dumps when it throws a scheduler out.
//!
//! Besides handing it to the scheduler, which may not print it, the kernel writes each line of it to the
//! trace event `sched_ext_dump` (include/trace/events/sched_ext.h). The event costs nothing until then.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// A trace instance of our own, so that a test's own tracing has nothing of it.
const INSTANCE: &str = "/sys/kernel/tracing/instances/ktstr";

const EVENT: &str = "events/sched_ext/sched_ext_dump/enable";

/// Room in the buffer of each CPU. A dump is a few KiB, and all of it comes from one CPU.
const BUFFER_KIB: &str = "256";

/// Most that is read back.
const MOST_BYTES: u64 = 1 << 20;

/// Collects the dump.
#[derive(Debug)]
pub(super) struct DumpTrace {
    folder: PathBuf,
}

impl DumpTrace {
    /// Switches the event on.
    pub(super) fn arm() -> io::Result<Self> {
        let folder = PathBuf::from(INSTANCE);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::write(folder.join("buffer_size_kb"), BUFFER_KIB)?;
        fs::write(folder.join(EVENT), "1")?;
        Ok(Self { folder })
    }

    /// What was dumped so far.
    pub(super) fn read(&self) -> io::Result<String> {
        read(&self.folder.join("trace"))
    }
}

fn read(trace: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(trace)?
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(dump_lines(&String::from_utf8_lossy(&bytes)))
}

/// The event's text of each line of a trace: what follows `sched_ext_dump: `.
fn dump_lines(trace: &str) -> String {
    let mut dump = String::new();
    for line in trace.lines() {
        if let Some((_, text)) = line.split_once(" sched_ext_dump: ") {
            dump.push_str(text.trim_end());
            dump.push('\n');
        }
    }
    dump
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_kept_as_they_were() {
        let trace = "\
# tracer: nop
#
     kworker/u17:1-52      [001] d..1.     9.408: sched_ext_dump: CPU states
     kworker/u17:1-52      [001] d..1.     9.408: sched_ext_dump: \n\
     kworker/u17:1-52      [001] d..1.     9.408: sched_ext_dump:   R sh[188] -4336ms
     kworker/u17:1-52      [001] d..1.     9.408: other_event: x
";
        assert_eq!(dump_lines(trace), "CPU states\n\n  R sh[188] -4336ms\n");
        assert_eq!(dump_lines(""), "");
    }
}
