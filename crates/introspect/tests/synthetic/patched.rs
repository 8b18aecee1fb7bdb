//! A kernel's memory in which an input has words exchanged: pointers stay pointers, so that lists become long, join
//! and go round.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ktstr_introspect::memory::{Dump, PhysError, PhysRead};

use super::fake_kernel::{FIRST_OBJECT, FakeKernel};

const WORD_BYTES: u64 = 8;

/// A kernel's memory as it was made.
pub(crate) struct Original {
    ram: Arc<Dump>,
    /// Where its objects are, guest-physical.
    objects: Range<u64>,
    page_offset: u64,
}

/// The same with words exchanged.
pub(crate) struct Patched {
    ram: Arc<Dump>,
    words: BTreeMap<u64, u64>,
}

impl Original {
    pub(crate) fn new(kernel: &FakeKernel) -> Self {
        Self {
            ram: kernel.phys(),
            objects: FIRST_OBJECT..kernel.next_object,
            page_offset: kernel.placement.page_offset,
        }
    }

    /// For each five bytes of `input` one word is another: the first says what, the next two which, the last two with
    /// what.
    pub(crate) fn patched(&self, input: &[u8]) -> Patched {
        let count = (self.objects.end - self.objects.start) / WORD_BYTES;
        let gpa = |number: u16| self.objects.start + u64::from(number) % count * WORD_BYTES;
        let mut words = BTreeMap::new();
        let (changes, _) = input.as_chunks::<5>();
        for &[what, to_low, to_high, low, high] in changes {
            let to = gpa(u16::from_le_bytes([to_low, to_high]));
            let number = u16::from_le_bytes([low, high]);
            let from = gpa(number);
            let word = match what % 4 {
                0 => self.page_offset + from,
                1 => self.word(from),
                2 => number.into(),
                _ => self.word(to) ^ u64::from(number) << (what / 4 % 7 * 8),
            };
            words.insert(to, word);
        }
        Patched {
            ram: Arc::clone(&self.ram),
            words,
        }
    }

    fn word(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        // All objects are in memory.
        let _ = self.ram.read(gpa, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl PhysRead for Patched {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        self.ram.read(gpa, into)?;
        let end = gpa.saturating_add(into.len() as u64);
        for (&at, word) in self.words.range(gpa.saturating_sub(WORD_BYTES - 1)..end) {
            for (byte_at, byte) in (at..).zip(word.to_le_bytes()) {
                let index = byte_at
                    .checked_sub(gpa)
                    .and_then(|at| usize::try_from(at).ok());
                if let Some(into) = index.and_then(|index| into.get_mut(index)) {
                    *into = byte;
                }
            }
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.ram.end()
    }
}
