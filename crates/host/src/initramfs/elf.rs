//! What an initramfs needs to know of ELF files: what they load, and how to leave out what they don't.

use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::endian::LittleEndian;
use object::pod;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

type Le = LittleEndian;

/// What a dynamic executable or library asks the loader for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DynamicNeeds {
    /// The loader (`PT_INTERP`); libraries have none.
    pub(super) loader: Option<PathBuf>,
    /// Whether it names libraries (`DT_NEEDED`).
    pub(super) has_libraries: bool,
    /// Folders in `DT_RUNPATH` or `DT_RPATH`, with `$ORIGIN` as it stands.
    pub(super) search: Vec<String>,
}

/// Not an ELF file that an x86-64 guest can run.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The bytes are not a sound ELF file.
    #[error("{path} is not a sound ELF file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

fn malformed(path: &Path, reason: object::read::Error) -> ElfError {
    ElfError::Malformed {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// Reads what the file at `path`, with these bytes, needs at run time. `None` for what no x86-64 loader loads: files
/// of other machines, objects, and all that is not ELF.
pub(super) fn dynamic_needs(path: &Path, bytes: &[u8]) -> Result<Option<DynamicNeeds>, ElfError> {
    /// `e_ident` of a 64-bit little-endian file (elf(5)).
    const IDENT: &[u8] = b"\x7fELF\x02\x01";
    if !bytes.starts_with(IDENT) {
        return Ok(None);
    }
    let fail = |error: object::read::Error| malformed(path, error);
    let header = FileHeader64::<Le>::parse(bytes).map_err(fail)?;
    let endian = header.endian().map_err(fail)?;
    let kind = header.e_type(endian);
    if header.e_machine(endian) != elf::EM_X86_64 || !(kind == elf::ET_EXEC || kind == elf::ET_DYN)
    {
        return Ok(None);
    }
    let mut needs = DynamicNeeds::default();
    for segment in header.program_headers(endian, bytes).map_err(fail)? {
        if let Some(loader) = segment.interpreter(endian, bytes).map_err(fail)? {
            needs.loader = Some(text(loader).into());
        }
    }
    let sections = header.sections(endian, bytes).map_err(fail)?;
    let table = sections.dynamic_table(endian, bytes).map_err(fail)?;
    for entry in &table {
        match entry.tag {
            elf::DT_NEEDED => needs.has_libraries = true,
            elf::DT_RUNPATH | elf::DT_RPATH => {
                let folders = text(table.string(entry).map_err(fail)?);
                needs.search.extend(folders.split(':').map(str::to_owned));
            }
            _ => {}
        }
    }
    Ok(Some(needs))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The file without its debug sections. What is loaded stays byte for byte where it is, and so does the
/// symbol table, so that a backtrace in the guest has names. Section numbers are kept (symbols refer to
/// them): a dropped section becomes an empty one.
pub(super) fn without_debug_sections(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, ElfError> {
    let fail = |error: object::read::Error| malformed(path, error);
    let mut header = *FileHeader64::<Le>::parse(bytes).map_err(fail)?;
    let endian = header.endian().map_err(fail)?;
    let segments = header.program_headers(endian, bytes).map_err(fail)?;
    let mut sections = header
        .section_headers(endian, bytes)
        .map_err(fail)?
        .to_vec();
    let names = usize::from(header.e_shstrndx.get(endian).0);

    let loaded = loaded_bytes(segments, &sections).max(end_of_headers(&header, segments));
    let loaded = usize::try_from(loaded)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let mut slim = bytes[..loaded].to_vec();
    for (index, section) in sections.iter_mut().enumerate() {
        if is_loaded(section) {
            continue;
        }
        let kept = index == names || is_symbols(section);
        if !kept {
            drop_section(section);
            continue;
        }
        let content = section.data(endian, bytes).map_err(fail)?;
        section.sh_offset.set(endian, append(&mut slim, content));
    }
    let table = append(&mut slim, pod::bytes_of_slice(&sections));
    header.e_shoff.set(endian, table);
    slim[..size_of_val(&header)].copy_from_slice(pod::bytes_of(&header));
    Ok(slim)
}

fn loaded_bytes(segments: &[ProgramHeader64<Le>], sections: &[SectionHeader64<Le>]) -> u64 {
    let endian = LittleEndian;
    let segment_end = |segment: &ProgramHeader64<Le>| {
        segment
            .p_offset
            .get(endian)
            .saturating_add(segment.p_filesz.get(endian))
    };
    let section_end = |section: &SectionHeader64<Le>| {
        let in_file = section.sh_type.get(endian) != elf::SHT_NOBITS && is_loaded(section);
        let end = section
            .sh_offset
            .get(endian)
            .saturating_add(section.sh_size.get(endian));
        if in_file { end } else { 0 }
    };
    let segments = segments.iter().map(segment_end).max().unwrap_or(0);
    segments.max(sections.iter().map(section_end).max().unwrap_or(0))
}

fn end_of_headers(header: &FileHeader64<Le>, segments: &[ProgramHeader64<Le>]) -> u64 {
    let table = size_of_val(segments) as u64;
    header
        .e_phoff
        .get(LittleEndian)
        .saturating_add(table)
        .max(size_of_val(header) as u64)
}

/// Whether the section is in memory when the program runs.
fn is_loaded(section: &SectionHeader64<Le>) -> bool {
    section.sh_flags.get(LittleEndian).0 & elf::SHF_ALLOC.0 != 0
}

fn is_symbols(section: &SectionHeader64<Le>) -> bool {
    let kind = section.sh_type.get(LittleEndian);
    kind == elf::SHT_SYMTAB || kind == elf::SHT_STRTAB
}

fn drop_section(section: &mut SectionHeader64<Le>) {
    section.sh_type.set(LittleEndian, elf::SHT_NULL);
    section.sh_offset.set(LittleEndian, 0);
    section.sh_size.set(LittleEndian, 0);
}

/// Appends at the next multiple of 16 and returns where.
fn append(bytes: &mut Vec<u8>, content: &[u8]) -> u64 {
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let offset = bytes.len() as u64;
    bytes.extend_from_slice(content);
    offset
}
