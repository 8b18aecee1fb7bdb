//! Where a member is, by its path: `task_struct` has `scx.dsq` at such a byte, or this kernel has none.

use super::{Btf, Kind, Member, Type, TypeError, TypeId};
use crate::budget::Budget;
use crate::bytes::uint;

/// How many members are looked at to find one through anonymous structures. The biggest structure of a kernel
/// has a few hundred.
const MAX_MEMBERS: usize = 100_000;

/// Why a layout can't be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The kernel has no such type.
    #[error(
        "this kernel has no `struct {name}`: it was built without it, or is too old or too new"
    )]
    NoType { name: &'static str },
    /// The structure has no such member.
    #[error("`struct {name}` of this kernel has no member `{path}`")]
    NoMember {
        name: String,
        /// The member's path.
        path: &'static str,
    },
    /// The type information contradicts itself.
    #[error("the layout of `struct {name}` can't be told")]
    Type {
        name: String,
        #[source]
        source: TypeError,
    },
}

/// A structure or union of known layout.
#[derive(Clone, Copy, Debug)]
pub struct Struct<'a> {
    of: Type<'a>,
}

/// Where a member lies in its structure, and how big it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the structure.
    pub offset: u64,
    /// Its size in bytes; of a bit field, that of its declared type. 0 for a flexible array.
    pub size: u64,
    /// Its bits, if it is a bit field.
    pub bits: Option<BitField>,
    /// Its type, behind typedefs and qualifiers.
    pub type_id: TypeId,
}

/// The bits of a bit field, counted from the lowest bit of the byte at the field's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitField {
    /// Its lowest bit, 0 to 7.
    pub shift: u8,
    /// How many bits it has.
    pub width: u8,
}

impl<'a> Struct<'a> {
    pub(super) fn of(of: Type<'a>) -> Self {
        Self { of }
    }

    /// The structure that `id` is, behind typedefs and qualifiers; nothing if it is something else.
    pub fn from_id(btf: &'a Btf, id: TypeId) -> Result<Option<Self>, TypeError> {
        let of = btf.get(id)?.stripped()?;
        Ok(matches!(of.kind(), Kind::Struct | Kind::Union).then_some(Self { of }))
    }

