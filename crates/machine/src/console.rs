//! What a guest said on a serial port.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bounded::BoundedText;

/// Kept from the start: the boot.
const HEAD_BYTES: usize = 64 << 10;

/// Kept from the end: what went wrong.
const TAIL_BYTES: usize = 256 << 10;

/// The output of one serial port. It keeps the first 64 KiB and the last 256 KiB, and counts what it
/// dropped between them, so that a guest that floods the port can't fill the host's memory.
///
/// Clones share the log. The machine goes on filling it until it ends.
#[derive(Clone)]
pub struct ConsoleLog(Arc<Mutex<BoundedText>>);

impl Default for ConsoleLog {
    fn default() -> Self {
        let log = BoundedText::new(HEAD_BYTES, TAIL_BYTES);
        Self(Arc::new(Mutex::new(log)))
    }
}

impl ConsoleLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that was kept, as [`BoundedText::text`] gives it.
    pub fn contents(&self) -> String {
        self.lock().text()
    }

    /// Bytes that the guest sent so far.
    pub fn seen_bytes(&self) -> u64 {
        self.lock().seen_bytes()
    }

    /// Bytes that were not kept.
    pub fn dropped_bytes(&self) -> u64 {
        self.lock().dropped_bytes()
    }

    /// Appends what the guest sent.
    pub fn push(&self, bytes: &[u8]) {
        self.lock().push(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, BoundedText> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ConsoleLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.lock();
        f.debug_struct("ConsoleLog")
            .field("seen_bytes", &log.seen_bytes())
            .field("dropped_bytes", &log.dropped_bytes())
            .finish_non_exhaustive()
    }
}
