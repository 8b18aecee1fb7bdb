//! The page tables with which a 64-bit kernel is entered.

use object::pod::bytes_of_slice;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout::{PAGE_BYTES, PAGE_DIRECTORIES, PAGE_DIRECTORY_COUNT, PDPT, PML4};

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRIES: u64 = PAGE_BYTES / size_of::<u64>() as u64;

/// All tables as they lie from [`PML4`] on: a page of it, of the PDPT, and of each directory.
#[expect(clippy::cast_possible_truncation, reason = "3072")]
static TABLES: [u64; ((2 + PAGE_DIRECTORY_COUNT) * ENTRIES) as usize] = {
    const _: () = assert!(PDPT == PML4 + PAGE_BYTES && PAGE_DIRECTORIES == PDPT + PAGE_BYTES);
    let (pdpt, directories) = (ENTRIES as usize, 2 * ENTRIES as usize);
    let mut tables = [0; _];
    tables[0] = PDPT | PRESENT_WRITABLE;
    let mut gib = 0;
    while gib < PAGE_DIRECTORY_COUNT {
        tables[pdpt + gib as usize] = (PAGE_DIRECTORIES + gib * PAGE_BYTES) | PRESENT_WRITABLE;
        gib += 1;
    }
    let mut page = 0;
    while page < PAGE_DIRECTORY_COUNT * ENTRIES {
        tables[directories + page as usize] =
            (page * LARGE_PAGE_BYTES) | PRESENT_WRITABLE | LARGE_PAGE;
        page += 1;
    }
    tables
};

/// Maps the first 4 GiB onto themselves: all that the kernel may touch before it has made its own tables
/// (Documentation/arch/x86/boot.rst, 64-bit boot protocol).
pub(crate) fn write_identity_map(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_slice(bytes_of_slice(&TABLES), GuestAddress(PML4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the tables map `address` to.
    fn translate(memory: &GuestMemoryMmap, address: u64) -> Option<u64> {
        let entry = |table: u64, shift: u32| -> Option<u64> {
            let index = address >> shift & (ENTRIES - 1);
            let entry = GuestAddress(table + index * size_of::<u64>() as u64);
            let entry: u64 = memory.read_obj(entry).unwrap();
            (entry & PRESENT_WRITABLE == PRESENT_WRITABLE).then_some(entry & !(PAGE_BYTES - 1))
        };
        let page = entry(entry(entry(PML4, 39)?, 30)?, 21)?;
        Some(page | address & (LARGE_PAGE_BYTES - 1))
    }

    #[test]
    fn the_first_4_gib_are_mapped_onto_themselves() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_identity_map(&memory).unwrap();
        for address in (0..4 << 30).step_by(0x1f_f123) {
            assert_eq!(translate(&memory, address), Some(address));
        }
        assert_eq!(translate(&memory, 4 << 30), None);
    }
}
