//! Kernels that are given as files: what may be given, and what is left of them in the cache.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ktstr_kernels::{Event, Kernel, Progress, ResolveOptions, resolve};
use nix::sys::stat::Mode;

use crate::path::{Scratch, image};
use crate::synthetic::{
    RELEASE, bzimage, bzimage_of, gzip, make_fetched, module, vmlinux, vmlinux_of,
};

/// Keeps what a person would be told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn event(&self, event: &Event) {
        if let Event::Note(text) | Event::Warning(text) = event {
            self.0.lock().unwrap().push(text.clone());
        }
    }
}

/// The kernel and the notes on the way to it, with the scratch folder as `DIR`.
fn resolve_told(scratch: &Scratch, path: &Path) -> (Kernel, String) {
    let notes = Notes::default();
    let spec = path.to_str().unwrap().parse().unwrap();
    let options = ResolveOptions::default();
    let kernel = resolve(Some(&spec), &scratch.cache, &options, &notes).unwrap();
    let told = notes.0.into_inner().unwrap().join("\n");
    let told = told.replace(scratch.dir.path().to_str().unwrap(), "DIR");
    (kernel, told)
}

#[test]
fn fault_e9_what_is_no_file_is_refused_at_once() {
    let scratch = Scratch::new();
    let fifo = scratch.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR).unwrap();
    insta::assert_snapshot!(scratch.refusal(&fifo), @"DIR/fifo is a pipe, not a file; copy what it gives into a file, and give that");
    let package = scratch.dir.path().join("fifo.deb");
    fs::rename(&fifo, &package).unwrap();
    insta::assert_snapshot!(scratch.refusal(&package), @"DIR/fifo.deb is a pipe, not a file; copy what it gives into a file, and give that");
    insta::assert_snapshot!(scratch.refusal(Path::new("/dev/zero")), @"/dev/zero is a device, not a file; copy what it gives into a file, and give that");
    // Nobody has 2 TiB of kernel; the file takes no space.
    let huge = scratch.dir.path().join("huge");
    File::create(&huge).unwrap().set_len(1 << 41).unwrap();
    insta::assert_snapshot!(scratch.refusal(&huge), @"DIR/huge has 2199023255552 bytes; at most 1073741824 are read as a kernel image");
    let package = scratch.dir.path().join("huge.deb");
    fs::rename(&huge, &package).unwrap();
    insta::assert_snapshot!(scratch.refusal(&package), @"DIR/huge.deb has 2199023255552 bytes; at most 8589934592 are read as a Debian package");
    // A config beside an image is of a kernel, or it isn't read.
    let image = scratch.write("beside/bzImage", &image());
    let config = scratch.dir.path().join("beside/config");
    File::create(&config).unwrap().set_len(1 << 41).unwrap();
    insta::assert_snapshot!(scratch.refusal(&image), @"DIR/beside/config has 2199023255552 bytes; at most 16777216 are read as a kernel's config");
}

/// Four bytes that give `bytes` this CRC-32.
fn forge(bytes: &[u8], crc32: u32) -> [u8; 4] {
    let table: Vec<u32> = (0..256u32)
        .map(|byte| (0..8).fold(byte, |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1))))
        .collect();
    // Backwards from the end that is wanted, then forwards from the end that there is.
    let mut wanted = !crc32;
    let mut indices = [0; 4];
    for index in indices.iter_mut().rev() {
        *index = table
            .iter()
            .position(|&entry| entry >> 24 == wanted >> 24)
            .unwrap();
        wanted = (wanted ^ table[*index]) << 8;
    }
    let mut crc = !crc32fast::hash(bytes);
    indices.map(|index| {
        let byte = index.to_le_bytes()[0] ^ crc.to_le_bytes()[0];
        crc = (crc >> 8) ^ table[index];
        byte
    })
}

