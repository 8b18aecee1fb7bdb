//! The kernel as an ELF file.

use std::io::Read;
use std::ops::Range;

use memchr::memmem;
use object::LittleEndian;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::read::{Object, ObjectSection};
use serde::{Deserialize, Serialize};

use super::release::release_of;
use super::{ImageError, identify};

/// Where a section's bytes are in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionRange {
    /// First byte.
    pub offset: u64,
    /// How many.
    pub size: u64,
}

impl SectionRange {
    /// As a range of file offsets; empty when the numbers don't fit.
    pub fn as_range(self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }
}

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the note with the 32-bit entry point of the PVH boot protocol
/// (include/xen/interface/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: elf::NoteType = elf::NoteType(18);
/// Markers around the gzipped `.config` of `CONFIG_IKCONFIG` (kernel/configs.c).
const IKCONFIG_START: &[u8] = b"IKCFG_ST";
/// Most bytes that a `.config` may have; the largest are about 300 kB.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
const BANNER: &[u8] = b"Linux version ";
/// Bound on a release; `UTS_RELEASE` is at most 64 bytes.
const MAX_BANNER_BYTES: usize = 128;

/// A kernel's ELF file, checked to be one for x86-64.
#[derive(Debug)]
pub struct Vmlinux<'a> {
    bytes: &'a [u8],
    elf: ElfFile64<'a, LittleEndian>,
}

impl<'a> Vmlinux<'a> {
    /// Checks that the bytes are an x86-64 ELF executable.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let not = |why: String| ImageError::NotAKernel { why };
        if !bytes.starts_with(b"\x7fELF") {
            return Err(not("it is not an ELF file".to_owned()));
        }
        if let Some(what) = identify(bytes) {
            return Err(ImageError::Foreign { what });
        }
        let header =
            elf::FileHeader64::<LittleEndian>::parse(bytes).map_err(|e| not(e.to_string()))?;
        let kind = header.e_type(LittleEndian);
        if kind != elf::ET_EXEC && kind != elf::ET_DYN {
            return Err(not("it is an ELF file, but not an executable".to_owned()));
        }
        let elf = ElfFile64::parse(bytes).map_err(|e| not(e.to_string()))?;
        let this = Self { bytes, elf };
        if this.banner().is_none() {
            return Err(not(
                "it is an ELF executable without a Linux banner".to_owned()
            ));
        }
        Ok(this)
    }

    /// The kernel's release (`uname -r`), from its banner.
    pub fn release(&self) -> Option<&'a str> {
        release_of(self.banner()?)
    }

    /// Where `.BTF` is, when the kernel has type information.
    pub fn btf(&self) -> Option<SectionRange> {
        let (offset, size) = self.elf.section_by_name(".BTF")?.file_range()?;
        let range = SectionRange { offset, size };
        let inside = range.as_range().end <= self.bytes.len() as u64;
        (inside && size > 0).then_some(range)
    }

    /// The 32-bit entry point for booting by PVH, when the kernel was built with `CONFIG_PVH`.
    pub fn pvh_entry(&self) -> Option<u64> {
        for segment in self.elf.elf_program_headers() {
            let Ok(Some(mut notes)) = segment.notes(LittleEndian, self.bytes) else {
                continue;
            };
            // A damaged note ends the walk over its segment.
            while let Ok(Some(note)) = notes.next() {
                if note.name() == b"Xen" && note.n_type(LittleEndian) == XEN_ELFNOTE_PHYS32_ENTRY {
                    return address(note.desc());
                }
            }
        }
        None
    }

    /// The kernel's own `.config`, when it was built with `CONFIG_IKCONFIG`.
    pub fn config(&self) -> Option<String> {
        let data = self.section(b".rodata");
        let at = memmem::find(data, IKCONFIG_START)? + IKCONFIG_START.len();
        let mut text = String::new();
        flate2::bufread::GzDecoder::new(&data[at..])
            .take(MAX_CONFIG_BYTES)
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    }

    /// The text after `Linux version `, up to a bound.
    fn banner(&self) -> Option<&'a [u8]> {
        let data = self.section(b".rodata");
        // A kernel has the banner and its format string (`Linux version %s`); the first goes on with a digit.
        memmem::find_iter(data, BANNER)
            .filter_map(|at| data.get(at + BANNER.len()..))
            .find(|text| text.first().is_some_and(u8::is_ascii_digit))
            .map(|text| &text[..text.len().min(MAX_BANNER_BYTES)])
    }

    /// The section's bytes, or the whole file for an image without section headers.
    fn section(&self, name: &[u8]) -> &'a [u8] {
        let section = self
            .elf
            .section_by_name_bytes(name)
            .and_then(|section| section.data().ok());
        section
            .filter(|data| !data.is_empty())
            .unwrap_or(self.bytes)
    }
}

/// The note holds the address as 4 or 8 bytes, by the width of the build.
fn address(desc: &[u8]) -> Option<u64> {
    match desc.len() {
        4 => Some(u64::from(u32::from_le_bytes(desc.try_into().ok()?))),
        8 => Some(u64::from_le_bytes(desc.try_into().ok()?)),
        _ => None,
    }
}
