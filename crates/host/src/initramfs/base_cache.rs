//! Base parts on disk, so that only the first test of a binary packs one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::listing::{Key, Listing};
use super::{BaseContents, InitramfsError};

/// Entries kept at least, however old.
const KEEP: usize = 8;

/// An entry used within this time is likely to be used again soon, and stays.
const KEEP_AGE: Duration = Duration::from_mins(10);

/// How long another process may take to pack what this one needs too. After that, this one packs for itself.
const WAIT_LIMIT: Duration = Duration::from_mins(1);

/// Extension of an archive.
const ARCHIVE: &str = "cpio";

/// Extension of an archive that is being written, by the process that has it locked.
const PARTIAL: &str = "partial";

/// A folder of packed base parts, each named by a hash of all that is in it.
///
/// An entry appears by a rename after its bytes are on disk: whole, or not at all. Who writes it holds a lock
/// (flock(2)) on its partial file, which the kernel drops with the process; the others wait for it. An entry that is in
/// use is held open, so that it may be removed at any time.
#[derive(Clone, Debug)]
pub struct BaseCache {
    folder: PathBuf,
}

/// A base part that can be given to a machine.
#[derive(Debug)]
pub(crate) struct CachedBase {
    /// The archive.
    pub(crate) kept: Kept,
    /// `LD_LIBRARY_PATH` of the guest.
    pub(crate) library_path: Option<String>,
    /// Files and folders in it, at most.
    pub(crate) num_entries: u64,
    /// What a report says about it.
    pub(crate) remark: Option<String>,
}

/// Where the archive is.
#[derive(Debug)]
pub(crate) enum Kept {
    /// On disk; open, so that it stays while it is needed.
    File { path: PathBuf, file: Arc<File> },
    /// Only in memory.
    Memory(Vec<u8>),
}

impl Kept {
    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::File { file, .. } => file.metadata().map_or(0, |found| found.len()),
            Self::Memory(archive) => archive.len() as u64,
        }
    }
}

