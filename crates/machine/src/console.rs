//! What a guest said on a serial port, in bounded memory, and the kernel panic in it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes kept from the start: the boot.
const HEAD_BYTES: usize = 64 << 10;

/// Bytes kept from the end: what went wrong.
const TAIL_BYTES: usize = 256 << 10;

/// The output of one serial port. It keeps the first 64 KiB and the last 256 KiB, and counts what it
/// dropped between them, so that a guest that floods the port can't fill the host's memory.
///
/// Clones share the log. The machine goes on filling it until it ends.
#[derive(Clone, Default)]
pub struct ConsoleLog {
    inner: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    seen: u64,
}

impl ConsoleLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that was kept. A line of our own stands where bytes were dropped; bytes that are not UTF-8 are
    /// replaced.
    pub fn contents(&self) -> String {
        let log = self.lock();
        let mut bytes = log.head.clone();
        let dropped = log.dropped();
        if dropped > 0 {
            bytes.extend_from_slice(format!("\n[... {dropped} bytes dropped ...]\n").as_bytes());
        }
        bytes.extend(&log.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last `lines` lines, without the line ends.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let contents = self.contents();
        let mut last: Vec<_> = contents
            .lines()
            .rev()
            .take(lines)
            .map(|line| line.trim_end_matches('\r').to_owned())
            .collect();
        last.reverse();
        last
    }

    /// Bytes that the guest sent so far.
    pub fn bytes_seen(&self) -> u64 {
        self.lock().seen
    }

    /// Bytes that were not kept.
    pub fn bytes_dropped(&self) -> u64 {
        self.lock().dropped()
    }

    /// Appends what the guest sent.
    pub fn push(&self, bytes: &[u8]) {
        let mut log = self.lock();
        log.seen += bytes.len() as u64;
        let room = HEAD_BYTES - log.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        log.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(TAIL_BYTES)..];
        let excess = (log.tail.len() + rest.len()).saturating_sub(TAIL_BYTES);
        log.tail.drain(..excess);
        log.tail.extend(rest);
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn dropped(&self) -> u64 {
        self.seen - self.head.len() as u64 - self.tail.len() as u64
    }
}

impl fmt::Debug for ConsoleLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.lock();
        f.debug_struct("ConsoleLog")
            .field("seen", &log.seen)
            .field("dropped", &log.dropped())
            .finish_non_exhaustive()
    }
}
