//! From bytes to where each type is.

use std::sync::Arc;

use super::types::TYPE_BYTES;
use super::{Btf, Inner, Kind, NameIndex, name_bytes};
use crate::budget::{Budget, BudgetExhausted};
use crate::bytes::{u16_at, u32_at};

const MAGIC: u16 = 0xeb9f;
/// Magic, version, flags, header length, and offset and length of types and strings.
const MIN_HEADER_BYTES: usize = 24;

/// Why bytes are not type information that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BtfError {
    /// Something else, or of a machine with another byte order.
    #[error("not BTF: it starts with {start:02x?} instead of 9f eb")]
    NotBtf {
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// A version whose types may look different.
    #[error("BTF version {version}, only 1 is known")]
    Version { version: u8 },
    /// It is shorter than its header says, or a part lies outside.
    #[error("BTF is cut short or damaged: {what} at byte {at} of {len}")]
    Truncated {
        /// The part that is not whole.
        what: &'static str,
        /// Where it begins.
        at: usize,
        /// The length of what it must lie in.
        len: usize,
    },
    /// A kind of type that came after this was written. What follows it can't be found.
    #[error(
        "BTF type {id} is of kind {kind}, which is not known here: the kernel is newer than this library"
    )]
    UnknownKind { id: u32, kind: u32 },
    /// Names are text.
    #[error("the names in BTF are not UTF-8 text that ends in a NUL byte")]
    Strings,
    /// A name outside the string section.
    #[error("BTF type {id} has its name at {offset}, outside the {len} bytes of names")]
    Name {
        id: u32,
        /// Where its name should be.
        offset: u32,
        /// How long the names are, those of the base included.
        len: u64,
    },
    /// It has more types or names than the look may cost.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
}

/// `budget` is that of a look at a guest; an image of a kernel needs none.
pub(super) fn parse(
    bytes: &[u8],
    base: Option<Btf>,
    budget: Option<&Budget>,
) -> Result<Btf, BtfError> {
    let (types, strings) = sections(bytes)?;
    let strings = std::str::from_utf8(strings).map_err(|_| BtfError::Strings)?;
    if !strings.ends_with('\0') {
        return Err(BtfError::Strings);
    }
    let (first_id, first_string) = match &base {
        Some(base) => (base.end_id(), base.end_string()),
        // Id 0 is void, which is not in the section.
        None => (1, 0),
    };
    let starts = type_starts(types, first_id, budget)?;
    let mut btf = Inner {
        base,
        types: types.into(),
        starts,
        first_id,
        strings: strings.into(),
        first_string,
        names: NameIndex::default(),
    };
    btf.names = index_names(&btf, budget)?;
    Ok(Btf {
        inner: Arc::new(btf),
    })
}

/// The type section and the string section.
fn sections(bytes: &[u8]) -> Result<(&[u8], &[u8]), BtfError> {
    if u16_at(bytes, 0) != Some(MAGIC) {
        return Err(BtfError::NotBtf {
            start: bytes.iter().copied().take(4).collect(),
        });
    }
    let truncated = |what, at| BtfError::Truncated {
        what,
        at,
        len: bytes.len(),
    };
    if bytes.len() < MIN_HEADER_BYTES {
        return Err(truncated("the header", 0));
    }
    if bytes[2] != 1 {
        return Err(BtfError::Version { version: bytes[2] });
    }
    let word = |at| u32_at(bytes, at).map(|word| word as usize);
    let section = |what, at| {
        let header = word(4)?;
        let start = header.checked_add(word(at)?)?;
        let end = start.checked_add(word(at + 4)?)?;
        Some(bytes.get(start..end).ok_or(truncated(what, start)))
    };
    let types = section("the type section", 8).ok_or(truncated("the header", 0))??;
    let strings = section("the string section", 16).ok_or(truncated("the header", 0))??;
    Ok((types, strings))
}

/// Where each type begins.
fn type_starts(types: &[u8], first_id: u32, budget: Option<&Budget>) -> Result<Vec<u32>, BtfError> {
    // A kernel's types take 20 to 24 bytes each on average.
    let mut starts = Vec::with_capacity(types.len() / 20);
    let mut at = 0;
    let mut id = first_id;
    let truncated = |what, at| BtfError::Truncated {
        what,
        at,
        len: types.len(),
    };
    while at < types.len() {
        budget.map_or(Ok(()), |budget| budget.charge_nodes(1))?;
        let info = u32_at(types, at + 4).ok_or(truncated("a type", at))?;
        let number = info >> 24 & 0x1f;
        let kind = Kind::from_number(number).ok_or(BtfError::UnknownKind { id, kind: number })?;
        let end = at + TYPE_BYTES + kind.tail_bytes((info & 0xffff) as usize);
        if end > types.len() {
            return Err(truncated("a type", at));
        }
        starts.push(u32::try_from(at).map_err(|_| truncated("a type", at))?);
        id = id.checked_add(1).ok_or(truncated("a type too many", at))?;
        at = end;
    }
    Ok(starts)
}

fn index_names(btf: &Inner, budget: Option<&Budget>) -> Result<NameIndex, BtfError> {
    let mut index = NameIndex::with_capacity(btf.starts.len());
    let strings = btf.strings.as_bytes();
    for (number, &start) in (0_u32..).zip(&btf.starts) {
        let offset = u32_at(&btf.types, start as usize).unwrap_or(0);
        let error = || BtfError::Name {
            id: btf.first_id + number,
            offset,
            len: u64::from(btf.first_string) + strings.len() as u64,
        };
        match offset.checked_sub(btf.first_string) {
            Some(own) => {
                let rest = strings.get(own as usize..).ok_or_else(error)?;
                let name = name_bytes(rest);
                // Names may overlap, so that together they are longer than the strings.
                budget.map_or(Ok(()), |budget| budget.charge_bytes(name.len() as u64))?;
                if !name.is_empty() {
                    index.insert(number, name);
                }
            }
            None => {
                let base = btf.base.as_ref().ok_or_else(error)?;
                let name = base.string(offset).as_bytes();
                budget.map_or(Ok(()), |budget| budget.charge_bytes(name.len() as u64))?;
                index.insert(number, name);
            }
        }
    }
    Ok(index)
}

impl Btf {
    /// The offset at which the names of what continues this begin.
    fn end_string(&self) -> u32 {
        let len = u32::try_from(self.inner.strings.len()).unwrap_or(u32::MAX);
        self.inner.first_string.saturating_add(len)
    }
}
