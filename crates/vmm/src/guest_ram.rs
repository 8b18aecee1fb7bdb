//! Guest RAM, as the host reads and writes it while the guest runs.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;

use vm_memory::volatile_memory::Error as OutOfBounds;
use vm_memory::{
    AtomicAccess, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress, VolatileSlice,
};

use crate::memory::{self, MemoryError, NodeMemory, RamRegion};

const WORD_BYTES: usize = size_of::<u64>();

/// Access to a guest's RAM. Clones share it; it stays readable after the machine ended.
///
/// The guest writes while we read: a copy may be torn, except that each naturally aligned 64-bit word of
/// guest memory is read at once.
#[derive(Clone)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
}

/// The bytes to store are not 1, 2, 4 or 8 at their natural alignment in guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{len} bytes at guest-physical {gpa:#x} can't be stored at once: they must be 1, 2, 4 or 8, aligned, in RAM"
)]
pub struct NotStored {
    /// Where they were to be stored.
    pub gpa: u64,
    /// How many they are.
    pub len: usize,
}

/// The address is not guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest-physical {gpa:#x} is not RAM of the guest (in a read of {len} bytes at {start:#x})")]
pub struct NotRam {
    /// First address of the read that is not RAM.
    pub gpa: u64,
    /// Where the read began.
    pub start: u64,
    /// Its length in bytes.
    pub len: usize,
}

impl GuestRam {
    pub(crate) fn new(memory: GuestMemoryMmap) -> Self {
        Self { memory }
    }

    /// Maps the memory of a guest that somebody else runs: `nodes`, in which `regions` lie in ascending order
    /// of address.
    pub fn of_nodes(nodes: &[NodeMemory], regions: &[RamRegion]) -> Result<Self, MemoryError> {
        memory::map(nodes, regions).map(Self::new)
    }

    /// Fills `into` from guest-physical address `gpa` on. On an error, `into` may be partly filled.
    pub fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
        let len = into.len();
        let mut at = gpa;
        let mut rest = into;
        while !rest.is_empty() {
            let not_ram = NotRam {
                gpa: at,
                start: gpa,
                len,
            };
            let region = self.memory.find_region(GuestAddress(at)).ok_or(not_ram)?;
            let offset = at - region.start_addr().0;
            let room = usize::try_from(region.len() - offset).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            let slice = region.get_slice(MemoryRegionAddress(offset), now.len());
            slice
                .map_err(|_| not_ram)
                .and_then(|slice| copy_out(&slice, now).map_err(|_| not_ram))?;
            // Only a read that goes on past the address space can fail here.
            if !later.is_empty() {
                at = at.checked_add(now.len() as u64).ok_or(not_ram)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Writes a number of 1, 2, 4 or 8 bytes, in the guest's byte order, to guest-physical address `gpa`. The guest
    /// sees all of it or nothing.
    pub fn store(&self, gpa: u64, bytes: &[u8]) -> Result<(), NotStored> {
        let (at, order) = (GuestAddress(gpa), Ordering::Relaxed);
        let len = bytes.len();
        let not_stored = NotStored { gpa, len };
        let stored = if let Ok(bytes) = bytes.try_into() {
            self.memory.store(u8::from_le_bytes(bytes), at, order)
        } else if let Ok(bytes) = bytes.try_into() {
            self.memory.store(u16::from_le_bytes(bytes), at, order)
        } else if let Ok(bytes) = bytes.try_into() {
            self.memory.store(u32::from_le_bytes(bytes), at, order)
        } else if let Ok(bytes) = bytes.try_into() {
            self.memory.store(u64::from_le_bytes(bytes), at, order)
        } else {
            return Err(not_stored);
        };
        stored.map_err(|_| not_stored)
    }

    /// The guest-physical addresses that are RAM, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.memory
            .iter()
            .map(|region| region.start_addr().0..region.start_addr().0 + region.len())
    }

    /// Guest RAM in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.memory.iter().map(GuestMemoryRegion::len).sum()
    }

    /// Where this process has it mapped.
    pub fn host_ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.memory.iter().map(|region| {
            let start = region.as_ptr().addr();
            start..start + region.size()
        })
    }
}

/// Copies all of `from`, words at once.
fn copy_out<B: vm_memory::bitmap::BitmapSlice>(
    from: &VolatileSlice<'_, B>,
    into: &mut [u8],
) -> Result<(), OutOfBounds> {
    fn load<T: AtomicAccess>(
        from: &VolatileSlice<'_, impl vm_memory::bitmap::BitmapSlice>,
        at: usize,
    ) -> Result<T, OutOfBounds> {
        from.load(at, Ordering::Relaxed)
    }
    let start = from.ptr_guard().as_ptr().addr();
    let to_word = start.next_multiple_of(WORD_BYTES) - start;
    let (first, rest) = into.split_at_mut(to_word.min(into.len()));
    let (words, last) = rest.as_chunks_mut::<WORD_BYTES>();
    let words_at = first.len();
    let last_at = words_at + words.len() * WORD_BYTES;
    for (at, byte) in first.iter_mut().enumerate() {
        *byte = load(from, at)?;
    }
    for (at, word) in (words_at..).step_by(WORD_BYTES).zip(words) {
        *word = load::<u64>(from, at)?.to_ne_bytes();
    }
    for (at, byte) in (last_at..).zip(last) {
        *byte = load(from, at)?;
    }
    Ok(())
}

