//! Taking a cgroup down.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::entry::Entry;
use super::tasks::errno;
use super::{CgroupError, CgroupKind};

/// How long tasks may take to be gone once they were moved or killed.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);

/// Longest sleep in the kernel before looking again: a change can slip in between reading and polling.
const POLL_SLICE_MS: u16 = 50;

/// Unfreezes, moves every task to `root`, waits until none is left, removes the directory.
///
/// Tasks go to the hierarchy's root, not to the parent: a parent with controllers enabled for its
/// children may not hold processes.
pub(super) fn remove(entry: &Entry, root: &Entry, kind: CgroupKind) -> Result<(), CgroupError> {
    if !entry.dir.exists() {
        return Ok(());
    }
    entry.write("cgroup.freeze", "0")?;
    let deadline = Instant::now() + DRAIN_DEADLINE + entry.write_timeout / 2;
    let started = Instant::now();
    loop {
        drain(entry, root, kind)?;
        let removed = fs::remove_dir(&entry.dir);
        match removed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if is_busy(&error) && Instant::now() < deadline => wait_change(entry)?,
            Err(error) if is_busy(&error) => {
                return Err(CgroupError::Busy {
                    path: entry.dir.clone(),
                    waited: started.elapsed(),
                    pids: entry.read_ids(members(kind)).unwrap_or_default(),
                });
            }
            Err(source) => {
                return Err(CgroupError::Remove {
                    path: entry.dir.clone(),
                    source,
                });
            }
        }
    }
}

const fn members(kind: CgroupKind) -> &'static str {
    match kind {
        CgroupKind::Domain => "cgroup.procs",
        CgroupKind::Threaded => "cgroup.threads",
    }
}

fn drain(entry: &Entry, root: &Entry, kind: CgroupKind) -> Result<(), CgroupError> {
    let file = members(kind);
    for id in entry.read_ids(file)? {
        match root.write(file, &id.to_string()) {
            // It ended meanwhile.
            Err(error) if errno(&error) == Some(Errno::ESRCH) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Waits a moment for `populated 0` in cgroup.events, which signals changes to poll(2).
fn wait_change(entry: &Entry) -> Result<(), CgroupError> {
    let file = open(&entry.path("cgroup.events"))?;
    let text = entry.read("cgroup.events")?;
    if text.lines().any(|line| line == "populated 1") {
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        // Interrupted or not, the caller looks again.
        let _ = poll(&mut fds, PollTimeout::from(POLL_SLICE_MS));
    } else {
        // Empty, and yet busy: a child cgroup is still being taken down.
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, CgroupError> {
    File::open(path).map_err(|source| CgroupError::Read {
        path: path.to_owned(),
        source,
    })
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}
