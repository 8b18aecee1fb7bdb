use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use ktstr_kernels::{Cache, Event, Kernel, Progress, Quiet, ResolveError, ResolveOptions, resolve};

use crate::synthetic::{CONFIG, RELEASE, bzimage, deb, gzip, module, vmlinux};

pub(crate) struct Scratch {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cache: Cache,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        Self { dir, cache }
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn resolve(&self, path: &Path) -> Result<Kernel, ResolveError> {
        let spec = path.to_str().unwrap().parse().unwrap();
        resolve(Some(&spec), &self.cache, &ResolveOptions::default(), &Quiet)
    }

    /// The message of a path that can't be used, with the scratch folder as `DIR`.
    pub(crate) fn refusal(&self, path: &Path) -> String {
        let error = self.resolve(path).unwrap_err().to_string();
        assert!(
            self.cache.list().unwrap().is_empty(),
            "something was stored"
        );
        error.replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

pub(crate) fn image() -> Vec<u8> {
    bzimage(&gzip(&vmlinux(100)))
}

#[test]
fn a_boot_image_brings_its_own_facts() {
    let scratch = Scratch::new();
    let kernel = scratch
        .resolve(&scratch.write("bzImage", &image()))
        .unwrap();
    assert_eq!(kernel.release(), RELEASE);
    assert_eq!(fs::read(kernel.vmlinux()).unwrap(), vmlinux(100));
    assert_eq!(fs::read(kernel.bzimage().unwrap()).unwrap(), image());
    assert_eq!(kernel.config_text().unwrap().as_deref(), Some(CONFIG));
    assert!(kernel.has_btf() && kernel.btf().unwrap().unwrap().starts_with(b"\x9f\xeb"));
    assert!(kernel.source().ends_with("/bzImage"));
    kernel.entry().verify().unwrap();
}

#[test]
fn an_elf_file_has_no_boot_image() {
    let scratch = Scratch::new();
    let kernel = scratch
        .resolve(&scratch.write("vmlinux", &vmlinux(100)))
        .unwrap();
    assert_eq!((kernel.bzimage(), kernel.release()), (None, RELEASE));
}

#[test]
fn the_same_contents_are_stored_once_and_others_apart() {
    let scratch = Scratch::new();
    let first = scratch
        .resolve(&scratch.write("a/bzImage", &image()))
        .unwrap();
    let again = scratch
        .resolve(&scratch.write("b/bzImage", &image()))
        .unwrap();
    assert_eq!(first.key(), again.key());
    let config = scratch.write("c/config", b"CONFIG_PSI=y\n");
    let other = scratch
        .resolve(&scratch.write("c/bzImage", &image()))
        .unwrap();
    assert_ne!(
        first.key(),
        other.key(),
        "the config beside it is part of it"
    );
    assert_eq!(
        other.config_text().unwrap(),
        fs::read_to_string(config).ok()
    );
    assert_eq!(scratch.cache.list().unwrap().len(), 2);
}

#[test]
fn modules_are_found_where_installing_puts_them() {
    let scratch = Scratch::new();
    let boot = scratch.write(&format!("root/boot/vmlinuz-{RELEASE}"), &image());
    scratch.write(&format!("root/boot/config-{RELEASE}"), b"CONFIG_PSI=y\n");
    scratch.write(
        &format!("root/lib/modules/{RELEASE}/kernel/drivers/a.ko"),
        &module(""),
    );
    scratch.write(&format!("root/lib/modules/{RELEASE}/modules.order"), b"");
    scratch.write(
        &format!("root/lib/modules/{RELEASE}/build/Makefile"),
        b"not a module",
    );

    let by_image = scratch.resolve(&boot).unwrap();
    assert_eq!(by_image.modules_for(&["a"]).unwrap().len(), 1);
    assert_eq!(
        by_image.config_text().unwrap().as_deref(),
        Some("CONFIG_PSI=y\n")
    );
    let by_modules = scratch
        .resolve(
            &scratch
                .dir
                .path()
                .join(format!("root/lib/modules/{RELEASE}")),
        )
        .unwrap();
    assert_eq!(by_modules.key(), by_image.key());
    assert!(!by_image.dir().join("modules/build").exists());
    let by_boot = scratch
        .resolve(&scratch.dir.path().join("root/boot"))
        .unwrap();
    assert_eq!(by_boot.key(), by_image.key());
}

#[test]
fn a_package_and_a_folder_of_packages() {
    let scratch = Scratch::new();
    let at = |file: &str| format!("./usr/lib/modules/{RELEASE}/{file}");
    let (vmlinuz, config, ko) = (at("vmlinuz"), at("config"), at("kernel/fs/a.ko"));
    let image = image();
    let binary = scratch.write(
        "debs/linux-binary-9.deb",
        &deb("zst", &[(&vmlinuz, &image)]),
    );
    scratch.write(
        "debs/linux-base-9.deb",
        &deb("gz", &[(&config, b"CONFIG_PSI=y\n")]),
    );
    scratch.write(
        "debs/linux-modules-9.deb",
        &deb("", &[(&ko, &module("")), ("./etc/x", b"")]),
    );
    scratch.write("debs/linux-image-9-dbg.deb", b"not looked at");

    let alone = scratch.resolve(&binary).unwrap();
    assert_eq!(alone.release(), RELEASE);
    assert!(alone.modules_for(&["a"]).is_err());
    let together = scratch.resolve(&scratch.dir.path().join("debs")).unwrap();
    assert_eq!(together.modules_for(&["a"]).unwrap().len(), 1);
    assert_eq!(
        together.config_text().unwrap().as_deref(),
        Some("CONFIG_PSI=y\n")
    );
}

#[test]
fn a_tree_that_is_built_gives_image_config_and_modules_and_says_so() {
    let scratch = Scratch::new();
    scratch.write("tree/Kbuild", b"");
    scratch.write("tree/kernel/sched/core.c", b"");
    scratch.write("tree/.git/objects/pack/x.ko", &module(""));
    let image = scratch.write("tree/arch/x86/boot/bzImage", &image());
    let config = scratch.write("tree/.config", b"CONFIG_PSI=y\n");
    scratch.write("tree/modules.order", b"drivers/a.o\n");
    scratch.write("tree/drivers/a.ko", &module(""));
    let older = fs::metadata(&image).unwrap().modified().unwrap() - Duration::from_secs(60);
    fs::File::open(&config)
        .unwrap()
        .set_modified(older)
        .unwrap();

    let told = || {
        let notes = Mutex::new(Vec::new());
        let progress = Told(&notes);
        let tree = scratch.dir.path().join("tree");
        let spec = tree.to_str().unwrap().parse().unwrap();
        let kernel = resolve(
            Some(&spec),
            &scratch.cache,
            &ResolveOptions::default(),
            &progress,
        );
        let notes = notes.into_inner().unwrap().join("\n");
        let notes = notes.replace(scratch.dir.path().to_str().unwrap(), "DIR");
        (kernel.unwrap(), notes)
    };
    let (kernel, notes) = told();
    insta::assert_snapshot!(notes, @"DIR/tree is a kernel tree that is built: taking its image, config and modules (9.9.9-synthetic)");
    assert_eq!(kernel.release(), RELEASE);
    assert_eq!(
        kernel.config_text().unwrap().as_deref(),
        Some("CONFIG_PSI=y\n")
    );
    assert_eq!(kernel.modules_for(&["a"]).unwrap().len(), 1);
    assert!(!kernel.dir().join("modules/.git").exists());

    fs::File::open(&image).unwrap().set_modified(older).unwrap();
    scratch.write("tree/.config", b"CONFIG_PSI=y\n");
    insta::assert_snapshot!(told().1, @"DIR/tree is a kernel tree that is built: taking its image, config and modules (9.9.9-synthetic); its .config is newer than its image, so `make` would build another kernel");

    fs::remove_file(scratch.dir.path().join("tree/modules.order")).unwrap();
    insta::assert_snapshot!(told().1, @"DIR/tree is a kernel tree that is built: taking its image and config, no modules (9.9.9-synthetic); its .config is newer than its image, so `make` would build another kernel");
}

/// The notes that a person hears.
struct Told<'a>(&'a Mutex<Vec<String>>);

impl Progress for Told<'_> {
    fn event(&self, event: &Event) {
        if let Event::Note(text) | Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let scratch = Scratch::new();
    let refusal = |path: &str| scratch.refusal(&scratch.dir.path().join(path));
    insta::assert_snapshot!(refusal("absent"), @"can't read DIR/absent: No such file or directory (os error 2)");

    scratch.write("notes.txt", b"hello");
    insta::assert_snapshot!(refusal("notes.txt"), @"DIR/notes.txt is not a kernel image: it has neither an x86 boot header nor an ELF header");

    scratch.write("tree/Kbuild", b"");
    fs::create_dir_all(scratch.dir.path().join("tree/kernel/sched")).unwrap();
    insta::assert_snapshot!(refusal("tree"), @"DIR/tree is a kernel source tree that is not built, and building kernels is not supported yet: build it there (make bzImage modules)");

    fs::create_dir(scratch.dir.path().join("empty")).unwrap();
    insta::assert_snapshot!(refusal("empty"), @"DIR/empty has no kernel in it: no vmlinuz, vmlinuz-RELEASE, bzImage, vmlinux or linux-*.deb");

    scratch.write("two/vmlinuz-1", &image());
    scratch.write("two/vmlinuz-2", &image());
    insta::assert_snapshot!(refusal("two"), @"DIR/two has several kernels in it; give the path of one: vmlinuz-1, vmlinuz-2");

    scratch.write("modules.deb", &deb("gz", &[("./etc/x", b"")]));
    insta::assert_snapshot!(refusal("modules.deb"), @"DIR/modules.deb has no kernel image in it. Newer Debian kernels are split: linux-binary-* has the image, linux-modules-* the modules; put all of them in one folder and give that");
    scratch.write("no.deb", b"hello");
    insta::assert_snapshot!(refusal("no.deb"), @"DIR/no.deb is not a usable Debian package: it does not begin as an archive does");
    let cut = deb("zst", &[("./boot/vmlinuz-1", &image())]);
    scratch.write("cut.deb", &cut[..cut.len() / 2]);
    insta::assert_snapshot!(refusal("cut.deb"), @"DIR/cut.deb is not a usable Debian package: incomplete frame");

    let mut damaged = image();
    damaged.truncate(damaged.len() - 20);
    scratch.write("damaged", &damaged);
    insta::assert_snapshot!(refusal("damaged"), @"DIR/damaged is a truncated kernel image: the compressed kernel ends at byte 1414, but there are only 1394");
}
