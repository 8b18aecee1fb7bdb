//! Reading what the machine checks judge from the running system.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use ktstr_declaration::Check;
use ktstr_report::{Assert, AssertResult, CheckResult};
use ktstr_topology::{CpuSet, Topology};
use nix::errno::Errno;

use super::{cpus_online, kernel_log, unless_off};

const ONLINE: &str = "/sys/devices/system/cpu/online";
const KMSG: &str = "/dev/kmsg";

/// Longest record that /dev/kmsg gives (PRINTK_MESSAGE_MAX in kernel/printk/internal.h is 2 KiB; a read
/// with less room than the record fails).
const MAX_RECORD_BYTES: usize = 8192;

/// Most of the log that is kept in memory.
const MAX_LOG_BYTES: usize = 32 * 1024 * 1024;

/// Why the state of the machine could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The file could not be read.
    #[error("can't read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds `{text}`, which is not a list of CPUs", .path.display())]
    NotCpus {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

/// CPUs that are online now.
pub fn read_online_cpus() -> Result<CpuSet, LiveError> {
    let text = fs::read_to_string(ONLINE).map_err(|source| read_error(ONLINE, source))?;
    text.parse().map_err(|_| LiveError::NotCpus {
        path: ONLINE.into(),
        text,
    })
}

/// The kernel's log since boot, as far as it is still there, in records as /dev/kmsg gives them.
pub fn read_kernel_log() -> Result<String, LiveError> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(KMSG)
        .map_err(|source| read_error(KMSG, source))?;
    let mut log = Vec::new();
    let mut record = [0; MAX_RECORD_BYTES];
    while log.len() < MAX_LOG_BYTES {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(len) => log.extend_from_slice(&record[..len]),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                // The end, for now.
                Some(Errno::EAGAIN) => break,
                // The record was overwritten; the next read goes on behind it. Its number will be missing.
                Some(Errno::EPIPE | Errno::EINTR) => {}
                _ => return Err(read_error(KMSG, error)),
            },
        }
    }
    Ok(String::from_utf8_lossy(&log).into_owned())
}

fn read_error(path: &str, source: io::Error) -> LiveError {
    LiveError::Read {
        path: path.into(),
        source,
    }
}

/// Judges the running machine as [`judge_machine`](super::judge_machine) does. What can't be read is
/// inconclusive.
pub fn judge_live_machine(assert: &Assert, topology: &Topology) -> AssertResult {
    let mut result = AssertResult::default();
    unless_off(
        &mut result,
        assert,
        Check::CpusOnline,
        |result, _| match read_online_cpus() {
            Ok(online) => cpus_online::judge(result, topology, &online),
            Err(error) => result.push(unread(Check::CpusOnline, &error)),
        },
    );
    unless_off(
        &mut result,
        assert,
        Check::KernelLog,
        |result, _| match read_kernel_log() {
            Ok(log) => kernel_log::judge(result, &log),
            Err(error) => result.push(unread(Check::KernelLog, &error)),
        },
    );
    result
}

fn unread(check: Check, error: &LiveError) -> CheckResult {
    CheckResult::inconclusive(check, reason(error))
}

fn reason(error: &LiveError) -> String {
    match error {
        LiveError::Read { source, .. } => format!("{error}: {source}"),
        LiveError::NotCpus { .. } => error.to_string(),
    }
}
