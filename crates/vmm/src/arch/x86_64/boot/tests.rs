use std::io::{Read, Seek, Write};

use proptest::prelude::*;

use super::super::ram::place;
use super::*;

const RAM_BYTES: u64 = 32 << 20;
const ENTRY: u64 = 0x100_0000;

fn ram() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(RAM_BYTES).unwrap())]).unwrap()
}

/// A file with `bytes` in it.
fn file(bytes: &[u8]) -> File {
    let fd =
        nix::sys::memfd::memfd_create(c"image", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// An ELF kernel of one segment of `code` at [`ENTRY`].
fn vmlinux(code: &[u8]) -> Vec<u8> {
    vmlinux_at(120, ENTRY, code)
}

/// An ELF kernel of one segment of `code` at physical address `gpa`, which is at `offset` in the file.
fn vmlinux_at(offset: u64, gpa: u64, code: &[u8]) -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(gpa.to_le_bytes());
    image.extend(64_u64.to_le_bytes());
    image.extend([0; 8]);
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    image.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [offset, gpa, gpa, code.len() as u64, 0x10_0000, 0x1000] {
        image.extend(word.to_le_bytes());
    }
    image.resize(usize::try_from(offset).unwrap(), 0xee);
    image.extend(code);
    // What follows a segment in the file is none of the guest's.
    image.extend([0xee; 64]);
    image
}

/// A bzImage of protocol 2.15 with one sector of setup code.
fn bzimage(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x236, &1_u16.to_le_bytes());
    put(0x258, &ENTRY.to_le_bytes());
    put(0x260, &0x20_0000_u32.to_le_bytes());
    image.extend(code);
    image
}

fn boot(
    image: &[u8],
    initrd: &[&[u8]],
    cmdline: &str,
) -> (GuestMemoryMmap, Result<u64, BootError>) {
    boot_from(image, initrd, Images::Changeable, cmdline)
}

fn boot_from(
    image: &[u8],
    initrd: &[&[u8]],
    images: Images,
    cmdline: &str,
) -> (GuestMemoryMmap, Result<u64, BootError>) {
    let memory = ram();
    let mut parts: Vec<_> = initrd
        .iter()
        .map(|bytes| InitrdPart::File(file(bytes)))
        .collect();
    let regions = place(&[RAM_BYTES]).unwrap();
    let entry = load(
        &memory,
        &regions,
        &mut file(image),
        &mut parts,
        images,
        cmdline,
    );
    (memory, entry)
}

fn word(memory: &GuestMemoryMmap, at: u64) -> u32 {
    memory.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn both_forms_of_a_kernel_are_entered() {
    let (memory, entry) = boot(&vmlinux(b"kernel"), &[], "");
    assert_eq!(entry.unwrap(), ENTRY);
    assert_eq!(word(&memory, ENTRY), u32::from_le_bytes(*b"kern"));
    let (memory, entry) = boot(&bzimage(&[7; 600]), &[], "");
    assert_eq!(entry.unwrap(), 0x10_0200);
    assert_eq!(word(&memory, 0x10_0200), 0x0707_0707);
}

#[test]
fn the_kernel_is_told_of_the_initramfs_and_the_options() {
    let (memory, entry) = boot(&vmlinux(b"k"), &[b"first", b"second"], "quiet panic=-1");
    entry.unwrap();
    let start = u64::from(word(&memory, ZERO_PAGE + 0x218));
    let len = u64::from(word(&memory, ZERO_PAGE + 0x21c));
    assert_eq!(len, 8 + 6);
    assert!(start >= ENTRY + 0x10_0000 && start + len <= RAM_BYTES);
    let mut initrd = [0; 14];
    memory.read_slice(&mut initrd, GuestAddress(start)).unwrap();
    assert_eq!(&initrd, b"first\0\0\0second");
    let mut cmdline = [0; 15];
    memory
        .read_slice(&mut cmdline, GuestAddress(CMDLINE))
        .unwrap();
    assert_eq!(&cmdline, b"quiet panic=-1\0");
}

#[test]
fn what_can_not_be_booted_is_named() {
    let error = |image: &[u8], initrd: &[&[u8]], cmdline: &str| {
        boot(image, initrd, cmdline).1.unwrap_err().to_string()
    };
    let kernel = vmlinux(b"k");
    assert!(error(b"", &[], "").contains("neither a bzImage nor an ELF"));
    assert!(error(&[0; 4096], &[], "").contains("neither a bzImage nor an ELF"));
    assert!(error(&kernel[..100], &[], "").contains("damaged"));
    assert!(error(&kernel, &[], &"x".repeat(2048)).contains("2048 bytes"));
    assert!(error(&kernel, &[], "a\0b").contains("NUL"));
    assert!(error(&kernel, &[&vec![0; 24 << 20]], "").contains("initramfs has 25165824 bytes"));
    let mut old = bzimage(&[0; 16]);
    old[0x236] = 0;
    assert!(error(&old, &[], "").contains("XLF_KERNEL_64"));
    let mut elsewhere = kernel.clone();
    elsewhere[24..32].copy_from_slice(&(ENTRY + 0x10_0000).to_le_bytes());
    assert!(error(&elsewhere, &[], "").contains("outside of RAM"));
    let mut late = vmlinux_at(0x2000, ENTRY, b"k");
    let headers = late[64..120].to_vec();
    late[32..40].copy_from_slice(&0x1000_u64.to_le_bytes());
    late[0x1000..0x1038].copy_from_slice(&headers);
    assert!(error(&late, &[], "").contains("damaged"));
    let mut large = bzimage(&[0; 16]);
    large[0x263] = 0x7f;
    assert!(error(&large, &[], "").contains("outside of RAM"));
}

/// All of `memory` from `gpa` to `end`.
fn bytes(memory: &GuestMemoryMmap, gpa: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(end - gpa).unwrap()];
    memory.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
    bytes
}