#[test]
fn fault_e7_kernels_of_one_crc_are_two_kernels() {
    let scratch = Scratch::new();
    let mut first = image();
    first.extend([0; 4]);
    let mut second = image();
    // Behind what the payload's compression ends with, so that both are the same kernel to all but a hash.
    let last = second.len() - 1;
    second[last] ^= 0xff;
    second[0] = 1;
    second[last] ^= 0xff;
    second.extend(forge(&second, crc32fast::hash(&first)));
    assert_eq!(crc32fast::hash(&first), crc32fast::hash(&second));
    assert_eq!(first.len(), second.len());
    let first = scratch.resolve(&scratch.write("first", &first)).unwrap();
    let other = scratch.resolve(&scratch.write("second", &second)).unwrap();
    assert_ne!(first.key(), other.key());
    assert_eq!(fs::read(other.bzimage().unwrap()).unwrap(), second);
}

#[test]
fn fault_e7_a_module_of_the_same_size_and_time_is_another_kernel() {
    let scratch = Scratch::new();
    let folder = scratch.dir.path().join("root/boot");
    scratch.write(&format!("root/boot/vmlinuz-{RELEASE}"), &image());
    let module_path = format!("root/lib/modules/{RELEASE}/kernel/drivers/a.ko");
    let file = scratch.write(&module_path, &module("b"));
    scratch.write(
        &format!("root/lib/modules/{RELEASE}/kernel/drivers/b.ko"),
        &module(""),
    );
    scratch.write(
        &format!("root/lib/modules/{RELEASE}/kernel/drivers/c.ko"),
        &module(""),
    );
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    let yesterday = scratch.resolve(&folder).unwrap();

    fs::write(&file, module("c")).unwrap();
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let today = scratch.resolve(&folder).unwrap();
    assert_ne!(yesterday.key(), today.key());
    let names = today.modules_for(&["a"]).unwrap();
    assert_eq!(names[0].name, "c");
}

/// As if the kernel had been used last so long ago.
fn age(kernel: &Kernel, hours: u64) {
    let metadata = File::open(kernel.dir().join("metadata.json")).unwrap();
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    metadata.set_modified(then).unwrap();
}

#[test]
fn fault_e9_kernels_given_as_files_do_not_pile_up() {
    let scratch = Scratch::new();
    let give = |number: usize| {
        let bytes = bzimage(&gzip(&vmlinux(number)));
        resolve_told(&scratch, &scratch.write("bzImage", &bytes))
    };
    let mut kernels: Vec<Kernel> = (0..12).map(|number| give(number).0).collect();
    // All were used within the hour.
    assert_eq!(scratch.cache.list().unwrap().len(), 12);
    for (number, kernel) in kernels.iter().enumerate() {
        age(kernel, 100 - number as u64);
    }
    // The oldest is used again, by its key.
    let spec = kernels[0].key().parse().unwrap();
    let options = ResolveOptions::default();
    resolve(Some(&spec), &scratch.cache, &options, &Notes::default()).unwrap();

    let (newest, told) = give(12);
    kernels.push(newest);
    let kept: Vec<usize> = (0..13)
        .filter(|&number| kernels[number].dir().is_dir())
        .collect();
    assert_eq!(kept, [0, 6, 7, 8, 9, 10, 11, 12]);
    let told = (1..6).fold(told, |told, number| {
        told.replace(kernels[number].key(), &format!("KEY{number}"))
    });
    insta::assert_snapshot!(told, @"removed from the kernel cache, where the 8 kernels given as files that were used last are kept: KEY5, KEY4, KEY3, KEY2, KEY1");
}

