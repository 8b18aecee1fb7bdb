//! What is given as an image and is something else: the message says what it is.

use crate::path::Scratch;
use crate::synthetic::elf;

fn refusal(bytes: &[u8]) -> String {
    let scratch = Scratch::new();
    let path = scratch.write("Image", bytes);
    scratch.refusal(&path)
}

/// A file of zeros with these bytes in it.
fn with(parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    bytes
}

#[test]
fn fault_f13_an_image_for_another_architecture_is_named() {
    // Documentation/arch/arm64/booting.rst: the magic is at 56.
    let arm64 = with(&[(56, b"ARM\x64")]);
    insta::assert_snapshot!(refusal(&arm64), @"DIR/Image is a kernel for arm64 (Image); machines here are x86-64 and boot a bzImage or a vmlinux");
    // With an EFI stub it begins as a PE file does.
    let arm64 = with(&[(0, b"MZ"), (56, b"ARM\x64"), (0x3c, &[0x40])]);
    insta::assert_snapshot!(refusal(&arm64), @"DIR/Image is a kernel for arm64 (Image); machines here are x86-64 and boot a bzImage or a vmlinux");
    // Documentation/arch/riscv/boot-image-header.rst.
    let riscv = with(&[(48, b"RISCV\0\0\0"), (56, b"RSC\x05")]);
    insta::assert_snapshot!(refusal(&riscv), @"DIR/Image is a kernel for riscv (Image); machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(&elf(2, 183, &[])), @"DIR/Image is an ELF file for arm64; machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(&elf(2, 9999, &[])), @"DIR/Image is an ELF file for another architecture (machine 9999); machines here are x86-64 and boot a bzImage or a vmlinux");
}

#[test]
fn fault_f13_a_format_that_no_x86_kernel_has_is_named() {
    // include/linux/pe.h: `zimg`, then where the payload is; the type of compression as text; the PE header.
    let zboot = |machine: u16| {
        with(&[
            (0, b"MZ\0\0zimg"),
            (0x18, b"zstd22\0"),
            (0x3c, &[0x40]),
            (0x40, b"PE\0\0"),
            (0x44, &machine.to_le_bytes()),
        ])
    };
    insta::assert_snapshot!(refusal(&zboot(0xaa64)), @"DIR/Image is a kernel for arm64 that unpacks itself under EFI (zboot); machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(&zboot(0x6264)), @"DIR/Image is a kernel for loongarch64 that unpacks itself under EFI (zboot); machines here are x86-64 and boot a bzImage or a vmlinux");
    let efi = with(&[
        (0, b"MZ"),
        (0x3c, &[0x80]),
        (0x80, b"PE\0\0"),
        (0x84, &0x8664_u16.to_le_bytes()),
    ]);
    insta::assert_snapshot!(refusal(&efi), @"DIR/Image is an EFI program for x86-64; of a unified kernel image, the bzImage is the section .linux (objcopy -O binary -j .linux); machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(&crate::synthetic::gzip(b"an Image.gz")), @"DIR/Image is a gzip file; decompress it first, if a kernel is in it; machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(b"\x27\x05\x19\x56 u-boot"), @"DIR/Image is a kernel for U-Boot (uImage); machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(b"!<arch>\ndebian-binary"), @"DIR/Image is an archive; a Debian package must have a name that ends in .deb; machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(refusal(b""), @"DIR/Image is an empty file; machines here are x86-64 and boot a bzImage or a vmlinux");
}
