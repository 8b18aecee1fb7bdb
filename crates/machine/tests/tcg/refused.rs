//! What can't be run is refused, in words that help.

use std::error::Error;
use std::path::Path;

use ktstr_machine::{
    BootKernel, End, EngineError, EngineKind, EngineOptions, InitrdPart, MachineSpec, SpecError,
    choose,
};
use ktstr_topology::{NumaMemory, Topology};

use crate::guest::Program;
use crate::{Guest, options, tcg};

fn with_qemu(path: &str) -> EngineError {
    let options = EngineOptions {
        qemu: Some(path.into()),
        ..EngineOptions::default()
    };
    choose(EngineKind::Tcg, &options).unwrap_err()
}

/// What `check` says about a machine that would run but for `change`.
fn refusal(change: impl FnOnce(&mut MachineSpec, &Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = Program::new()
        .spin()
        .machine(dir.path(), Topology::SINGLE, 64);
    tcg().check(&spec).unwrap();
    change(&mut spec, dir.path());
    let error: SpecError = tcg().check(&spec).unwrap_err();
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    text.replace(&*dir.path().to_string_lossy(), "DIR")
}

#[test]
fn engines_that_are_not_there() {
    insta::assert_snapshot!(with_qemu("/nonexistent/qemu"));
    insta::assert_snapshot!(with_qemu("/bin/true"));
}

/// What there is depends on the host; what must hold is that it is said.
#[test]
fn kvm_is_there_or_says_why_not() {
    match choose(EngineKind::Kvm, &EngineOptions::default()) {
        Ok(chosen) => assert_eq!(chosen.engine.name(), "kvm"),
        Err(error @ EngineError::KvmUnusable { .. }) => {
            let error = error.to_string();
            assert!(
                error.starts_with("the `kvm` engine can't run here: "),
                "{error}"
            );
            assert!(error.contains("--engine tcg"), "{error}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn auto_takes_kvm_where_it_is_usable_and_says_why() {
    let options = options();
    let kvm = choose(EngineKind::Kvm, &options);
    let auto = choose(EngineKind::Auto, &options).expect("QEMU is installed");
    let line = auto.announcement(auto.engine.name());
    match kvm {
        Ok(_) => {
            assert_eq!(auto.engine.name(), "kvm");
            assert!(line.ends_with("; KVM is usable"), "{line}");
        }
        Err(_) => {
            assert_eq!(auto.engine.name(), "tcg");
            assert!(line.starts_with("engine: tcg (QEMU "), "{line}");
            assert!(line.contains("; KVM is not usable: "), "{line}");
        }
    }
}

#[test]
fn machines_that_can_not_be() {
    let all = [
        refusal(|spec, _| spec.topology = Topology::new(1, 2, 128, 1).unwrap()),
        refusal(|spec, _| spec.topology = Topology::new(8, 8, 1, 1).unwrap()),
        refusal(|spec, _| {
            spec.topology = Topology::new(8, 8, 1, 1).unwrap();
            spec.numa = NumaMemory::uniform(&spec.topology, 64);
        }),
        refusal(|spec, _| spec.kernel = BootKernel::default()),
        refusal(|spec, _| spec.kernel.pvh = false),
        refusal(|spec, dir| spec.kernel.vmlinux = Some(dir.join("missing"))),
        refusal(|spec, dir| spec.kernel.vmlinux = Some(dir.to_owned())),
        refusal(|spec, dir| spec.initrd = vec![InitrdPart::File(dir.join("base.cpio"))]),
        refusal(|spec, _| spec.initrd = vec![InitrdPart::Bytes(vec![0; 9 << 20].into())]),
        refusal(|spec, _| spec.cmdline = vec![String::new()]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn more_memory_than_the_host_has() {
    let text = refusal(|spec, _| spec.numa = NumaMemory::uniform(&spec.topology, 1 << 40));
    assert!(text.contains("1099511627776 MiB declared"), "{text}");
}

#[test]
fn qemu_says_why_it_does_not_start() {
    for (name, bytes, words) in [
        ("text", &b"this is no kernel"[..], "invalid kernel header"),
        ("elf", &b"\x7fELF\x02\x01\x01"[..], "QEMU refused to start"),
    ] {
        let mut guest = Guest::launch_with(&Program::new(), Topology::SINGLE, 64, |spec| {
            let path = spec.kernel.vmlinux.as_ref().unwrap();
            std::fs::write(path, bytes).unwrap();
        });
        match guest.end() {
            End::FailedToStart { message } => assert!(message.contains(words), "{message}"),
            other => panic!("{name}: {other}"),
        }
    }
}
