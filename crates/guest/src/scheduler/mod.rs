//! The scheduler under test: started, watched, ended, and reported on. Each time that it is attached is a life of its own,
//! with a report of its own; a test may end one and begin the next (`control.rs`).
//!
//! It is attached when /sys/kernel/sched_ext says so and names it. From then on a thread looks after it: once
//! its process has ended or the kernel no longer names it, the load ends. What the kernel said comes
//! from its log, and from trace events that carry its dump and its reasons, so that every scheduler is reported on
//! alike, whatever it prints itself. How often it was enabled comes from the kernel's own count: a scheduler that goes
//! and comes back between two looks was not attached to the end.
//!
//! A stalled scheduler stops everything in the guest, this process too, until the kernel's watchdog disables
//! it. So nothing here counts on being run in time.

mod attach;
mod bpf_calls;
mod control;
mod dump;
mod held_maps;
mod kernel_words;
mod life;
mod process;
mod verdict;
mod watch;
mod watchdog;

use std::time::Duration;

pub(crate) use control::{Schedulers, Started};

/// How often sched_ext and a scheduler's process are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
