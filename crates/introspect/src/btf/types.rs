//! One type, and what it says.

use super::Btf;
use crate::budget::BudgetExhausted;
use crate::bytes::u32_at;

/// `struct btf_type`.
pub(super) const TYPE_BYTES: usize = 12;

/// Longest chain of typedefs and qualifiers, or of arrays of arrays, that is followed. C code has far fewer.
const MAX_CHAIN: usize = 64;

/// Number of a type in its [`Btf`]. 0 is `void`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// What a type is (`BTF_KIND_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Void,
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::Datasec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Bytes after the head of a type with `vlen` members.
    pub(super) fn tail_bytes(self, vlen: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12 * vlen,
            Self::Enum | Self::FuncProto => 8 * vlen,
            _ => 0,
        }
    }
}

/// Why a type can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// No type has this id.
    #[error("BTF refers to type {id}, but has only {end}")]
    NoSuchId {
        id: u32,
        /// Ids are below this.
        end: u32,
    },
    /// Types that refer to each other in a circle, or a chain longer than any program has.
    #[error("BTF type {id} begins a chain of more than {MAX_CHAIN} types")]
    Endless {
        /// Where it begins.
        id: u32,
    },
    /// The type has no size: `void`, a function, a structure that is only declared.
    #[error("BTF type {id} has no size")]
    NoSize { id: u32 },
    /// It has more members than the look may cost.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
}

#[derive(Clone, Copy)]
pub struct Type<'a> {
    btf: &'a Btf,
    id: TypeId,
    kind: Kind,
    name_offset: u32,
    kind_flag: bool,
    /// Size in bytes or id of another type, as the kind has it.
    size_or_type: u32,
    /// What follows the head.
    tail: &'a [u8],
}

pub(super) fn get(btf: &Btf, id: TypeId) -> Result<Type<'_>, TypeError> {
    if id == TypeId(0) {
        return Ok(Type {
            btf,
            id,
            kind: Kind::Void,
            name_offset: 0,
            kind_flag: false,
            size_or_type: 0,
            tail: &[],
        });
    }
    let inner = &*btf.inner;
    let Some(number) = id.0.checked_sub(inner.first_id) else {
        // Only a base has ids below the first.
        let base = inner.base.as_ref().ok_or(TypeError::NoSuchId {
            id: id.0,
            end: btf.end_id(),
        })?;
        return Ok(Type {
            btf,
            ..get(base, id)?
        });
    };
    let read = || {
        let start = *inner.starts.get(number as usize)? as usize;
        let info = u32_at(&inner.types, start + 4)?;
        let kind = Kind::from_number(info >> 24 & 0x1f)?;
        let vlen = (info & 0xffff) as usize;
        let tail_start = start + TYPE_BYTES;
        let tail_end = tail_start + kind.tail_bytes(vlen);
        Some(Type {
            btf,
            id,
            kind,
            name_offset: u32_at(&inner.types, start)?,
            kind_flag: info >> 31 == 1,
            size_or_type: u32_at(&inner.types, start + 8)?,
            tail: inner.types.get(tail_start..tail_end)?,
        })
    };
    read().ok_or(TypeError::NoSuchId {
        id: id.0,
        end: btf.end_id(),
    })
}

/// How an integer is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntEncoding {
    /// Whether it can be negative.
    pub signed: bool,
    /// Whether it is `bool`.
    pub boolean: bool,
    /// Its width in bits, which may be less than its size.
    pub bits: u8,
    /// Bits between the start of the value and its lowest bit.
    pub bit_offset: u8,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name; empty for an anonymous structure or union, whose members are then those of the outer one.
    pub name: &'a str,
    pub type_id: TypeId,
    /// Where it begins, in bits from the beginning of the structure.
    pub bit_offset: u32,
    /// Its width in bits if it is a bit field.
    pub bitfield_bits: Option<u8>,
}

/// A named value of an enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator<'a> {
    pub name: &'a str,
    /// Its value. One of an unsigned 64-bit enumeration above `i64::MAX` shows as the negative number of the
    /// same bits.
    pub value: i64,
}

/// A variable in a section of a BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionVar<'a> {
    pub name: &'a str,
    pub type_id: TypeId,
    /// Where it begins in the section, in bytes.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

impl<'a> Type<'a> {
    pub fn id(&self) -> TypeId {
        self.id
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many members, values or variables it has.
    pub(crate) fn vlen(&self) -> usize {
        match self.kind {
            Kind::Enum => self.tail.len() / 8,
            _ => self.tail.len() / 12,
        }
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &'a str {
        self.btf.string(self.name_offset)
    }

    /// What it belongs to.
    pub(super) fn btf(&self) -> &'a Btf {
        self.btf
    }

    /// The type that a pointer, typedef, qualifier, function, variable or array refers to.
    pub fn target(&self) -> Option<TypeId> {
        match self.kind {
            Kind::Ptr
            | Kind::Typedef
            | Kind::Volatile
            | Kind::Const
            | Kind::Restrict
            | Kind::Func
            | Kind::FuncProto
            | Kind::Var
            | Kind::DeclTag
            | Kind::TypeTag => Some(TypeId(self.size_or_type)),
            Kind::Array => u32_at(self.tail, 0).map(TypeId),
            _ => None,
        }
    }

