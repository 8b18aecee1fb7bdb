//! A kernel's memory, made up: page tables, an image with variables, and objects in the direct map.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ktstr_introspect::KernelImage;
use ktstr_introspect::btf::Btf;
use ktstr_introspect::memory::{
    Dump, Evidence, KernelMemory, PagingLevels, PhysError, PhysRead, START_KERNEL_MAP,
};
use ktstr_introspect::symbols::Symbols;

use super::btf_builder::BtfBuilder;

/// More than any made-up machine is declared with.
pub(crate) const MAX_CPUS: u32 = 256;
pub(crate) const PAGE: u64 = 4096;
pub(crate) const HUGE_PAGE: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
pub(crate) const PRESENT: u64 = 1;
pub(crate) const HUGE: u64 = 1 << 7;
const RAM: u64 = 12 << 20;
pub(crate) const FIRST_OBJECT: u64 = 9 << 20;
const LINK_TEXT: u64 = START_KERNEL_MAP + (16 << 20);
const IMAGE_BYTES: u64 = 4 << 20;
pub(crate) const BANNER: &str = "Linux version 9.9.9-fake";

/// Where it is put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pub(crate) levels: PagingLevels,
    pub(crate) slide: u64,
    pub(crate) text_gpa: u64,
    pub(crate) page_offset: u64,
}

pub(crate) const PLAIN: Placement = Placement {
    levels: PagingLevels::Four,
    slide: 0,
    text_gpa: 4 << 20,
    page_offset: 0xffff_8880_0000_0000,
};

/// As KASLR may do it; the text is physically below where its virtual distance would have it.
pub(crate) const MOVED: Placement = Placement {
    levels: PagingLevels::Five,
    slide: 0x1220_0000,
    text_gpa: 2 << 20,
    page_offset: 0xff3c_5da6_c000_0000,
};

pub(crate) struct FakeKernel {
    pub(crate) ram: Vec<u8>,
    pub(crate) placement: Placement,
    symbols: String,
    next_symbol: u64,
    next_page: u64,
    pub(crate) next_object: u64,
    pub(crate) root: u64,
}

impl FakeKernel {
    pub(crate) fn new(placement: Placement) -> Self {
        let mut kernel = Self {
            ram: vec![0; usize::try_from(RAM).unwrap()],
            placement,
            symbols: String::new(),
            next_symbol: LINK_TEXT,
            // Tables and objects are above both places of the image.
            next_page: 8 << 20,
            next_object: FIRST_OBJECT,
            root: 0,
        };
        kernel.symbol("_text", PAGE);
        let banner = kernel.symbol("linux_banner", 64);
        kernel.write(banner, BANNER.as_bytes());
        let phys_base = kernel.symbol("phys_base", 8);
        let text = LINK_TEXT + placement.slide;
        let distance = placement.text_gpa.wrapping_sub(text - START_KERNEL_MAP);
        kernel.write_u64(phys_base, distance);
        let page_offset = kernel.symbol("page_offset_base", 8);
        kernel.write_u64(page_offset, placement.page_offset);
        kernel.next_symbol = kernel.next_symbol.next_multiple_of(PAGE);
        let root = kernel.symbol("init_top_pgt", PAGE);
        kernel.root = kernel.gpa(root);
        for at in (0..IMAGE_BYTES).step_by(usize::try_from(HUGE_PAGE).unwrap()) {
            kernel.map(text + at, placement.text_gpa + at, HUGE_PAGE);
        }
        kernel.map(placement.page_offset, 0, GIB);
        kernel
    }

    /// A variable of the image; its address in the running kernel.
    pub(crate) fn symbol(&mut self, name: &str, bytes: u64) -> u64 {
        let at = self.next_symbol.next_multiple_of(64);
        assert!(at + bytes < LINK_TEXT + IMAGE_BYTES);
        self.next_symbol = at + bytes;
        self.name(name, at);
        at + self.placement.slide
    }

    /// Names an address as it is linked.
    pub(crate) fn name(&mut self, name: &str, at: u64) {
        self.symbols += &format!("{at:016x} D {name}\n");
    }

