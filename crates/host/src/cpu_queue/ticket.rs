//! Waiting in the queue, one step at a time.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_machine::HostMemory;

use super::claim::Claim;
use super::entry::Entry;
use super::memory::{self, Lack};
use super::queue::{CpuQueue, Limits, Standing, touched};
use super::ticket_file::{self, TicketFile};
use super::waiting::{QueueError, Waiting};

/// After which times of waiting a step ends to say so; then each [`TOLD_EVERY`].
const TOLD_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// Delay between two looks: short at first, since some machines are gone soon.
const FIRST_DELAY: Duration = Duration::from_millis(2);
const LAST_DELAY: Duration = Duration::from_millis(20);

/// The right to run one machine. Dropping it lets the next one start. The default is that of a machine which
/// waited in no queue.
#[derive(Debug, Default)]
pub struct Permit {
    _file: Option<TicketFile>,
    /// How long it was waited for.
    pub waited: Duration,
    /// The host CPUs that the machine has for itself.
    pub own_cpus: Vec<u32>,
}

/// What a step of waiting gave.
#[derive(Debug)]
pub enum Admission {
    /// The machine may start.
    Granted(Permit),
    /// It may not yet.
    Waiting(Waiting),
}

/// A place in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Ticket<'a> {
    claim: Claim,
    place: Option<Place<'a>>,
    patience: Patience,
}

#[derive(Debug)]
struct Place<'a> {
    queue: &'a CpuQueue,
    number: u64,
    /// Whether the machine gets host CPUs for itself.
    own: bool,
    /// What others see of the ticket.
    _file: TicketFile,
    /// The ticket before it.
    behind: Option<File>,
}

impl<'a> Ticket<'a> {
    /// Joins the queue, for a machine that keeps `claim.host_cpus` busy. `own`: whether it gets as many host CPUs for
    /// itself, which no other machine is given as its own until it is gone.
    pub fn take(queue: &'a CpuQueue, claim: Claim, own: bool) -> Result<Self, QueueError> {
        let (number, file) = queue.join(&claim)?;
        Ok(Self {
            claim,
            patience: Patience::new(queue.limits),
            place: Some(Place {
                queue,
                number,
                own,
                _file: file,
                behind: None,
            }),
        })
    }

    /// A ticket without a queue: it waits only for the memory of its machine.
    pub(crate) fn without_queue(claim: Claim) -> Self {
        Self {
            claim,
            place: None,
            patience: Patience::new(Limits::default()),
        }
    }

    /// Waits until the machine may start, or until it is time to tell what it waits for: after one second, after five,
    /// and each minute.
    pub fn wait(&mut self) -> Result<Admission, QueueError> {
        loop {
            let lack = match self.look()? {
                Look::Granted(permit) => return Ok(Admission::Granted(permit)),
                Look::Lacks(lack) => lack,
            };
            if self.patience.is_time_to_tell() {
                let before = match &self.place {
                    Some(place) => place.queue.entries(place.number)?,
                    None => Vec::new(),
                };
                return self.patience.tell(lack, before).map(Admission::Waiting);
            }
            self.patience.pause();
        }
    }

    fn look(&mut self) -> Result<Look, QueueError> {
        let waited = self.patience.waited();
        let Some(place) = &mut self.place else {
            let lack = memory::lack(&self.claim, &[], HostMemory::now(), &touched);
            return Ok(lack.map_or_else(
                || {
                    Look::Granted(Permit {
                        waited,
                        ..Permit::default()
                    })
                },
                Look::Lacks,
            ));
        };
        if place.behind.as_ref().is_some_and(ticket_file::is_held) {
            return Ok(Look::Lacks(Lack::Turn));
        }
        place.behind = None;
        match place.queue.enter(place.number, &self.claim, place.own)? {
            Standing::Entered(file, own_cpus) => Ok(Look::Granted(Permit {
                _file: Some(file),
                waited,
                own_cpus,
            })),
            Standing::Behind(file) => {
                place.behind = Some(file);
                Ok(Look::Lacks(Lack::Turn))
            }
            Standing::First(lack) => Ok(Look::Lacks(lack)),
        }
    }
}

enum Look {
    Granted(Permit),
    Lacks(Lack),
}

/// One wait: when to look again, when to tell, and when to give up.
#[derive(Debug)]
struct Patience {
    limits: Limits,
    started: Instant,
    told: usize,
    tell_at: Duration,
    delay: Duration,
    /// Since when no machine of the queue runs and no other waits before.
    alone_since: Option<Instant>,
}

impl Patience {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            told: 0,
            tell_at: TOLD_AFTER[0].min(limits.alone),
            delay: FIRST_DELAY,
            alone_since: None,
        }
    }

    fn waited(&self) -> Duration {
        self.started.elapsed()
    }

    fn is_time_to_tell(&self) -> bool {
        self.waited() >= self.tell_at
    }

    /// What is waited for, or the end of the wait.
    fn tell(&mut self, lack: Lack, before: Vec<Entry>) -> Result<Waiting, QueueError> {
        let waited = self.waited();
        let alone = before.is_empty() && !matches!(lack, Lack::Turn);
        let alone_since = self.alone_since.take().unwrap_or_else(Instant::now);
        self.alone_since = alone.then_some(alone_since);
        let alone_too_long = alone && alone_since.elapsed() >= self.limits.alone;
        let waiting = Waiting {
            lack,
            waited,
            before,
        };
        if waited >= self.limits.queue || alone_too_long {
            return Err(QueueError::TimedOut { waiting });
        }
        self.told += 1;
        let next = match TOLD_AFTER.get(self.told) {
            Some(&at) => at,
            None => waited + TOLD_EVERY,
        };
        self.tell_at = if alone {
            next.min(waited + self.limits.alone)
        } else {
            next
        };
        Ok(waiting)
    }

    fn pause(&mut self) {
        thread::sleep(self.delay);
        self.delay = (self.delay * 2).min(LAST_DELAY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits to the end, and counts what it is told.
    fn permit(queue: &CpuQueue, claim: &Claim, told: &mut u32) -> Result<Permit, QueueError> {
        let mut ticket = Ticket::take(queue, claim.clone(), false)?;
        loop {
            match ticket.wait()? {
                Admission::Granted(permit) => return Ok(permit),
                Admission::Waiting(_) => *told += 1,
            }
        }
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
        let mut queue = CpuQueue::in_folder(folder.path().to_owned(), 8);
        queue.host_memory = short_of_memory;
        queue.limits.alone = Duration::from_millis(20);
        let mut claim = Claim::new("a test", "tcg", 1);
        claim.memory_mib = 901;
        let mut told = 0;
        let error = permit(&queue, &claim, &mut told).unwrap_err();
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
        assert!(told > 0, "it said what it waits for");
        claim.memory_mib = 900;
        drop(permit(&queue, &claim, &mut 0).unwrap());
        claim.huge_pages = 1;
        let error = permit(&queue, &claim, &mut 0).unwrap_err();
        assert!(error.to_string().contains("1 huge pages"), "{error}");
        queue.host_memory = HostMemory::default;
        claim.huge_pages = 0;
        drop(permit(&queue, &claim, &mut 0).unwrap());
    }

    #[test]
    fn fault_a2_running_machines_have_no_more_memory_together_than_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = CpuQueue::in_folder(folder.path().to_owned(), 8);
        queue.host_memory = short_of_memory;
        let claim = |memory_mib| Claim {
            memory_mib,
            ..Claim::new("a test", "tcg", 1)
        };
        let first = permit(&queue, &claim(600), &mut 0).unwrap();
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
