//! Loading a kernel, its command line and its initramfs.

mod vmlinux;

use std::fs::File;
use std::io::{self, Seek as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, KernelLoader};
use object::pod::{bytes_of_slice, bytes_of_slice_mut};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
};

use super::layout::{
    CMDLINE, CMDLINE_MAX_BYTES, GAP_START, HIGH_RAM_START, PAGE_BYTES, RESET_PORT, RESET_VECTOR,
    ZERO_PAGE,
};
use super::power::RESET_VALUE;
use super::zero_page::{self, Placed};
use super::{paging, regs};
use crate::memory::{Pages, RamRegion, lay_over};

pub use vmlinux::ElfFault;

/// Whether the files of kernel and initramfs may change while the machine lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Images {
    /// They may, so they are copied into guest RAM.
    #[default]
    Changeable,
    /// They may not, so guest RAM can be made of their pages.
    Immutable,
}

/// A part of the initramfs. The kernel unpacks several archives in a row
/// (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Debug)]
pub enum InitrdPart {
    /// The whole of a file on the host.
    File(File),
    /// Bytes in memory.
    Bytes(std::sync::Arc<[u8]>),
}

impl InitrdPart {
    fn len_bytes(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// What its start in RAM is a multiple of: the kernel looks for archives at multiples of 4 bytes
    /// (init/initramfs.c).
    fn align(&self, images: Images) -> u64 {
        match (self, images) {
            (Self::File(_), Images::Immutable) => PAGE_BYTES,
            _ => 4,
        }
    }
}

/// Why a kernel can't be entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The file can't be read.
    #[error("can't read the kernel image")]
    ReadKernel(#[source] io::Error),
    /// Neither of the two forms.
    #[error("the kernel image is neither a bzImage nor an ELF vmlinux: check what file it is")]
    UnknownImage,
    /// A damaged image, or one that doesn't fit into RAM.
    #[error(
        "can't load the kernel as a bzImage: the image is damaged, or larger than the guest's RAM below 3 \
         GiB"
    )]
    BzImage(#[source] linux_loader::loader::Error),
    /// A damaged ELF file.
    #[error("can't load the kernel as an ELF vmlinux: the image is damaged")]
    Elf(#[source] ElfFault),
    /// The host refused to map the file.
    #[error("can't map the kernel image into guest RAM")]
    MapKernel(#[source] io::Error),
    /// The file was shorter than before.
    #[error("can't copy the kernel image into guest RAM: did its file change?")]
    CopyKernel(#[source] GuestMemoryError),
    /// No 64-bit entry.
    #[error(
        "the bzImage has no 64-bit entry (XLF_KERNEL_64): a 64-bit kernel of version 3.8 or newer is needed"
    )]
    Not64Bit,
    /// The kernel would lie where the machine keeps other things.
    #[error(
        "the kernel wants to lie at {start:#x} to {end:#x}, outside of RAM between 1 MiB and {ram_end:#x}: \
         give the first NUMA node more memory"
    )]
    Placement {
        start: u64,
        /// Its end, with the room that it needs before it knows of memory.
        end: u64,
        /// End of the RAM.
        ram_end: u64,
    },
    /// Too long a command line.
    #[error(
        "the kernel command line has {len_bytes} bytes; x86 kernels take at most {} (COMMAND_LINE_SIZE)",
        CMDLINE_MAX_BYTES - 1
    )]
    CmdlineTooLong { len_bytes: usize },
    /// A byte that ends it early.
    #[error("the kernel command line has a NUL byte in it")]
    CmdlineNul,
    /// A part of the initramfs can't be read.
    #[error("can't read part {index} of the initramfs")]
    ReadInitrd {
        /// Which part, from 0 on.
        index: usize,
        #[source]
        source: io::Error,
    },
    /// The host refused to map a part.
    #[error("can't map part {index} of the initramfs into guest RAM")]
    MapInitrd {
        /// Which part, from 0 on.
        index: usize,
        #[source]
        source: io::Error,
    },
    /// A part was shorter than its file said.
    #[error("can't copy part {index} of the initramfs into guest RAM: did its file change?")]
    CopyInitrd {
        /// Which part, from 0 on.
        index: usize,
        #[source]
        source: GuestMemoryError,
    },
    /// No room between the kernel and the end of RAM.
    #[error(
        "the initramfs has {len_bytes} bytes, but between the kernel and the end of RAM below 3 GiB there \
         are {room_bytes}: give the first NUMA node more memory"
    )]
    InitrdTooLarge { len_bytes: u64, room_bytes: u64 },
    /// Less RAM than the first megabyte, where the kernel's parameters lie.
    #[error(
        "can't write the kernel's parameters: the first NUMA node needs more than 1 MiB of memory"
    )]
    Parameters(#[source] GuestMemoryError),
}