#[test]
fn fault_f2_a_file_that_was_given_once_is_not_the_default() {
    let scratch = Scratch::new();
    let newest = bzimage_of("99.9.9", &gzip(&vmlinux_of("99.9.9", 100)));
    let given = scratch.resolve(&scratch.write("bzImage", &newest)).unwrap();
    // A machine without apt sources: what would be fetched can't be.
    let options = ResolveOptions {
        machine_root: scratch.dir.path().to_owned(),
        ..ResolveOptions::default()
    };
    let notes = Notes::default();
    let error = resolve(None, &scratch.cache, &options, &notes).unwrap_err();
    assert!(error.to_string().contains("no Debian mirror"), "{error}");
    let told = notes
        .0
        .lock()
        .unwrap()
        .join("\n")
        .replace(given.key(), "KEY");
    insta::assert_snapshot!(told, @r#"
        the kernels in the cache were given as files, and are used when they are named (--kernel): KEY
        the cache has no usable kernel that was fetched: fetching one from Debian
        "#);

    // One that was fetched is, though its release is older.
    let fetched = scratch.dir.path().join("cache/kernels/debian-1");
    fs::rename(given.dir(), &fetched).unwrap();
    let given = scratch.resolve(&scratch.write("bzImage", &newest)).unwrap();
    make_fetched(&fetched, &[("release", "9.9.8".into())]);
    let default = resolve(None, &scratch.cache, &options, &notes).unwrap();
    assert_eq!(default.key(), "debian-1");
    assert_ne!(default.key(), given.key());
}

#[test]
fn fault_f10_a_kernel_without_its_packages_is_no_default_and_says_so() {
    let scratch = Scratch::new();
    let kernel = scratch
        .resolve(&scratch.write("bzImage", &image()))
        .unwrap();
    let origin = serde_json::json!({
        "debian": {
            "suite": "s", "role": "stable-backports", "version": "7.0.13-1", "flavour": "cloud-amd64",
            "missing": ["linux-base-7.0.13", "linux-modules-7.0.13"],
        }
    });
    make_fetched(kernel.dir(), &[("origin", origin)]);
    let options = ResolveOptions {
        machine_root: scratch.dir.path().to_owned(),
        ..ResolveOptions::default()
    };
    let find = |spec: Option<&str>| {
        let spec = spec.map(|spec| spec.parse().unwrap());
        resolve(spec.as_ref(), &scratch.cache, &options, &Notes::default())
    };
    for unasked in [None, Some("debian"), Some("debian/s")] {
        let error = find(unasked).unwrap_err().to_string();
        assert!(error.contains("no Debian mirror"), "{error}");
    }
    let kernel = find(Some("debian/7.0")).unwrap();
    insta::assert_snapshot!(kernel.modules_for(&["virtio_blk"]).unwrap_err(), @"kernel 9.9.9-synthetic was fetched without its modules, so `virtio_blk` can't be loaded: linux-base-7.0.13, linux-modules-7.0.13 left Debian's archive; take another version");
}

#[test]
fn fault_f13_modules_of_another_release_beside_an_image_are_told() {
    let scratch = Scratch::new();
    let image = scratch.write(&format!("root/boot/vmlinuz-{RELEASE}"), &image());
    scratch.write("root/lib/modules/6.1.0/kernel/drivers/a.ko", &module(""));
    scratch.write("root/lib/modules/6.2.0/kernel/drivers/a.ko", &module(""));
    let (kernel, told) = resolve_told(&scratch, &image);
    assert!(kernel.modules_for(&["a"]).is_err());
    insta::assert_snapshot!(told, @"DIR/root/boot/vmlinuz-9.9.9-synthetic is kernel 9.9.9-synthetic, and the modules beside it are for others (DIR/root/lib/modules/6.1.0, DIR/root/lib/modules/6.2.0): it gets none of them, so what it has as modules can't be loaded");

    // A folder that says to be of another release than the image in it.
    let folder = scratch.dir.path().join("tree/lib/modules/6.1.0");
    scratch.write(
        "tree/lib/modules/6.1.0/vmlinuz",
        &bzimage(&gzip(&vmlinux(7))),
    );
    scratch.write("tree/lib/modules/6.1.0/kernel/drivers/a.ko", &module(""));
    let (kernel, told) = resolve_told(&scratch, &folder);
    assert!(kernel.modules_for(&["a"]).is_err());
    insta::assert_snapshot!(told, @"DIR/tree/lib/modules/6.1.0/vmlinuz is kernel 9.9.9-synthetic, and the modules beside it are for others (DIR/tree/lib/modules/6.1.0): it gets none of them, so what it has as modules can't be loaded");
}
