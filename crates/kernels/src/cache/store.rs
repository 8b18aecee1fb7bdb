//! Writing an entry: into a folder beside it, then one rename.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::entry::{
    FileStamp, MANIFEST_FILE, METADATA_FILE, METADATA_VERSION, MODULES_DIR, Metadata, Origin,
};
use super::lock::{FileLock, LockError};
use super::manifest::{self, Manifest, ManifestLine};
use super::{Cache, CacheError, Entry, PARTIAL_PREFIX};
use crate::image::SectionRange;
use crate::progress::Progress;

/// What the writer of an entry knows of it, beside its files.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) release: String,
    pub(crate) source: String,
    pub(crate) origin: Origin,
    pub(crate) btf: Option<SectionRange>,
    pub(crate) pvh_entry: Option<u64>,
}

/// A key that is being written: its lock is held, its folder is removed unless it is committed.
#[derive(Debug)]
pub(crate) struct Partial<'a> {
    cache: &'a Cache,
    key: String,
    dir: PathBuf,
    _lock: FileLock,
}

/// What [`Cache::begin`] finds.
#[derive(Debug)]
pub(crate) enum Begin<'a> {
    /// The kernel is there, perhaps because another process finished it in the meantime.
    Present(Box<Entry>),
    /// It is this process's to write.
    Absent(Partial<'a>),
}

impl Cache {
    /// Looks for a key and, when it isn't there, takes its lock to write it.
    pub(crate) fn begin(
        &self,
        key: &str,
        progress: &dyn Progress,
    ) -> Result<Begin<'_>, CacheError> {
        if let Some(entry) = self.get(key)? {
            return Ok(Begin::Present(Box::new(entry)));
        }
        fs::create_dir_all(self.kernels_dir()).map_err(|source| self.write_error(source))?;
        let what = format!("storing kernel {key}");
        let lock = self.lock(key, &what, progress)?;
        if let Some(entry) = self.get(key)? {
            return Ok(Begin::Present(Box::new(entry)));
        }
        self.sweep(key);
        let dir = self.partial_dir(key);
        // Whoever held the lock before is gone, so a folder of this name is a leftover.
        remove_tree(&dir).map_err(|source| self.write_error(source))?;
        fs::create_dir(&dir).map_err(|source| self.write_error(source))?;
        Ok(Begin::Absent(Partial {
            cache: self,
            key: key.to_owned(),
            dir,
            _lock: lock,
        }))
    }

    /// Takes the lock of a key, or of something else that one process at a time may do.
    pub(crate) fn lock(
        &self,
        name: &str,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<FileLock, CacheError> {
        FileLock::acquire(&self.lock_path(name), what, progress).map_err(|error| match error {
            LockError::File { source, .. } => self.write_error(source),
            error @ LockError::TimedOut { .. } => error.into(),
        })
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(format!("{name}.lock"))
    }

    fn partial_dir(&self, key: &str) -> PathBuf {
        self.kernels_dir().join(format!("{PARTIAL_PREFIX}{key}"))
    }

    /// Removes what dead processes left behind of other keys: a partial folder whose lock is free.
    fn sweep(&self, own_key: &str) {
        let Ok(entries) = fs::read_dir(self.kernels_dir()) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(key) = name
                .to_str()
                .and_then(|name| name.strip_prefix(PARTIAL_PREFIX))
            else {
                continue;
            };
            if key == own_key {
                continue;
            }
            // Not worth failing for: it is tried again with the next kernel that is stored.
            if let Ok(Some(_lock)) = FileLock::try_acquire(&self.lock_path(key)) {
                let _ = remove_tree(&entry.path());
            }
        }
    }
}

/// Removes an entry.
pub(super) fn remove(cache: &Cache, key: &str) -> Result<(), CacheError> {
    let what = format!("writing or removing kernel {key}");
    let _lock = cache.lock(key, &what, &crate::progress::Quiet)?;
    remove_locked(cache, key)
}

/// Removes an entry unless another process holds it. Whether it did.
pub(super) fn try_remove(cache: &Cache, key: &str) -> Result<bool, CacheError> {
    match FileLock::try_acquire(&cache.lock_path(key))? {
        // Another process may have been first.
        Some(_lock) if cache.entry_dir(key).is_dir() => remove_locked(cache, key).map(|()| true),
        _ => Ok(false),
    }
}

/// Out of sight by one rename, then file by file.
fn remove_locked(cache: &Cache, key: &str) -> Result<(), CacheError> {
    let partial = cache.partial_dir(key);
    let work = || {
        remove_tree(&partial)?;
        fs::rename(cache.entry_dir(key), &partial)?;
        remove_tree(&partial)
    };
    work().map_err(|source| cache.write_error(source))
}

impl Partial<'_> {
    /// The folder to write into.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes one file into it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        fs::write(self.dir.join(name), bytes).map_err(|source| self.cache.write_error(source))
    }

    pub(crate) fn write_error(&self, source: io::Error) -> CacheError {
        self.cache.write_error(source)
    }

    /// Adds the metadata, makes everything durable, and gives the folder its name.
    pub(crate) fn commit(self, facts: Facts) -> Result<Entry, CacheError> {
        self.finish(facts)
            .map_err(|source| self.cache.write_error(source))?;
        self.cache.require(&self.key)
    }

    fn finish(&self, facts: Facts) -> io::Result<()> {
        let modules = self.dir.join(MODULES_DIR);
        let has_modules = modules.is_dir();
        if has_modules {
            let mut manifest = Manifest::default();
            collect(&modules, &modules, &mut manifest)?;
            manifest.lines.sort_by(|a, b| a.path.cmp(&b.path));
            fs::write(self.dir.join(MANIFEST_FILE), manifest.render())?;
        }
        let metadata = Metadata {
            version: METADATA_VERSION,
            release: facts.release,
            source: facts.source,
            origin: facts.origin,
            stored_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| age.as_secs()),
            btf: facts.btf,
            pvh_entry: facts.pvh_entry,
            has_modules,
            files: self.stamp_files()?,
        };
        let json = serde_json::to_vec_pretty(&metadata).map_err(io::Error::other)?;
        fs::write(self.dir.join(METADATA_FILE), json)?;
        // One flush of the file system instead of thousands of single files.
        nix::unistd::syncfs(File::open(&self.dir)?)?;
        fs::rename(&self.dir, self.cache.entry_dir(&self.key))?;
        File::open(self.cache.kernels_dir())?.sync_all()
    }

    fn stamp_files(&self) -> io::Result<BTreeMap<String, FileStamp>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                let (size_bytes, crc32) = manifest::checksum(&entry.path())?;
                files.insert(name, FileStamp { size_bytes, crc32 });
            }
        }
        Ok(files)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Gone already after a commit. What can't be removed is swept by the next writer.
        let _ = remove_tree(&self.dir);
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Adds every file under `dir` to the manifest.
fn collect(root: &Path, dir: &Path, manifest: &mut Manifest) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(root, &path, manifest)?;
            continue;
        }
        // Names that aren't UTF-8 can't be modules.
        let Some(relative) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
            continue;
        };
        let (size_bytes, crc32) = manifest::checksum(&path)?;
        manifest.lines.push(ManifestLine {
            size_bytes,
            crc32,
            path: relative.to_owned(),
        });
    }
    Ok(())
}