/// What is at the reset vector. On machines of the hardware-reduced kind Linux takes EFI to be there
/// (`efi_reboot_required` of arch/x86/platform/efi/quirks.c), and falls back to the BIOS, not to the ACPI
/// reset register.
#[rustfmt::skip]
const RESET_CODE: [u8; 9] = [
    0xb0, RESET_VALUE,                          //    mov al, 6
    0xba, RESET_PORT_BYTES[0], RESET_PORT_BYTES[1], // mov dx, 0xcf9
    0xee,                                       //    out dx, al
    0xf4,                                       // 1: hlt
    0xeb, 0xfd,                                 //    jmp 1b
];
const RESET_PORT_BYTES: [u8; 2] = RESET_PORT.to_le_bytes();

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    entry: u64,
    start: u64,
    end: u64,
    header: Option<setup_header>,
}

impl Loaded {
    /// Whether all of it lies in `room`.
    fn check(&self, room: &Range<u64>) -> Result<(), BootError> {
        let inside = self.start >= room.start && self.end <= room.end;
        if !inside || !(self.start..self.end).contains(&self.entry) {
            return Err(BootError::Placement {
                start: self.start,
                end: self.end,
                ram_end: room.end,
            });
        }
        Ok(())
    }
}

/// Loads all that the boot CPU needs, and gives the address it starts at.
pub(crate) fn load(
    memory: &GuestMemoryMmap,
    regions: &[RamRegion],
    kernel: &mut File,
    initrd: &mut [InitrdPart],
    images: Images,
    cmdline: &str,
) -> Result<u64, BootError> {
    let ram_end = low_ram_end(memory);
    let loaded = load_kernel(memory, kernel, images, &(HIGH_RAM_START..ram_end))?;
    let placed = load_initrd(memory, &loaded, ram_end, images, initrd)?;
    write_cmdline(memory, cmdline)?;
    let params = zero_page::build(loaded.header, regions, placed);
    memory
        .write_obj(params, GuestAddress(ZERO_PAGE))
        .and_then(|()| paging::write_identity_map(memory))
        .and_then(|()| regs::write_gdt(memory))
        .and_then(|()| memory.write_slice(&RESET_CODE, GuestAddress(RESET_VECTOR)))
        .map_err(BootError::Parameters)?;
    Ok(loaded.entry)
}

/// End of the RAM that starts at address 0 and is below the gap.
fn low_ram_end(memory: &GuestMemoryMmap) -> u64 {
    let mut end = 0;
    for region in memory.iter() {
        if region.start_addr().0 == end {
            end += region.len();
        }
    }
    end.min(GAP_START)
}

fn load_kernel(
    memory: &GuestMemoryMmap,
    image: &mut File,
    images: Images,
    room: &Range<u64>,
) -> Result<Loaded, BootError> {
    /// Where `HdrS` stands in a bzImage.
    const HEADER_MAGIC_AT: usize = 0x202;
    let start = ImageStart::read(image).map_err(BootError::ReadKernel)?;
    if start.has(0, b"\x7fELF") {
        return vmlinux::load(memory, image, &start, images, room);
    }
    if start.has(HEADER_MAGIC_AT, b"HdrS") {
        let loaded = load_bzimage(memory, image)?;
        loaded.check(room)?;
        return Ok(loaded);
    }
    Err(BootError::UnknownImage)
}

/// The first page of an image, less if it is shorter.
struct ImageStart {
    words: [u64; WORDS],
    len_bytes: usize,
}

#[expect(clippy::cast_possible_truncation, reason = "512")]
const WORDS: usize = PAGE_BYTES as usize / size_of::<u64>();

