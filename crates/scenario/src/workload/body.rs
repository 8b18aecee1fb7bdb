//! What a worker is made of, as the harness sees it.

use std::thread::JoinHandle;

use ktstr_report::WorkerExit;

use super::process::Process;

#[derive(Debug)]
pub(super) enum Body {
    Process(Process),
    Thread(JoinHandle<()>),
}

impl Body {
    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<WorkerExit> {
        match self {
            Self::Process(process) => process.look().cloned(),
            Self::Thread(thread) => thread
                .is_finished()
                .then(|| WorkerExit::WaitFailed("its thread ended without a report".to_owned())),
        }
    }
}
