//! Guest RAM, as read from the host while the guest runs.

use std::fmt;
use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Read-only access to a guest's RAM. Clones share it; it stays readable after the machine ended.
///
/// The guest writes while we read: a copy may be torn.
#[derive(Clone)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
}

/// The addresses are not all guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at guest-physical {gpa:#x} are not all RAM of the guest")]
pub struct NotRam {
    /// Where the read began.
    pub gpa: u64,
    /// Its length in bytes.
    pub len: usize,
}

impl GuestRam {
    pub(crate) fn new(memory: GuestMemoryMmap) -> Self {
        Self { memory }
    }

    /// Fills `into` from guest-physical address `gpa` on. On an error, `into` may be partly filled.
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
        let len = into.len();
        self.memory
            .read_slice(into, GuestAddress(gpa))
            .map_err(|_| NotRam { gpa, len })
    }

    /// The guest-physical addresses that are RAM, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.memory
            .iter()
            .map(|region| region.start_addr().0..region.start_addr().0 + region.len())
    }
}

impl fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}