impl ImageStart {
    fn read(image: &File) -> io::Result<Self> {
        let mut words = [0; WORDS];
        let bytes = bytes_of_slice_mut(&mut words);
        let mut len_bytes = 0;
        while len_bytes < bytes.len() {
            match image.read_at(&mut bytes[len_bytes..], len_bytes as u64) {
                Ok(0) => break,
                Ok(count) => len_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { words, len_bytes })
    }

    /// Aligned as headers are.
    fn bytes(&self) -> &[u8] {
        &bytes_of_slice(&self.words)[..self.len_bytes]
    }

    fn has(&self, at: usize, magic: &[u8]) -> bool {
        self.bytes().get(at..at + magic.len()) == Some(magic)
    }
}

fn load_bzimage(memory: &GuestMemoryMmap, image: &mut File) -> Result<Loaded, BootError> {
    /// `XLF_KERNEL_64` of `xloadflags`: there is an entry 512 bytes into the image.
    const KERNEL_64: u16 = 1 << 0;
    const ENTRY_64_OFFSET: u64 = 0x200;
    let loaded = BzImage::load(memory, None, image, Some(GuestAddress(HIGH_RAM_START)))
        .map_err(BootError::BzImage)?;
    let header = loaded.setup_header.unwrap_or_default();
    if header.version < 0x20c || header.xloadflags & KERNEL_64 == 0 {
        return Err(BootError::Not64Bit);
    }
    let start = loaded.kernel_load.0;
    // The image unpacks itself to `pref_address` or above, and needs `init_size` bytes there.
    let room = start
        .max(header.pref_address)
        .checked_add(u64::from(header.init_size));
    Ok(Loaded {
        entry: start + ENTRY_64_OFFSET,
        start,
        end: loaded.kernel_end.max(room.unwrap_or(u64::MAX)),
        header: Some(header),
    })
}

/// Puts the parts one behind the other as high as they go, files that are mapped at page boundaries. The
/// kernel skips the zeros between them.
fn load_initrd(
    memory: &GuestMemoryMmap,
    kernel: &Loaded,
    ram_end: u64,
    images: Images,
    parts: &mut [InitrdPart],
) -> Result<Placed, BootError> {
    let mut offsets = Vec::with_capacity(parts.len());
    let mut len_bytes = 0_u64;
    for (index, part) in parts.iter().enumerate() {
        let len = part
            .len_bytes()
            .map_err(|source| BootError::ReadInitrd { index, source })?;
        len_bytes = len_bytes.next_multiple_of(part.align(images));
        offsets.push((len_bytes, len));
        len_bytes = len_bytes.saturating_add(len).min(1 << 62);
    }
    if len_bytes == 0 {
        return Ok(Placed::default());
    }
    // A kernel without the field takes what it can map: all below the gap.
    let highest = kernel
        .header
        .map_or(GAP_START, |header| u64::from(header.initrd_addr_max) + 1);
    let top = ram_end.min(highest);
    let room_bytes = top.saturating_sub(kernel.end.next_multiple_of(PAGE_BYTES));
    let too_large = BootError::InitrdTooLarge {
        len_bytes,
        room_bytes,
    };
    let start = match top.checked_sub(len_bytes) {
        Some(start) if len_bytes <= room_bytes => start / PAGE_BYTES * PAGE_BYTES,
        _ => return Err(too_large),
    };
    for (index, (part, (offset, len))) in parts.iter_mut().zip(offsets).enumerate() {
        let at = start + offset;
        if let (InitrdPart::File(file), Images::Immutable) = (&*part, images) {
            // Beyond its end, the last page of a file that is mapped has zeros (mmap(2)).
            let pages = Pages {
                file,
                offset_bytes: 0,
                len_bytes: len.next_multiple_of(PAGE_BYTES),
            };
            let laid_over = lay_over(memory, at, pages);
            if laid_over.map_err(|source| BootError::MapInitrd { index, source })? {
                continue;
            }
        }
        let copied = match part {
            InitrdPart::Bytes(bytes) => memory.write_slice(bytes, GuestAddress(at)),
            InitrdPart::File(file) => {
                file.rewind()
                    .map_err(|source| BootError::ReadInitrd { index, source })?;
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                memory.read_exact_volatile_from(GuestAddress(at), file, len)
            }
        };
        copied.map_err(|source| BootError::CopyInitrd { index, source })?;
    }
    let (Ok(gpa), Ok(len_bytes)) = (u32::try_from(start), u32::try_from(len_bytes)) else {
        return Err(too_large);
    };
    Ok(Placed { gpa, len_bytes })
}

fn write_cmdline(memory: &GuestMemoryMmap, cmdline: &str) -> Result<(), BootError> {
    let len_bytes = cmdline.len();
    if len_bytes >= CMDLINE_MAX_BYTES {
        return Err(BootError::CmdlineTooLong { len_bytes });
    }
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    memory
        .write_slice(&bytes, GuestAddress(CMDLINE))
        .map_err(BootError::Parameters)
}

#[cfg(test)]
mod tests;
