//! Reading by virtual address, by whichever of three ways leads there.

use std::ops::Range;
use std::sync::Arc;

use super::{
    Evidence, KERNEL_IMAGE_BYTES, Kaslr, KaslrError, PageTables, PagingError, PagingLevels,
    PhysError, PhysRead, START_KERNEL_MAP,
};
use crate::bytes;
use crate::image::KernelImage;

/// Where the direct map begins in a kernel that does not move it (`__PAGE_OFFSET_BASE_L4` and `_L5`).
const PAGE_OFFSET_4_LEVELS: u64 = 0xffff_8880_0000_0000;
/// Addresses of the upper half with four levels begin here; with five, the direct map is below.
const UPPER_HALF_4_LEVELS: u64 = 0xffff_8000_0000_0000;
/// No read of the kernel's structures is longer.
const MAX_READ_BYTES: usize = 64 << 20;

/// Why memory at a virtual address can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Nothing is mapped there.
    #[error("kernel memory at {address:#x} can't be read")]
    Unmapped {
        /// The virtual address.
        address: u64,
        #[source]
        source: PagingError,
    },
    /// It is mapped to what is not memory.
    #[error("kernel memory at {address:#x} can't be read")]
    Outside {
        /// The virtual address.
        address: u64,
        #[source]
        source: PhysError,
    },
    /// Longer than anything that is read: the length is wrong.
    #[error("{len} bytes at {address:#x} are more than are ever read at once")]
    TooLong {
        /// The virtual address.
        address: u64,
        len: u64,
    },
    /// Past the end of the address space.
    #[error("{address:#x} is too near to the end of the address space")]
    Wrapped {
        /// The virtual address.
        address: u64,
    },
}

/// Why a kernel's memory can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// It isn't known where it is.
    #[error(transparent)]
    Kaslr(#[from] KaslrError),
    /// It has not mapped all memory yet, or not where its variable says.
    #[error(
        "the kernel does not map all memory at {page_offset:#x} as its `page_offset_base` says: it has not \
         come far enough in its boot"
    )]
    DirectMap {
        /// Where it should be.
        page_offset: u64,
        /// What its page tables say; nothing if they lead elsewhere.
        #[source]
        source: Option<PagingError>,
    },
}

/// A kernel's memory by virtual address. Clones read the same memory.
#[derive(Clone)]
pub struct KernelMemory {
    phys: Arc<dyn PhysRead + Send + Sync>,
    kaslr: Kaslr,
    /// The image, without what was before or after it.
    image: Range<u64>,
    /// Where all memory is mapped in one piece.
    page_offset: u64,
    phys_end: u64,
    page_tables: PageTables,
}

