//! Looking after an attached scheduler while the test's body runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_report::KernelExit;
use ktstr_scenario::{LoadStop, StopReason, checks, sched_ext};
use ktstr_wire::{DumpMoment, Request};

use super::LOOK_EVERY;
use super::kernel_words;
use super::process::{SharedProcess, lock};
use crate::link::Link;

/// How long a scheduler may take to load itself again when the kernel has disabled it without an error, as when a CPU
/// goes offline. Until then the load goes on, so that what it does after the reload is seen.
const RELOAD_WITHIN: Duration = Duration::from_secs(15);

/// A scheduler that is attached, and how it is told apart from what comes after it.
#[derive(Debug)]
pub(super) struct Watched {
    /// Name that the kernel has for it.
    pub(super) ops: Option<String>,
    /// [`sched_ext::enable_seq`] before it was started.
    pub(super) seq_before: Option<u64>,
    /// Its process, if it has one.
    pub(super) process: SharedProcess,
    pub(super) load_stop: LoadStop,
    /// Why the load ends when it has gone.
    pub(super) reason: StopReason,
}

/// Looks after an attached scheduler until it is told to stop.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Watch {
    pub(super) fn start(watched: Watched, link: Arc<Link>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("ktstr-watch".to_owned())
            .spawn(move || watched.watch(&stopped, &link))?;
        Ok(Self { stop, thread })
    }

    /// Whether the scheduler had gone, if only for a time.
    pub(super) fn stop(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        // A panic in it has ended the machine.
        self.thread.join().unwrap_or(true)
    }
}

impl Watched {
    fn watch(self, stopped: &AtomicBool, link: &Link) -> bool {
        let mut had_gone = false;
        let mut away: Option<Away> = None;
        while !stopped.load(Ordering::Relaxed) {
            let lives = lock(&self.process)
                .as_mut()
                .map(|process| process.ended().is_none());
            let is_attached = sched_ext::attached() == self.ops;
            let is_there = is_attached && lives != Some(false);
            // The kernel enabled it once, and may not have counted that yet.
            let reloads = sched_ext::enables_since(self.seq_before).is_some_and(|count| count > 1);
            if !had_gone && (!is_there || reloads) {
                had_gone = true;
                // A link that broke ends the machine elsewhere.
                let _ = link.ask(Request::Dump(DumpMoment::SchedulerGone));
            }
            if is_there {
                away = None;
            } else {
                let away = away.get_or_insert_with(Away::begin);
                if lives != Some(true) || !away.may_come_back(self.ops.as_deref()) {
                    self.load_stop.request(self.reason);
                    return true;
                }
            }
            thread::sleep(LOOK_EVERY);
        }
        had_gone
    }
}

/// A time in which a scheduler whose process lives is not attached.
struct Away {
    until: Instant,
    /// Whether the kernel disabled it in a way that asks for a reload, once that is known.
    reloads: Option<bool>,
}

impl Away {
    fn begin() -> Self {
        Self {
            until: Instant::now() + RELOAD_WITHIN,
            reloads: None,
        }
    }

    fn may_come_back(&mut self, ops: Option<&str>) -> bool {
        // The kernel prints why while it disables it.
        if self.reloads.is_none() && sched_ext::state() != "disabling" {
            let log = checks::read_kernel_log().unwrap_or_default();
            let exits = kernel_words::of_log(&log, ops.unwrap_or_default()).exits;
            self.reloads = Some(exits.last().is_some_and(asks_for_reload));
        }
        self.reloads != Some(false) && Instant::now() < self.until
    }
}

/// The main kernel disables a scheduler without an error only if a CPU goes on- or offline, of which it has not said
/// that it handles that, and asks it to load itself again (`SCX_ECODE_ACT_RESTART`).
fn asks_for_reload(exit: &KernelExit) -> bool {
    !exit.is_error() && !exit.is_from_user_space()
}
