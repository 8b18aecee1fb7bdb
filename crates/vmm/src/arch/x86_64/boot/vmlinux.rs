//! An ELF kernel: its segments, and putting them into guest RAM.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsFd as _;

use object::LittleEndian;
use object::elf::{EM_X86_64, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::super::layout::PAGE_BYTES;
use super::{BootError, ImageStart, Images, Loaded};
use crate::memory::{Pages, lay_over};

/// A part of the kernel at its physical address.
#[derive(Clone, Copy, Debug)]
struct Segment {
    gpa: u64,
    /// In RAM, beyond what the file has: zeros, as RAM is from the start.
    ram_bytes: u64,
    offset_bytes: u64,
    file_bytes: u64,
}

/// Puts the kernel where it is linked to. Nothing is written unless all of it lies in `room`.
pub(super) fn load(
    memory: &GuestMemoryMmap,
    kernel: &File,
    start: &ImageStart,
    images: Images,
    room: &std::ops::Range<u64>,
) -> Result<Loaded, BootError> {
    let (entry, segments) = parse(kernel, start.bytes()).map_err(BootError::Elf)?;
    let start = segments.iter().map(|segment| segment.gpa).min();
    let end = segments
        .iter()
        .map(|segment| segment.gpa + segment.ram_bytes)
        .max();
    let loaded = Loaded {
        entry,
        start: start.unwrap_or_default(),
        end: end.unwrap_or_default(),
        header: None,
    };
    loaded.check(room)?;
    for segment in segments {
        segment.load(memory, kernel, images)?;
    }
    Ok(loaded)
}

/// The entry, physical as the addresses of the segments are, and the segments. All headers must be at the `start`
/// of the file, where linkers put them.
fn parse(kernel: &File, start: &[u8]) -> Result<(u64, Vec<Segment>), ElfFault> {
    let file_bytes = kernel.metadata()?.len();
    let header = FileHeader64::<LittleEndian>::parse(start)?;
    let endian = header.endian()?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err(ElfFault::Machine);
    }
    let mut segments = Vec::new();
    for program in header.program_headers(endian, start)? {
        if program.p_type(endian) != PT_LOAD || program.p_memsz(endian) == 0 {
            continue;
        }
        let segment = Segment {
            gpa: program.p_paddr(endian),
            ram_bytes: program.p_memsz(endian),
            offset_bytes: program.p_offset(endian),
            file_bytes: program.p_filesz(endian),
        };
        let file_end = segment.offset_bytes.checked_add(segment.file_bytes);
        if file_end.is_none_or(|end| end > file_bytes)
            || segment.file_bytes > segment.ram_bytes
            || segment.gpa.checked_add(segment.ram_bytes).is_none()
        {
            return Err(ElfFault::Segment {
                index: segments.len(),
            });
        }
        segments.push(segment);
    }
    if segments.is_empty() {
        return Err(ElfFault::Empty);
    }
    Ok((header.e_entry(endian), segments))
}

impl Segment {
    /// Whole pages of the file become the guest's without being copied if the file stays as it is.
    fn load(
        &self,
        memory: &GuestMemoryMmap,
        kernel: &File,
        images: Images,
    ) -> Result<(), BootError> {
        let end = self.gpa + self.file_bytes;
        let first_page = self.gpa.next_multiple_of(PAGE_BYTES);
        let last_page = end - end % PAGE_BYTES;
        if images == Images::Immutable && first_page < last_page {
            let pages = Pages {
                file: kernel,
                offset_bytes: self.offset_bytes + (first_page - self.gpa),
                len_bytes: last_page - first_page,
            };
            if lay_over(memory, first_page, pages).map_err(BootError::MapKernel)? {
                self.copy(memory, kernel, self.gpa..first_page)?;
                return self.copy(memory, kernel, last_page..end);
            }
        }
        self.copy(memory, kernel, self.gpa..end)
    }

    fn copy(
        &self,
        memory: &GuestMemoryMmap,
        mut kernel: &File,
        gpas: std::ops::Range<u64>,
    ) -> Result<(), BootError> {
        if gpas.is_empty() {
            return Ok(());
        }
        let offset = self.offset_bytes + (gpas.start - self.gpa);
        kernel
            .seek(SeekFrom::Start(offset))
            .map_err(BootError::ReadKernel)?;
        // It lies in RAM and so fits into the address space.
        let len = usize::try_from(gpas.end - gpas.start).unwrap_or(usize::MAX);
        memory
            .read_exact_volatile_from(GuestAddress(gpas.start), &mut kernel.as_fd(), len)
            .map_err(BootError::CopyKernel)
    }
}

/// What is wrong with an ELF kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfFault {
    /// The file can't be read.
    #[error("it can't be read")]
    Read(#[from] std::io::Error),
    /// Its headers make no sense.
    #[error("its headers are wrong")]
    Headers(#[from] object::read::Error),
    /// Not for this CPU.
    #[error("it is not for x86-64")]
    Machine,
    /// A segment that the file doesn't hold.
    #[error("segment {index} to load is not all in the file, or has no place in memory")]
    Segment {
        /// Which, from 0 on.
        index: usize,
    },
    /// Nothing to load.
    #[error("it has no segment to load")]
    Empty,
}