    pub fn as_type(&self) -> Type<'a> {
        self.of
    }

    /// Its size in bytes.
    pub fn size(&self) -> Result<u64, LayoutError> {
        self.of.size().map_err(|source| self.type_error(source))
    }

    /// The member at `path` (`scx.dsq`; anonymous structures have no part in it), or nothing if this kernel
    /// has none.
    pub fn optional(&self, path: &'static str) -> Result<Option<Field>, LayoutError> {
        self.walk(path, None)
            .map_err(|source| self.type_error(source))
    }

    /// The member at `path`, which the caller can't do without.
    pub fn field(&self, path: &'static str) -> Result<Field, LayoutError> {
        self.optional(path)?.ok_or_else(|| LayoutError::NoMember {
            name: self.of.name().to_owned(),
            path,
        })
    }

    /// The members that have a name of their own, in their order, without those of anonymous structures.
    pub fn direct_fields(&self) -> impl Iterator<Item = (&'a str, Field)> + use<'a> {
        let btf = self.of.btf();
        self.of
            .members()
            .filter(|member| !member.name.is_empty())
            .filter_map(|member| {
                let field = Field::new(btf, member.bit_offset.into(), &member).ok()?;
                Some((member.name, field))
            })
    }

    /// The offset of the member at `path` in bytes.
    pub fn offset(&self, path: &'static str) -> Result<u64, LayoutError> {
        self.field(path).map(|field| field.offset)
    }

    /// The layout of the structure that the member at `path` is, or points to.
    pub fn inner(&self, path: &'static str) -> Result<Struct<'a>, LayoutError> {
        let field = self.field(path)?;
        let btf = self.of.btf();
        let find = || {
            let mut of = btf.get(field.type_id)?;
            if let (Kind::Ptr | Kind::Array, Some(target)) = (of.kind(), of.target()) {
                of = btf.get(target)?.stripped()?;
            }
            Ok(of)
        };
        let of = find().map_err(|source| self.type_error(source))?;
        match of.kind() {
            Kind::Struct | Kind::Union => Ok(Struct { of }),
            _ => Err(self.type_error(TypeError::NoSize { id: of.id().0 })),
        }
    }

    fn walk(&self, path: &str, budget: Option<&Budget>) -> Result<Option<Field>, TypeError> {
        let btf = self.of.btf();
        let mut of = self.of;
        let mut bit_offset: u64 = 0;
        let mut last = None;
        for name in path.split('.') {
            let Some((at, member)) = find_member(of, name, budget)? else {
                return Ok(None);
            };
            bit_offset += at;
            of = btf.get(member.type_id)?.stripped()?;
            last = Some(member);
        }
        last.map(|member| Field::new(btf, bit_offset, &member))
            .transpose()
    }

    /// The member of this name, which need not be known beforehand, of what a guest has.
    pub(crate) fn member(&self, name: &str, budget: &Budget) -> Result<Option<Field>, TypeError> {
        self.walk(name, Some(budget))
    }

    fn type_error(&self, source: TypeError) -> LayoutError {
        LayoutError::Type {
            name: self.of.name().to_owned(),
            source,
        }
    }
}

/// The member `name`, which may lie in anonymous structures, with its offset in bits.
fn find_member<'a>(
    of: Type<'a>,
    name: &str,
    budget: Option<&Budget>,
) -> Result<Option<(u64, Member<'a>)>, TypeError> {
    let mut pending = vec![(0, of)];
    let mut seen = 0;
    while let Some((outer, of)) = pending.pop() {
        for member in of.members() {
            seen += 1;
            budget.map_or(Ok(()), |budget| budget.charge_nodes(1))?;
            if seen > MAX_MEMBERS {
                return Err(TypeError::Endless { id: of.id().0 });
            }
            let at = outer + u64::from(member.bit_offset);
            if member.name == name {
                return Ok(Some((at, member)));
            }
            if member.name.is_empty() {
                pending.push((at, of.btf().get(member.type_id)?.stripped()?));
            }
        }
    }
    Ok(None)
}

impl Field {
    /// A member that begins at `bit_offset` of the structure that counts.
    pub(crate) fn new(btf: &Btf, bit_offset: u64, member: &Member<'_>) -> Result<Self, TypeError> {
        let of = btf.get(member.type_id)?.stripped()?;
        let size = match of.size() {
            Err(TypeError::NoSize { .. }) => 0,
            size => size?,
        };
        Ok(Self {
            offset: bit_offset / 8,
            size,
            bits: member.bitfield_bits.map(|width| BitField {
                shift: u8::try_from(bit_offset % 8).unwrap_or(0),
                width,
            }),
            type_id: of.id(),
        })
    }

    /// Bytes from the start of the structure that must be read to have this field whole.
    pub fn end(&self) -> u64 {
        let len = match self.bits {
            Some(bits) => (u64::from(bits.shift) + u64::from(bits.width)).div_ceil(8),
            None => self.size,
        };
        self.offset.saturating_add(len)
    }

    /// The value in `bytes`, which begin where the structure does. Nothing if they don't reach that far, or
    /// if the field has more than 8 bytes.
    pub fn uint(&self, bytes: &[u8]) -> Option<u64> {
        let range = usize::try_from(self.offset).ok()?..usize::try_from(self.end()).ok()?;
        let bytes = bytes.get(range)?;
        let Some(BitField { shift, width }) = self.bits else {
            return uint(bytes);
        };
        // Up to 64 bits from any bit of the first byte: 9 bytes.
        let mut wide = [0; 16];
        wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let value = u128::from_le_bytes(wide) >> shift & ((1_u128 << width.min(64)) - 1);
        u64::try_from(value).ok()
    }

    /// As [`Self::uint`], for a number that can be negative.
    pub fn int(&self, bytes: &[u8]) -> Option<i64> {
        let value = self.uint(bytes)?;
        let bits = match self.bits {
            Some(bits) => u32::from(bits.width),
            None => u32::try_from(self.size * 8).ok()?,
        };
        let unused = 64_u32.checked_sub(bits)?;
        Some((value.checked_shl(unused).unwrap_or(0)).cast_signed() >> unused.min(63))
    }
}
