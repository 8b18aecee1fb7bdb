//! What a guest can say to have very much read or rendered, and that it is not.

use ktstr_introspect::bpf::{MapElements, Maps, Programs, Value};
use ktstr_introspect::btf::{Btf, TypeId};
use ktstr_introspect::kernel::{PerCpu, ReadError};

use crate::btf_builder::BtfBuilder;
use crate::fake_bpf::{FakeBpf, MapSpec};

const MIB: usize = 1 << 20;

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Struct(members) => members
            .iter()
            .map(|(name, value)| name.len() + text_bytes(value))
            .sum(),
        Value::Array(elements) => elements.iter().map(text_bytes).sum(),
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

#[test]
fn the_same_bytes_are_not_rendered_without_end() {
    let mut builder = BtfBuilder::new();
    let char_ = builder.int("char", 1, 0);
    let text = builder.array(char_, 1 << 20);
    let wide = builder.int("wide", 1 << 20, 0);
    let members: Vec<_> = (0..20).flat_map(|_| [("t", text), ("w", wide)]).collect();
    let union = builder.union("u", 1 << 20, &members);
    let btf = Btf::parse(&builder.bytes()).unwrap();
    let value = Value::render(&btf, TypeId(union), &[b'x'; MIB]).unwrap();
    assert!(text_bytes(&value) <= 4 * MIB, "{}", text_bytes(&value));
    assert_eq!(value.get("t"), Some(&Value::Text("x".repeat(MIB))));
    let Value::Struct(members) = value else {
        panic!("{value}")
    };
    assert_eq!(members.last(), Some(&("w".to_owned(), Value::Cut)));
}

#[test]
fn names_are_cut_where_the_kernel_cuts_them() {
    let mut builder = BtfBuilder::new();
    let long = "é".repeat(4000);
    let int = builder.int("int", 4, 0);
    let id = builder.structure(&long, 4, &[(&long, int, 0)]);
    let btf = Btf::parse(&builder.bytes()).unwrap();
    let of = btf.get(TypeId(id)).unwrap();
    assert_eq!(of.name(), &long[..512]);
    assert_eq!(of.members().next().unwrap().name, &long[..512]);
    assert_eq!(btf.named(&long[..512]).count(), 1);
}

#[test]
fn values_without_bytes_are_not_read_without_end() {
    let mut bpf = FakeBpf::new();
    let nothing = MapSpec {
        id: 1,
        map_type: 2,
        max_entries: u32::MAX,
        ..MapSpec::default()
    };
    let array = bpf.map("array", nothing, 0);
    bpf.fill_maps(&[array]);
    let kernel = bpf.fake.attach();
    let elements = MapElements::new(&kernel, &PerCpu::read(&kernel).unwrap()).unwrap();
    let map = Maps::new(&kernel).unwrap().all().unwrap().remove(0);
    let read = elements.read(&map, usize::MAX).unwrap();
    assert!(
        read.cut && read.elements.len() < MIB,
        "{}",
        read.elements.len()
    );
}

#[test]
fn a_hash_table_is_not_longer_than_memory() {
    let mut bpf = FakeBpf::new();
    let spec = MapSpec {
        id: 1,
        map_type: 1,
        key_size: 4,
        value_size: 8,
        max_entries: 1 << 31,
        ..MapSpec::default()
    };
    let hash = bpf.hash("hash", spec, &[&[(1, 1)]]);
    bpf.fake
        .kernel
        .write(hash + 104, &(1_u32 << 31).to_le_bytes());
    bpf.fill_maps(&[hash]);
    let kernel = bpf.fake.attach();
    let elements = MapElements::new(&kernel, &PerCpu::read(&kernel).unwrap()).unwrap();
    let map = Maps::new(&kernel).unwrap().all().unwrap().remove(0);
    assert_eq!(
        elements.read(&map, 9).unwrap_err(),
        ReadError::Unstable {
            what: "a hash table"
        }
    );
}

/// A table of 65536 entries, all the same program, each with counters for 128 CPUs.
#[test]
fn counters_are_not_summed_without_end() {
    let mut bpf = FakeBpf::new();
    let stats = bpf.per_cpu([3, 4]);
    let program = bpf.program(5, "enqueue", stats);
    bpf.fill_programs(&[program]);
    let kernel = &mut bpf.fake.kernel;
    let mut slot = program;
    for (shift, entries) in [(0, 64), (6, 64), (12, 16)] {
        let node = kernel.object(8 + 64 * 8);
        kernel.write(node, &[shift]);
        for number in 0..entries {
            kernel.write_u64(node + 8 + number * 8, slot);
        }
        slot = node + 2;
    }
    let table = bpf.fake.address("prog_idr");
    bpf.fake.kernel.write_u64(table + 8, slot);
    let offsets = bpf.fake.address("__per_cpu_offset");
    let area = bpf.fake.areas[0];
    for cpu in 0..128 {
        bpf.fake.kernel.write_u64(offsets + cpu * 8, area);
    }
    let cpus = bpf.fake.address("nr_cpu_ids");
    bpf.fake.kernel.write(cpus, &128_u32.to_le_bytes());
    let kernel = bpf.fake.attach();
    let percpu = PerCpu::read(&kernel).unwrap();
    let error = Programs::new(&kernel, &percpu).unwrap().all().unwrap_err();
    assert!(matches!(error, ReadError::TooMany { .. }), "{error}");
}
