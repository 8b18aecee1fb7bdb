//! Maps, programs and values.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ktstr_introspect::Budget;
use ktstr_introspect::bpf::{
    ElementValue, FieldKind, GlobalError, Globals, Map, MapElements, Maps, ObjectBtfCache,
    Programs, Value, WriteError,
};
use ktstr_introspect::btf::{Btf, Kind, TypeId};
use ktstr_introspect::kernel::{Kernel, PerCpu, ReadError};
use ktstr_introspect::memory::{Dump, PhysError, PhysWrite};
use proptest::prelude::*;

use crate::busy_bpf::{ARRAY, HASH, bss_bytes, busy, object, read_all, with_bss};
use crate::fake_bpf::{ARRAY_VALUES, FakeBpf, MapSpec};
use crate::fake_kernel::{MAX_CPUS, Noisy};

fn elements(kernel: &Kernel) -> MapElements {
    MapElements::new(kernel, &PerCpu::read(kernel, MAX_CPUS).unwrap()).unwrap()
}

fn maps(kernel: &Kernel) -> Vec<Map> {
    Maps::new(kernel).unwrap().all(&Budget::default()).unwrap()
}

#[test]
fn maps_and_programs_are_found_from_the_tables_of_ids() {
    let mut bpf = FakeBpf::new();
    let array = bpf.map("numbers", ARRAY, 0);
    let hash = bpf.map("a_name_of_15_by", HASH, 0);
    let other = bpf.map(
        "",
        MapSpec {
            id: 7,
            map_type: 99,
            ..HASH
        },
        0,
    );
    bpf.fill_maps(&[array, hash, other]);
    let stats = bpf.per_cpu([3, 4]);
    let programs = [bpf.program(5, "enqueue", stats), bpf.program(6, "exit", 0)];
    bpf.fill_programs(&programs);
    let kernel = bpf.fake.attach();
    let maps = maps(&kernel);
    let found: Vec<_> = maps
        .iter()
        .map(|map| (map.id, map.name.as_str(), map.type_name.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "numbers", "array"),
            (2, "a_name_of_15_by", "hash"),
            (7, "", "99")
        ]
    );
    assert_eq!(
        (maps[0].address, maps[0].key_size, maps[0].value_size),
        (array, 4, 12)
    );
    assert_eq!((maps[1].max_entries, maps[1].flags), (9, 0));
    let error = elements(&kernel)
        .read(&maps[2], 1, &Budget::default())
        .unwrap_err();
    assert!(matches!(error, ReadError::Unsupported { .. }), "{error}");

    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let programs = Programs::new(&kernel, &percpu)
        .unwrap()
        .all(&Budget::default())
        .unwrap();
    let found: Vec<_> = programs
        .iter()
        .map(|program| (program.id, program.name.as_str(), program.stats.run_count))
        .collect();
    assert_eq!(found, [(5, "enqueue", 7), (6, "exit", 0)]);
    assert_eq!(
        (programs[0].prog_type, programs[0].verified_insns),
        (27, None)
    );
    assert_eq!(programs[0].code, 0x1000..0x1080);

    // A table may also be empty, or be one object without a node.
    bpf.fake.kernel.write_u64(bpf.map_idr + 8, 0);
    assert_eq!(self::maps(&bpf.fake.attach()), []);
    bpf.fake.kernel.write_u64(bpf.map_idr + 8, hash);
    assert_eq!(self::maps(&bpf.fake.attach())[0].id, 2);
}

#[test]
fn a_table_of_ids_goes_down_only() {
    let mut bpf = FakeBpf::new();
    let map = bpf.map("numbers", ARRAY, 0);
    let [top, first, second] = bpf.fill_maps(&[map]);
    // In a circle, or to a node that is not below.
    for node in [top, second] {
        bpf.fake.kernel.write_u64(first + 8, node + 2);
        let error = Maps::new(&bpf.fake.attach())
            .unwrap()
            .all(&Budget::default())
            .unwrap_err();
        assert_eq!(
            error,
            ReadError::Unstable {
                what: "a table of ids"
            }
        );
    }
}

