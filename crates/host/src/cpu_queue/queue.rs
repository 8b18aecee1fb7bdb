//! The queue itself: who is in it, and whether the next one may start.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_machine::{HostMemory, TouchedRam, touched_ram, usable_host_cpus};

use super::cap::CpuCap;
use super::claim::Claim;
use super::entry::{Entry, Place};
use super::folder;
use super::memory::{self, Lack};
use super::ticket_file::{self, TicketFile};
use super::waiting::QueueError;

/// How long a place in the queue is kept before the test gives up.
const LIMIT: Duration = Duration::from_mins(30);
/// The same while no machine of the queue runs: others have the memory, and may keep it.
const LIMIT_ALONE: Duration = Duration::from_mins(2);
/// The file that is locked while the queue is read or changed. Programs of earlier versions lock it too.
const LOCK_FILE: &str = "door";

/// The queue.
#[derive(Clone, Debug)]
pub struct CpuQueue {
    folder: PathBuf,
    /// How many host CPUs the machines that run may keep busy together.
    limit: u32,
    /// Those that this process may use.
    usable: Vec<u32>,
    pub(super) limits: Limits,
    pub(super) host_memory: fn() -> HostMemory,
}

/// How long a process waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For those before it.
    pub(super) queue: Duration,
    /// For memory, while none of them runs.
    pub(super) alone: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: LIMIT,
            alone: LIMIT_ALONE,
        }
    }
}

/// Where a process stands.
pub(super) enum Standing {
    /// Its machine may start.
    Entered(TicketFile, Vec<u32>),
    /// Behind another in the queue, by that one's open file.
    Behind(File),
    /// First in the queue, while there is too little of something.
    First(Lack),
}

impl CpuQueue {
    /// The queue in `folder`, or in `/tmp/ktstr-<uid>`; none if it is turned off.
    pub fn open(folder: Option<&Path>, cap: CpuCap) -> Result<Option<Self>, QueueError> {
        let limit = match cap {
            CpuCap::Off => return Ok(None),
            CpuCap::Count(count) => count,
            CpuCap::HostCpus => thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        };
        Ok(Some(Self::in_folder(folder::prepare(folder)?, limit)))
    }

    /// Those whose machines run, then those who wait, each in the order in which they came.
    pub fn look(folder: Option<&Path>) -> Result<Vec<Entry>, QueueError> {
        let folder = folder::chosen(folder);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        Self::in_folder(folder, 0).entries(u64::MAX)
    }

    pub(super) fn in_folder(folder: PathBuf, limit: u32) -> Self {
        Self {
            folder,
            limit,
            usable: usable_host_cpus(),
            limits: Limits::default(),
            host_memory: HostMemory::now,
        }
    }

    /// A place at the end of the queue.
    pub(super) fn join(&self, claim: &Claim) -> Result<(u64, TicketFile), QueueError> {
        let _lock = self.lock()?;
        let last = self.files()?.iter().map(|(_, number)| *number).max();
        let number = last.map_or(1, |last| last.saturating_add(1));
        let file = TicketFile::make(self.path(Place::Waiting, number), claim)?;
        Ok((number, file))
    }