    /// The type behind all typedefs, qualifiers and tags.
    pub fn stripped(self) -> Result<Self, TypeError> {
        let mut at = self;
        for _ in 0..MAX_CHAIN {
            match at.kind {
                Kind::Typedef
                | Kind::Volatile
                | Kind::Const
                | Kind::Restrict
                | Kind::TypeTag
                | Kind::Var => at = self.btf.get(TypeId(at.size_or_type))?,
                _ => return Ok(at),
            }
        }
        Err(TypeError::Endless { id: self.id.0 })
    }

    /// Its size in bytes.
    pub fn size(self) -> Result<u64, TypeError> {
        let mut count: u64 = 1;
        let mut at = self;
        for _ in 0..MAX_CHAIN {
            at = at.stripped()?;
            let one = match at.kind {
                Kind::Int
                | Kind::Struct
                | Kind::Union
                | Kind::Enum
                | Kind::Enum64
                | Kind::Float
                | Kind::Datasec => at.size_or_type.into(),
                Kind::Ptr => 8,
                Kind::Array => {
                    count = count.saturating_mul(at.array_len().unwrap_or(0).into());
                    at = at.btf.get(at.target().unwrap_or(TypeId(0)))?;
                    continue;
                }
                _ => return Err(TypeError::NoSize { id: at.id.0 }),
            };
            return Ok(count.saturating_mul(one));
        }
        Err(TypeError::Endless { id: self.id.0 })
    }

    /// The number of elements of an array.
    pub fn array_len(&self) -> Option<u32> {
        match self.kind {
            Kind::Array => u32_at(self.tail, 8),
            _ => None,
        }
    }

    /// How an integer is written out.
    pub fn int(&self) -> Option<IntEncoding> {
        if self.kind != Kind::Int {
            return None;
        }
        let [bits, _, bit_offset, encoding] = u32_at(self.tail, 0)?.to_le_bytes();
        Some(IntEncoding {
            signed: encoding & 1 != 0,
            boolean: encoding & 4 != 0,
            bits,
            bit_offset,
        })
    }

    /// The members of a structure or union; none of any other type.
    pub fn members(&self) -> impl Iterator<Item = Member<'a>> + use<'a> {
        let this = *self;
        let is_struct = matches!(self.kind, Kind::Struct | Kind::Union);
        self.triples(is_struct).map(move |[name, type_id, offset]| {
            let [low, middle, high, bits] = offset.to_le_bytes();
            let with_bits = this.kind_flag;
            Member {
                name: this.btf.string(name),
                type_id: TypeId(type_id),
                bit_offset: if with_bits {
                    u32::from_le_bytes([low, middle, high, 0])
                } else {
                    offset
                },
                bitfield_bits: (with_bits && bits != 0).then_some(bits),
            }
        })
    }

    /// Whether an enumeration has negative values.
    pub fn is_signed_enum(&self) -> bool {
        matches!(self.kind, Kind::Enum | Kind::Enum64) && self.kind_flag
    }

    /// The values of an enumeration; none of any other type.
    pub fn enumerators(&self) -> impl Iterator<Item = Enumerator<'a>> + use<'a> {
        let this = *self;
        let pairs = if self.kind == Kind::Enum {
            self.tail
        } else {
            &[]
        };
        let narrow = pairs.chunks_exact(8).map(move |pair| {
            let bits = u32_at(pair, 4).unwrap_or(0);
            let value = if this.kind_flag {
                i64::from(bits.cast_signed())
            } else {
                i64::from(bits)
            };
            (u32_at(pair, 0).unwrap_or(0), value)
        });
        let wide = self
            .triples(self.kind == Kind::Enum64)
            .map(|[name, low, high]| {
                let bits = u64::from(high) << 32 | u64::from(low);
                (name, bits.cast_signed())
            });
        narrow.chain(wide).map(move |(name, value)| Enumerator {
            name: this.btf.string(name),
            value,
        })
    }

    /// The variables of a section; none of any other type. A variable that the rest doesn't know is left out.
    pub fn section_vars(&self) -> impl Iterator<Item = SectionVar<'a>> + use<'a> {
        let this = *self;
        self.triples(self.kind == Kind::Datasec)
            .filter_map(move |[id, offset, size]| {
                let var = this.btf.get(TypeId(id)).ok()?;
                Some(SectionVar {
                    name: var.name(),
                    type_id: var.target()?,
                    offset,
                    size,
                })
            })
    }

    /// What follows the head as records of three words, if `wanted`.
    fn triples(&self, wanted: bool) -> impl Iterator<Item = [u32; 3]> + use<'a> {
        let tail = if wanted { self.tail } else { &[] };
        tail.chunks_exact(12)
            .map(|record| [0, 4, 8].map(|at| u32_at(record, at).unwrap_or(0)))
    }
}

impl std::fmt::Debug for Type<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} `{}`", self.kind, self.id.0, self.name())
    }
}
