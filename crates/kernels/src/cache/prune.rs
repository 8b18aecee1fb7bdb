//! Kernels that were given as files are copied into the cache, and nothing fetches them again: those that were
//! not used for long go when another one comes.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io;
use std::time::{Duration, SystemTime};

use super::entry::METADATA_FILE;
use super::{Cache, CacheError, Entry, Origin, store};
use crate::progress::{Event, Progress};

/// How many are kept, whenever they were used.
const KEPT: usize = 8;
/// One that was used within this time stays, however many there are: a test that waits for its turn has not
/// opened its files yet.
const IN_USE: Duration = Duration::from_hours(1);

impl Entry {
    /// Whether a person gave it, rather than a source.
    pub fn is_given(&self) -> bool {
        matches!(self.metadata().origin, Origin::File { .. })
    }

    /// Packages of this kernel that the archive did not have any more when it was fetched.
    pub fn missing_packages(&self) -> &[String] {
        match &self.metadata().origin {
            Origin::Debian { missing, .. } => missing,
            Origin::File { .. } => &[],
        }
    }

    /// Notes that it is used now: its metadata file's time says so.
    pub(crate) fn mark_used(&self) {
        // A cache that can't be written to is not pruned either.
        let _ = File::open(self.dir().join(METADATA_FILE))
            .and_then(|file| file.set_modified(SystemTime::now()));
    }

    fn last_used(&self) -> io::Result<SystemTime> {
        fs::metadata(self.dir().join(METADATA_FILE))?.modified()
    }
}

impl Cache {
    /// Removes kernels that were given as files, all but those used last, and says which. What can't be removed is
    /// no reason to fail: it is tried again with the next one.
    pub(crate) fn prune_given(&self, progress: &dyn Progress) {
        let told = match self.remove_unused() {
            Ok(removed) if removed.is_empty() => return,
            Ok(removed) => format!(
                "removed from the kernel cache, where the {KEPT} kernels given as files that were used last are \
                 kept: {}",
                removed.join(", ")
            ),
            Err(error) => format!("old kernels stay in the cache: {error}"),
        };
        progress.event(&Event::Warning(told));
    }

    /// The keys of those that were removed.
    fn remove_unused(&self) -> Result<Vec<String>, CacheError> {
        let mut given: Vec<(SystemTime, Entry)> = self
            .usable()?
            .into_iter()
            .filter(Entry::is_given)
            .filter_map(|entry| Some((entry.last_used().ok()?, entry)))
            .collect();
        given.sort_by_key(|(used, _)| Reverse(*used));
        let now = SystemTime::now();
        let mut removed = Vec::new();
        for (used, entry) in given.into_iter().skip(KEPT) {
            // A time in the future is of a clock that was set back.
            let in_use = now.duration_since(used).is_ok_and(|ago| ago < IN_USE);
            if !in_use && store::try_remove(self, entry.key())? {
                removed.push(entry.key().to_owned());
            }
        }
        Ok(removed)
    }
}