#[test]
fn arrays_and_hash_tables_are_read() {
    let mut bpf = FakeBpf::new();
    let values: Vec<Vec<u8>> = (0..3).map(|number| vec![number; 12]).collect();
    let array = bpf.array("array", ARRAY, &values);
    let buckets: [&[_]; 4] = [&[], &[(0x0102_0304, 11), (5, 12)], &[], &[(6, 13)]];
    let hash = bpf.hash("hash", HASH, &buckets);
    let per_cpu = [bpf.per_cpu([21, 22]), bpf.per_cpu([31, 32])];
    let spec = MapSpec {
        map_type: 6,
        value_size: 8,
        max_entries: 2,
        ..ARRAY
    };
    let words: Vec<Vec<u8>> = per_cpu.iter().map(|at| at.to_le_bytes().to_vec()).collect();
    let percpu_array = bpf.array("percpu_array", spec, &words);
    let spec = MapSpec {
        map_type: 5,
        ..HASH
    };
    let percpu_hash = bpf.hash("percpu_hash", spec, &[&[(1, per_cpu[0])]]);
    bpf.fill_maps(&[array, hash, percpu_array, percpu_hash]);
    let kernel = bpf.fake.attach();
    let elements = elements(&kernel);
    let [array, hash, percpu_array, percpu_hash] = maps(&kernel).try_into().unwrap();

    let read = elements.read(&array, 2, &Budget::default()).unwrap();
    assert!(read.cut);
    assert_eq!(read.elements[1].key, [1, 0, 0, 0]);
    assert_eq!(read.elements[1].value, ElementValue::Single(vec![1; 12]));
    assert!(!elements.read(&array, 3, &Budget::default()).unwrap().cut);

    let read = elements.read(&hash, 10, &Budget::default()).unwrap();
    let keys: Vec<&[u8]> = read
        .elements
        .iter()
        .map(|element| &element.key[..])
        .collect();
    assert_eq!(keys, [[4, 3, 2], [5, 0, 0], [6, 0, 0]]);
    assert_eq!(
        read.elements[1].value,
        ElementValue::Single(12_u64.to_le_bytes().into())
    );
    assert!(!read.cut);
    for limit in 0..3 {
        let cut = elements.read(&hash, limit, &Budget::default()).unwrap();
        assert_eq!((cut.elements.len(), cut.cut), (limit, true));
    }

    let words = |value: &ElementValue| -> Vec<u8> {
        let ElementValue::PerCpu(values) = value else {
            panic!("{value:?}")
        };
        values.iter().map(|value| value[0]).collect()
    };
    let read = elements.read(&percpu_array, 9, &Budget::default()).unwrap();
    let values: Vec<_> = read
        .elements
        .iter()
        .map(|element| words(&element.value))
        .collect();
    assert_eq!(values, [[21, 22], [31, 32]]);
    let read = elements.read(&percpu_hash, 9, &Budget::default()).unwrap();
    assert_eq!(words(&read.elements[0].value), [21, 22]);
}

#[test]
fn a_chain_that_ends_in_another_bucket_is_unstable() {
    let mut bpf = FakeBpf::new();
    let hash = bpf.hash("hash", HASH, &[&[(1, 1)], &[(2, 2)]]);
    bpf.fill_maps(&[hash]);
    let table = bpf.fake.kernel.gpa(hash + 96);
    let table = bpf.fake.kernel.read_phys(table);
    // The first bucket's only element now goes on to the second's.
    let first = bpf.fake.kernel.read_phys(bpf.fake.kernel.gpa(table));
    let second = bpf.fake.kernel.read_phys(bpf.fake.kernel.gpa(table + 16));
    bpf.fake.kernel.write_u64(first, second);
    let kernel = bpf.fake.attach();
    let error = elements(&kernel)
        .read(&maps(&kernel)[0], 100, &Budget::default())
        .unwrap_err();
    assert_eq!(
        error,
        ReadError::Unstable {
            what: "a hash table"
        }
    );
    // One that leads to itself ends too.
    bpf.fake.kernel.write_u64(first, first);
    let kernel = bpf.fake.attach();
    let read = elements(&kernel)
        .read(&maps(&kernel)[0], 100, &Budget::default())
        .unwrap();
    assert!(read.cut);
}

