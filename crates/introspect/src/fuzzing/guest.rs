//! A guest whose memory is the input, but for the little that makes it a kernel.

use std::sync::{Arc, LazyLock};

use super::synthetic::btf_builder::BtfBuilder;
use super::synthetic::fake_bpf::add_types;
use crate::KernelImage;
use crate::btf::Btf;
use crate::kernel::Kernel;
use crate::memory::{Dump, Evidence, START_KERNEL_MAP};
use crate::symbols::Symbols;

const BANNER: &str = "Linux version 9.9.9-fuzz";
const BANNER_AT: u64 = 0x100;
const PHYS_BASE_AT: u64 = 0x200;
const PAGE_OFFSET_BASE_AT: u64 = 0x208;
/// The page tables: the root and one of 1 GiB pages.
const ROOT_AT: u64 = 0x1000;
const HUGE_TABLE_AT: u64 = 0x2000;
/// From here on memory is the input.
const INPUT_AT: u64 = 0x3000;
const RAM_BYTES: u64 = INPUT_AT + (64 << 10);
const PAGE_OFFSET: u64 = 0xffff_8880_0000_0000;
/// Of the table of 1 GiB pages and of a page of it: present, writable; huge.
const TABLE: u64 = 0x3;
const HUGE_PAGE: u64 = 0x83;
/// Entries of the root for the direct map, `vmalloc`, and the image; and that of the image's table.
const DIRECT_MAP_ENTRY: u64 = 273;
const VMALLOC_ENTRY: u64 = 402;
const IMAGE_ENTRY: u64 = 511;
const IMAGE_HUGE_ENTRY: u64 = 510;

/// The variables of the kernel, all in the input.
const VARIABLES: [(&str, u64); 3] = [
    ("map_idr", INPUT_AT),
    ("nr_cpu_ids", INPUT_AT + 0x30),
    ("__per_cpu_offset", INPUT_AT + 0x38),
];

static IMAGE: LazyLock<Arc<KernelImage>> = LazyLock::new(|| {
    let mut types = BtfBuilder::new();
    add_types(&mut types);
    let fixed = [
        ("_text", 0),
        ("linux_banner", BANNER_AT),
        ("phys_base", PHYS_BASE_AT),
        ("page_offset_base", PAGE_OFFSET_BASE_AT),
        ("init_top_pgt", ROOT_AT),
        ("_end", RAM_BYTES),
    ];
    let symbols: String = fixed
        .iter()
        .chain(&VARIABLES)
        .map(|(name, at)| format!("{:x} D {name}\n", START_KERNEL_MAP + at))
        .collect();
    Arc::new(KernelImage {
        btf: Btf::parse(&types.bytes()).expect("it was written here"),
        symbols: Symbols::from_proc_kallsyms(&symbols).expect("it was written here"),
        banner: BANNER.to_owned(),
    })
});

/// A kernel with `input` as its memory from guest-physical 0x3000 on, up to 64 KiB of it; the rest is zero.
/// There are its variables (map_idr, nr_cpu_ids, __per_cpu_offset), and the page table of its
/// `vmalloc` area.
pub(super) fn kernel(input: &[u8]) -> Kernel {
    let mut ram = Vec::with_capacity(usize::try_from(RAM_BYTES).expect("it is small"));
    ram.resize(usize::try_from(INPUT_AT).expect("it is small"), 0);
    let mut put = |at: u64, bytes: &[u8]| {
        let at = usize::try_from(at).expect("it is small");
        ram[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(BANNER_AT, BANNER.as_bytes());
    put(PAGE_OFFSET_BASE_AT, &PAGE_OFFSET.to_le_bytes());
    for (table, entry, value) in [
        (ROOT_AT, DIRECT_MAP_ENTRY, HUGE_TABLE_AT | TABLE),
        (ROOT_AT, VMALLOC_ENTRY, INPUT_AT | TABLE),
        (ROOT_AT, IMAGE_ENTRY, HUGE_TABLE_AT | TABLE),
        (HUGE_TABLE_AT, 0, HUGE_PAGE),
        (HUGE_TABLE_AT, IMAGE_HUGE_ENTRY, HUGE_PAGE),
    ] {
        put(table + entry * 8, &value.to_le_bytes());
    }
    ram.extend(input);
    ram.resize(usize::try_from(RAM_BYTES).expect("it is small"), 0);
    Kernel::attach(Arc::new(Dump(ram)), IMAGE.clone(), &Evidence::default())
        .expect("what it is known by is not of the input")
}
