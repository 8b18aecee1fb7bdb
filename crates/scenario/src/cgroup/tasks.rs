//! Placing tasks.

use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Pid, getpid};

use super::CgroupError;
use super::entry::Entry;

/// A destination can be busy for a moment while the kernel switches its controllers.
const BUSY_RETRIES: u32 = 3;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Refuses what would move the harness itself: writing any of its threads to `cgroup.procs` moves the
/// whole thread group, and 0 stands for the writer.
pub(super) fn refuse_own(name: &str, pids: &[i32]) -> Result<(), CgroupError> {
    for &pid in pids {
        if pid <= 0 {
            return Err(refused(
                name,
                pid,
                "it is not a pid (0 would be the harness itself)",
            ));
        }
        if Pid::from_raw(pid) == getpid() || is_own_thread(pid) {
            let why = "it belongs to the harness, which would move as a whole; place a worker with \
                       CloneMode::Thread by its tid with `move_threads`";
            return Err(refused(name, pid, why));
        }
    }
    Ok(())
}

/// Refuses tids of other processes: those are placed whole.
pub(super) fn require_own_threads(name: &str, tids: &[i32]) -> Result<(), CgroupError> {
    for &tid in tids {
        if tid <= 0 {
            return Err(refused(
                name,
                tid,
                "it is not a tid (0 would be the calling thread)",
            ));
        }
        if Pid::from_raw(tid) == getpid() {
            return Err(refused(name, tid, "it is the harness's main thread"));
        }
        if !is_own_thread(tid) && Path::new("/proc").join(tid.to_string()).exists() {
            let why = "it is not a thread of the harness; place processes with `move_tasks`";
            return Err(refused(name, tid, why));
        }
    }
    Ok(())
}

fn refused(name: &str, pid: i32, why: &'static str) -> CgroupError {
    CgroupError::Refused {
        pid,
        name: name.to_owned(),
        why,
    }
}

fn is_own_thread(tid: i32) -> bool {
    Path::new("/proc/self/task").join(tid.to_string()).exists()
}

/// Writes each of `ids` to `file`. One that has ended is passed over, unless all have.
pub(super) fn place(entry: &Entry, name: &str, file: &str, ids: &[i32]) -> Result<(), CgroupError> {
    if lacks_mems(entry) {
        return Err(CgroupError::NoMems {
            name: name.to_owned(),
        });
    }
    let mut gone = 0;
    for id in ids {
        match write_patiently(entry, file, &id.to_string()) {
            Err(error) if errno(&error) == Some(Errno::ESRCH) => gone += 1,
            result => result?,
        }
    }
    if gone > 0 && gone == ids.len() {
        return Err(CgroupError::AllGone {
            name: name.to_owned(),
            count: gone,
        });
    }
    Ok(())
}

fn write_patiently(entry: &Entry, file: &str, value: &str) -> Result<(), CgroupError> {
    for _ in 0..BUSY_RETRIES {
        match entry.write(file, value) {
            Err(error) if errno(&error) == Some(Errno::EBUSY) => thread::sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    entry.write(file, value)
}

/// Whether CPUs are set but no memory node is effective. Files that aren't there (no cpuset controller)
/// say no.
fn lacks_mems(entry: &Entry) -> bool {
    let is_blank = |file| entry.read(file).map(|text| text.trim().is_empty());
    matches!(
        (is_blank("cpuset.cpus"), is_blank("cpuset.mems.effective")),
        (Ok(false), Ok(true))
    )
}

pub(super) fn errno(error: &CgroupError) -> Option<Errno> {
    match error {
        CgroupError::Write { source, .. } => source.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}
