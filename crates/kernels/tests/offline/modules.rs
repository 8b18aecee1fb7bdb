use std::fs;
use std::io::Write;
use std::path::Path;

use ktstr_kernels::{Cache, Kernel, Quiet, ResolveOptions, resolve};

use crate::synthetic::{RELEASE, bzimage, gzip, module, vmlinux};

/// A folder as a distribution has it under /lib/modules, and a cache; the kernel that comes of both.
fn kernel(scratch: &Path, modules: &[(&str, Vec<u8>)]) -> Kernel {
    let folder = scratch.join(RELEASE);
    fs::create_dir_all(folder.join("kernel/drivers")).unwrap();
    fs::write(folder.join("vmlinuz"), bzimage(&gzip(&vmlinux(100)))).unwrap();
    for (path, bytes) in modules {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let cache = Cache::open(&scratch.join("cache")).unwrap();
    let spec = folder.to_str().unwrap().parse().unwrap();
    resolve(Some(&spec), &cache, &ResolveOptions::default(), &Quiet).unwrap()
}

fn order(kernel: &Kernel, names: &[&str]) -> Vec<String> {
    kernel
        .modules_for(names)
        .unwrap()
        .into_iter()
        .map(|file| file.name)
        .collect()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn modules_load_after_what_they_depend_on() {
    let scratch = tempfile::tempdir().unwrap();
    let kernel = kernel(
        scratch.path(),
        &[
            ("kernel/a/top.ko", module("left,right")),
            ("kernel/a/left.ko.xz", xz(&module("base"))),
            (
                "kernel/b/right.ko.zst",
                zstd::encode_all(&*module("base,built-in"), 1).unwrap(),
            ),
            ("kernel/b/base.ko.gz", gzip(&module(""))),
            ("kernel/c/lonely-one.ko", module("")),
            ("kernel/c/broken.ko", module("gone")),
            ("kernel/c/noise.ko", b"not an ELF file".to_vec()),
            ("modules.builtin", b"kernel/x/built-in.ko\n".to_vec()),
        ],
    );
    assert_eq!(order(&kernel, &["top"]), ["base", "left", "right", "top"]);
    // Both spellings of a name, nothing twice, built-in ones left out.
    assert_eq!(
        order(&kernel, &["right", "lonely-one", "built_in", "base"]),
        ["base", "right", "lonely_one"]
    );
    for file in kernel.modules_for(&["top"]).unwrap() {
        assert!(
            file.read().unwrap().starts_with(b"\x7fELF"),
            "{}",
            file.name
        );
    }
    let message = |name: &str| kernel.modules_for(&[name]).unwrap_err().to_string();
    insta::assert_snapshot!(message("nope"), @"kernel 9.9.9-synthetic has no module `nope`");
    insta::assert_snapshot!(message("broken"), @"kernel 9.9.9-synthetic has no module `gone`, which `broken` depends on");
    assert!(
        message("noise").contains("noise.ko"),
        "{}",
        message("noise")
    );
}

#[test]
fn modules_dep_is_believed_where_there_is_one() {
    let scratch = tempfile::tempdir().unwrap();
    let kernel = kernel(
        scratch.path(),
        &[
            ("kernel/a.ko", b"never opened for its dependencies".to_vec()),
            ("kernel/b.ko", Vec::new()),
            ("kernel/c.ko", Vec::new()),
            (
                "modules.dep",
                b"kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\n"
                    .to_vec(),
            ),
        ],
    );
    assert_eq!(order(&kernel, &["a"]), ["c", "b", "a"]);
}

#[test]
fn fault_e2_modules_that_depend_on_each_other_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let kernel = kernel(
        scratch.path(),
        &[
            ("kernel/a.ko", module("b")),
            ("kernel/b.ko", module("c")),
            ("kernel/c.ko", module("b")),
        ],
    );
    insta::assert_snapshot!(kernel.modules_for(&["a"]).unwrap_err(), @"the modules of kernel 9.9.9-synthetic depend on each other in a circle: b needs c needs b; install its modules again (depmod writes modules.dep)");
}

#[test]
fn fault_e2_a_chain_of_4000_modules_is_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..4000)
        .map(|number| format!("kernel/m{number}.ko"))
        .collect();
    let mut files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (&**name, Vec::new())).collect();
    let lines = names
        .windows(2)
        .map(|pair| format!("{}: {}\n", pair[0], pair[1]));
    let dep = lines.collect::<String>() + "kernel/m3999.ko:\n";
    files.push(("modules.dep", dep.into_bytes()));
    let kernel = kernel(scratch.path(), &files);
    let order = order(&kernel, &["m0"]);
    assert_eq!(order.len(), 4000);
    assert_eq!((&*order[0], &*order[3999]), ("m3999", "m0"));
}

#[test]
fn fault_f13_a_truncated_module_is_no_damaged_kernel() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = xz(&module("b"));
    let kernel = kernel(
        scratch.path(),
        &[
            ("kernel/a.ko.xz", whole[..whole.len() / 2].to_vec()),
            ("kernel/b.ko", module("")[..90].to_vec()),
        ],
    );
    let message = |name: &str| {
        let error = kernel.modules_for(&[name]).unwrap_err().to_string();
        error.replace(kernel.dir().to_str().unwrap(), "DIR")
    };
    insta::assert_snapshot!(message("a"), @"module DIR/modules/kernel/a.ko.xz is damaged or cut: its xz data does not decompress: premature eof");
    insta::assert_snapshot!(message("b"), @"module DIR/modules/kernel/b.ko is damaged, or no kernel module: Invalid ELF program header size or alignment");
}

#[test]
fn a_kernel_without_modules_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let kernel = kernel(scratch.path(), &[]);
    insta::assert_snapshot!(kernel.modules_for(&["virtio_blk"]).unwrap_err(), @"kernel 9.9.9-synthetic was given without its modules, so `virtio_blk` can't be loaded; give a folder that has the kernel and its modules, such as /lib/modules/9.9.9-synthetic");
}

#[test]
fn a_changed_module_file_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let kernel = kernel(scratch.path(), &[("kernel/a.ko", module(""))]);
    let file = kernel.modules_for(&["a"]).unwrap().remove(0);
    let mut bytes = fs::read(&file.path).unwrap();
    bytes[70] ^= 1;
    fs::write(&file.path, bytes).unwrap();
    let error = file.read().unwrap_err().to_string();
    assert!(
        error.contains(kernel.key()) && error.contains("modules/kernel/a.ko"),
        "{error}"
    );
    assert!(error.contains("cargo ktstr kernel clean"), "{error}");
    assert!(kernel.entry().verify().is_err());
}
