//! Maps of every kind that is read, and what reads them all.

use ktstr_introspect::Budget;
use ktstr_introspect::bpf::{Globals, MapElements, Maps, ObjectBtfCache, Programs};
use ktstr_introspect::kernel::{Kernel, PerCpu};

use super::btf_builder::{BtfBuilder, INT_BOOL, INT_SIGNED};
use super::fake_bpf::{FakeBpf, MapSpec};
use super::fake_kernel::MAX_CPUS;

pub(crate) const ARRAY: MapSpec = MapSpec {
    id: 1,
    map_type: 2,
    key_size: 4,
    value_size: 12,
    max_entries: 3,
    btf: 0,
    value_type: 0,
};
pub(crate) const HASH: MapSpec = MapSpec {
    id: 2,
    map_type: 1,
    key_size: 3,
    value_size: 8,
    max_entries: 9,
    ..ARRAY
};

/// The types of an object, and the id of its `.bss`.
pub(crate) fn object() -> (BtfBuilder, u32) {
    let mut btf = BtfBuilder::new();
    let int = btf.int("int", 4, INT_SIGNED);
    let u64_ = btf.int("unsigned long long", 8, 0);
    let u16_ = btf.int("unsigned short", 2, 0);
    let char_ = btf.int("char", 1, INT_SIGNED);
    let bool_ = btf.int("_Bool", 1, INT_BOOL);
    let name = btf.array(char_, 8);
    let shorts = btf.array(u16_, 4);
    let mode = btf.enumeration("mode", &[("OFF", 0), ("ON", 1), ("BROKEN", -1)]);
    let pointer = btf.pointer(int);
    let inner = btf.union("", 8, &[("word", u64_), ("half", int)]);
    let bits = btf.bit_structure("bits", 4, &[("low", int, 0, 3), ("high", int, 3, 5)]);
    let stats = btf.structure(
        "stats",
        40,
        &[
            ("", inner, 0),
            ("shorts", shorts, 8),
            ("bits", bits, 16),
            ("next", pointer, 24),
            ("name", name, 32),
        ],
    );
    let both = btf.array(stats, 2);
    let bss = btf.section(
        ".bss",
        &[
            ("count", int, 0, 4),
            ("mode", mode, 4, 4),
            ("stop", bool_, 8, 1),
            ("both", both, 16, 80),
        ],
    );
    (btf, bss)
}

pub(crate) fn bss_bytes() -> Vec<u8> {
    let mut bytes = vec![0; 96];
    bytes[..4].copy_from_slice(&(-7_i32).to_le_bytes());
    bytes[4..8].copy_from_slice(&(-1_i32).to_le_bytes());
    bytes[8] = 1;
    bytes[16..24].copy_from_slice(&5_u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&[1, 0, 1, 0, 1, 0, 2, 0]);
    bytes[32] = 0b0111_1110;
    bytes[40..48].copy_from_slice(&0xffff_8880_0000_1000_u64.to_le_bytes());
    bytes[48..52].copy_from_slice(b"cpu0");
    bytes[88] = 0xff;
    bytes
}

pub(crate) fn with_bss() -> (FakeBpf, u64) {
    add_bss(FakeBpf::new())
}

fn add_bss(mut bpf: FakeBpf) -> (FakeBpf, u64) {
    let (btf, bss) = object();
    let btf = bpf.object_btf(&btf);
    let spec = MapSpec {
        value_size: 96,
        max_entries: 1,
        btf,
        value_type: bss,
        ..ARRAY
    };
    let map = bpf.array("main_bpf.bss", spec, &[bss_bytes()]);
    let other = bpf.array("array", ARRAY, &[]);
    bpf.fill_maps(&[map, other]);
    (bpf, map)
}

pub(crate) fn busy() -> FakeBpf {
    busy_on(FakeBpf::new())
}

/// Adds maps and a program to a kernel.
pub(crate) fn busy_on(bpf: FakeBpf) -> FakeBpf {
    let (mut bpf, bss) = add_bss(bpf);
    let hash = bpf.hash("hash", HASH, &[&[(1, 1), (2, 2)], &[(3, 3)], &[]]);
    let word = bpf.per_cpu([1, 2]);
    let percpu = bpf.hash(
        "percpu",
        MapSpec {
            map_type: 5,
            ..HASH
        },
        &[&[(1, word)]],
    );
    bpf.fill_maps(&[bss, hash, percpu]);
    let program = bpf.program(5, "enqueue", word);
    bpf.fill_programs(&[program]);
    bpf
}

/// Reads everything that there is, and passes over what can't be read.
pub(crate) fn read_all(kernel: &Kernel) -> Option<usize> {
    let (budget, cache) = (Budget::default(), ObjectBtfCache::default());
    let percpu = PerCpu::read(kernel, MAX_CPUS).ok()?;
    let elements = MapElements::new(kernel, &percpu).ok()?;
    let globals = Globals::new(kernel, &percpu).ok()?;
    let mut read = Programs::new(kernel, &percpu)
        .ok()?
        .all(&budget)
        .map_or(0, |all| all.len());
    for map in Maps::new(kernel).ok()?.all(&budget).unwrap_or_default() {
        read += elements
            .read(&map, 100, &budget)
            .map_or(0, |found| found.elements.len());
        if let Ok(Some(section)) = globals.section(&map, &cache, &budget) {
            read += section
                .read(&budget)
                .map_or(0, |value| value.to_string().len());
            let _ = section.field("both[1].bits", &budget);
        }
    }
    Some(read)
}
