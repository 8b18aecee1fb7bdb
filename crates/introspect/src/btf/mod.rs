//! BTF, the kernel's type information (`Documentation/bpf/btf.rst`): of the kernel from its image, of a BPF
//! program from guest memory.
//!
//! Parsing only finds where each type begins and indexes the names; everything else is read when it is asked
//! for. References from one type to another are checked at that time, and chains of them are bounded.

mod layout;
mod parse;
mod types;

use std::sync::Arc;

use crate::budget::Budget;
use crate::bytes::uint;
pub use layout::{BitField, Field, LayoutError, Struct};
pub use parse::BtfError;
pub use types::{Enumerator, IntEncoding, Kind, Member, SectionVar, Type, TypeError, TypeId};

/// Longest name that the kernel takes (`KSYM_NAME_LEN`, `btf_name_valid_identifier`).
const MAX_NAME_BYTES: usize = 512;

/// Type information of a kernel or a BPF object. Clones share it.
#[derive(Clone)]
pub struct Btf {
    inner: Arc<Inner>,
}

struct Inner {
    base: Option<Btf>,
    /// The type section.
    types: Box<[u8]>,
    /// Where each type begins in [`Self::types`]; the first is that of id [`Self::first_id`].
    starts: Vec<u32>,
    first_id: u32,
    /// The string section.
    strings: Box<str>,
    /// The offset by which this object's own names are referred to: the length of the base's strings.
    first_string: u32,
    names: NameIndex,
}

/// Chained hash table from names to types, in which only ids are kept.
#[derive(Default)]
struct NameIndex {
    /// For each bucket 1 + the number of the first type in it.
    heads: Vec<u32>,
    /// For each type the same for the next type in its bucket.
    next: Vec<u32>,
}

impl Btf {
    /// Reads type information that stands for itself, as that of a kernel or of a BPF object.
    pub fn parse(bytes: &[u8]) -> Result<Self, BtfError> {
        parse::parse(bytes, None, None)
    }

    /// Reads type information that continues `base`, as that of a module.
    pub fn parse_split(bytes: &[u8], base: &Self) -> Result<Self, BtfError> {
        parse::parse(bytes, Some(base.clone()), None)
    }

    /// As [`Self::parse`], or [`Self::parse_split`] if there is a base, of what a guest has.
    pub fn parse_within(
        bytes: &[u8],
        base: Option<Self>,
        budget: &Budget,
    ) -> Result<Self, BtfError> {
        parse::parse(bytes, base, Some(budget))
    }

    /// Ids below this are types, the base's included. Id 0 is `void`.
    pub fn end_id(&self) -> u32 {
        // Parsing refuses more types than ids.
        self.inner.first_id + u32::try_from(self.inner.starts.len()).unwrap_or(0)
    }

    /// The type with this id.
    pub fn get(&self, id: TypeId) -> Result<Type<'_>, TypeError> {
        types::get(self, id)
    }

    /// The types with this name, of all kinds, in no particular order; this object's before its base's.
    pub fn named<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = Type<'a>> + use<'a, 'n> {
        let mut level = Some(self);
        let mut next = self.inner.names.first(name);
        std::iter::from_fn(move || {
            loop {
                let btf = level?;
                let Some(number) = next else {
                    level = btf.inner.base.as_ref();
                    next = level.and_then(|base| base.inner.names.first(name));
                    continue;
                };
                next = btf.inner.names.after(number);
                let id = TypeId(btf.inner.first_id + number);
                match btf.get(id) {
                    Ok(found) if found.name() == name => return Some(found),
                    _ => {}
                }
            }
        })
    }

    /// The type of this kind and name. Of several (the kernel has a few structures of one name in different
    /// files), the one that was defined first.
    pub fn find(&self, kind: Kind, name: &str) -> Option<Type<'_>> {
        self.named(name)
            .filter(|found| found.kind() == kind)
            .min_by_key(Type::id)
    }

    /// The layout of `struct name` (or, if there is none, `union name`).
    pub fn structure(&self, name: &'static str) -> Result<Struct<'_>, LayoutError> {
        self.find(Kind::Struct, name)
            .or_else(|| self.find(Kind::Union, name))
            .map(Struct::of)
            .ok_or(LayoutError::NoType { name })
    }

    /// The value of an enumerator, whichever enumeration it is in.
    ///
    /// This reads every enumeration, so it takes milliseconds: ask for [`Type::enumerators`] of a known
    /// enumeration where there is one.
    pub fn enumerator(&self, name: &str) -> Option<i64> {
        (1..self.end_id())
            .filter_map(|id| self.get(TypeId(id)).ok())
            .filter(|found| matches!(found.kind(), Kind::Enum | Kind::Enum64))
            .flat_map(|found| found.enumerators())
            .find(|one| one.name == name)
            .map(|one| one.value)
    }

    /// The name at `offset`; empty for none. One that is longer than names are is cut.
    fn string(&self, offset: u32) -> &str {
        let inner = &*self.inner;
        match (offset.checked_sub(inner.first_string), &inner.base) {
            (Some(own), _) => {
                let rest = inner.strings.get(own as usize..).unwrap_or_default();
                let name = name_bytes(rest.as_bytes());
                &rest[..rest.floor_char_boundary(name.len())]
            }
            (None, Some(base)) => base.string(offset),
            (None, None) => "",
        }
    }
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf")
            .field("types", &self.end_id())
            .finish_non_exhaustive()
    }
}

/// The name that `strings` begin with. Names may overlap, so that together they are not bounded by the length of
/// the strings.
fn name_bytes(strings: &[u8]) -> &[u8] {
    let most = &strings[..strings.len().min(MAX_NAME_BYTES)];
    &most[..memchr::memchr(0, most).unwrap_or(most.len())]
}

impl NameIndex {
    fn with_capacity(types: usize) -> Self {
        Self {
            heads: vec![0; types.next_power_of_two()],
            next: vec![0; types],
        }
    }

    /// Files type `number` under the hash of its name.
    fn insert(&mut self, number: u32, name: &[u8]) {
        let bucket = self.bucket(name);
        self.next[number as usize] = std::mem::replace(&mut self.heads[bucket], number + 1);
    }

    fn first(&self, name: &str) -> Option<u32> {
        let head = self.heads.get(self.bucket(name.as_bytes()))?;
        head.checked_sub(1)
    }

    /// The next type in the bucket of type `number`. Each leads to one that was filed before it, so this
    /// ends.
    fn after(&self, number: u32) -> Option<u32> {
        self.next.get(number as usize)?.checked_sub(1)
    }

    fn bucket(&self, name: &[u8]) -> usize {
        // Word by word: a kernel has two megabytes of names, and builds without optimisation read them too.
        let mix =
            |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (words, rest) = name.as_chunks::<8>();
        let mut hash = mix(0, uint(rest).unwrap_or(0));
        for &word in words {
            hash = mix(hash, u64::from_le_bytes(word));
        }
        // The mask keeps the value in range.
        usize::try_from(hash >> 32).unwrap_or(0) & self.heads.len().wrapping_sub(1)
    }
}