impl KernelMemory {
    /// Finds the kernel of `image` in memory.
    ///
    /// Until the kernel has set up its memory this fails; it can be tried again.
    pub fn attach(
        phys: Arc<dyn PhysRead + Send + Sync>,
        image: &KernelImage,
        evidence: &Evidence,
    ) -> Result<Self, AttachError> {
        let kaslr = Kaslr::find(&*phys, image, evidence)?;
        let image_gpa = |name: &'static str| {
            let address = image.symbols.find(name);
            address.and_then(|address| kaslr.image_gpa(kaslr.slid(address)))
        };
        let page_offset = image_gpa("page_offset_base").and_then(|gpa| {
            let mut value = [0; 8];
            phys.read(gpa, &mut value).ok()?;
            Some(u64::from_le_bytes(value))
        });
        let page_offset = page_offset.unwrap_or(PAGE_OFFSET_4_LEVELS);
        let levels = if page_offset < UPPER_HALF_4_LEVELS {
            PagingLevels::Five
        } else {
            PagingLevels::Four
        };
        let root = image_gpa("init_top_pgt").ok_or(KaslrError::NoSymbol {
            name: "init_top_pgt",
        })?;
        let slid = |name, default| {
            image
                .symbols
                .find(name)
                .map_or(default, |at| kaslr.slid(at))
        };
        let memory = Self {
            image: slid("_text", START_KERNEL_MAP)
                ..slid("_end", START_KERNEL_MAP + KERNEL_IMAGE_BYTES),
            phys_end: phys.end(),
            phys,
            kaslr,
            page_offset,
            page_tables: PageTables::new(root, levels),
        };
        memory.check_direct_map(root)?;
        Ok(memory)
    }

    /// Whether `gpa` is found by way of the direct map.
    fn check_direct_map(&self, gpa: u64) -> Result<(), AttachError> {
        let page_offset = self.page_offset;
        let error = |source| AttachError::DirectMap {
            page_offset,
            source,
        };
        let address = page_offset.checked_add(gpa).ok_or(error(None))?;
        match self.page_tables.translate(&*self.phys, address) {
            Ok(found) if found.gpa == gpa => Ok(()),
            Ok(_) => Err(error(None)),
            Err(source) => Err(error(Some(source))),
        }
    }

    /// Where the kernel runs.
    pub fn kaslr(&self) -> Kaslr {
        self.kaslr
    }

    /// The kernel's page tables.
    pub fn page_tables(&self) -> PageTables {
        self.page_tables
    }

    /// The end of guest-physical memory.
    pub(crate) fn phys_end(&self) -> u64 {
        self.phys_end
    }

    /// The guest-physical address of `address`, and how many bytes follow it in one piece.
    pub fn translate(&self, address: u64) -> Result<(u64, u64), MemoryError> {
        if let Some(gpa) = address
            .checked_sub(self.page_offset)
            .filter(|&gpa| gpa < self.phys_end)
        {
            return Ok((gpa, self.phys_end - gpa));
        }
        if self.image.contains(&address)
            && let Some(gpa) = self.kaslr.image_gpa(address)
        {
            return Ok((gpa, self.image.end - address));
        }
        let found = self
            .page_tables
            .translate(&*self.phys, address)
            .map_err(|source| MemoryError::Unmapped { address, source })?;
        Ok((found.gpa, found.left_in_page))
    }

    /// Fills `into` from virtual address `address` on.
    pub fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let mut at = address;
        let mut rest = into;
        while !rest.is_empty() {
            let (gpa, room) = self.translate(at)?;
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            self.phys
                .read(gpa, now)
                .map_err(|source| MemoryError::Outside {
                    address: at,
                    source,
                })?;
            if !later.is_empty() {
                at = at
                    .checked_add(now.len() as u64)
                    .ok_or(MemoryError::Wrapped { address })?;
            }
            rest = later;
        }
        Ok(())
    }

    /// The `len` bytes at `address`.
    pub fn bytes(&self, address: u64, len: u64) -> Result<Vec<u8>, MemoryError> {
        let too_long = MemoryError::TooLong { address, len };
        let len = usize::try_from(len).map_err(|_| too_long)?;
        if len > MAX_READ_BYTES {
            return Err(too_long);
        }
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The `N` bytes at `address`.
    pub fn array<const N: usize>(&self, address: u64) -> Result<[u8; N], MemoryError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The 64-bit number or pointer at `address`.
    pub fn u64(&self, address: u64) -> Result<u64, MemoryError> {
        self.array(address).map(u64::from_le_bytes)
    }

    /// The 32-bit number at `address`.
    pub fn u32(&self, address: u64) -> Result<u32, MemoryError> {
        self.array(address).map(u32::from_le_bytes)
    }

    /// The text at `address`, at most `max_bytes` of it. Invalid UTF-8 is replaced.
    pub fn text(&self, address: u64, max_bytes: usize) -> Result<String, MemoryError> {
        const PAGE_BYTES: u64 = 4096;
        let mut text = Vec::new();
        let mut at = address;
        while text.len() < max_bytes && !text.contains(&0) {
            // What follows the text may not be mapped.
            let in_page = usize::try_from(PAGE_BYTES - at % PAGE_BYTES).unwrap_or(1);
            let start = text.len();
            text.resize(start + in_page.min(max_bytes - start), 0);
            self.read(at, &mut text[start..])?;
            at = at
                .checked_add((text.len() - start) as u64)
                .ok_or(MemoryError::Wrapped { address })?;
        }
        Ok(bytes::text(&text))
    }
}

impl std::fmt::Debug for KernelMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelMemory")
            .field("kaslr", &self.kaslr)
            .field("page_offset", &self.page_offset)
            .field("page_tables", &self.page_tables)
            .finish_non_exhaustive()
    }
}
