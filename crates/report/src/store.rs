//! The run store: a folder for each run, a sidecar for each test in it. Nothing in it is ever overwritten.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::file_names;
use crate::{RunId, Sidecar, SidecarError};

/// Overrides where runs are kept.
pub const RUNS_DIR_ENV: &str = "KTSTR_RUNS_DIR";

/// Runs of one test within one run; far above what a test runner's retries come to.
const MAX_ATTEMPTS: u32 = 10_000;

/// Prefix of a run's folder that is being removed, which makes it none.
const REMOVED: &str = ".removing-";

/// All runs under one folder: `<root>/<run id>/<test>.json`. Safe for many processes at once.
#[derive(Clone, Debug)]
pub struct RunStore {
    root: PathBuf,
}

/// One run, as far as it can be read.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its folder.
    pub dir: PathBuf,
    /// Its sidecars, in the order in which the tests started.
    pub sidecars: Vec<StoredSidecar>,
    /// Sidecars that can't be read, by path.
    pub unreadable: Vec<SidecarError>,
}

/// A sidecar and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSidecar {
    /// Its file.
    pub path: PathBuf,
    /// What is in it.
    pub sidecar: Sidecar,
}

/// The run store can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The sidecar can't be written.
    #[error(
        "can't write the sidecar of test `{test}` to {}: make the folder writable, or set {RUNS_DIR_ENV} \
         to one that is",
        dir.display()
    )]
    Write {
        /// The test.
        test: String,
        /// Folder of the run.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The sidecar's `run_id` can't be the name of a folder.
    #[error(transparent)]
    RunId(#[from] crate::RunIdError),
    /// The folder of a run can't be listed.
    #[error("can't list the runs in {}", dir.display())]
    List {
        /// The folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A run can't be removed.
    #[error("can't remove the run {}", dir.display())]
    Remove {
        /// Folder of the run.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no such run.
    #[error("there is no run `{id}` in {}", root.display())]
    NoSuchRun {
        /// The run asked for.
        id: RunId,
        /// The store's folder.
        root: PathBuf,
    },
}

impl RunStore {
    /// The store in `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The store at `named`, the value of [`RUNS_DIR_ENV`], else at `ktstr/runs` in cargo's `target_dir`.
    pub fn choose(named: Option<&OsStr>, target_dir: &Path) -> Self {
        match named {
            Some(dir) if !dir.is_empty() => Self::new(dir),
            _ => Self::new(target_dir.join("ktstr").join("runs")),
        }
    }

    /// Folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of a run, whether or not it exists.
    pub fn run_dir(&self, id: &RunId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Writes `sidecar` into the folder of its run and says where it is. The file appears whole or not at
    /// all. If the run has a file for this test already, the new one gets the next number: `test+2.json`.
    pub fn write(&self, sidecar: &Sidecar) -> Result<PathBuf, StoreError> {
        let dir = self.run_dir(&sidecar.run_id.parse()?);
        write_new(&dir, sidecar).map_err(|source| StoreError::Write {
            test: sidecar.test.clone(),
            dir,
            source,
        })
    }

    /// Ids of all runs, oldest first. A store that does not exist yet has none.
    pub fn list_runs(&self) -> Result<Vec<RunId>, StoreError> {
        let list = || -> io::Result<Vec<RunId>> {
            let mut runs = Vec::new();
            for entry in fs::read_dir(&self.root)? {
                let entry = entry?;
                if let Some(Ok(id)) = entry.file_name().to_str().map(str::parse)
                    && entry.file_type()?.is_dir()
                {
                    runs.push(id);
                }
            }
            runs.sort_unstable();
            Ok(runs)
        };
        match list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StoreError::List {
                dir: self.root.clone(),
                source,
            }),
            Ok(runs) => Ok(runs),
        }
    }

    /// Says that a run goes on, until what is returned is dropped, so that [`Self::remove_run`] leaves it alone. Makes its
    /// folder; one that is still empty then is removed.
    pub fn hold_run(&self, id: &RunId) -> io::Result<HeldRun> {
        let dir = self.run_dir(id);
        fs::create_dir_all(&dir)?;
        let folder = File::open(&dir)?;
        folder.lock_shared()?;
        Ok(HeldRun {
            dir,
            _folder: folder,
        })
    }

    /// Removes a run, unless it goes on: says whether it has.
    pub fn remove_run(&self, id: &RunId) -> Result<bool, StoreError> {
        let dir = self.run_dir(id);
        let remove = || -> io::Result<bool> {
            let folder = File::open(&dir)?;
            match folder.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(false),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Out of the list first, so that no half of it is ever taken for a run.
            let hidden = self.root.join(format!("{REMOVED}{id}"));
            fs::rename(&dir, &hidden)?;
            fs::remove_dir_all(&hidden)?;
            Ok(true)
        };
        remove().map_err(|source| StoreError::Remove {
            dir: dir.clone(),
            source,
        })
    }

    /// Removes what an earlier [`Self::remove_run`] could not remove to its end.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for entry in entries {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(REMOVED.as_bytes())
            {
                let dir = entry.path();
                fs::remove_dir_all(&dir).map_err(|source| StoreError::Remove { dir, source })?;
            }
        }
        Ok(())
    }

    /// What a run takes on the disk, in bytes; what can't be looked at counts nothing.
    pub fn run_bytes(&self, id: &RunId) -> u64 {
        disk_bytes(&self.run_dir(id))
    }

    /// What the store takes on the disk, in bytes.
    pub fn bytes(&self) -> u64 {
        disk_bytes(&self.root)
    }

    /// When a run began, as its id says, else when something was last written to it.
    pub fn started(&self, id: &RunId) -> SystemTime {
        let written = || self.run_dir(id).metadata()?.modified();
        id.started()
            .unwrap_or_else(|| written().unwrap_or(UNIX_EPOCH))
    }

    /// The newest run, if there is one.
    pub fn latest_run(&self) -> Result<Option<Run>, StoreError> {
        let newest = self.list_runs()?.pop();
        newest.map(|id| self.load_run(&id)).transpose()
    }

    /// Reads a run. A sidecar that can't be read is named in [`Run::unreadable`] and costs none of the others.
    pub fn load_run(&self, id: &RunId) -> Result<Run, StoreError> {
        let dir = self.run_dir(id);
        let mut paths = sidecar_paths(&dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::NoSuchRun {
                id: id.clone(),
                root: self.root.clone(),
            },
            _ => StoreError::List {
                dir: dir.clone(),
                source,
            },
        })?;
        paths.sort_unstable();

        let mut run = Run {
            id: id.clone(),
            dir,
            sidecars: Vec::new(),
            unreadable: Vec::new(),
        };
        for path in paths {
            match Sidecar::read(&path) {
                Ok(sidecar) => run.sidecars.push(StoredSidecar { path, sidecar }),
                Err(error) => run.unreadable.push(error),
            }
        }
        run.sidecars
            .sort_by_key(|stored| stored.sidecar.started_unix_ms);
        Ok(run)
    }
}

