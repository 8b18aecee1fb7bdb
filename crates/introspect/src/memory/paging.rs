//! The page tables of x86-64 (Intel SDM volume 3, 4.5; AMD APM volume 2, 5.3).

use super::{PhysError, PhysRead};

const PRESENT: u64 = 1;
/// In an entry that could name a table: this is a page.
const HUGE: u64 = 1 << 7;
/// Bits 12 to 51.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PAGE_SHIFT: u32 = 12;
const INDEX_BITS: u32 = 9;
/// Level of the tables whose entries can be pages of 1 GiB.
const HIGHEST_HUGE_LEVEL: u8 = 3;

/// How deep the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingLevels {
    /// 48-bit addresses.
    Four,
    /// 57-bit addresses (LA57).
    Five,
}

impl PagingLevels {
    fn top(self) -> u8 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// Whether the bits above the translated ones are copies of the highest of them.
    pub fn is_canonical(self, address: u64) -> bool {
        let unused = match self {
            Self::Four => 16,
            Self::Five => 7,
        };
        (address.cast_signed() << unused >> unused).cast_unsigned() == address
    }
}

/// Why an address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PagingError {
    /// In the hole between the two halves.
    #[error("{address:#x} is not a canonical address")]
    NonCanonical {
        /// The virtual address.
        address: u64,
    },
    /// Nothing is mapped there.
    #[error("{address:#x} is not mapped (level {level})")]
    NotPresent {
        /// The virtual address.
        address: u64,
        /// The level of the table whose entry says so; the one with 4 KiB pages is 1.
        level: u8,
    },
    /// An entry that the processor would refuse: what was read is not a page table, or was just being written.
    #[error(
        "the page table entry {entry:#x} of {address:#x} at level {level} has reserved bits set"
    )]
    Reserved {
        /// The virtual address.
        address: u64,
        level: u8,
        entry: u64,
    },
    /// A table outside of memory.
    #[error("the page table of {address:#x} at level {level} is outside of memory")]
    Outside {
        /// The virtual address.
        address: u64,
        level: u8,
        /// Where it should be.
        #[source]
        source: PhysError,
    },
}

/// Where a virtual address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address.
    pub gpa: u64,
    /// From there to the end of the page, in bytes.
    pub left_in_page: u64,
    /// The size of the page.
    pub page_bytes: u64,
}

/// Tables below one root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    root: u64,
    levels: PagingLevels,
}

impl PageTables {
    /// The tables that CR3 names, with or without its low bits.
    pub fn new(cr3: u64, levels: PagingLevels) -> Self {
        Self {
            root: cr3 & ADDRESS,
            levels,
        }
    }

    /// How deep they are.
    pub fn levels(&self) -> PagingLevels {
        self.levels
    }

    /// Where `address` is.
    pub fn translate(
        &self,
        phys: &(impl PhysRead + ?Sized),
        address: u64,
    ) -> Result<Translation, PagingError> {
        if !self.levels.is_canonical(address) {
            return Err(PagingError::NonCanonical { address });
        }
        let mut table = self.root;
        for level in (1..=self.levels.top()).rev() {
            let shift = PAGE_SHIFT + INDEX_BITS * u32::from(level - 1);
            let index = address >> shift & ((1 << INDEX_BITS) - 1);
            let mut entry = [0; 8];
            phys.read(table + index * 8, &mut entry)
                .map_err(|source| PagingError::Outside {
                    address,
                    level,
                    source,
                })?;
            let entry = u64::from_le_bytes(entry);
            if entry & PRESENT == 0 {
                return Err(PagingError::NotPresent { address, level });
            }
            let reserved = PagingError::Reserved {
                address,
                level,
                entry,
            };
            let is_page = level == 1 || entry & HUGE != 0;
            if !is_page {
                table = entry & ADDRESS;
                continue;
            }
            if level > HIGHEST_HUGE_LEVEL {
                return Err(reserved);
            }
            let page_bytes = 1_u64 << shift;
            // Of a huge page, bit 12 is a memory type and the others below its address are reserved.
            let below = (page_bytes - 1) & ADDRESS & !(1 << PAGE_SHIFT);
            if level > 1 && entry & below != 0 {
                return Err(reserved);
            }
            let into = address & (page_bytes - 1);
            return Ok(Translation {
                gpa: (entry & ADDRESS & !(page_bytes - 1)) + into,
                left_in_page: page_bytes - into,
                page_bytes,
            });
        }
        // Level 1 has returned.
        Err(PagingError::NotPresent { address, level: 0 })
    }
}
