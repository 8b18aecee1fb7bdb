//! Packages and module lists that somebody else wrote: damaged, hostile, or for another machine.

use std::fs;

use crate::path::{Scratch, image};
use crate::synthetic::{RELEASE, ar, ar_header, deb, deb_for};

/// The message of this package, which can't be used.
fn refusal(bytes: &[u8]) -> String {
    let scratch = Scratch::new();
    let path = scratch.write("a.deb", bytes);
    scratch.refusal(&path)
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn fault_e1_a_name_in_a_table_that_is_not_there_is_an_error() {
    let package = [b"!<arch>\n".to_vec(), ar_header("/5", "0")].concat();
    assert_eq!(package.len(), 68);
    insta::assert_snapshot!(refusal(&package), @"DIR/a.deb is not a usable Debian package: its first member is `/5` instead of debian-binary");
}

#[test]
fn fault_e1_a_member_of_an_absurd_size_is_an_error() {
    let package = [b"!<arch>\n".to_vec(), ar_header("//", "9999999999")].concat();
    insta::assert_snapshot!(refusal(&package), @"DIR/a.deb is not a usable Debian package: its first member is `//` instead of debian-binary");
    let version = ar(&[("debian-binary", b"2.0\n")]);
    let package = [version.clone(), ar_header("control.tar", "9999999999")].concat();
    insta::assert_snapshot!(refusal(&package), @"DIR/a.deb is not a usable Debian package: it ends in the middle of its control.tar");
    let package = [version, ar_header("x", "-1")].concat();
    insta::assert_snapshot!(refusal(&package), @"DIR/a.deb is not a usable Debian package: its member `x` has a size that is not a number");
}

/// A tar entry of this kind: a header, then what `body` says, padded.
fn tar_entry(kind: tar::EntryType, body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("x").unwrap();
    header.set_entry_type(kind);
    header.set_size(body.len() as u64);
    header.set_cksum();
    let mut entry = header.as_bytes().to_vec();
    entry.extend_from_slice(body);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn package_of(tar: &[u8]) -> Vec<u8> {
    ar(&[("debian-binary", b"2.0\n"), ("data.tar.zst", &zst(tar))])
}

#[test]
fn fault_e1_names_and_extended_headers_that_fill_the_memory_are_refused() {
    let name = tar_entry(tar::EntryType::GNULongName, &vec![b'a'; 20 << 20]);
    let package = package_of(&name);
    assert!(package.len() < 64 << 10, "a small file: {}", package.len());
    insta::assert_snapshot!(refusal(&package), @"DIR/a.deb is not a usable Debian package: it has a file name of 20971520 bytes");
    let header = tar_entry(tar::EntryType::XHeader, &vec![b'a'; 20 << 20]);
    insta::assert_snapshot!(refusal(&package_of(&header)), @"DIR/a.deb is not a usable Debian package: it has an extended header of 20971520 bytes");
}

#[test]
fn long_names_of_both_kinds_are_understood() {
    let module = format!("./lib/modules/{RELEASE}/kernel/{}/a.ko", "d/".repeat(80));
    let mut tar = tar_entry(
        tar::EntryType::GNULongName,
        format!("{module}\0").as_bytes(),
    );
    tar.extend(tar_entry(tar::EntryType::Regular, b"by a GNU name"));
    let path = module.replace("a.ko", "b.ko");
    let record = format!(" path={path}\n");
    let length = record.len() + 3;
    tar.extend(tar_entry(
        tar::EntryType::XHeader,
        format!("{length}{record}").as_bytes(),
    ));
    tar.extend(tar_entry(tar::EntryType::Regular, b"by a PAX header"));
    let mut vmlinuz = tar_entry(
        tar::EntryType::GNULongName,
        format!("./boot/vmlinuz-{RELEASE}\0").as_bytes(),
    );
    vmlinuz.extend(tar_entry(tar::EntryType::Regular, &image()));
    tar.extend(vmlinuz);

    let scratch = Scratch::new();
    let kernel = scratch
        .resolve(&scratch.write("a.deb", &package_of(&tar)))
        .unwrap();
    let folder = kernel.dir().join("modules/kernel").join("d/".repeat(80));
    assert_eq!(fs::read(folder.join("a.ko")).unwrap(), b"by a GNU name");
    assert_eq!(fs::read(folder.join("b.ko")).unwrap(), b"by a PAX header");
}

#[test]
fn fault_e9_packages_of_two_kernels_in_one_folder_are_named() {
    let scratch = Scratch::new();
    let package = |release: &str| {
        let path = format!("./boot/vmlinuz-{release}");
        deb("zst", &[(&path, &image())])
    };
    scratch.write("two/linux-image-1.deb", &package("6.1"));
    scratch.write("two/linux-image-2.deb", &package("6.2"));
    let folder = scratch.dir.path().join("two");
    insta::assert_snapshot!(scratch.refusal(&folder), @"there are two kernels: DIR/two/linux-image-1.deb has 6.1, DIR/two/linux-image-2.deb has 6.2; give the package of one, or a folder with the packages of one kernel in it");

    // The signed and the unsigned form of one kernel: neither is preferred.
    scratch.write("same/linux-image-1.deb", &package("6.1"));
    scratch.write("same/linux-image-1-unsigned.deb", &package("6.1"));
    let folder = scratch.dir.path().join("same");
    insta::assert_snapshot!(scratch.refusal(&folder), @"there are two kernels: DIR/same/linux-image-1-unsigned.deb has 6.1, DIR/same/linux-image-1.deb has 6.1; give the package of one, or a folder with the packages of one kernel in it");

    // The modules of another kernel.
    scratch.write("modules/linux-binary-1.deb", &package("6.1"));
    let module = deb("", &[("./lib/modules/6.2/kernel/a.ko", b"")]);
    scratch.write("modules/linux-modules-2.deb", &module);
    let folder = scratch.dir.path().join("modules");
    insta::assert_snapshot!(scratch.refusal(&folder), @"there are two kernels: DIR/modules/linux-binary-1.deb has 6.1, DIR/modules/linux-modules-2.deb has 6.2; give the package of one, or a folder with the packages of one kernel in it");
}

#[test]
fn fault_e9_an_image_and_a_package_in_one_folder_are_named() {
    let scratch = Scratch::new();
    scratch.write("both/bzImage", &image());
    scratch.write("both/linux-image-1.deb", &deb("", &[]));
    let folder = scratch.dir.path().join("both");
    insta::assert_snapshot!(scratch.refusal(&folder), @"DIR/both has several kernels in it; give the path of one: bzImage, linux-image-1.deb");
}

#[test]
fn fault_f13_a_package_for_another_architecture_is_named() {
    let package = deb_for("arm64", "zst", &[("./boot/vmlinuz-1", b"MZ")]);
    insta::assert_snapshot!(refusal(&package), @"DIR/a.deb is a package for arm64; machines here are x86-64, so give the package for amd64");
}
