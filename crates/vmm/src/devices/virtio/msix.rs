//! MSI-X: interrupts as messages (PCI Local Bus 3.0, section 6.8.2).

use std::sync::Arc;

use crate::interrupt::MsiSink;

/// Bytes of a vector's entry in the table.
pub(crate) const ENTRY_BYTES: usize = 16;
/// Offset of the vector control word, and its mask bit.
const CONTROL: usize = 12;
const MASKED: u8 = 1;

/// The vectors of one device.
#[derive(Debug)]
pub(crate) struct Msix {
    table: Vec<u8>,
    pending: Vec<bool>,
    enabled: bool,
    all_masked: bool,
    sink: Arc<dyn MsiSink>,
}

impl Msix {
    pub(crate) fn new(vectors: usize, sink: Arc<dyn MsiSink>) -> Self {
        let mut table = vec![0; vectors * ENTRY_BYTES];
        for entry in table.chunks_mut(ENTRY_BYTES) {
            entry[CONTROL] = MASKED;
        }
        Self {
            table,
            pending: vec![false; vectors],
            enabled: false,
            all_masked: false,
            sink,
        }
    }

    /// The two upper bits of the message control word have changed.
    pub(crate) fn control(&mut self, enabled: bool, all_masked: bool) {
        self.enabled = enabled;
        self.all_masked = all_masked;
        self.deliver();
    }

    /// Raises `vector`; kept if it is masked. A vector that there is none of is nothing.
    pub(crate) fn raise(&mut self, vector: u16) {
        if let Some(pending) = self.pending.get_mut(usize::from(vector)) {
            *pending = true;
            self.deliver();
        }
    }

    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        for (byte, held) in data.iter_mut().zip(self.table.iter().skip(at)) {
            *byte = *held;
        }
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        for (byte, held) in data.iter().zip(self.table.iter_mut().skip(at)) {
            *held = *byte;
        }
        self.deliver();
    }

    /// The pending bits.
    pub(crate) fn pending_read(&self, at: usize, data: &mut [u8]) {
        let mut bits = [0; 8];
        for (vector, _) in self.pending.iter().enumerate().filter(|(_, set)| **set) {
            if let Some(byte) = bits.get_mut(vector / 8) {
                *byte |= 1 << (vector % 8);
            }
        }
        for (byte, held) in data.iter_mut().zip(bits.iter().skip(at)) {
            *byte = *held;
        }
    }

    fn deliver(&mut self) {
        if !self.enabled || self.all_masked {
            return;
        }
        for (entry, pending) in self.table.chunks(ENTRY_BYTES).zip(&mut self.pending) {
            if *pending && entry[CONTROL] & MASKED == 0 {
                *pending = false;
                let word = |at: usize| {
                    u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
                };
                let address = u64::from(word(4)) << 32 | u64::from(word(0));
                self.sink.send(address, word(8));
            }
        }
    }
}
