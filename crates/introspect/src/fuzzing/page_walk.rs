//! Page tables that say anything.

use std::cell::RefCell;

use super::u64_of;
use crate::memory::{PageTables, PagingLevels, PhysError, PhysRead};

/// More than an address of x86-64 has (Intel SDM, volume 3, 4.1.4: MAXPHYADDR).
const PHYS_END: u64 = 1 << 52;

/// Answers the n-th read of an entry with the n-th entry.
struct Entries<'a> {
    entries: RefCell<&'a [u8]>,
    reads: RefCell<u32>,
}

impl PhysRead for Entries<'_> {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        assert!(into.len() == 8 && gpa.is_multiple_of(8) && gpa < PHYS_END);
        *self.reads.borrow_mut() += 1;
        let mut entries = self.entries.borrow_mut();
        let (entry, rest) = entries.split_at_checked(8).ok_or(PhysError { gpa })?;
        into.copy_from_slice(entry);
        *entries = rest;
        Ok(())
    }

    fn end(&self) -> u64 {
        PHYS_END
    }
}

/// A walk for an address, with 4 or 5 levels by the first byte, from a CR3, through the entries that follow.
pub fn page_tables(input: &[u8]) {
    let Some((levels, input)) = input.split_first() else {
        return;
    };
    let (levels, depth) = match levels % 2 {
        0 => (PagingLevels::Four, 4),
        _ => (PagingLevels::Five, 5),
    };
    let (cr3, input) = u64_of(input);
    let (address, entries) = u64_of(input);
    let phys = Entries {
        entries: RefCell::new(entries),
        reads: RefCell::new(0),
    };
    let found = PageTables::new(cr3, levels).translate(&phys, address);
    assert!(phys.reads.into_inner() <= depth);
    match found {
        Ok(found) => {
            assert!([1 << 12, 1 << 21, 1 << 30].contains(&found.page_bytes));
            assert_eq!(found.gpa % found.page_bytes, address % found.page_bytes);
            assert_eq!(
                found.left_in_page,
                found.page_bytes - address % found.page_bytes
            );
            assert!(found.gpa < PHYS_END && levels.is_canonical(address));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