    /// The right to start, if nobody is before `number` and the machines that run leave enough.
    pub(super) fn enter(
        &self,
        number: u64,
        claim: &Claim,
        own: bool,
    ) -> Result<Standing, QueueError> {
        let _lock = self.lock()?;
        let (running, waiting): (Vec<_>, Vec<_>) = self
            .files()?
            .into_iter()
            .partition(|(place, _)| *place == Place::Running);
        let before = waiting.into_iter().filter(|(_, other)| *other < number);
        for (place, other) in before.rev() {
            if let Some((file, _)) = ticket_file::open_held(&self.path(place, other))? {
                return Ok(Standing::Behind(file));
            }
        }
        let mut claims = Vec::new();
        for (place, other) in running {
            let held = ticket_file::open_held(&self.path(place, other))?;
            claims.extend(held.map(|(_, claim)| claim));
        }
        let mut free = self.usable.clone();
        free.retain(|cpu| !claims.iter().any(|other| other.own_cpus.contains(cpu)));
        free.truncate(if own { claim.host_cpus as usize } else { 0 });
        let busy = claims.iter().fold(0_u32, |busy, other| {
            busy.saturating_add(other.host_cpus.max(1))
        });
        let too_few = own && free.len() < claim.host_cpus as usize;
        if busy > 0 && (too_few || busy.saturating_add(claim.host_cpus) > self.limit) {
            return Ok(Standing::First(Lack::HostCpus {
                needed: claim.host_cpus,
                limit: self.limit,
            }));
        }
        let host = (self.host_memory)();
        if let Some(lack) = memory::lack(claim, &claims, host, &touched) {
            return Ok(Standing::First(lack));
        }
        let claim = Claim {
            own_cpus: free.clone(),
            ..claim.clone()
        };
        let file = TicketFile::make(self.path(Place::Running, number), &claim)?;
        Ok(Standing::Entered(file, free))
    }

    /// All whose machines run, and all who wait before `number`.
    pub(super) fn entries(&self, number: u64) -> Result<Vec<Entry>, QueueError> {
        let _lock = self.lock()?;
        let mut entries = Vec::new();
        for (place, other) in self.files()? {
            if place == Place::Running || other < number {
                let held = ticket_file::open_held(&self.path(place, other))?;
                entries.extend(held.map(|(_, claim)| Entry { place, claim }));
            }
        }
        Ok(entries)
    }

    /// Keeps others out while the queue is read or changed. Nobody stays here longer than that, but for a
    /// process that is stopped just then.
    fn lock(&self) -> Result<File, QueueError> {
        let path = self.folder.join(LOCK_FILE);
        let locked = || -> io::Result<File> {
            let mut options = File::options();
            let file = options
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let until = Instant::now() + LIMIT;
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(file),
                    Err(TryLockError::WouldBlock) if Instant::now() < until => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        locked().map_err(|source| QueueError::unusable(&path, source))
    }

    /// All files in order, those of the dead among them.
    fn files(&self) -> Result<Vec<(Place, u64)>, QueueError> {
        let failed = |source| QueueError::unusable(&self.folder, source);
        let mut files = Vec::new();
        for file in fs::read_dir(&self.folder).map_err(failed)? {
            let name = file.map_err(failed)?.file_name();
            let parts = name.to_str().and_then(|name| name.split_once('.'));
            for place in [Place::Running, Place::Waiting] {
                if let Some((number, word)) = parts
                    && word == place.name()
                    && let Ok(number) = number.parse()
                {
                    files.push((place, number));
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn path(&self, place: Place, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.{}", place.name()))
    }
}

/// What of its guest RAM a process has touched; nothing if it can't be told.
pub(super) fn touched(pid: u32) -> TouchedRam {
    touched_ram(pid).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_cpus_of_ones_own_are_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let queue = CpuQueue {
            usable: vec![0, 1, 5],
            ..CpuQueue::in_folder(folder.path().to_owned(), 8)
        };
        let claim = |host_cpus| Claim::new("a test", "kvm", host_cpus);
        let enter = |number, host_cpus, own| match queue.enter(number, &claim(host_cpus), own) {
            Ok(Standing::Entered(file, own_cpus)) => Some((file, own_cpus)),
            _ => None,
        };
        let first = enter(1, 2, true).unwrap();
        assert_eq!(first.1, [0, 1]);
        assert_eq!(enter(2, 1, false).unwrap().1, [] as [u32; 0]);
        assert!(enter(3, 2, true).is_none(), "only one is left");
        let third = enter(4, 1, true).unwrap();
        assert_eq!(third.1, [5]);
        drop(first);
        assert_eq!(enter(5, 1, true).unwrap().1, [0]);
    }
}