/// A run that goes on.
#[derive(Debug)]
pub struct HeldRun {
    dir: PathBuf,
    /// Its lock goes with the process, however that ends.
    _folder: File,
}

impl Drop for HeldRun {
    fn drop(&mut self) {
        // Only what is empty can be removed so.
        let _ = fs::remove_dir(&self.dir);
    }
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        // Of 512 bytes each (stat(2)).
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

fn sidecar_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if file_names::is_sidecar(&path) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn write_new(dir: &Path, sidecar: &Sidecar) -> io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".writing-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    file.write_all(&sidecar.to_json()?)?;

    for attempt in 1..=MAX_ATTEMPTS {
        let path = dir.join(file_names::sidecar(&sidecar.test, attempt));
        match file.persist_noclobber(&path) {
            Ok(_) => return Ok(path),
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => {
                file = failed.file;
            }
            Err(failed) => return Err(failed.error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("the run has {MAX_ATTEMPTS} sidecars of this test already"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_where_runs_are_kept_unless_it_is_empty() {
        let target = Path::new("/t");
        let root = |named: Option<&str>| {
            let store = RunStore::choose(named.map(OsStr::new), target);
            store.root().to_owned()
        };
        assert_eq!(root(None), Path::new("/t/ktstr/runs"));
        assert_eq!(root(Some("")), Path::new("/t/ktstr/runs"));
        assert_eq!(root(Some("/elsewhere")), Path::new("/elsewhere"));
    }
}