#[test]
fn values_are_rendered_field_by_field() {
    let (btf, bss) = object();
    let btf = Btf::parse(&btf.bytes()).unwrap();
    let value = Value::render(&btf, TypeId(bss), &bss_bytes(), &Budget::default()).unwrap();
    let first = "{ word: 5, half: 5, shorts: [1 × 3, 2], bits: { low: -2, high: 15 }, \
                 next: 0xffff888000001000, name: \"cpu0\" }";
    // What is not a text is not shown as one.
    let second = "{ word: 0, half: 0, shorts: [0 × 4], bits: { low: 0, high: 0 }, next: 0x0, \
                  name: [-1, 0 × 7] }";
    assert_eq!(
        value.to_string(),
        format!("{{ count: -7, mode: BROKEN, stop: true, both: [{first}, {second}] }}")
    );
    let lines = format!("{value:#}");
    assert!(
        lines.starts_with(
            "{\n  count: -7\n  mode: BROKEN\n  stop: true\n  both: [\n    {\n      word: 5\n"
        ),
        "{lines}"
    );
    assert!(
        lines.contains("\n      shorts: [1 × 3, 2]\n      bits: {\n        low: -2\n"),
        "{lines}"
    );
    assert!(lines.ends_with("\n    }\n  ]\n}"), "{lines}");

    assert_eq!(value.get("both[0].shorts[3]"), Some(&Value::Uint(2)));
    assert_eq!(
        value.get("both[0].bits.low").unwrap().as_integer(),
        Some(-2)
    );
    assert_eq!(value.get("stop").unwrap().as_integer(), Some(1));
    for path in ["gone", "both[2]", "both.word", "count[0]", "count.x"] {
        assert_eq!(value.get(path), None, "{path}");
    }

    // Bytes that end too early, and a bool and an enumeration with values that they have no word for.
    let short = Value::render(&btf, TypeId(bss), &bss_bytes()[..6], &Budget::default()).unwrap();
    assert_eq!(
        short.to_string(),
        "{ count: -7, mode: …, stop: …, both: … }"
    );
    let mode = btf.find(Kind::Enum, "mode").unwrap().id();
    assert_eq!(
        Value::render(&btf, mode, &[9, 0, 0, 0], &Budget::default())
            .unwrap()
            .to_string(),
        "9"
    );
    let bool_ = btf.find(Kind::Int, "_Bool").unwrap().id();
    assert_eq!(
        Value::render(&btf, bool_, &[2], &Budget::default()).unwrap(),
        Value::Uint(2)
    );
}

/// Guest memory that can be written too.
struct Written(RefCell<Vec<(u64, Vec<u8>)>>);

impl PhysWrite for Written {
    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), PhysError> {
        self.0.borrow_mut().push((gpa, bytes.to_vec()));
        Ok(())
    }
}

#[test]
fn global_variables_are_read_and_found_by_path() {
    let (bpf, map) = with_bss();
    let kernel = bpf.fake.attach();
    let globals = Globals::new(&kernel, &PerCpu::read(&kernel, MAX_CPUS).unwrap()).unwrap();
    let maps = maps(&kernel);
    assert!(
        globals
            .section(&maps[1], &ObjectBtfCache::default(), &Budget::default())
            .unwrap()
            .is_none()
    );
    let section = globals
        .section(&maps[0], &ObjectBtfCache::default(), &Budget::default())
        .unwrap()
        .unwrap();
    assert_eq!(section.name, ".bss");
    assert_eq!(
        section.read(&Budget::default()).unwrap().get("count"),
        Some(&Value::Int(-7))
    );

    let field = section
        .field("both[1].shorts[2]", &Budget::default())
        .unwrap();
    assert_eq!((field.size, field.kind), (2, FieldKind::Unsigned));
    assert_eq!(field.address, map + ARRAY_VALUES + 16 + 40 + 8 + 4);
    let read = |path| {
        section
            .field(path, &Budget::default())
            .unwrap()
            .read(kernel.memory())
            .unwrap()
    };
    assert_eq!(
        (
            read("count"),
            read("mode"),
            read("stop"),
            read("both[0].word")
        ),
        (-7, -1, 1, 5)
    );
    assert_eq!(
        section.field("stop", &Budget::default()).unwrap().kind,
        FieldKind::Bool
    );
}

