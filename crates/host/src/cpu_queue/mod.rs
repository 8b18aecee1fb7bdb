//! The line for host CPUs and memory: many test processes start at once, and the machines that run keep no more
//! host CPUs busy than there are, and have no more guest RAM together than the host has available.
//!
//! ```text
//! <folder>/door         held (flock) for the moment in which the line is read or changed
//! <folder>/N.waiting    held by a process in the line, from when it joins until its machine may start
//! <folder>/N.running    held from then until its machine is gone
//! ```
//!
//! Only locks count, and the kernel drops those of a process that dies, however it dies. A file that nobody
//! has locked means nothing; whoever comes across it removes it.
//!
//! The line is first come, first served: a small machine does not pass a large one, which would else never
//! find enough CPUs free at once. A machine with more CPUs than the bound runs alone.

mod folder;
mod memory;
mod slip;
mod waiting;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_machine::{HostMemory, TouchedRam, touched_ram, usable_host_cpus};
pub use memory::Lack;
pub use slip::Claim;
use slip::Slip;
pub use waiting::{QueueError, Waiting};

/// How long a place in the line is kept before the test gives up.
const LIMIT: Duration = Duration::from_mins(30);
/// The same while no machine of the line runs: others have the memory, and may keep it.
const LIMIT_ALONE: Duration = Duration::from_mins(2);
/// When the first word is said about waiting, and how often after that.
const FIRST_WORD: Duration = Duration::from_secs(5);
const NEXT_WORD: Duration = Duration::from_mins(1);
/// Delay between two looks: short at first, since some machines are gone soon.
const FIRST_DELAY: Duration = Duration::from_millis(2);
const LAST_DELAY: Duration = Duration::from_millis(20);

/// How many host CPUs all running machines may keep busy together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuCap {
    /// As many as this process may use.
    #[default]
    HostCpus,
    /// So many, at least one.
    Count(u32),
    /// No bound, and no line.
    Off,
}

/// `KTSTR_CPU_CAP` has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a whole number of host CPUs from 1 on, or `off` to start machines without a line")]
pub struct CpuCapError;

impl FromStr for CpuCap {
    type Err = CpuCapError;

    fn from_str(text: &str) -> Result<Self, CpuCapError> {
        match (text, text.parse()) {
            ("off", _) => Ok(Self::Off),
            (_, Ok(count)) if count > 0 => Ok(Self::Count(count)),
            _ => Err(CpuCapError),
        }
    }
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It runs.
    Running,
    /// Its process waits in the line.
    Waiting,
}

impl Place {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
        }
    }
}

/// One process in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether its machine runs.
    pub place: Place,
    /// What it said of itself.
    pub claim: Claim,
}

/// The line.
#[derive(Clone, Debug)]
pub struct CpuQueue {
    folder: PathBuf,
    bound: u32,
    /// Those that this process may use.
    usable: Vec<u32>,
    limits: Limits,
    host_memory: fn() -> HostMemory,
}

/// How long it is waited.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For those before.
    line: Duration,
    /// For memory, while none of them runs.
    alone: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: LIMIT,
            alone: LIMIT_ALONE,
        }
    }
}

/// The right to run one machine. Dropping it lets the next one in. The default is that of a machine which
/// stood in no line.
#[derive(Debug, Default)]
pub struct Share {
    _slip: Option<Slip>,
    /// How long it was waited for.
    pub waited: Duration,
    /// The host CPUs that the machine has for itself.
    pub own_cpus: Vec<u32>,
}

/// Where a process stands.
enum Standing {
    /// Its machine may start.
    Entered(Slip, Vec<u32>),
    /// Behind another in the line, by that one's open file.
    Behind(File),
    /// First in the line, while there is too little of something.
    First(Lack),
}

impl CpuQueue {
    /// The line in `folder`, or in `/tmp/ktstr-<uid>`; none if it is turned off.
    pub fn open(folder: Option<&Path>, cap: CpuCap) -> Result<Option<Self>, QueueError> {
        let bound = match cap {
            CpuCap::Off => return Ok(None),
            CpuCap::Count(count) => count,
            CpuCap::HostCpus => thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        };
        Ok(Some(Self::in_folder(folder::prepare(folder)?, bound)))
    }

    /// Those whose machines run, then those who wait, each in the order in which they came.
    pub fn look(folder: Option<&Path>) -> Result<Vec<Entry>, QueueError> {
        let folder = folder::chosen(folder);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        Self::in_folder(folder, 0).entries(u64::MAX)
    }

    fn in_folder(folder: PathBuf, bound: u32) -> Self {
        Self {
            folder,
            bound,
            usable: usable_host_cpus(),
            limits: Limits::default(),
            host_memory: HostMemory::now,
        }
    }

