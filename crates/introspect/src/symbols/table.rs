//! Symbols that are written out: of an ELF symbol table or the text of `/proc/kallsyms`.

use std::collections::HashMap;

use super::Place;

#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// In ascending order of address; at one address, global ones first.
    entries: Vec<Entry>,
    by_name: HashMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    address: u64,
    is_local: bool,
    name: String,
}

/// Why a text is not a list of symbols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A line of another form.
    #[error("line {number} of the kernel's symbols is not `ADDRESS TYPE NAME`: {line:?}")]
    Line {
        /// Counted from 1.
        number: usize,
        line: String,
    },
    /// The reader may not see addresses.
    #[error(
        "/proc/kallsyms gave no addresses: it was read without the right to see them (kernel.kptr_restrict, \
         CAP_SYSLOG)"
    )]
    Hidden,
}

impl Table {
    pub(super) fn new(symbols: impl Iterator<Item = (u64, bool, String)>) -> Self {
        let mut entries: Vec<Entry> = symbols
            .map(|(address, is_local, name)| Entry {
                address,
                is_local,
                name,
            })
            .collect();
        entries.sort();
        let mut by_name = HashMap::with_capacity(entries.len());
        for entry in &entries {
            by_name.entry(entry.name.clone()).or_insert(entry.address);
        }
        Self { entries, by_name }
    }

    pub(super) fn from_proc_kallsyms(text: &str) -> Result<Self, TextError> {
        let symbols = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| {
                parse_line(line).ok_or_else(|| TextError::Line {
                    number,
                    line: line.to_owned(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        if !symbols.is_empty() && symbols.iter().all(|(address, ..)| *address == 0) {
            return Err(TextError::Hidden);
        }
        Ok(Self::new(symbols.into_iter()))
    }

    pub(super) fn find(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(super) fn place(&self, address: u64) -> Option<Place> {
        let after = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let found = self.entries.get(after.checked_sub(1)?)?.address;
        let first = self.entries.partition_point(|entry| entry.address < found);
        Some(Place {
            name: self.entries.get(first)?.name.clone(),
            offset: address - found,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// `ffffffff81000000 T _text`, for modules followed by a tab and `[module]`.
fn parse_line(line: &str) -> Option<(u64, bool, String)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = words.next().filter(|kind| kind.len() == 1)?;
    let name = words.next()?;
    Some((
        address,
        kind.chars().all(|kind| kind.is_ascii_lowercase()),
        name.to_owned(),
    ))
}
