//! A PCI function's configuration space.

/// Bytes of a function's configuration space that the ports reach.
const CONFIG_BYTES: usize = 256;

/// A configuration space: what it holds, and which bits of it the guest may change.
#[derive(Clone, Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
    writable: [u8; CONFIG_BYTES],
}

impl ConfigSpace {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; CONFIG_BYTES],
            writable: [0; CONFIG_BYTES],
        }
    }

    /// Sets what is at `at`. What is set are constants, which fit.
    pub(crate) fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Lets the guest change the bits of `mask` at `at`. As [`Self::set`].
    pub(crate) fn allow(&mut self, at: usize, mask: &[u8]) {
        self.writable[at..at + mask.len()].copy_from_slice(mask);
    }

    /// The little-endian word at `at`, which is a constant.
    pub(crate) fn u32_at(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.bytes[at..at + 4]);
        u32::from_le_bytes(word)
    }

    pub(crate) fn read(&self, at: usize, data: &mut [u8]) {
        for (byte, held) in data.iter_mut().zip(self.bytes.iter().skip(at)) {
            *byte = *held;
        }
    }

    pub(crate) fn write(&mut self, at: usize, data: &[u8]) {
        let held = self.bytes.iter_mut().zip(&self.writable).skip(at);
        for (byte, (held, mask)) in data.iter().zip(held) {
            *held = *held & !mask | byte & mask;
        }
    }
}