#[test]
fn a_path_that_leads_to_no_number_is_refused() {
    let (bpf, _) = with_bss();
    let kernel = bpf.fake.attach();
    let globals = Globals::new(&kernel, &PerCpu::read(&kernel, MAX_CPUS).unwrap()).unwrap();
    let maps = maps(&kernel);
    let section = globals
        .section(&maps[0], &ObjectBtfCache::default(), &Budget::default())
        .unwrap()
        .unwrap();
    for path in [
        "cuont",
        "both[2].word",
        "both[0].gone",
        "",
        "both[",
        "count.x",
        "both[-1]",
    ] {
        let error = section.field(path, &Budget::default()).unwrap_err();
        assert!(
            matches!(error, GlobalError::NotFound { .. }),
            "{path}: {error}"
        );
    }
    assert_eq!(
        section
            .field("cuont", &Budget::default())
            .unwrap_err()
            .to_string(),
        "section `.bss` has no `cuont`; its variables are: count, mode, stop, both"
    );
    for path in [
        "both",
        "both[0]",
        "both[0].bits.low",
        "both[0].next",
        "both[0].name",
    ] {
        let error = section.field(path, &Budget::default()).unwrap_err();
        assert!(
            matches!(error, GlobalError::NotANumber { .. }),
            "{path}: {error}"
        );
    }
}

#[test]
fn global_variables_are_written_where_they_are_if_it_fits() {
    let (bpf, map) = with_bss();
    let kernel = bpf.fake.attach();
    let globals = Globals::new(&kernel, &PerCpu::read(&kernel, MAX_CPUS).unwrap()).unwrap();
    let section = globals
        .section(
            &maps(&kernel)[0],
            &ObjectBtfCache::default(),
            &Budget::default(),
        )
        .unwrap()
        .unwrap();
    let written = Written(RefCell::default());
    let write = |path: &str, value| {
        section
            .field(path, &Budget::default())
            .unwrap()
            .write(kernel.memory(), &written, value)
    };
    write("count", -2).unwrap();
    write("stop", 0).unwrap();
    write("both[0].word", i128::from(u64::MAX)).unwrap();
    let at = bpf.fake.kernel.gpa(map + ARRAY_VALUES);
    assert_eq!(
        written.0.take(),
        [
            (at, vec![0xfe, 0xff, 0xff, 0xff]),
            (at + 8, vec![0]),
            (at + 16, vec![0xff; 8])
        ]
    );
    for (path, value) in [
        ("count", 1 << 31),
        ("count", -(1 << 31) - 1),
        ("stop", 2),
        ("stop", -1),
        ("both[0].word", -1),
        ("both[0].word", 1 << 64),
        ("both[1].shorts[0]", 65536),
    ] {
        let error = write(path, value).unwrap_err();
        assert!(
            matches!(error, WriteError::Range { .. }),
            "{path} {value}: {error}"
        );
    }
    assert_eq!(
        write("stop", 2).unwrap_err().to_string(),
        "2 does not fit into `stop`, which holds 0 to 1"
    );
    assert!(written.0.take().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn memory_that_changes_all_the_time_does_no_harm(seed: u64, rarity in 1_u64..40) {
        let bpf = busy();
        prop_assert!(read_all(&bpf.fake.attach()).unwrap() > 50);
        let noisy = Noisy {
            ram: Dump(bpf.fake.kernel.ram.clone()),
            seed: AtomicU64::new(seed),
            rarity,
            quiet: AtomicU64::new(60),
        };
        if let Some(kernel) = bpf.fake.attach_to(Arc::new(noisy)) {
            read_all(&kernel);
        }
    }

    #[test]
    fn pointers_to_anything_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30),
    ) {
        let mut bpf = busy();
        let kernel = &mut bpf.fake.kernel;
        let words: Vec<u64> = (9 << 20..10 << 20)
            .step_by(8)
            .filter(|&gpa| kernel.read_phys(gpa) != 0)
            .collect();
        for (from, to) in changes {
            let value = kernel.read_phys(words[from.index(words.len())]);
            kernel.write_phys(words[to.index(words.len())], &value.to_le_bytes());
        }
        read_all(&bpf.fake.attach());
    }
}

proptest! {
    #[test]
    fn any_bytes_of_any_types_are_rendered(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let (btf, _) = object();
        let mut types = btf.bytes();
        for (at, value) in changes {
            let at = at.index(types.len());
            types[at] = value;
        }
        if let Ok(btf) = Btf::parse(&types) {
            for id in 0..btf.end_id() {
                if let Ok(value) = Value::render(&btf, TypeId(id), &bytes, &Budget::default()) {
                    let _ = (value.to_string().len(), format!("{value:#}").len());
                }
            }
        }
    }
}
