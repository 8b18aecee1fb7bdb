//! Type information.

use ktstr_introspect::btf::{BitField, Btf, BtfError, Kind, LayoutError, TypeError, TypeId};
use proptest::prelude::*;

use crate::btf_builder::{BtfBuilder, INT_BOOL, INT_SIGNED, read_all};

/// A task with everything that makes layouts hard.
fn task() -> BtfBuilder {
    let mut btf = BtfBuilder::new();
    let int = btf.int("int", 4, INT_SIGNED);
    let u64_ = btf.int("unsigned long", 8, 0);
    let u64_ = btf.typedef("u64", u64_);
    let char_ = btf.int("char", 1, INT_SIGNED);
    let comm = btf.array(char_, 16);
    let flag = btf.int("bool", 1, INT_BOOL);
    let bits = btf.bit_structure("", 8, &[("low", int, 3, 5), ("high", int, 30, 12)]);
    let either = btf.union("", 8, &[("", bits), ("whole", u64_)]);
    let scx = btf.structure(
        "sched_ext_entity",
        24,
        &[("slice", u64_, 8), ("", either, 16)],
    );
    let scx = btf.constant(scx);
    let grid = btf.array(comm, 3);
    let next = btf.pointer(0);
    btf.structure(
        "task_struct",
        120,
        &[
            ("scx", scx, 8),
            ("comm", comm, 40),
            ("ok", flag, 56),
            ("grid", grid, 64),
            ("next", next, 112),
        ],
    );
    btf.enumeration("state", &[("NONE", -1), ("ON", 1)]);
    btf.section(".bss", &[("counter", u64_, 16, 8), ("stop", flag, 24, 1)]);
    btf
}

#[test]
fn members_are_found_through_anonymous_structures() {
    let btf = Btf::parse(&task().bytes()).unwrap();
    let task = btf.structure("task_struct").unwrap();
    assert_eq!(task.size(), Ok(120));
    assert_eq!(task.offset("scx.slice"), Ok(16));
    assert_eq!(task.offset("scx.whole"), Ok(24));
    assert_eq!(task.field("grid").unwrap().size, 48);
    assert_eq!(task.field("comm").unwrap().end(), 56);
    let low = task.field("scx.low").unwrap();
    assert_eq!(
        (low.offset, low.bits),
        (24, Some(BitField { shift: 3, width: 5 }))
    );
    let high = task.field("scx.high").unwrap();
    assert_eq!(
        (high.offset, high.bits),
        (
            27,
            Some(BitField {
                shift: 6,
                width: 12
            })
        )
    );
    assert_eq!(task.inner("scx").unwrap().offset("slice"), Ok(8));

    assert_eq!(task.optional("scx.gone"), Ok(None));
    assert_eq!(task.optional("comm.gone"), Ok(None));
    assert_eq!(
        task.field("scx.gone").unwrap_err().to_string(),
        "`struct task_struct` of this kernel has no member `scx.gone`"
    );
    assert_eq!(
        btf.structure("gone").unwrap_err(),
        LayoutError::NoType { name: "gone" }
    );
}

#[test]
fn values_are_read_at_their_bits() {
    let btf = Btf::parse(&task().bytes()).unwrap();
    let task = btf.structure("task_struct").unwrap();
    let mut bytes = vec![0; 120];
    bytes[24..32].copy_from_slice(&(0b1_0110_u64 << 3 | 0xabc << 30).to_le_bytes());
    let field = |path| task.field(path).unwrap();
    assert_eq!(field("scx.low").uint(&bytes), Some(0b1_0110));
    assert_eq!(field("scx.low").int(&bytes), Some(0b1_0110 - 32));
    assert_eq!(field("scx.high").uint(&bytes), Some(0xabc));
    assert_eq!(field("scx.whole").uint(&bytes[..31]), None, "too short");
    assert_eq!(field("comm").uint(&bytes), None, "too big");
    bytes[16..24].fill(0xff);
    assert_eq!(field("scx.slice").int(&bytes), Some(-1));
    assert_eq!(field("scx.slice").uint(&bytes), Some(u64::MAX));
}

#[test]
fn types_say_what_they_are() {
    let btf = Btf::parse(&task().bytes()).unwrap();
    let state = btf.find(Kind::Enum, "state").unwrap();
    let values: Vec<_> = state
        .enumerators()
        .map(|one| (one.name, one.value))
        .collect();
    assert_eq!(values, [("NONE", -1), ("ON", 1)]);
    assert_eq!(btf.enumerator("ON"), Some(1));
    assert_eq!(btf.enumerator("OFF"), None);
    let bss = btf.find(Kind::Datasec, ".bss").unwrap();
    let vars: Vec<_> = bss
        .section_vars()
        .map(|var| (var.name, var.offset, var.size))
        .collect();
    assert_eq!(vars, [("counter", 16, 8), ("stop", 24, 1)]);
    let u64_ = btf.find(Kind::Typedef, "u64").unwrap();
    assert_eq!(u64_.stripped().unwrap().name(), "unsigned long");
    assert!(btf.find(Kind::Struct, "u64").is_none());
    assert!(btf.find(Kind::Int, "bool").unwrap().int().unwrap().boolean);
    assert_eq!(btf.get(TypeId(0)).unwrap().kind(), Kind::Void);
    assert_eq!(
        btf.get(TypeId(0)).unwrap().size(),
        Err(TypeError::NoSize { id: 0 })
    );
}

