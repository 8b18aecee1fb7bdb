//! Reading and writing the control files of one cgroup, in bounded time.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::CgroupKind;

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The name is not allowed.
    #[error("`{name}` is not a name for a cgroup: {why}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The test made no cgroup of this name.
    #[error("there is no cgroup `{name}`; {}", list(.known))]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The name is taken.
    #[error("there is already a cgroup `{name}`: choose another name, or remove it first")]
    Exists {
        /// The name.
        name: String,
    },
    /// Nesting across the two kinds.
    #[error(
        "`{name}` can't be a {kind} cgroup: `{above}` above it is not, and a tree is all of one kind"
    )]
    MixedKinds {
        /// The name.
        name: String,
        /// The kind asked for.
        kind: CgroupKind,
        /// The cgroup above it, of the other kind.
        above: String,
    },
    /// It has cgroups below it.
    #[error(
        "`{name}` can't {what}: it has cgroups below it ({}), and cgroup v2 lets only the innermost ones hold \
         tasks",
        .children.join(", ")
    )]
    HasChildren {
        /// The cgroup.
        name: String,
        /// What was tried: `hold tasks`, `be removed`.
        what: &'static str,
        /// Those below it.
        children: Vec<String>,
    },
    /// A threaded cgroup lacks this setting.
    #[error(
        "`{name}` is a threaded cgroup (workers with CloneMode::Thread), which has no {file}: only cpu, \
         cpuset and pids know threads; use CloneMode::Fork"
    )]
    NotThreaded {
        /// The cgroup.
        name: String,
        /// The control file.
        file: &'static str,
    },
    /// Processes and threads are placed by different operations.
    #[error("`{name}` is a {kind} cgroup: {advice}")]
    WrongKind {
        /// The cgroup.
        name: String,
        /// Its kind.
        kind: CgroupKind,
        /// What to use instead.
        advice: &'static str,
    },
    /// The pid belongs to the harness, or names no task.
    #[error("pid {pid} can't be moved to `{name}`: {why}")]
    Refused {
        /// The pid.
        pid: i32,
        /// The cgroup.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// CPUs but no memory.
    #[error(
        "`{name}` has CPUs but no memory node (cpuset.mems.effective is empty): a task there could not \
         allocate; set its cpuset.mems"
    )]
    NoMems {
        /// The cgroup.
        name: String,
    },
    /// Every task to be moved had ended.
    #[error("none of the {count} tasks to be moved to `{name}` exists any more")]
    AllGone {
        /// The cgroup.
        name: String,
        /// How many.
        count: usize,
    },
    /// A control file could not be read.
    #[error("can't read {}{}", .path.display(), missing_hint(.source))]
    Read {
        /// The control file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A control file did not take the value.
    #[error("can't write `{value}` to {}{}", .path.display(), missing_hint(.source))]
    Write {
        /// The control file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// A control file neither took nor refused the value.
    #[error(
        "writing `{value}` to {} has not come back after {waited:?}: the kernel is stuck in it, or the \
         harness gets no CPU",
        .path.display()
    )]
    WriteTimeout {
        /// The control file.
        path: PathBuf,
        /// The value.
        value: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A control file holds what this library can't read.
    #[error("{} holds `{text}`, which is not {expected}", .path.display())]
    Content {
        /// The control file.
        path: PathBuf,
        /// What it holds.
        text: String,
        /// What it should.
        expected: &'static str,
    },
    /// The directory could not be made.
    #[error("can't make the cgroup {}", .path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory could not be removed.
    #[error("can't remove the cgroup {}", .path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It still had tasks.
    #[error(
        "can't remove the cgroup {}: {waited:?} after they were moved away, it still has tasks ({pids:?})",
        .path.display()
    )]
    Busy {
        /// The directory.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// Some of its tasks.
        pids: Vec<i32>,
    },
}

fn list(known: &[String]) -> String {
    match known {
        [] => "the test has made none".to_owned(),
        _ => format!("the test has made: {}", known.join(", ")),
    }
}

fn missing_hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::NotFound {
        ": the kernel has no such control file (its controller is not built in, or not enabled here)"
    } else {
        ""
    }
}

/// The error with its cause, for where only a text goes on.
pub(super) fn with_cause(error: &CgroupError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// One cgroup directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) dir: PathBuf,
    pub(super) write_timeout: Duration,
}

impl Entry {
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        let path = self.path(file);
        fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
    }

    /// Reads one number a line, such as a list of pids.
    pub(super) fn read_ids(&self, file: &str) -> Result<Vec<i32>, CgroupError> {
        let text = self.read(file)?;
        let ids = text.lines().map(str::parse).collect::<Result<_, _>>();
        ids.map_err(|_| CgroupError::Content {
            path: self.path(file),
            text,
            expected: "one task id a line",
        })
    }

    /// Writes `value` in one call of write(2), from a helper thread: the kernel takes locks for it that a
    /// scheduler under test can hold up, and the harness must go on.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path(file);
        let (sender, receiver) = mpsc::sync_channel(1);
        let job = (path.clone(), value.to_owned());
        let spawned = thread::Builder::new()
            .name("cgroup-write".to_owned())
            .spawn(move || {
                // The receiver may have given up: then nobody is told.
                let _ = sender.send(write_once(&job.0, &job.1));
            });
        let result = match spawned {
            Ok(_) => receiver.recv_timeout(self.write_timeout),
            Err(source) => Ok(Err(source)),
        };
        let value = value.to_owned();
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(CgroupError::Write {
                path,
                value,
                source,
            }),
            Err(_) => Err(CgroupError::WriteTimeout {
                path,
                value,
                waited: self.write_timeout,
            }),
        }
    }
}

fn write_once(path: &Path, value: &str) -> io::Result<()> {
    // A control file takes an empty value only as a write of something: a newline clears it.
    let bytes = if value.is_empty() { "\n" } else { value };
    let mut file = OpenOptions::new().write(true).open(path)?;
    let written = file.write(bytes.as_bytes())?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}
