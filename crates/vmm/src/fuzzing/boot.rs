//! Loading a kernel into guest RAM, from any file.

use std::fs::File;
use std::io::{Seek, Write};
use std::ops::Range;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::arch::boot::{Images, InitrdPart, load};
use crate::arch::layout::{CMDLINE, HIGH_RAM_START, ZERO_PAGE};
use crate::arch::ram::place;

/// RAM of the machine's node, and how it grows with the input's first byte.
const LEAST_RAM_BYTES: u64 = 2 << 20;
const STEP_BYTES: u64 = 1 << 20;

/// Offsets in the zero page (Documentation/arch/x86/zero-page.rst).
const RAMDISK_IMAGE: u64 = 0x218;
const RAMDISK_SIZE: u64 = 0x21c;

/// A size of RAM, an initramfs of two parts, a command line, and a kernel image. A kernel that is taken lies
/// in RAM, is entered there, and finds its command line and an initramfs that lies apart from it.
pub fn boot(input: &[u8]) {
    // An input too short to be all that is none.
    let _ = run(&mut Unstructured::new(input));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let [ram, cmdline_len, initrd_pages]: [u8; 3] = input.arbitrary()?;
    // The highest bit of the first byte: whether pages of the files become the guest's.
    let (images, align) = if ram < 0x80 {
        (Images::Changeable, 4)
    } else {
        (Images::Immutable, 4096)
    };
    let ram_bytes = LEAST_RAM_BYTES + u64::from(ram % 32) * STEP_BYTES;
    let cmdline = "x".repeat(usize::from(cmdline_len) * 9);
    let parts: [Arc<[u8]>; 2] = [
        vec![1; usize::from(initrd_pages) * 1021].into(),
        vec![2; usize::from(initrd_pages & 7)].into(),
    ];
    let image = input.bytes(input.len())?;

    let bytes = usize::try_from(ram_bytes).expect("a few MiB");
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).expect("a few MiB");
    let regions = place(&[ram_bytes]).expect("whole pages");
    let mut initrd: Vec<_> = parts
        .iter()
        .map(|part| match images {
            Images::Changeable => InitrdPart::Bytes(Arc::clone(part)),
            Images::Immutable => InitrdPart::File(file(part)),
        })
        .collect();
    let loaded = load(
        &memory,
        &regions,
        &mut file(image),
        &mut initrd,
        images,
        &cmdline,
    );
    let Ok(entry) = loaded else { return Ok(()) };

    assert!((HIGH_RAM_START..ram_bytes).contains(&entry));
    let word = |at| {
        u64::from(
            memory
                .read_obj::<u32>(GuestAddress(ZERO_PAGE + at))
                .expect("RAM"),
        )
    };
    let start = word(RAMDISK_IMAGE);
    let initrd = start..start + word(RAMDISK_SIZE);
    let whole = parts[0].len().next_multiple_of(align) + parts[1].len();
    assert_eq!(initrd.end - initrd.start, whole as u64);
    assert!(initrd.is_empty() || initrd.start >= HIGH_RAM_START && initrd.end <= ram_bytes);
    for segment in segments(image) {
        assert!(
            segment.start >= HIGH_RAM_START && segment.end <= ram_bytes,
            "a part of the kernel lies at {segment:#x?}"
        );
        assert!(
            segment.end <= initrd.start || initrd.is_empty(),
            "the initramfs at {initrd:#x?} lies in the kernel's {segment:#x?}"
        );
    }
    let mut placed = vec![0; whole];
    memory
        .read_slice(&mut placed, GuestAddress(initrd.start))
        .expect("the initramfs lies in RAM");
    assert!(placed.starts_with(&parts[0]) && placed.ends_with(&parts[1]));
    let mut line = vec![0; cmdline.len() + 1];
    memory
        .read_slice(&mut line, GuestAddress(CMDLINE))
        .expect("the command line lies in RAM");
    assert_eq!(line.split_last(), Some((&0, cmdline.as_bytes())));
    Ok(())
}

fn file(bytes: &[u8]) -> File {
    let fd = memfd_create(c"image", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    let mut file = File::from(fd);
    file.write_all(bytes).expect("memory for the image");
    file.rewind().expect("a memfd can seek");
    file
}

/// Where an ELF file that was taken wants to lie; nothing for a bzImage, which says it in its header, nor for
/// an ELF with more segments than its header can count.
fn segments(image: &[u8]) -> Vec<Range<u64>> {
    const LOAD: u64 = 1;
    const ENTRY_BYTES: usize = 56;
    /// The count is elsewhere, in the first section header (ELF gABI, `e_phnum`).
    const PN_XNUM: usize = 0xffff;
    if !image.starts_with(b"\x7fELF") {
        return Vec::new();
    }
    let number = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&image[at..at + len]);
        u64::from_le_bytes(bytes)
    };
    let table = usize::try_from(number(0x20, 8)).expect("it was read");
    let count = usize::try_from(number(0x38, 2)).expect("two bytes");
    if count == PN_XNUM {
        return Vec::new();
    }
    (0..count)
        .map(|index| table + index * ENTRY_BYTES)
        .filter(|&at| number(at, 4) == LOAD && number(at + 40, 8) > 0)
        .map(|at| number(at + 24, 8)..number(at + 24, 8).saturating_add(number(at + 40, 8)))
        .collect()
}
