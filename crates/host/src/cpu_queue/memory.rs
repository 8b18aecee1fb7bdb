//! Whether the host's memory is enough for one more machine.
//!
//! Guest RAM is taken from the host when the guest touches it. So what the host calls available is less than it
//! seems: the machines that run have yet to touch the rest of theirs, and that rest is set aside first.

use std::collections::BTreeMap;
use std::fmt;

use ktstr_machine::{HostMemory, TouchedRam};

use super::claim::Claim;

/// What keeps a machine from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Those before it in the queue.
    Turn,
    /// Host CPUs: those that machines keep busy together are limited.
    HostCpus {
        /// Those that its machine keeps busy.
        needed: u32,
        /// The limit.
        limit: u32,
    },
    /// Memory for guest RAM.
    Memory {
        /// What it needs, in MiB.
        needed_mib: u64,
        /// What the host has available, without what running machines have yet to touch, in MiB.
        left_mib: u64,
    },
    /// Huge pages for guest RAM.
    HugePages {
        /// What it needs, in pages of 2 MiB.
        needed: u64,
        /// What is free, without what running machines have yet to take.
        left: u64,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Turn => write!(f, "its turn"),
            Self::HostCpus { needed, limit } => write!(f, "{needed} of {limit} host CPUs"),
            Self::Memory {
                needed_mib,
                left_mib,
            } => write!(
                f,
                "{needed_mib} MiB of memory, while the host has {left_mib} MiB left"
            ),
            Self::HugePages { needed, left } => {
                write!(f, "{needed} huge pages of 2 MiB, while {left} are left")
            }
        }
    }
}

/// What the host lacks for `claim` beside the machines of `running`.
pub(super) fn lack(
    claim: &Claim,
    running: &[Claim],
    host: HostMemory,
    touched: &dyn Fn(u32) -> TouchedRam,
) -> Option<Lack> {
    let promised = promised(running, touched);
    let left_mib = host.available_mib.unwrap_or(u64::MAX);
    let left_mib = left_mib.saturating_sub(promised.mib);
    if claim.memory_mib > left_mib {
        return Some(Lack::Memory {
            needed_mib: claim.memory_mib,
            left_mib,
        });
    }
    let left = host.free_huge_pages.unwrap_or(0);
    let left = left.saturating_sub(promised.huge_pages);
    (claim.huge_pages > left).then_some(Lack::HugePages {
        needed: claim.huge_pages,
        left,
    })
}

/// Guest RAM that machines have yet to touch. What a process touched can't be told from one of its machines to
/// another, so processes are looked at as a whole.
fn promised(running: &[Claim], touched: &dyn Fn(u32) -> TouchedRam) -> TouchedRam {
    let mut declared: BTreeMap<u32, TouchedRam> = BTreeMap::new();
    for claim in running {
        let of_process = declared.entry(claim.pid).or_default();
        of_process.mib = of_process.mib.saturating_add(claim.memory_mib);
        of_process.huge_pages = of_process.huge_pages.saturating_add(claim.huge_pages);
    }
    let mut promised = TouchedRam::default();
    for (pid, declared) in declared {
        let touched = touched(pid);
        let mib = declared.mib.saturating_sub(touched.mib);
        promised.mib = promised.mib.saturating_add(mib);
        let pages = declared.huge_pages.saturating_sub(touched.huge_pages);
        promised.huge_pages = promised.huge_pages.saturating_add(pages);
    }
    promised
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostMemory = HostMemory {
        total_mib: Some(8_192),
        available_mib: Some(4_000),
        free_huge_pages: Some(100),
    };

    fn claim(pid: u32, memory_mib: u64, huge_pages: u64) -> Claim {
        Claim {
            pid,
            memory_mib,
            huge_pages,
            ..Claim::new("a test", "tcg", 1)
        }
    }

    #[test]
    fn fault_a2_ram_that_running_machines_have_yet_to_touch_is_set_aside() {
        // Of 3000 MiB, process 1 has touched 1000: these are not available any more, 2000 are still to come.
        let running = [claim(1, 1_000, 0), claim(1, 2_000, 0), claim(2, 500, 0)];
        let touched = |pid| TouchedRam {
            mib: if pid == 1 { 1_000 } else { 500 },
            huge_pages: 0,
        };
        let lack = |needed_mib| lack(&claim(3, needed_mib, 0), &running, HOST, &touched);
        assert_eq!(lack(2_000), None);
        let refused = lack(2_001).unwrap();
        assert_eq!(
            refused.to_string(),
            "2001 MiB of memory, while the host has 2000 MiB left"
        );
    }

    #[test]
    fn fault_a2_huge_pages_that_a_running_machine_has_yet_to_take_are_not_free() {
        let lack = |needed, taken| {
            let touched = move |_| TouchedRam {
                mib: 0,
                huge_pages: taken,
            };
            lack(&claim(2, 0, needed), &[claim(1, 0, 60)], HOST, &touched)
        };
        let refused = Lack::HugePages {
            needed: 50,
            left: 40,
        };
        assert_eq!(lack(50, 0), Some(refused));
        assert_eq!(lack(50, 60), None, "what it has taken is not free any more");
        assert_eq!(
            refused.to_string(),
            "50 huge pages of 2 MiB, while 40 are left"
        );
    }

    #[test]
    fn a_host_that_does_not_tell_its_memory_bounds_nothing_but_huge_pages() {
        let host = HostMemory::default();
        let none = |_| TouchedRam::default();
        assert_eq!(lack(&claim(1, 1 << 40, 0), &[], host, &none), None);
        assert!(lack(&claim(1, 0, 1), &[], host, &none).is_some());
    }
}
