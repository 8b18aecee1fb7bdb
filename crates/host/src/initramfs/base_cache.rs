//! Base parts on disk, so that only the first test of a binary packs one.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::{Base, BaseContents, InitramfsError};

/// Entries kept at least, however old.
const KEEP: usize = 8;

/// An entry used within this time may be about to be read by a machine that starts, and is never removed.
const KEEP_AGE: Duration = Duration::from_mins(10);

/// Extension of the archive.
const ARCHIVE: &str = "cpio";

/// Extension of the file beside it, with the guest's `LD_LIBRARY_PATH`.
const NOTE: &str = "path";

/// A folder of packed base parts. Entries are written whole or not at all, and named by a hash of
/// everything that went into them, so processes need no locks between them.
#[derive(Clone, Debug)]
pub struct BaseCache {
    folder: PathBuf,
}

/// A base part that can be given to a machine.
#[derive(Debug)]
pub(crate) enum CachedBase {
    /// On disk.
    File {
        /// The archive.
        path: PathBuf,
        /// `LD_LIBRARY_PATH` of the guest.
        library_path: Option<String>,
    },
    /// Only in memory, since the folder could not be written.
    Memory {
        /// The part.
        base: Base,
        /// Why.
        reason: io::Error,
    },
}

impl BaseCache {
    /// A cache in this folder, which is made when the first entry is written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The base part for `contents`: from the folder, or packed now and kept there.
    pub(crate) fn get(&self, contents: &BaseContents) -> Result<CachedBase, InitramfsError> {
        let key = key(contents)?;
        let path = self.folder.join(format!("{key:016x}.{ARCHIVE}"));
        let note = path.with_extension(NOTE);
        if let Ok(file) = File::open(&path) {
            // Used now; a cache that can't be written has nothing removed either.
            let _ = file.set_modified(SystemTime::now());
            let library_path = fs::read_to_string(note)
                .ok()
                .filter(|text| !text.is_empty());
            return Ok(CachedBase::File { path, library_path });
        }
        let base = contents.pack()?;
        match self.keep(&path, &note, &base) {
            Ok(()) => Ok(CachedBase::File {
                path,
                library_path: base.library_path,
            }),
            Err(reason) => Ok(CachedBase::Memory { base, reason }),
        }
    }

    fn keep(&self, path: &Path, note: &Path, base: &Base) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        self.remove_old();
        // The archive last: its presence says that the entry is whole.
        write_whole(
            note,
            base.library_path.as_deref().unwrap_or_default().as_bytes(),
        )?;
        write_whole(path, &base.archive)
    }

    /// Best effort: an entry that can't be removed only takes room.
    fn remove_old(&self) {
        let now = SystemTime::now();
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut aged: Vec<(Duration, PathBuf)> = entries
            .filter(|entry| {
                entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == ARCHIVE)
            })
            .filter_map(|entry| {
                let modified = entry.metadata().ok()?.modified().ok()?;
                Some((
                    now.duration_since(modified).unwrap_or_default(),
                    entry.path(),
                ))
            })
            .collect();
        aged.sort();
        for (_, archive) in aged
            .into_iter()
            .skip(KEEP)
            .filter(|(age, _)| *age > KEEP_AGE)
        {
            let _ = fs::remove_file(&archive);
            let _ = fs::remove_file(archive.with_extension(NOTE));
        }
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut partial = NamedTempFile::new_in(folder)?;
    partial.write_all(bytes)?;
    partial.persist(path)?;
    Ok(())
}

/// A hash over the identity of every file that goes in. A library counts through its own size and time,
/// so an upgraded one makes a new entry.
fn key(contents: &BaseContents) -> Result<u64, InitramfsError> {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    let mut stat = |what: &'static str, path: &Path| {
        let found = fs::metadata(path).map_err(|source| InitramfsError::Read {
            what,
            path: path.to_owned(),
            source,
        })?;
        path.hash(&mut hasher);
        (found.dev(), found.ino(), found.size()).hash(&mut hasher);
        (found.mtime(), found.mtime_nsec()).hash(&mut hasher);
        Ok::<(), InitramfsError>(())
    };
    stat("the running binary", &contents.init)?;
    for library in contents.libraries()?.files.values() {
        stat("the shared library", library)?;
    }
    for include in contents.programs.iter().chain(&contents.includes) {
        stat("the included file", &include.host)?;
    }
    for module in &contents.modules {
        stat("the kernel module", &module.path)?;
    }
    contents.programs.hash(&mut hasher);
    contents.includes.hash(&mut hasher);
    contents.guest_modules().len().hash(&mut hasher);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> BaseContents {
        BaseContents {
            programs: Vec::new(),
            init: std::env::current_exe().unwrap(),
            includes: Vec::new(),
            modules: Vec::new(),
            library_path: None,
        }
    }

    #[test]
    fn the_second_use_takes_what_the_first_has_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = BaseCache::new(folder.path().join("bases"));
        let CachedBase::File { path, .. } = cache.get(&contents()).unwrap() else {
            panic!("not kept");
        };
        fs::write(&path, b"kept").unwrap();
        let CachedBase::File { path: again, .. } = cache.get(&contents()).unwrap() else {
            panic!("not found");
        };
        assert_eq!(
            (&again, fs::read(&again).unwrap().as_slice()),
            (&path, &b"kept"[..])
        );
    }

    #[test]
    fn a_folder_that_can_not_be_made_costs_the_cache_only() {
        let cache = BaseCache::new("/proc/no/such/folder");
        assert!(matches!(
            cache.get(&contents()).unwrap(),
            CachedBase::Memory { .. }
        ));
    }

    #[test]
    fn old_entries_go_but_the_newest_and_the_used_stay() {
        let folder = tempfile::tempdir().unwrap();
        let cache = BaseCache::new(folder.path());
        let now = SystemTime::now();
        for age in 0..2 * KEEP as u64 {
            let archive = folder.path().join(format!("{age:016x}.{ARCHIVE}"));
            fs::write(archive.with_extension(NOTE), b"").unwrap();
            let file = File::create(&archive).unwrap();
            file.set_modified(now - 2 * KEEP_AGE - Duration::from_secs(age))
                .unwrap();
        }
        let used = folder.path().join(format!("used.{ARCHIVE}"));
        fs::write(&used, b"").unwrap();
        cache.remove_old();
        assert!(used.exists());
        // The used one is the newest of those that stay.
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1 + 2 * (KEEP - 1)
        );
    }
}