#[test]
fn a_guest_that_writes_to_mapped_images_writes_to_its_own_ram_only() {
    let memory = ram();
    let mut image = file(&vmlinux_at(0x1000, ENTRY, &[7; 0x3000]));
    let mut parts = [InitrdPart::File(file(&[8; 0x1800]))];
    let regions = place(&[RAM_BYTES]).unwrap();
    let images = Images::Immutable;
    load(&memory, &regions, &mut image, &mut parts, images, "").unwrap();
    let initrd = u64::from(word(&memory, ZERO_PAGE + 0x218));
    for gpa in [ENTRY + 0x1004, initrd + 4] {
        memory
            .write_obj(0x5a5a_5a5a_u32, GuestAddress(gpa))
            .unwrap();
        assert_eq!(word(&memory, gpa), 0x5a5a_5a5a);
    }
    let [InitrdPart::File(initrd)] = &mut parts else {
        unreachable!()
    };
    for (file, byte) in [(&mut image, 7), (initrd, 8)] {
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        assert!(!content.contains(&0x5a) && content.contains(&byte));
    }
}

proptest! {
    #[test]
    fn what_is_mapped_is_what_is_copied(
        offset in 120_u64..0x5000, same_offset in any::<bool>(), elsewhere in 0_u64..0x1000,
        code_bytes in 1_usize..0x9000, initrd in prop::collection::vec(1_usize..0x3000, 1..4),
    ) {
        let into_page = if same_offset { offset % PAGE_BYTES } else { elsewhere };
        let code: Vec<u8> = (0..=255).cycle().take(code_bytes).collect();
        let image = vmlinux_at(offset, ENTRY + into_page, &code);
        let parts: Vec<Vec<u8>> = initrd.iter().map(|&len| vec![0xcc; len]).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (copied, _) = boot_from(&image, &parts, Images::Changeable, "");
        let (mapped, entry) = boot_from(&image, &parts, Images::Immutable, "");
        prop_assert_eq!(entry.unwrap(), ENTRY + into_page);
        let kernel = |memory| bytes(memory, ENTRY, ENTRY + 0x10_0000);
        prop_assert!(kernel(&copied) == kernel(&mapped));
        // Where the archives start differs; what they hold and that only zeros are between them does not.
        let archives = |memory| -> Vec<u8> {
            let start = u64::from(word(memory, ZERO_PAGE + 0x218));
            let len = u64::from(word(memory, ZERO_PAGE + 0x21c));
            let all = bytes(memory, start, start + len);
            all.into_iter().filter(|&byte| byte != 0).collect()
        };
        prop_assert_eq!(archives(&copied).len(), initrd.iter().sum::<usize>());
        prop_assert!(archives(&copied) == archives(&mapped));
    }

    #[test]
    fn a_damaged_image_is_refused_or_stays_within_ram(
        elf in any::<bool>(),
        changes in prop::collection::vec((0_usize..1100, any::<u8>()), 1..12),
        len in 0_usize..1700,
    ) {
        let mut image = if elf { vmlinux(&[1; 1500]) } else { bzimage(&[1; 600]) };
        for (at, byte) in changes {
            // Half of the changes hit the headers.
            let at = if at % 2 == 0 { at % 120 + if elf { 0 } else { 0x1f0 } } else { at };
            if let Some(target) = image.get_mut(at) {
                *target = byte;
            }
        }
        image.truncate(len.max(64));
        for images in [Images::Changeable, Images::Immutable] {
            if let (_, Ok(entry)) = boot_from(&image, &[b"initrd"], images, "") {
                prop_assert!((HIGH_RAM_START..RAM_BYTES).contains(&entry));
            }
        }
    }
}