    /// Waits until a machine that keeps `claim.host_cpus` busy may start, and its memory is there. `on_wait` is
    /// told what for, after some seconds and then once a minute. `own`: whether it shall have as many host CPUs for
    /// itself, which no other machine is given as its own meanwhile.
    pub fn take(
        &self,
        claim: &Claim,
        own: bool,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Share, QueueError> {
        let (number, place) = self.join(claim)?;
        let mut patience = Patience::new(self.limits);
        let mut behind: Option<File> = None;
        loop {
            let mut lack = Lack::Turn;
            if !behind.as_ref().is_some_and(slip::is_held) {
                behind = match self.enter(number, claim, own)? {
                    Standing::Entered(slip, own_cpus) => {
                        drop(place);
                        return Ok(Share {
                            _slip: Some(slip),
                            waited: patience.waited(),
                            own_cpus,
                        });
                    }
                    Standing::Behind(file) => Some(file),
                    Standing::First(short) => {
                        lack = short;
                        None
                    }
                };
            }
            patience.wait(lack, || self.entries(number), on_wait)?;
        }
    }

    /// A place at the end of the line.
    fn join(&self, claim: &Claim) -> Result<(u64, Slip), QueueError> {
        let _door = self.door()?;
        let last = self.files()?.iter().map(|(_, number)| *number).max();
        let number = last.map_or(1, |last| last.saturating_add(1));
        let slip = Slip::make(self.path(Place::Waiting, number), claim)?;
        Ok((number, slip))
    }

    /// The right to start, if nobody is before `number` and the machines that run leave enough.
    fn enter(&self, number: u64, claim: &Claim, own: bool) -> Result<Standing, QueueError> {
        let _door = self.door()?;
        let (running, waiting): (Vec<_>, Vec<_>) = self
            .files()?
            .into_iter()
            .partition(|(place, _)| *place == Place::Running);
        let before = waiting.into_iter().filter(|(_, other)| *other < number);
        for (place, other) in before.rev() {
            if let Some((file, _)) = slip::open_held(&self.path(place, other))? {
                return Ok(Standing::Behind(file));
            }
        }
        let mut claims = Vec::new();
        for (place, other) in running {
            let held = slip::open_held(&self.path(place, other))?;
            claims.extend(held.map(|(_, claim)| claim));
        }
        let mut free = self.usable.clone();
        free.retain(|cpu| !claims.iter().any(|other| other.own_cpus.contains(cpu)));
        free.truncate(if own { claim.host_cpus as usize } else { 0 });
        let busy = claims.iter().fold(0_u32, |busy, other| {
            busy.saturating_add(other.host_cpus.max(1))
        });
        let too_few = own && free.len() < claim.host_cpus as usize;
        if busy > 0 && (too_few || busy.saturating_add(claim.host_cpus) > self.bound) {
            return Ok(Standing::First(Lack::HostCpus {
                needed: claim.host_cpus,
                bound: self.bound,
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
        let slip = Slip::make(self.path(Place::Running, number), &claim)?;
        Ok(Standing::Entered(slip, free))
    }

    /// All whose machines run, and all who wait before `number`.
    fn entries(&self, number: u64) -> Result<Vec<Entry>, QueueError> {
        let _door = self.door()?;
        let mut entries = Vec::new();
        for (place, other) in self.files()? {
            if place == Place::Running || other < number {
                let held = slip::open_held(&self.path(place, other))?;
                entries.extend(held.map(|(_, claim)| Entry { place, claim }));
            }
        }
        Ok(entries)
    }

    /// Keeps others out while the line is read or changed. Nobody stays here longer than that, but for a
    /// process that is stopped just then.
    fn door(&self) -> Result<File, QueueError> {
        let path = self.folder.join("door");
        let locked = || -> io::Result<File> {
            let mut options = File::options();
            let door = options
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let until = Instant::now() + LIMIT;
            loop {
                match door.try_lock() {
                    Ok(()) => return Ok(door),
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

/// Waits for the memory of a machine that stands in no line.
pub(crate) fn wait_for_memory(
    claim: &Claim,
    on_wait: &mut dyn FnMut(&Waiting),
) -> Result<Share, QueueError> {
    let mut patience = Patience::new(Limits::default());
    while let Some(lack) = memory::lack(claim, &[], HostMemory::now(), &touched) {
        patience.wait(lack, || Ok(Vec::new()), on_wait)?;
    }
    Ok(Share {
        waited: patience.waited(),
        ..Share::default()
    })
}

/// What of its guest RAM a process has touched; nothing if it can't be told.
fn touched(pid: u32) -> TouchedRam {
    touched_ram(pid).unwrap_or_default()
}

/// One wait: when to look again, when to say a word, and when to give up.
struct Patience {
    limits: Limits,
    started: Instant,
    word_at: Duration,
    delay: Duration,
    /// Since when no machine of the line runs and no other waits before.
    alone_since: Option<Instant>,
}

impl Patience {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            word_at: FIRST_WORD.min(limits.alone),
            delay: FIRST_DELAY,
            alone_since: None,
        }
    }

    fn waited(&self) -> Duration {
        self.started.elapsed()
    }

    /// One step of a wait for `lack`, or the end of it.
    fn wait(
        &mut self,
        lack: Lack,
        before: impl FnOnce() -> Result<Vec<Entry>, QueueError>,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<(), QueueError> {
        let waited = self.waited();
        if waited >= self.word_at {
            let before = before()?;
            let alone = before.is_empty() && !matches!(lack, Lack::Turn);
            let alone_since = self.alone_since.take().unwrap_or_else(Instant::now);
            self.alone_since = alone.then_some(alone_since);
            let alone_too_long = alone && alone_since.elapsed() >= self.limits.alone;
            let waiting = Waiting {
                lack,
                waited,
                before,
            };
            if waited >= self.limits.line || alone_too_long {
                return Err(QueueError::TimedOut { waiting });
            }
            on_wait(&waiting);
            let next = if alone {
                self.limits.alone.min(NEXT_WORD)
            } else {
                NEXT_WORD
            };
            self.word_at = waited + next;
        }
        thread::sleep(self.delay);
        self.delay = (self.delay * 2).min(LAST_DELAY);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_counts_or_off() {
        assert_eq!("8".parse(), Ok(CpuCap::Count(8)));
        assert_eq!("off".parse(), Ok(CpuCap::Off));
        for wrong in ["0", "-1", "", "all", "1.5"] {
            assert_eq!(wrong.parse::<CpuCap>(), Err(CpuCapError), "{wrong}");
        }
    }

    #[test]
    fn host_cpus_of_ones_own_are_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let queue = CpuQueue {
            usable: vec![0, 1, 5],
            ..CpuQueue::in_folder(folder.path().to_owned(), 8)
        };
        let claim = |host_cpus| Claim::new("a test", "kvm", host_cpus);
        let enter = |number, host_cpus, own| match queue.enter(number, &claim(host_cpus), own) {
            Ok(Standing::Entered(slip, own_cpus)) => Some((slip, own_cpus)),
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

    fn short_of_memory() -> HostMemory {
        HostMemory {
            total_mib: Some(4_096),
            available_mib: Some(900),
            free_huge_pages: Some(0),
        }
    }

    #[test]
    fn fault_a2_memory_that_is_not_there_is_waited_for_and_then_given_up_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = CpuQueue {
            host_memory: short_of_memory,
            limits: Limits {
                line: LIMIT,
                alone: Duration::from_millis(20),
            },
            ..CpuQueue::in_folder(folder.path().to_owned(), 8)
        };
        let mut claim = Claim::new("a test", "tcg", 1);
        claim.memory_mib = 901;
        let mut words = 0;
        let error = queue.take(&claim, false, &mut |_| words += 1).unwrap_err();
        assert!(matches!(
            &error,
            QueueError::TimedOut {
                waiting: Waiting {
                    lack: Lack::Memory {
                        needed_mib: 901,
                        left_mib: 900
                    },
                    ..
                }
            }
        ));
        assert!(words > 0, "it said what it waits for");
        claim.memory_mib = 900;
        drop(queue.take(&claim, false, &mut |_| {}).unwrap());
        claim.huge_pages = 1;
        let error = queue.take(&claim, false, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("1 huge pages"), "{error}");
        queue.host_memory = HostMemory::default;
        claim.huge_pages = 0;
        drop(queue.take(&claim, false, &mut |_| {}).unwrap());
    }

    #[test]
    fn fault_a2_running_machines_have_no_more_memory_together_than_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let queue = CpuQueue {
            host_memory: short_of_memory,
            ..CpuQueue::in_folder(folder.path().to_owned(), 8)
        };
        let claim = |memory_mib| Claim {
            memory_mib,
            ..Claim::new("a test", "tcg", 1)
        };
        let first = queue.take(&claim(600), false, &mut |_| {}).unwrap();
        let standing = queue.enter(7, &claim(400), false).unwrap();
        assert!(matches!(
            standing,
            Standing::First(Lack::Memory { left_mib: 300, .. })
        ));
        drop(first);
        let standing = queue.enter(7, &claim(400), false).unwrap();
        assert!(matches!(standing, Standing::Entered(..)));
    }
}
