//! What a vmlinux says in its own sections.

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::table::Table;
use super::{Kallsyms, KallsymsError, Symbols};

/// Why a vmlinux can't be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmlinuxError {
    /// No ELF file.
    #[error("the vmlinux can't be read as an ELF file")]
    Elf(#[source] object::Error),
    /// It lacks a section.
    #[error("the vmlinux has no section `{name}`")]
    NoSection { name: &'static str },
}

/// Why a vmlinux gave no symbols.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolError {
    #[error(transparent)]
    Vmlinux(#[from] VmlinuxError),
    /// It has no symbol table, and its kallsyms tables are missing or of another form.
    #[error(
        "the vmlinux has no symbol table, and no symbols were found in its kallsyms tables either: build the \
         kernel with CONFIG_KALLSYMS_ALL=y"
    )]
    Kallsyms(#[source] KallsymsError),
}

/// A section of an ELF file: the address it is linked at, and its bytes.
pub fn section<'a>(elf: &'a [u8], name: &'static str) -> Result<(u64, &'a [u8]), VmlinuxError> {
    let file = object::File::parse(elf).map_err(VmlinuxError::Elf)?;
    let section = file
        .section_by_name(name)
        .ok_or(VmlinuxError::NoSection { name })?;
    let data = section.data().map_err(VmlinuxError::Elf)?;
    Ok((section.address(), data))
}

pub(super) fn from_vmlinux(vmlinux: &[u8]) -> Result<Symbols, SymbolError> {
    let file = object::File::parse(vmlinux).map_err(VmlinuxError::Elf)?;
    let table = Table::new(file.symbols().filter_map(|symbol| {
        let is_file = matches!(symbol.kind(), SymbolKind::File | SymbolKind::Section);
        let name = symbol.name().ok().filter(|name| !name.is_empty())?;
        (!is_file && symbol.is_definition())
            .then(|| (symbol.address(), symbol.is_local(), name.to_owned()))
    }));
    if table.len() > 0 {
        return Ok(table.into());
    }
    let (address, rodata) = section(vmlinux, ".rodata")?;
    Kallsyms::find_in(rodata, address)
        .map(Symbols::from)
        .map_err(SymbolError::Kallsyms)
}
