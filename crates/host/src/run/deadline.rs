//! The time by which a machine must be done, kept by a thread of its own: nothing that the driver does, and
//! nothing that a guest sends, can delay it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Calls back when its time comes, unless that is put off before. Dropping it calls nothing off that has begun.
#[derive(Debug)]
pub(crate) struct Deadline {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    at: Option<Instant>,
    /// Nobody needs the thread any more.
    over: bool,
}

impl Deadline {
    /// `on_deadline` must return at once.
    pub(crate) fn start(
        at: Option<Instant>,
        on_deadline: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().at = at;
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("ktstr-deadline".to_owned())
                .spawn(move || {
                    if shared.wait() {
                        on_deadline();
                    }
                })?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Another time, or none. Too late once the time has come.
    pub(crate) fn set(&self, at: Option<Instant>) {
        let mut state = self.shared.lock();
        if !state.has_come() {
            state.at = at;
            self.shared.changed.notify_all();
        }
    }

    /// Cancels it; `false` if the time has come.
    pub(crate) fn call_off(&self) -> bool {
        self.set(None);
        self.at().is_none()
    }

    /// When it is.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.shared.lock().at
    }

    /// Whether the time has come.
    pub(crate) fn has_come(&self) -> bool {
        self.shared.lock().has_come()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed.
            let _ = thread.join();
        }
    }
}

impl State {
    fn has_come(&self) -> bool {
        self.at.is_some_and(|at| Instant::now() >= at)
    }
}

impl Shared {
    /// Waits for the time; `false` if nobody waits for it any more.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.has_come() {
                return true;
            }
            if state.over {
                return false;
            }
            let left = state
                .at
                .map(|at| at.saturating_duration_since(Instant::now()));
            state = match left {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATER: Duration = Duration::from_secs(3600);

    #[test]
    fn it_calls_once_when_the_time_has_come_and_can_not_be_put_off_then() {
        let (called, calls) = channel();
        let deadline = Deadline::start(Some(Instant::now() + LATER), move || {
            called.send(Instant::now()).unwrap();
        })
        .unwrap();
        assert!(!deadline.has_come());
        let at = Instant::now() + SOON;
        deadline.set(Some(at));
        assert!(calls.recv_timeout(Duration::from_secs(60)).unwrap() >= at);
        deadline.set(None);
        assert!(deadline.has_come());
        assert_eq!(deadline.at(), Some(at));
        assert!(calls.recv_timeout(SOON).is_err());
    }

    #[test]
    fn one_that_is_put_off_or_dropped_calls_nothing() {
        let (called, calls) = channel();
        let deadline = Deadline::start(Some(Instant::now() + LATER), move || {
            called.send(()).unwrap();
        })
        .unwrap();
        deadline.set(None);
        assert!(!deadline.has_come());
        drop(deadline);
        assert!(calls.recv().is_err());
    }
}
