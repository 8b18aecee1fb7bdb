//! What someone writes without end, in bounded memory.

use std::collections::VecDeque;

/// The beginning and the end of a stream. What falls out between them is counted.
#[derive(Clone, Debug)]
pub struct BoundedText {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    max_head_bytes: usize,
    max_tail_bytes: usize,
    seen_bytes: u64,
}

impl BoundedText {
    /// Nothing yet. It keeps the first `max_head_bytes` and the last `max_tail_bytes`.
    pub const fn new(max_head_bytes: usize, max_tail_bytes: usize) -> Self {
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            max_head_bytes,
            max_tail_bytes,
            seen_bytes: 0,
        }
    }

    /// Appends the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.seen_bytes += bytes.len() as u64;
        let room = self.max_head_bytes - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.max_tail_bytes)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.max_tail_bytes);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    /// All that is kept, with a line where bytes were dropped. Bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        let mut bytes = self.head.clone();
        let dropped = self.dropped_bytes();
        if dropped > 0 {
            bytes.extend_from_slice(format!("\n[… {dropped} bytes left out …]\n").as_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Bytes of the stream so far.
    pub const fn seen_bytes(&self) -> u64 {
        self.seen_bytes
    }

    /// Bytes that were not kept.
    pub fn dropped_bytes(&self) -> u64 {
        self.seen_bytes - self.head.len() as u64 - self.tail.len() as u64
    }
}
