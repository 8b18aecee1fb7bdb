//! The line for host CPUs: many test processes start at once, and the machines that run keep no more host
//! CPUs busy than there are.
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
//! find enough CPUs free at once. A machine larger than the bound runs alone.

mod folder;
mod slip;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_machine::usable_host_cpus;
pub use slip::Claim;
use slip::Slip;

/// How long a place in the line is kept before the test gives up.
const LIMIT: Duration = Duration::from_mins(30);
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

/// Why a machine may not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The line can't be kept there.
    #[error(
        "can't use {} for the line for host CPUs: {source}; set KTSTR_LOCK_DIR to a folder of your own on a \
         local file system, or KTSTR_CPU_CAP=off to start machines without a line",
        path.display()
    )]
    Unusable {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The others did not get done.
    #[error(
        "gave up {0}: end those that hang, or raise KTSTR_CPU_CAP; `cargo ktstr locks` shows the line"
    )]
    TimedOut(Waiting),
}

impl QueueError {
    fn unusable(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Unusable { path, source }
    }
}

/// A process that waits, and what for.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Host CPUs that its machine keeps busy.
    pub host_cpus: u32,
    /// Those that all running machines may keep busy.
    pub bound: u32,
    /// How long it has waited.
    pub waited: Duration,
    /// Those before it: whose machines run, then who waits in front of it.
    pub before: Vec<Entry>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST_NAMED: usize = 4;
        let (host_cpus, bound, waited_s) = (self.host_cpus, self.bound, self.waited.as_secs());
        write!(
            f,
            "waiting for {host_cpus} of {bound} host CPUs after {waited_s} s, for"
        )?;
        let mut separator = " ";
        for entry in self.before.iter().take(MOST_NAMED) {
            let (Claim { pid, test, .. }, place) = (&entry.claim, entry.place.name());
            let host_cpus = entry.claim.host_cpus;
            write!(
                f,
                "{separator}process {pid} ({test}, {host_cpus} CPUs, {place})"
            )?;
            separator = ", ";
        }
        match self.before.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
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
    /// First in the line, while the machines that run leave too little.
    First,
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
        let folder = folder::prepare(folder)?;
        let usable = usable_host_cpus();
        Ok(Some(Self {
            folder,
            bound,
            usable,
        }))
    }

    /// Those whose machines run, then those who wait, each in the order in which they came.
    pub fn look(folder: Option<&Path>) -> Result<Vec<Entry>, QueueError> {
        let folder = folder::chosen(folder);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let (bound, usable) = (0, Vec::new());
        let queue = Self {
            folder,
            bound,
            usable,
        };
        queue.entries(u64::MAX)
    }

    /// Waits until a machine that keeps `claim.host_cpus` busy may start. `on_wait` is told what for, after
    /// some seconds and then once a minute. `own`: whether it shall have as many host CPUs for itself, which no
    /// other machine is given as its own meanwhile.
    pub fn take(
        &self,
        claim: &Claim,
        own: bool,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Share, QueueError> {
        let started = Instant::now();
        let (number, place) = self.join(claim)?;
        let (mut word_at, mut delay) = (FIRST_WORD, FIRST_DELAY);
        let mut behind: Option<File> = None;
        loop {
            if !behind.as_ref().is_some_and(slip::is_held) {
                behind = match self.enter(number, claim, own)? {
                    Standing::Entered(slip, own_cpus) => {
                        drop(place);
                        let waited = started.elapsed();
                        return Ok(Share {
                            _slip: Some(slip),
                            waited,
                            own_cpus,
                        });
                    }
                    Standing::Behind(file) => Some(file),
                    Standing::First => None,
                };
            }
            let waited = started.elapsed();
            if waited >= word_at {
                let waiting = Waiting {
                    host_cpus: claim.host_cpus,
                    bound: self.bound,
                    waited,
                    before: self.entries(number)?,
                };
                if waited > LIMIT {
                    return Err(QueueError::TimedOut(waiting));
                }
                on_wait(&waiting);
                word_at += NEXT_WORD;
            }
            thread::sleep(delay);
            delay = (delay * 2).min(LAST_DELAY);
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
        let mut busy = 0_u32;
        let mut free = self.usable.clone();
        for (place, other) in running {
            if let Some((_, claim)) = slip::open_held(&self.path(place, other))? {
                busy = busy.saturating_add(claim.host_cpus.max(1));
                free.retain(|cpu| !claim.own_cpus.contains(cpu));
            }
        }
        free.truncate(if own { claim.host_cpus as usize } else { 0 });
        let too_few = own && free.len() < claim.host_cpus as usize;
        if busy > 0 && (too_few || busy.saturating_add(claim.host_cpus) > self.bound) {
            return Ok(Standing::First);
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
            folder: folder.path().to_owned(),
            bound: 8,
            usable: vec![0, 1, 5],
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

    #[test]
    fn who_waits_says_for_whom() {
        let entry = |number: u32, place| Entry {
            place,
            claim: Claim {
                pid: 100 + number,
                test: format!("suite::test_{number}"),
                engine: "kvm".to_owned(),
                host_cpus: number,
                own_cpus: Vec::new(),
                since_unix_ms: 0,
            },
        };
        let mut waiting = Waiting {
            host_cpus: 4,
            bound: 8,
            waited: Duration::from_millis(5_400),
            before: vec![entry(6, Place::Running), entry(7, Place::Waiting)],
        };
        insta::assert_snapshot!(waiting, @"waiting for 4 of 8 host CPUs after 5 s, for process 106 (suite::test_6, 6 CPUs, running), process 107 (suite::test_7, 7 CPUs, waiting)");
        waiting.before = (1..=6)
            .map(|number| entry(number, Place::Running))
            .collect();
        assert!(waiting.to_string().ends_with(" and 2 more"), "{waiting}");
    }
}