#[test]
fn split_information_continues_its_base() {
    let base_builder = task();
    let base = Btf::parse(&base_builder.bytes()).unwrap();
    let mut split = BtfBuilder::after(base_builder.next_id(), base_builder.strings_len());
    let u64_ = base.find(Kind::Typedef, "u64").unwrap().id().0;
    let task = base.find(Kind::Struct, "task_struct").unwrap().id().0;
    split.structure("wrapped", 128, &[("count", u64_, 0), ("task", task, 8)]);
    let btf = Btf::parse_split(&split.bytes(), &base).unwrap();
    let wrapped = btf.structure("wrapped").unwrap();
    assert_eq!(wrapped.offset("task.scx.slice"), Ok(24));
    assert!(
        btf.structure("task_struct").is_ok(),
        "the base's types are found too"
    );
    assert!(base.structure("wrapped").is_err());
    assert_eq!(btf.named("wrapped").count(), 1);
}

#[test]
fn what_is_not_right_is_named() {
    let error = |bytes: &[u8]| Btf::parse(bytes).unwrap_err();
    assert!(matches!(error(b""), BtfError::NotBtf { .. }));
    assert!(matches!(error(b"\x7fELF\x02"), BtfError::NotBtf { .. }));
    let mut bytes = task().bytes();
    assert!(matches!(
        error(&bytes[..20]),
        BtfError::Truncated {
            what: "the header",
            ..
        }
    ));
    let end = bytes.len() - 1;
    assert!(matches!(
        error(&bytes[..end]),
        BtfError::Truncated {
            what: "the string section",
            ..
        }
    ));
    bytes[end] = b'x';
    assert_eq!(error(&bytes), BtfError::Strings);
    bytes[2] = 2;
    assert_eq!(error(&bytes), BtfError::Version { version: 2 });

    let mut unknown = BtfBuilder::new();
    unknown.int("int", 4, 0);
    unknown.raw("new", 30, 0, 0, &[]);
    assert_eq!(
        error(&unknown.bytes()),
        BtfError::UnknownKind { id: 2, kind: 30 }
    );
}

#[test]
fn circles_end() {
    let mut btf = BtfBuilder::new();
    btf.typedef("a", 2);
    btf.typedef("b", 1);
    btf.array(3, 2);
    let members: Vec<_> = (0..1000).map(|at| ("", 4, at)).collect();
    btf.structure("self", 8, &members);
    btf.typedef("nowhere", 77);
    let btf = Btf::parse(&btf.bytes()).unwrap();
    let get = |id| btf.get(TypeId(id)).unwrap();
    assert_eq!(get(1).stripped().unwrap_err(), TypeError::Endless { id: 1 });
    assert_eq!(get(3).size().unwrap_err(), TypeError::Endless { id: 3 });
    let itself = btf.structure("self").unwrap();
    assert!(matches!(
        itself.optional("x").unwrap_err(),
        LayoutError::Type {
            source: TypeError::Endless { id: 4 },
            ..
        }
    ));
    assert_eq!(
        get(5).size().unwrap_err(),
        TypeError::NoSuchId { id: 77, end: 6 }
    );
}

proptest! {
    #[test]
    fn damaged_information_is_refused_or_read_without_harm(
        changes in prop::collection::vec((0_usize..1000, any::<u8>()), 1..8),
        cut in prop::option::of(0_usize..1000),
    ) {
        let mut bytes = task().bytes();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        if let Ok(btf) = Btf::parse(&bytes) {
            read_all(&btf);
            if let Ok(split) = Btf::parse_split(&bytes, &btf) {
                read_all(&split);
            }
        }
    }

    #[test]
    fn any_types_are_refused_or_read_without_harm(
        words in prop::collection::vec(prop_oneof![0_u32..30, (0_u32..20, 0_u32..5).prop_map(|(kind, vlen)| kind << 24 | vlen), any::<u32>()], 0..200),
    ) {
        let mut btf = BtfBuilder::new();
        for chunk in words.chunks(7) {
            let word = |at| chunk.get(at).copied().unwrap_or(1);
            btf.raw("x", word(0) % 20, word(1) % 4, word(2), chunk.get(3..).unwrap_or_default());
        }
        if let Ok(btf) = Btf::parse(&btf.bytes()) {
            read_all(&btf);
        }
    }
}
