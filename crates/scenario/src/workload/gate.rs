//! The point at which workers wait to be released together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::WorkloadError;
use super::shared::Shared;
use super::syscalls::{futex_wait, futex_wake_all};
use super::telemetry::now_ns;

const CLOSED: u32 = 0;
const OPEN: u32 = 1;

const LOOK_AGAIN_NS: u64 = 100_000_000;

/// Holds workers back until it is opened. Several workloads behind one gate start at the same moment:
/// one system call makes all their workers runnable.
#[derive(Clone, Debug)]
pub struct Gate {
    word: Arc<Shared<AtomicU32>>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Result<Self, WorkloadError> {
        let word = Shared::new(1).map_err(WorkloadError::SharedMemory)?;
        Ok(Self {
            word: Arc::new(word),
        })
    }

    /// Releases all who wait. Once open it stays open.
    pub fn open(&self) {
        self.word[0].store(OPEN, Ordering::Release);
        futex_wake_all(&self.word[0]);
    }

    /// Whether it has been opened.
    pub fn is_open(&self) -> bool {
        self.word[0].load(Ordering::Acquire) == OPEN
    }

    /// Sleeps until it is opened; false if `stop` was set before.
    pub(super) fn pass(&self, stop: &AtomicU32) -> bool {
        while !self.is_open() {
            if stop.load(Ordering::Acquire) != 0 {
                return false;
            }
            futex_wait(&self.word[0], CLOSED, now_ns() + LOOK_AGAIN_NS);
        }
        true
    }
}