/// What is to be done for an entry.
enum Turn {
    /// It is there.
    Entry(File),
    /// It is for this process to write.
    Write(File),
    /// Another process takes too long.
    NotOurs,
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
        let listing = Listing::of(contents)?;
        let key = listing.key()?;
        let waiting = Instant::now();
        let turn = match self.open(&key) {
            Some(file) => Ok(Turn::Entry(file)),
            None => self.turn(&key, WAIT_LIMIT),
        };
        let waited = waiting.elapsed();
        let mut remark = (waited > Duration::from_secs(1)).then(|| {
            format!(
                "waited {:.1} s for another process that packed the same initramfs",
                waited.as_secs_f64()
            )
        });
        let kept = match turn {
            Ok(Turn::Entry(file)) => self.kept(&key, file),
            Ok(Turn::NotOurs) => Kept::Memory(listing.pack()?.1),
            Ok(Turn::Write(partial)) => {
                let (packed, archive) = listing.pack()?;
                self.keep(&key, &packed, partial, &archive)
                    .map(|file| self.kept(&packed, file))
                    .unwrap_or_else(|error| {
                        remark = Some(not_cached(&error));
                        Kept::Memory(archive)
                    })
            }
            Err(error) => {
                remark = Some(not_cached(&error));
                Kept::Memory(listing.pack()?.1)
            }
        };
        Ok(CachedBase {
            kept,
            num_entries: listing.count(),
            library_path: listing.library_path,
            remark,
        })
    }

    fn kept(&self, key: &Key, file: File) -> Kept {
        Kept::File {
            path: self.path(key, ARCHIVE),
            file: Arc::new(file),
        }
    }

    fn path(&self, key: &Key, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", key.to_hex()))
    }

    fn open(&self, key: &Key) -> Option<File> {
        let file = File::open(self.path(key, ARCHIVE)).ok()?;
        // Used now; a cache that can't be written has nothing removed either.
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// Waits until the entry is there, or for this process to write.
    fn turn(&self, key: &Key, limit: Duration) -> io::Result<Turn> {
        fs::create_dir_all(&self.folder)?;
        let path = self.path(key, PARTIAL);
        let start = Instant::now();
        loop {
            let locked = try_lock(&path, true)?;
            // Looked for under the lock: who had it may have made the entry.
            if let Some(entry) = self.open(key) {
                if locked.is_some() {
                    let _ = fs::remove_file(&path);
                }
                return Ok(Turn::Entry(entry));
            }
            if let Some(partial) = locked {
                // What a process that was killed has left in it.
                partial.set_len(0)?;
                return Ok(Turn::Write(partial));
            }
            if start.elapsed() > limit {
                return Ok(Turn::NotOurs);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes an entry. `packed` is its key; it is not `key`, under which it is locked, if a file has changed since.
    fn keep(&self, key: &Key, packed: &Key, mut partial: File, archive: &[u8]) -> io::Result<File> {
        self.remove_old();
        let path = self.path(key, PARTIAL);
        let written = (|| {
            partial.write_all(archive)?;
            // Before the rename, so that no crash of the host leaves an entry without its bytes.
            partial.sync_data()?;
            fs::rename(&path, self.path(packed, ARCHIVE))?;
            File::open(self.path(packed, ARCHIVE))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Best effort: what can't be removed only takes room.
    fn remove_old(&self) {
        let now = SystemTime::now();
        let mut archives = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let age = entry.metadata().and_then(|found| found.modified());
            let age = age.map_or(Duration::ZERO, |at| {
                now.duration_since(at).unwrap_or_default()
            });
            let extension = path.extension().unwrap_or_default();
            if extension == ARCHIVE {
                archives.push((age, path));
            } else if extension == PARTIAL {
                // Its writer is dead if it can be locked.
                if let Ok(Some(_locked)) = try_lock(&path, false) {
                    let _ = fs::remove_file(&path);
                }
            } else if age > KEEP_AGE {
                // Of earlier versions: temporary files, and notes beside archives.
                let _ = fs::remove_file(&path);
            }
        }
        archives.sort();
        let old = archives.into_iter().skip(KEEP);
        for (_, archive) in old.filter(|(age, _)| *age > KEEP_AGE) {
            let _ = fs::remove_file(&archive);
        }
    }
}

fn not_cached(error: &io::Error) -> String {
    format!("the initramfs could not be cached: {error}")
}

/// Opens and locks a partial file; `None` if another process has it, or has just moved it away.
fn try_lock(path: &Path, create: bool) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let id = |found: fs::Metadata| (found.dev(), found.ino());
    let is_still_there = path
        .metadata()
        .is_ok_and(|found| file.metadata().is_ok_and(|locked| id(locked) == id(found)));
    Ok(is_still_there.then_some(file))
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::Read as _;

    use super::super::Include;
    use super::*;

    /// A small program, and a file beside it.
    fn contents(include: &Path) -> BaseContents {
        BaseContents {
            programs: Vec::new(),
            init: "/bin/true".into(),
            includes: vec![Include {
                host: include.to_owned(),
                guest: "/root/file".to_owned(),
            }],
            modules: Vec::new(),
            library_path: None,
        }
    }

    struct Fixture {
        _folder: tempfile::TempDir,
        cache: BaseCache,
        include: PathBuf,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let include = folder.path().join("include");
        fs::write(&include, "yesterday's program").unwrap();
        Fixture {
            cache: BaseCache::new(folder.path().join("bases")),
            include,
            _folder: folder,
        }
    }

    fn entry(base: &CachedBase) -> (&Path, Vec<u8>) {
        let Kept::File { path, file } = &base.kept else {
            panic!("not kept: {:?}", base.remark);
        };
        let mut bytes = Vec::new();
        (&**file).read_to_end(&mut bytes).unwrap();
        (path, bytes)
    }

    fn holds(base: &CachedBase, text: &str) -> bool {
        let (_, bytes) = entry(base);
        bytes
            .windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    }

    fn files(cache: &BaseCache) -> Vec<String> {
        let entries = fs::read_dir(&cache.folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn the_second_use_takes_what_the_first_has_kept() {
        let fixture = fixture();
        let base = || fixture.cache.get(&contents(&fixture.include)).unwrap();
        let first = base();
        let (path, _) = entry(&first);
        fs::write(path, b"kept").unwrap();
        assert_eq!(entry(&base()), (path, b"kept".to_vec()));
    }

    #[test]
    fn a_folder_that_can_not_be_made_costs_the_cache_only() {
        let fixture = fixture();
        let cache = BaseCache::new("/proc/no/such/folder");
        let base = cache.get(&contents(&fixture.include)).unwrap();
        assert!(matches!(base.kept, Kept::Memory(_)));
        assert!(base.remark.unwrap().contains("could not be cached"));
    }

    /// Writes a file of the same length at the same time, as `install -p` and `cp -p` do, over it and in its place.
    #[test]
    fn fault_e3_a_changed_program_of_the_same_length_and_time_is_packed() {
        let fixture = fixture();
        let base = || fixture.cache.get(&contents(&fixture.include)).unwrap();
        let before = fixture.include.metadata().unwrap();
        let times = FileTimes::new().set_modified(before.modified().unwrap());
        assert!(holds(&base(), "yesterday's program"));
        for (removed, text) in [
            (false, "the program of noon"),
            (true, "this hour's program"),
        ] {
            if removed {
                fs::remove_file(&fixture.include).unwrap();
            }
            fs::write(&fixture.include, text).unwrap();
            let file = File::options().write(true).open(&fixture.include).unwrap();
            file.set_times(times).unwrap();
            let after = fixture.include.metadata().unwrap();
            assert_eq!(after.len(), before.len());
            assert_eq!(after.modified().unwrap(), before.modified().unwrap());
            assert!(holds(&base(), text));
        }
    }

    #[test]
    fn fault_f12_a_file_that_is_copied_over_an_include_with_its_times_is_packed() {
        let fixture = fixture();
        let base = || fixture.cache.get(&contents(&fixture.include)).unwrap();
        assert!(holds(&base(), "yesterday's program"));
        let other = fixture.include.with_extension("other");
        fs::write(&other, "this hour's program").unwrap();
        let modified = fixture.include.metadata().unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(&other)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        let copied = std::process::Command::new("cp")
            .arg("-p")
            .args([&other, &fixture.include])
            .status();
        assert!(copied.unwrap().success());
        assert!(holds(&base(), "this hour's program"));
    }

    #[test]
    fn fault_e5_one_process_packs_and_the_others_wait_for_it() {
        let fixture = fixture();
        let contents = contents(&fixture.include);
        let listing = Listing::of(&contents).unwrap();
        let key = listing.key().unwrap();
        let cache = &fixture.cache;
        let Ok(Turn::Write(partial)) = cache.turn(&key, Duration::ZERO) else {
            panic!("nobody else writes it");
        };
        assert!(matches!(
            cache.turn(&key, Duration::ZERO),
            Ok(Turn::NotOurs)
        ));
        thread::scope(|scope| {
            let others: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| cache.turn(&key, WAIT_LIMIT).unwrap()))
                .collect();
            let (packed, archive) = listing.pack().unwrap();
            assert_eq!(packed, key);
            cache.keep(&key, &packed, partial, &archive).unwrap();
            for other in others {
                assert!(matches!(other.join().unwrap(), Turn::Entry(_)));
            }
        });
        assert_eq!(files(cache), [format!("{}.{ARCHIVE}", key.to_hex())]);
    }

    #[test]
    fn fault_e5_what_a_killed_process_left_is_written_over_or_removed() {
        let fixture = fixture();
        let contents = contents(&fixture.include);
        let listing = Listing::of(&contents).unwrap();
        let (key, archive) = listing.pack().unwrap();
        let cache = &fixture.cache;
        fs::create_dir_all(&cache.folder).unwrap();
        // Its lock went with it.
        fs::write(cache.path(&key, PARTIAL), vec![1; 2 * archive.len()]).unwrap();
        let other = cache.folder.join(format!("other.{PARTIAL}"));
        fs::write(&other, b"half").unwrap();
        let alive = cache.folder.join(format!("alive.{PARTIAL}"));
        let _alive = try_lock(&alive, true).unwrap().unwrap();
        let earlier = cache.folder.join(".tmpAbCdEf");
        let file = File::create(&earlier).unwrap();
        file.set_modified(SystemTime::now() - 2 * KEEP_AGE).unwrap();

        let base = cache.get(&contents).unwrap();
        assert!(entry(&base).1 == archive, "not the archive");
        assert!(!other.exists() && !earlier.exists() && alive.exists());
    }

    #[test]
    fn fault_e5_an_entry_that_is_removed_stays_with_who_has_it() {
        let fixture = fixture();
        let base = fixture.cache.get(&contents(&fixture.include)).unwrap();
        let Kept::File { path, .. } = &base.kept else {
            panic!("not kept");
        };
        fs::remove_file(path).unwrap();
        assert!(holds(&base, "yesterday's program"));
    }

    #[test]
    fn old_entries_go_but_the_newest_and_the_used_stay() {
        let fixture = fixture();
        let cache = &fixture.cache;
        fs::create_dir_all(&cache.folder).unwrap();
        let now = SystemTime::now();
        for age in 0..2 * KEEP as u64 {
            let archive = cache.folder.join(format!("{age:016x}.{ARCHIVE}"));
            let file = File::create(&archive).unwrap();
            file.set_modified(now - 2 * KEEP_AGE - Duration::from_secs(age))
                .unwrap();
        }
        let used = cache.folder.join(format!("used.{ARCHIVE}"));
        fs::write(&used, b"").unwrap();
        cache.remove_old();
        assert!(used.exists());
        // The used one is the newest of those that stay.
        assert_eq!(files(cache).len(), KEEP);
    }
}
