//! How a machine ended, and who asked for it: what its handle and its thread share on every engine.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::machine::{End, StopReason};

#[derive(Debug, Default)]
struct State {
    stop: Option<StopReason>,
    end: Option<End>,
}

#[derive(Debug, Default)]
pub(crate) struct EndCell {
    state: Mutex<State>,
    changed: Condvar,
}

impl EndCell {
    /// Notes that the machine is to be ended. The first reason counts.
    pub(crate) fn ask_to_stop(&self, reason: StopReason) {
        self.lock().stop.get_or_insert(reason);
    }

    /// Why the machine is to be ended, once somebody asked for it.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.lock().stop
    }

    /// Tells everyone how the machine ended.
    pub(crate) fn set(&self, end: End) {
        self.lock().end = Some(end);
        self.changed.notify_all();
    }

    /// `None` while the machine runs.
    pub(crate) fn get(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Waits at most `timeout` for the end.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<End> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| state.end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.end.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread of a machine, which calls `on_event` last of all.
#[derive(Debug)]
pub(crate) struct MachineThread(Option<JoinHandle<()>>);

impl MachineThread {
    pub(crate) fn new(thread: JoinHandle<()>) -> Self {
        Self(Some(thread))
    }

    /// Waits for a thread that has told the end. To be called when it has.
    pub(crate) fn join(&mut self) {
        // The callback runs on that thread and may own the machine's handle.
        let is_other = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.0.take().filter(is_other) {
            // A panic there is one of the callback, which has been printed.
            let _ = thread.join();
        }
    }
}
