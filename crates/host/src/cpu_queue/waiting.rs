//! What is told of a process that waits, and why one gives up.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::claim::Claim;
use super::entry::Entry;
use super::memory::Lack;

/// Why a machine may not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The queue can't be kept there.
    #[error(
        "can't use {} for the CPU queue: {source}; set KTSTR_LOCK_DIR to a folder of your own on a local file \
         system, or KTSTR_CPU_CAP=off to disable CPU queueing",
        path.display()
    )]
    Unusable {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The others did not get done.
    #[error("gave up {waiting}: {}", way_out(.waiting))]
    TimedOut {
        /// What it waited for.
        waiting: Waiting,
    },
}

impl QueueError {
    pub(super) fn unusable(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Unusable { path, source }
    }
}

fn way_out(waiting: &Waiting) -> &'static str {
    match (waiting.lack, waiting.before.is_empty()) {
        (Lack::Memory { .. }, true) => {
            "no machine of ours has it: end other programs, or lower memory_mib"
        }
        (Lack::HugePages { .. }, true) => {
            "no machine of ours has them: end who does, or as root raise \
             /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
        }
        (Lack::Memory { .. } | Lack::HugePages { .. }, false) => {
            "end those that hang; `cargo ktstr queue` shows all"
        }
        (Lack::Turn | Lack::HostCpus { .. }, _) => {
            "end those that hang, or raise KTSTR_CPU_CAP; `cargo ktstr queue` shows all"
        }
    }
}

/// A process that waits, and what for.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What it waits for.
    pub lack: Lack,
    /// How long it has waited.
    pub waited: Duration,
    /// Those before it: whose machines run, then who waits in front of it.
    pub before: Vec<Entry>,
}

impl Waiting {
    /// Whether it takes long enough to be worth a line for people.
    pub fn is_long(&self) -> bool {
        self.waited >= Duration::from_secs(5)
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_NAMED: usize = 4;
        let (lack, waited_s) = (self.lack, self.waited.as_secs());
        write!(f, "waiting for {lack} after {waited_s} s")?;
        let mut separator = ", for ";
        for entry in self.before.iter().take(MAX_NAMED) {
            let (claim, place) = (&entry.claim, entry.place.name());
            let Claim {
                pid,
                test,
                host_cpus,
                ..
            } = claim;
            let memory_mib = claim.all_memory_mib();
            write!(
                f,
                "{separator}process {pid} ({test}, {host_cpus} CPUs, {memory_mib} MiB, {place})"
            )?;
            separator = ", ";
        }
        match self.before.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu_queue::Place;

    fn entry(number: u32, place: Place) -> Entry {
        Entry {
            place,
            claim: Claim {
                pid: 100 + number,
                memory_mib: 512,
                ..Claim::new(&format!("suite::test_{number}"), "kvm", number)
            },
        }
    }

    #[test]
    fn who_waits_says_for_whom() {
        let mut waiting = Waiting {
            lack: Lack::HostCpus {
                needed: 4,
                limit: 8,
            },
            waited: Duration::from_millis(5_400),
            before: vec![entry(6, Place::Running), entry(7, Place::Waiting)],
        };
        insta::assert_snapshot!(waiting, @"waiting for 4 of 8 host CPUs after 5 s, for process 106 (suite::test_6, 6 CPUs, 512 MiB, running), process 107 (suite::test_7, 7 CPUs, 512 MiB, waiting)");
        waiting.before = (1..=6)
            .map(|number| entry(number, Place::Running))
            .collect();
        assert!(waiting.to_string().ends_with(" and 2 more"), "{waiting}");
    }

    #[test]
    fn who_gives_up_says_what_to_do() {
        let gave_up = |lack, before| {
            let waited = Duration::from_secs(120);
            QueueError::TimedOut {
                waiting: Waiting {
                    lack,
                    waited,
                    before,
                },
            }
        };
        let memory = Lack::Memory {
            needed_mib: 4_096,
            left_mib: 900,
        };
        insta::assert_snapshot!(gave_up(memory, Vec::new()), @"gave up waiting for 4096 MiB of memory, while the host has 900 MiB left after 120 s: no machine of ours has it: end other programs, or lower memory_mib");
        insta::assert_snapshot!(gave_up(memory, vec![entry(1, Place::Running)]), @"gave up waiting for 4096 MiB of memory, while the host has 900 MiB left after 120 s, for process 101 (suite::test_1, 1 CPUs, 512 MiB, running): end those that hang; `cargo ktstr queue` shows all");
        let pages = Lack::HugePages {
            needed: 256,
            left: 0,
        };
        insta::assert_snapshot!(gave_up(pages, Vec::new()), @"gave up waiting for 256 huge pages of 2 MiB, while 0 are left after 120 s: no machine of ours has them: end who does, or as root raise /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    }
}
