//! One writer at a time, by flock: the kernel drops it when its holder dies, however it dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::progress::{Event, Progress};

/// How long another process is waited for. A kernel of 40 MB over a slow line takes minutes.
const LIMIT: Duration = Duration::from_mins(15);
/// Delay between two tries: short at first, since most holders are done soon.
const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_millis(200);

/// Why a lock wasn't had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds it, and keeps it.
    #[error(
        "waited {waited_s} s for {} to finish ({what}); see what it does, or end it, and try again (the lock is {})",
        holder_pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
        path.display()
    )]
    TimedOut {
        /// What the holder was to do.
        what: String,
        /// The lock file.
        path: PathBuf,
        /// The holder, when it left its process id.
        holder_pid: Option<u32>,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// The lock file can't be made or locked.
    #[error("can't lock {}: {source}", path.display())]
    File {
        /// The lock file.
        path: PathBuf,
        source: io::Error,
    },
}

/// A held lock; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: Flock<File>,
    /// Whether another process had to be waited for, so that what it did may be what is wanted.
    pub(crate) waited: bool,
}

impl FileLock {
    /// Takes the lock, waiting for its holder. `what` says what holders do with it.
    pub(crate) fn acquire(
        path: &Path,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<Self, LockError> {
        let start = Instant::now();
        let mut delay = FIRST_DELAY;
        let mut told_s = None;
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(Self {
                    waited: told_s.is_some(),
                    ..lock
                });
            }
            let waited = start.elapsed();
            let holder_pid = holder(path);
            if waited > LIMIT {
                return Err(LockError::TimedOut {
                    what: what.to_owned(),
                    path: path.to_owned(),
                    holder_pid,
                    waited_s: waited.as_secs(),
                });
            }
            if told_s != Some(waited.as_secs()) {
                told_s = Some(waited.as_secs());
                progress.event(&Event::Waiting {
                    what: what.to_owned(),
                    holder_pid,
                    waited_s: waited.as_secs(),
                    limit_s: LIMIT.as_secs(),
                });
            }
            thread::sleep(delay);
            delay = (delay * 2).min(LAST_DELAY);
        }
    }

    /// One more handle to the locked file. While a child process has it, the lock outlives this process.
    pub(crate) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>, LockError> {
        let failed = |source| LockError::File {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // Only for the message of whoever waits; a full disk does not keep the lock from being held.
                let _ = leave_pid(&mut file);
                Ok(Some(Self {
                    file,
                    waited: false,
                }))
            }
            Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(None),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

fn leave_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(32)
        .read_to_string(&mut text)
        .ok()?;
    text.trim().parse().ok()
}
