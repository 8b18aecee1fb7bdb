//! Kernel symbols: names to addresses, and addresses to the symbol they lie in.
//!
//! A kernel of one's own build has a symbol table. A distribution's has none, but carries the tables behind
//! `/proc/kallsyms` in its image ([`Symbols::from_vmlinux`] takes what there is). The text of
//! `/proc/kallsyms` itself also knows modules.

mod elf;
mod kallsyms;
mod table;

pub use elf::{SymbolError, VmlinuxError, section};
pub use kallsyms::{Kallsyms, KallsymsError};
pub use table::TextError;

use table::Table;

/// Symbols of a kernel, by name and by address.
#[derive(Clone, Debug)]
pub struct Symbols {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Kallsyms(Kallsyms),
    Table(Table),
}

/// Where an address lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The symbol at or before it.
    pub name: String,
    /// Bytes from there.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            0 => f.write_str(&self.name),
            offset => write!(f, "{}+{offset:#x}", self.name),
        }
    }
}

impl Symbols {
    /// From a vmlinux: its symbol table if it has one, else its kallsyms tables. Addresses are those that the
    /// kernel was linked at.
    pub fn from_vmlinux(vmlinux: &[u8]) -> Result<Self, SymbolError> {
        elf::from_vmlinux(vmlinux)
    }

    /// From the text of `/proc/kallsyms`. Addresses are those of the running kernel.
    pub fn from_proc_kallsyms(text: &str) -> Result<Self, TextError> {
        Table::from_proc_kallsyms(text).map(Self::from)
    }

    /// The address of the symbol `name`; of several, the lowest.
    pub fn find(&self, name: &str) -> Option<u64> {
        match &self.source {
            Source::Kallsyms(kallsyms) => kallsyms.find(name),
            Source::Table(table) => table.find(name),
        }
    }

    /// The symbol that `address` lies in: the last one at or before it. Of several at the same address, the
    /// first global one.
    pub fn place(&self, address: u64) -> Option<Place> {
        match &self.source {
            Source::Kallsyms(kallsyms) => kallsyms.place(address),
            Source::Table(table) => table.place(address),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Kallsyms(kallsyms) => kallsyms.len(),
            Source::Table(table) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Kallsyms> for Symbols {
    fn from(kallsyms: Kallsyms) -> Self {
        Self {
            source: Source::Kallsyms(kallsyms),
        }
    }
}

impl From<Table> for Symbols {
    fn from(table: Table) -> Self {
        Self {
            source: Source::Table(table),
        }
    }
}
