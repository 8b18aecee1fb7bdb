//! The Debian source, with this machine's real apt and mirror.
//!
//! What is downloaded is kept under the target folder, so that only the first run fetches it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ktstr_kernels::{
    Cache, DebianError, Kernel, KernelSpec, Lines, OptionState, Origin, Quiet, ResolveError,
    ResolveOptions, resolve,
};

fn shared_cache() -> Cache {
    Cache::open(Some(
        &Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache"),
    ))
    .unwrap()
}

fn get(cache: &Cache, spec: &str) -> Kernel {
    let spec: KernelSpec = spec.parse().unwrap();
    resolve(
        Some(&spec),
        cache,
        &ResolveOptions::default(),
        &Lines::default(),
    )
    .unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// What every Debian kernel must have for tests to run on it.
fn assert_usable(kernel: &Kernel) {
    assert!(kernel.bzimage().unwrap().is_file());
    let vmlinux = std::fs::read(kernel.vmlinux()).unwrap();
    assert!(vmlinux.starts_with(b"\x7fELF"));
    // The magic of a BTF header (Documentation/bpf/btf.rst).
    let btf = kernel.btf().unwrap().unwrap();
    assert_eq!(btf[..2], [0x9f, 0xeb]);
    assert!(btf.len() > 1 << 20, "{} bytes of BTF", btf.len());
    assert!(
        kernel.pvh_entry().is_some_and(|entry| entry >= 0x10_0000),
        "{:?}",
        kernel.pvh_entry()
    );
    let config = kernel.config().unwrap().unwrap();
    assert_eq!(config.state("SCHED_CLASS_EXT"), OptionState::BuiltIn);
    let requirements = kernel.requirements().unwrap();
    assert!(
        requirements.can_boot() && !requirements.unchecked,
        "{requirements:?}"
    );
    kernel.entry().verify().unwrap();
}

/// Each module after those it depends on, and each file an ELF object.
fn assert_module_order(kernel: &Kernel, wanted: &str, before: &[&str]) {
    let files = kernel.modules_for(&[wanted]).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names.last(), Some(&wanted), "{names:?}");
    for dependency in before {
        assert!(names.contains(dependency), "{names:?} lacks {dependency}");
    }
    for file in &files {
        assert!(
            file.read().unwrap().starts_with(b"\x7fELF"),
            "{}",
            file.name
        );
    }
}

#[test]
fn the_newest_kernel_is_split_over_packages_and_complete() {
    let cache = shared_cache();
    let kernel = get(&cache, "debian");
    assert!(
        kernel.release().contains("cloud-amd64"),
        "{}",
        kernel.release()
    );
    let Origin::Debian {
        suite,
        role,
        version,
        ..
    } = kernel.origin()
    else {
        panic!("{:?}", kernel.origin())
    };
    assert_eq!(role, "stable-backports");
    assert!(suite.ends_with("-backports"), "{suite}");
    assert_eq!(
        kernel.source(),
        format!("Debian {suite} linux-image-{} {version}", kernel.release())
    );
    assert_usable(&kernel);
    assert!(kernel.boot_modules().unwrap().is_empty());
    assert_module_order(&kernel, "virtio_blk", &[]);
    assert_module_order(&kernel, "kvm_amd", &["irqbypass", "kvm"]);
    let error = kernel
        .modules_for(&["no_such_thing"])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("kernel {} has no module `no_such_thing`", kernel.release())
    );
}

#[test]
fn the_stable_suite_has_its_own_kernel_in_one_package() {
    let cache = shared_cache();
    let kernel = get(&cache, "debian/trixie");
    assert!(
        kernel.release().starts_with("6.12."),
        "{}",
        kernel.release()
    );
    assert_usable(&kernel);
    assert_module_order(&kernel, "virtio_blk", &[]);
    // Built in, so there is nothing to load.
    assert!(kernel.modules_for(&["virtio_pci"]).unwrap().is_empty());
}
