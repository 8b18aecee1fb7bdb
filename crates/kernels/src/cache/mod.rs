//! The cache folder: one folder a kernel, each whole or absent.
//!
//! ```text
//! <root>/kernels/<key>/metadata.json   what it is, where it came from, size and checksum of each file
//! <root>/kernels/<key>/vmlinuz         the boot image, when it came as one
//! <root>/kernels/<key>/vmlinux         the ELF file
//! <root>/kernels/<key>/config          its options, when known
//! <root>/kernels/<key>/modules/        the tree of module files, and modules.manifest over them
//! <root>/kernels/.partial-<key>/       one being written, or left over from a process that died
//! <root>/locks/<key>.lock              held (flock) by whoever writes or removes that key
//! <root>/apt/                          the private apt roots
//! <root>/tools/                        programs that were fetched: see [`crate::tools`]
//! ```
//!
//! Reading takes no lock and writes nothing, so a kernel can be used from a read-only folder. An entry
//! appears by one rename.

mod entry;
mod lock;
mod manifest;
mod prune;
mod store;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use entry::{CONFIG_FILE, MODULES_DIR, VMLINUX_FILE, VMLINUZ_FILE};
pub use entry::{Damage, Entry, FileStamp, Metadata, Origin};
pub(crate) use lock::FileLock;
pub use lock::LockError;
pub(crate) use store::{Begin, Facts, Partial};

use crate::spec::is_key_char;

/// Prefix of folders that are not entries.
const PARTIAL_PREFIX: &str = ".partial-";

/// The kernels on this machine.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// One line of [`Cache::list`].
#[derive(Debug)]
pub struct Listed {
    pub key: String,
    /// The kernel, or why it can't be used.
    pub entry: Result<Entry, CacheError>,
}

/// What the cache can't do, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// No folder was named and there is no home to put one in.
    #[error("there is no folder for the kernel cache: set KTSTR_CACHE_DIR, XDG_CACHE_HOME or HOME")]
    NoFolder,
    /// The folder can't be written to.
    #[error("can't write to the kernel cache folder {}: {source}; {}", folder.display(), write_advice(source))]
    Write {
        /// The cache's root.
        folder: PathBuf,
        source: io::Error,
    },
    /// A part of the cache can't be read.
    #[error("can't read {} in the kernel cache: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A kernel in the cache isn't what its metadata says.
    #[error(
        "the cached kernel `{key}` is damaged: {damage}. Remove it with `cargo ktstr kernel clean {key}`; \
         it is fetched again when next asked for"
    )]
    Damaged { key: String, damage: Damage },
    /// There is no such key.
    #[error("the cache has no kernel `{key}`{}", list_keys(known))]
    NoSuchKey {
        key: String,
        /// Keys that there are.
        known: Vec<String>,
    },
    /// Another process holds the key for too long.
    #[error(transparent)]
    Lock(#[from] LockError),
}

fn write_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space there (`cargo ktstr kernel clean --keep 1`), or set KTSTR_CACHE_DIR to a folder with \
             300 MB to spare"
        }
        _ => "make it writable, or set KTSTR_CACHE_DIR to a folder that is",
    }
}

fn list_keys(known: &[String]) -> String {
    if known.is_empty() {
        ": it is empty".to_owned()
    } else {
        format!("; it has: {}", known.join(", "))
    }
}

impl Cache {
    /// The cache at `root`. The folder need not exist: nothing is made before something is stored.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        // Absolute, because apt and others are run in other folders.
        let root = std::path::absolute(root).map_err(|source| CacheError::Read {
            path: root.to_owned(),
            source,
        })?;
        Ok(Self { root })
    }

    /// The cache at its [default folder](Self::default_folder).
    pub fn open_default(
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Self, CacheError> {
        let root = Self::default_folder(variable).ok_or(CacheError::NoFolder)?;
        Self::open(&root)
    }

    /// The default folder: `$KTSTR_CACHE_DIR`, else `$XDG_CACHE_HOME/ktstr`, else `~/.cache/ktstr`. `variable` reads a
    /// variable of the environment.
    pub fn default_folder(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
        let set = |name| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        // Without $HOME, the home of the user in passwd(5).
        let home = || set("HOME").or_else(env::home_dir);
        set("KTSTR_CACHE_DIR")
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("ktstr")))
            .or_else(|| {
                home()
                    .filter(|home| !home.as_os_str().is_empty())
                    .map(|home| home.join(".cache/ktstr"))
            })
    }

    /// The cache's own folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn kernels_dir(&self) -> PathBuf {
        self.root.join("kernels")
    }

    /// The folder of a key, whether or not it exists.
    pub fn entry_dir(&self, key: &str) -> PathBuf {
        self.kernels_dir().join(key)
    }

    /// Every kernel, the most recently stored first. One that can't be used is listed with the reason.
    pub fn list(&self) -> Result<Vec<Listed>, CacheError> {
        let mut found = Vec::new();
        for key in self.keys()? {
            // Nothing: removed by another process in the meantime.
            if let Some(entry) = self.get(&key).transpose() {
                found.push(Listed { key, entry });
            }
        }
        found.sort_by_key(|listed| {
            let stored = listed
                .entry
                .as_ref()
                .map_or(0, |entry| entry.metadata().stored_unix_s);
            (std::cmp::Reverse(stored), listed.key.clone())
        });
        Ok(found)
    }

    /// The keys there are, in no order.
    fn keys(&self) -> Result<Vec<String>, CacheError> {
        let dir = self.kernels_dir();
        let unreadable = |source| CacheError::Read {
            path: dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            if let Ok(name) = entry.file_name().into_string()
                && is_key(&name)
                && entry.path().is_dir()
            {
                keys.push(name);
            }
        }
        Ok(keys)
    }

    /// The kernel with this key, if there is one: its metadata read and the size of each part checked.
    pub fn get(&self, key: &str) -> Result<Option<Entry>, CacheError> {
        if !is_key(key) {
            return Ok(None);
        }
        Entry::open(key, self.entry_dir(key))
    }

    /// [`Cache::get`], where a key that isn't there is an error that names those that are.
    pub fn require(&self, key: &str) -> Result<Entry, CacheError> {
        match self.get(key)? {
            Some(entry) => Ok(entry),
            None => {
                let mut known = self.keys()?;
                known.sort();
                Err(CacheError::NoSuchKey {
                    key: key.to_owned(),
                    known,
                })
            }
        }
    }

    /// Removes a kernel, damaged or not. A machine that runs on it keeps the files it has open.
    pub fn remove(&self, key: &str) -> Result<(), CacheError> {
        let dir = self.entry_dir(key);
        if !is_key(key) || !dir.is_dir() {
            let mut known = self.keys()?;
            known.sort();
            return Err(CacheError::NoSuchKey {
                key: key.to_owned(),
                known,
            });
        }
        store::remove(self, key)
    }

    pub(crate) fn write_error(&self, source: io::Error) -> CacheError {
        CacheError::Write {
            folder: self.root.clone(),
            source,
        }
    }
}

fn is_key(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.chars().all(is_key_char)
}