impl fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    const PAGE_BYTES: usize = 4096;
    const PAGE: u64 = PAGE_BYTES as u64;

    /// Two nodes of two pages each: `[0, 3)` pages of RAM over both, a hole, and the last page above it.
    fn two_nodes() -> (GuestRam, Vec<u8>) {
        let nodes = [2 * PAGE, 2 * PAGE].map(|len| NodeMemory::new(len).unwrap());
        let bytes: Vec<u8> = (0..4 * PAGE).map(|at| (at % 251) as u8).collect();
        for (node, part) in nodes.iter().zip(bytes.chunks(2 * PAGE_BYTES)) {
            let file = File::from(node.as_fd().try_clone_to_owned().unwrap());
            file.write_all_at(part, 0).unwrap();
        }
        let region = |gpa, pages, node, offset_bytes| RamRegion {
            gpa,
            len_bytes: pages * PAGE,
            node,
            offset_bytes,
        };
        let regions = [
            region(0, 2, 0, 0),
            region(2 * PAGE, 1, 1, 0),
            region(16 * PAGE, 1, 1, PAGE),
        ];
        (GuestRam::of_nodes(&nodes, &regions).unwrap(), bytes)
    }

    proptest! {
        #[test]
        fn a_read_gives_the_bytes_or_names_the_first_that_is_not_ram(
            gpa in 0..20 * PAGE, len in 0..4 * PAGE_BYTES,
        ) {
            let (memory, bytes) = two_nodes();
            let mut into = vec![0xaa; len];
            let is_ram = |gpa: &u64| memory.ranges().any(|range| range.contains(gpa));
            match (gpa..gpa + len as u64).find(|at| !is_ram(at)) {
                None => {
                    memory.read(gpa, &mut into).unwrap();
                    let file_at = |gpa| if gpa >= 16 * PAGE { gpa - 13 * PAGE } else { gpa };
                    for (gpa, byte) in (gpa..).zip(&into) {
                        prop_assert_eq!(*byte, bytes[usize::try_from(file_at(gpa)).unwrap()]);
                    }
                }
                Some(first) => {
                    let error = memory.read(gpa, &mut into).unwrap_err();
                    prop_assert_eq!(error, NotRam { gpa: first, start: gpa, len });
                }
            }
        }
    }

    #[test]
    fn an_aligned_number_is_stored_and_nothing_else() {
        let (memory, before) = two_nodes();
        for len in [1, 2, 4, 8_usize] {
            let number = [0xa5; 8];
            let gpa = 16 * PAGE + 8 * len as u64;
            memory.store(gpa, &number[..len]).unwrap();
            let mut seen = vec![0; len + 2];
            memory.read(gpa - 1, &mut seen).unwrap();
            let at = 3 * PAGE_BYTES + 8 * len;
            assert_eq!(seen[1..=len], number[..len]);
            assert_eq!([seen[0], seen[len + 1]], [before[at - 1], before[at + len]]);
        }
        for (gpa, len) in [
            (0, 0),
            (0, 3),
            (0, 16),
            (1, 2),
            (PAGE - 2, 4),
            (3 * PAGE, 1),
            (17 * PAGE - 4, 8),
            (u64::MAX, 1),
        ] {
            let refused = memory.store(gpa, &[0; 16][..len]);
            assert_eq!(refused, Err(NotStored { gpa, len }));
        }
    }

    #[test]
    fn addresses_at_the_end_of_the_address_space_are_refused() {
        let (memory, _) = two_nodes();
        assert!(memory.read(u64::MAX, &mut [0; 16]).is_err());
        assert!(memory.read(u64::MAX, &mut []).is_ok());
        assert!(memory.read(5 * PAGE, &mut []).is_ok());
        assert_eq!(memory.size_bytes(), 4 * PAGE);
    }

    #[test]
    fn a_region_outside_its_node_is_refused() {
        let region = |node, offset_bytes| RamRegion {
            gpa: 0,
            len_bytes: PAGE,
            node,
            offset_bytes,
        };
        for region in [
            region(0, PAGE),
            region(1, 0),
            region(0, u64::MAX - PAGE + 1),
        ] {
            let node = NodeMemory::new(PAGE).unwrap();
            assert!(
                GuestRam::of_nodes(&[node], &[region]).is_err(),
                "{region:?}"
            );
        }
    }

    #[test]
    fn the_size_of_guest_ram_can_not_be_changed() {
        let node = NodeMemory::new(PAGE).unwrap();
        let file = File::from(node.as_fd().try_clone_to_owned().unwrap());
        assert!(file.set_len(1).is_err());
    }
}
