//! Type information and symbols of real kernels, from the cache that all tests use.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on is to stop there"
)]

use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

use ktstr_introspect::btf::{Btf, Kind};
use ktstr_introspect::symbols::{Symbols, section};
use ktstr_kernels::{Cache, Kernel, KernelSpec, Lines, OptionState, ResolveOptions, resolve};

/// The newest kernel, and the oldest that is supported.
const SPECS: [&str; 2] = ["debian", "debian/trixie"];

struct Image {
    kernel: Kernel,
    vmlinux: Vec<u8>,
}

fn images() -> &'static [Image] {
    static IMAGES: OnceLock<Vec<Image>> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let cache = Cache::open_default(std::env::var_os).unwrap();
        SPECS
            .iter()
            .map(|spec| {
                let spec: KernelSpec = spec.parse().unwrap();
                let options = ResolveOptions::default();
                let kernel = resolve(Some(&spec), &cache, &options, &Lines::default()).unwrap();
                let vmlinux = fs::read(kernel.vmlinux()).unwrap();
                Image { kernel, vmlinux }
            })
            .collect()
    })
}

#[test]
fn layouts_agree_with_the_kernels_options() {
    for Image { kernel, .. } in images() {
        let bytes = kernel.btf().unwrap().unwrap();
        let start = Instant::now();
        let btf = Btf::parse(&bytes).unwrap();
        println!(
            "{}: BTF of {} types in {:?}",
            kernel.release(),
            btf.end_id(),
            start.elapsed()
        );
        assert!(btf.end_id() > 100_000);

        let has =
            |option: &str| kernel.config().unwrap().unwrap().state(option) == OptionState::BuiltIn;
        let task = btf.structure("task_struct").unwrap();
        let rq = btf.structure("rq").unwrap();
        let scx = has("CONFIG_SCHED_CLASS_EXT");
        assert_eq!(task.optional("scx.dsq").unwrap().is_some(), scx);
        assert_eq!(rq.optional("scx.local_dsq.nr").unwrap().is_some(), scx);
        assert_eq!(btf.structure("scx_dispatch_q").is_ok(), scx);
        let schedstats = has("CONFIG_SCHEDSTATS");
        assert_eq!(rq.optional("yld_count").unwrap().is_some(), schedstats);

        // What can't differ between kernels of this architecture.
        assert_eq!(btf.structure("list_head").unwrap().size(), Ok(16));
        assert_eq!(btf.structure("list_head").unwrap().offset("prev"), Ok(8));
        let comm = task.field("comm").unwrap();
        assert_eq!(comm.size, 16);
        assert_eq!(btf.get(comm.type_id).unwrap().array_len(), Some(16));
        assert_eq!(task.field("policy").unwrap().size, 4);
        assert_eq!(task.optional("no_such_member").unwrap(), None);
        // A bit field in an anonymous structure or union, and an enumerator.
        let bit = task.field("sched_reset_on_fork").unwrap().bits.unwrap();
        assert_eq!(bit.width, 1);
        assert_eq!(btf.enumerator("BPF_MAP_TYPE_ARRAY"), Some(2));
        assert_eq!(btf.enumerator("PIDTYPE_TGID"), Some(1));
    }
}

#[test]
fn every_type_of_a_kernel_can_be_read() {
    for Image { kernel, .. } in images() {
        let btf = Btf::parse(&kernel.btf().unwrap().unwrap()).unwrap();
        let mut members = 0;
        let mut values = 0;
        for id in 0..btf.end_id() {
            let found = btf.get(ktstr_introspect::btf::TypeId(id)).unwrap();
            let size = found.size();
            members += found
                .members()
                .inspect(|member| {
                    let at = u64::from(member.bit_offset) / 8;
                    assert!(at <= *size.as_ref().unwrap(), "{found:?} {member:?}");
                    btf.get(member.type_id).unwrap();
                })
                .count();
            values += found.enumerators().count();
            // Every name leads back to its type.
            if id % 97 == 0 && !found.name().is_empty() {
                let by_name = btf
                    .named(found.name())
                    .any(|other| other.id() == found.id());
                assert!(by_name, "{found:?}");
            }
        }
        assert!(members > 50_000 && values > 10_000, "{members} {values}");
        assert!(btf.find(Kind::Func, "schedule").is_some());
    }
}

#[test]
fn symbols_agree_with_the_sections_of_the_image() {
    for Image { kernel, vmlinux } in images() {
        let start = Instant::now();
        let symbols = Symbols::from_vmlinux(vmlinux).unwrap();
        println!(
            "{}: {} symbols in {:?}",
            kernel.release(),
            symbols.len(),
            start.elapsed()
        );
        assert!(symbols.len() > 100_000);
        for (name, its_section) in [
            ("_text", ".text"),
            ("__start_rodata", ".rodata"),
            ("_sinittext", ".init.text"),
            ("__bss_start", ".bss"),
            ("_sdata", ".data"),
        ] {
            let address = section(vmlinux, its_section).unwrap().0;
            assert_eq!(symbols.find(name), Some(address), "{name}");
        }
        // Data symbols are there too, and each is where its kind belongs.
        let (data, bytes) = section(vmlinux, ".data").unwrap();
        let init_task = symbols.find("init_task").unwrap();
        assert!((data..data + bytes.len() as u64).contains(&init_task));
        let pvh = symbols.find("pvh_start_xen").unwrap();
        let entry = kernel.pvh_entry().unwrap();
        assert_eq!(
            pvh - entry,
            0xffff_ffff_8000_0000,
            "linked at a fixed distance"
        );

        let schedule = symbols.find("schedule").unwrap();
        assert_eq!(symbols.place(schedule).unwrap().to_string(), "schedule");
        assert_eq!(
            symbols.place(schedule + 3).unwrap().to_string(),
            "schedule+0x3"
        );
        assert_eq!(symbols.find("no_such_symbol"), None);
        assert_eq!(symbols.find(""), None);
        assert!(symbols.place(u64::MAX).is_some());
    }
}

#[test]
fn the_text_of_proc_kallsyms_gives_the_same_symbols() {
    for Image { vmlinux, .. } in images() {
        let (address, rodata) = section(vmlinux, ".rodata").unwrap();
        let kallsyms = ktstr_introspect::symbols::Kallsyms::find_in(rodata, address).unwrap();
        let text: String = kallsyms
            .iter()
            .map(|(address, kind, name)| format!("{address:016x} {kind} {name}\n"))
            .collect();
        let from_text = Symbols::from_proc_kallsyms(&text).unwrap();
        let symbols = Symbols::from(kallsyms.clone());
        assert_eq!(from_text.len(), symbols.len());
        let mut shared = 0;
        for (address, _, name) in kallsyms.iter().step_by(997) {
            let found = symbols.find(&name);
            assert_eq!(found, from_text.find(&name), "{name}");
            shared += usize::from(found != Some(address));
            let inside = symbols.place(address + 1).unwrap();
            assert_eq!(inside.offset, from_text.place(address + 1).unwrap().offset);
            assert!(symbols.find(&inside.name).is_some());
        }
        assert!(shared < 20, "{shared} of 200 names are of several");
    }
}
