//! The page tables with which a 64-bit kernel is entered.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout::{PAGE_BYTES, PAGE_DIRECTORIES, PAGE_DIRECTORY_COUNT, PDPT, PML4};

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRY_BYTES: u64 = 8;
const ENTRIES: u64 = PAGE_BYTES / ENTRY_BYTES;

/// Maps the first 4 GiB onto themselves: all that the kernel may touch before it has made its own tables
/// (Documentation/arch/x86/boot.rst, 64-bit boot protocol).
pub(crate) fn write_identity_map(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    let put = |at: u64, entry: u64| memory.write_obj(entry, GuestAddress(at));
    put(PML4, PDPT | PRESENT_WRITABLE)?;
    for gib in 0..PAGE_DIRECTORY_COUNT {
        let directory = PAGE_DIRECTORIES + gib * PAGE_BYTES;
        put(PDPT + gib * ENTRY_BYTES, directory | PRESENT_WRITABLE)?;
    }
    let page = |entry| (entry * LARGE_PAGE_BYTES) | PRESENT_WRITABLE | LARGE_PAGE;
    let directories: Vec<u8> = (0..PAGE_DIRECTORY_COUNT * ENTRIES)
        .flat_map(|entry| page(entry).to_le_bytes())
        .collect();
    memory.write_slice(&directories, GuestAddress(PAGE_DIRECTORIES))
}