    /// An object in the direct map.
    pub(crate) fn object(&mut self, bytes: u64) -> u64 {
        let at = self.next_object.next_multiple_of(64);
        self.next_object = at + bytes;
        assert!(self.next_object <= RAM);
        self.placement.page_offset + at
    }

    /// Where the kernel's own mapping has `address`.
    pub(crate) fn gpa(&self, address: u64) -> u64 {
        let Placement {
            slide,
            text_gpa,
            page_offset,
            ..
        } = self.placement;
        let text = LINK_TEXT + slide;
        if (text..text + IMAGE_BYTES).contains(&address) {
            address - text + text_gpa
        } else {
            address - page_offset
        }
    }

    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        self.write_phys(self.gpa(address), bytes);
    }

    pub(crate) fn write_u64(&mut self, address: u64, value: u64) {
        self.write(address, &value.to_le_bytes());
    }

    pub(crate) fn write_phys(&mut self, gpa: u64, bytes: &[u8]) {
        let at = usize::try_from(gpa).unwrap();
        self.ram[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn read_phys(&self, gpa: u64) -> u64 {
        let at = usize::try_from(gpa).unwrap();
        u64::from_le_bytes(self.ram[at..at + 8].try_into().unwrap())
    }

    pub(crate) fn page(&mut self) -> u64 {
        self.next_page += PAGE;
        self.next_page - PAGE
    }

    /// Where the entry for `address` at `level` is; tables on the way are made.
    pub(crate) fn entry(&mut self, address: u64, level: u32) -> u64 {
        let top = match self.placement.levels {
            PagingLevels::Four => 4,
            PagingLevels::Five => 5,
        };
        let mut table = self.root;
        for at_level in (level..=top).rev() {
            let index = (address >> (12 + 9 * (at_level - 1))) & 511;
            let entry = table + index * 8;
            if at_level == level {
                return entry;
            }
            if self.read_phys(entry) == 0 {
                let next = self.page() | PRESENT;
                self.write_phys(entry, &next.to_le_bytes());
            }
            table = self.read_phys(entry) & !0xfff;
        }
        unreachable!()
    }

    /// Maps one page.
    pub(crate) fn map(&mut self, address: u64, gpa: u64, page_bytes: u64) {
        let (level, flags) = match page_bytes {
            PAGE => (1, PRESENT),
            HUGE_PAGE => (2, PRESENT | HUGE),
            _ => (3, PRESENT | HUGE),
        };
        let entry = self.entry(address, level);
        self.write_phys(entry, &(gpa | flags | 1 << 63).to_le_bytes());
    }

    pub(crate) fn image(&self, btf: &BtfBuilder) -> KernelImage {
        KernelImage {
            btf: Btf::parse(&btf.bytes()).unwrap(),
            symbols: Symbols::from_proc_kallsyms(&self.symbols).unwrap(),
            banner: BANNER.to_owned(),
        }
    }

    pub(crate) fn phys(&self) -> Arc<Dump> {
        Arc::new(Dump(self.ram.clone()))
    }

    pub(crate) fn attach(&self) -> KernelMemory {
        let image = self.image(&BtfBuilder::new());
        KernelMemory::attach(self.phys(), &image, &Evidence::default()).unwrap()
    }
}

/// Memory in which reads find bytes changed.
pub(crate) struct Noisy {
    pub(crate) ram: Dump,
    pub(crate) seed: AtomicU64,
    /// One of so many reads is changed.
    pub(crate) rarity: u64,
    /// So many reads are right at first.
    pub(crate) quiet: AtomicU64,
}

impl PhysRead for Noisy {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        self.ram.read(gpa, into)?;
        let left = self.quiet.load(Ordering::Relaxed);
        if left > 0 {
            self.quiet.store(left - 1, Ordering::Relaxed);
            return Ok(());
        }
        let seed = self.seed.fetch_add(STEP, Ordering::Relaxed);
        // SplitMix64.
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if mixed.is_multiple_of(self.rarity) && !into.is_empty() {
            let at = usize::try_from((mixed >> 8) % into.len() as u64).unwrap();
            into[at] ^= u8::try_from(mixed >> 56).unwrap();
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.ram.end()
    }
}
