//! Global variables of BPF objects: maps of one value, whose type is a section (`.bss`, `.data`, `.rodata`).

use super::value::{Step, locate, steps};
use super::{Map, MapElements, MapType, ObjectBtf, ObjectBtfCache, Value};
use crate::btf::{Btf, Kind, Type, TypeError, TypeId};
use crate::budget::Budget;
use crate::kernel::{Kernel, PerCpu, ReadError};
use crate::memory::{KernelMemory, MemoryError, PhysError, PhysWrite};

/// Names of variables that an error lists at most, in bytes.
const MAX_LISTED_BYTES: usize = 4096;

/// Reads global variables.
#[derive(Clone, Debug)]
pub struct Globals {
    kernel: Kernel,
    elements: MapElements,
    btf: ObjectBtf,
}

/// A section of global variables.
#[derive(Clone, Debug)]
pub struct GlobalSection {
    /// Its map.
    pub map: Map,
    /// Its name in the object: `.bss`.
    pub name: String,
    pub btf: Btf,
    /// Where it is.
    address: u64,
    memory: KernelMemory,
}

/// Why a global variable can't be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GlobalError {
    /// Nothing is there.
    #[error("section `{section}` has no `{path}`; its variables are: {variables}")]
    NotFound {
        section: String,
        path: String,
        /// What there is.
        variables: String,
    },
    /// It is there, but it is not a number.
    #[error(
        "`{path}` in section `{section}` is not an integer, a bool or an enumeration of whole bytes"
    )]
    NotANumber { section: String, path: String },
    /// Its type can't be read.
    #[error("the type of `{path}` can't be read")]
    Type {
        path: String,
        #[source]
        source: TypeError,
    },
}

/// What numbers a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Not negative.
    Unsigned,
    /// Of both signs.
    Signed,
    /// 0 and 1.
    Bool,
}

/// A number among global variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalField {
    /// Its path: `stats.per_cpu[3]`.
    pub path: String,
    /// Its address in the kernel.
    pub address: u64,
    /// Its size in bytes: 1, 2, 4 or 8.
    pub size: u32,
    /// What numbers it holds.
    pub kind: FieldKind,
}

/// Why a number was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// It does not fit.
    #[error("{value} does not fit into `{path}`, which holds {least} to {most}")]
    Range {
        value: i128,
        /// Where it was to be written.
        path: String,
        /// The least that fits.
        least: i128,
        /// The most that fits.
        most: i128,
    },
    /// Where it is can't be told.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("`{path}` can't be written")]
    Phys {
        /// Where it was to be written.
        path: String,
        #[source]
        source: PhysError,
    },
    /// It lies on two pages, so it can't be written at once.
    #[error("`{path}` is not aligned to its size, so it can't be written at once")]
    Unaligned {
        /// Where it was to be written.
        path: String,
    },
}

impl Globals {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        Ok(Self {
            elements: MapElements::new(kernel, percpu)?,
            btf: ObjectBtf::new(kernel)?,
            kernel: kernel.clone(),
        })
    }

    /// The section that `map` is; nothing if it is another kind of map.
    pub fn section(
        &self,
        map: &Map,
        cache: &ObjectBtfCache,
        budget: &Budget,
    ) -> Result<Option<GlobalSection>, ReadError> {
        if map.map_type != MapType::ARRAY || map.btf == 0 || map.value_type == TypeId(0) {
            return Ok(None);
        }
        let btf = self.btf.read(map.btf, cache, budget)?;
        let of = btf.get(map.value_type)?;
        if of.kind() != Kind::Datasec {
            return Ok(None);
        }
        Ok(Some(GlobalSection {
            name: of.name().to_owned(),
            address: self.elements.array_address(map, 0)?,
            map: map.clone(),
            memory: self.kernel.memory().clone(),
            btf,
        }))
    }
}

impl GlobalSection {
    /// Its variables and their values.
    pub fn read(&self, budget: &Budget) -> Result<Value, ReadError> {
        let memory = self.memory.within(budget);
        let bytes = memory.bytes(self.address, self.map.value_size.into())?;
        let of = self.map.value_type;
        Ok(Value::render(&self.btf, of, &bytes, budget)?)
    }

    /// The number at `path`: a variable, a member or an element of one.
    pub fn field(&self, path: &str, budget: &Budget) -> Result<GlobalField, GlobalError> {
        let located = self
            .locate(path, budget)
            .map_err(|source| GlobalError::Type {
                path: path.to_owned(),
                source,
            })?;
        let Some((at, of, is_bit_field)) = located else {
            return Err(self.not_found(path));
        };
        let kind = number_kind(of).filter(|_| !is_bit_field);
        let size = of.size().ok().and_then(|size| u32::try_from(size).ok());
        let size = size.filter(|size| matches!(size, 1 | 2 | 4 | 8));
        let Some((kind, size)) = kind.zip(size) else {
            return Err(GlobalError::NotANumber {
                section: self.name.clone(),
                path: path.to_owned(),
            });
        };
        Ok(GlobalField {
            path: path.to_owned(),
            address: self.address.wrapping_add(at),
            size,
            kind,
        })
    }

    fn locate(
        &self,
        path: &str,
        budget: &Budget,
    ) -> Result<Option<(u64, Type<'_>, bool)>, TypeError> {
        let section = self.btf.get(self.map.value_type)?;
        let steps = steps(path).unwrap_or_default();
        let Some((Step::Member(name), inner)) = steps.split_first() else {
            return Ok(None);
        };
        budget.charge_nodes(section.vlen() as u64)?;
        let Some(var) = section.section_vars().find(|var| var.name == *name) else {
            return Ok(None);
        };
        let found = locate(&self.btf, var.type_id, inner, budget)?;
        Ok(found.map(|(at, of, bits)| (at.saturating_add(var.offset.into()), of, bits)))
    }

    fn not_found(&self, path: &str) -> GlobalError {
        let section = self.btf.get(self.map.value_type).ok();
        let names = section
            .into_iter()
            .flat_map(|section| section.section_vars())
            .map(|var| var.name);
        GlobalError::NotFound {
            section: self.name.clone(),
            path: path.to_owned(),
            variables: listed(names),
        }
    }
}

/// Names in a list, which ends with `…` if there are more.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut list = String::new();
    for name in names {
        if !list.is_empty() {
            list += ", ";
        }
        if list.len() + name.len() > MAX_LISTED_BYTES {
            list.push('…');
            break;
        }
        list += name;
    }
    list
}

fn number_kind(of: Type<'_>) -> Option<FieldKind> {
    let signed = match (of.kind(), of.int()) {
        (Kind::Int, Some(encoding)) if encoding.boolean => return Some(FieldKind::Bool),
        (Kind::Int, Some(encoding)) => encoding.signed,
        (Kind::Enum | Kind::Enum64, _) => of.is_signed_enum(),
        _ => return None,
    };
    Some(if signed {
        FieldKind::Signed
    } else {
        FieldKind::Unsigned
    })
}

impl GlobalField {
    pub fn read(&self, memory: &KernelMemory) -> Result<i128, MemoryError> {
        let bytes = memory.bytes(self.address, self.size.into())?;
        let value = crate::bytes::uint(&bytes).unwrap_or(0);
        let unused = u64::BITS - self.size * 8;
        Ok(match self.kind {
            FieldKind::Signed => ((value << unused).cast_signed() >> unused).into(),
            FieldKind::Unsigned | FieldKind::Bool => value.into(),
        })
    }

    /// Writes it, at once. The program sees it when it next reads the variable; a `.rodata` section's
    /// variables it may never read, as the verifier takes their values at load.
    pub fn write(
        &self,
        memory: &KernelMemory,
        phys: &(impl PhysWrite + ?Sized),
        value: i128,
    ) -> Result<(), WriteError> {
        let bits = self.size * 8;
        let (least, most) = match self.kind {
            FieldKind::Bool => (0, 1),
            FieldKind::Unsigned => (0, (1_i128 << bits) - 1),
            FieldKind::Signed => (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1),
        };
        if !(least..=most).contains(&value) {
            return Err(WriteError::Range {
                value,
                path: self.path.clone(),
                least,
                most,
            });
        }
        if !self.address.is_multiple_of(self.size.into()) {
            return Err(WriteError::Unaligned {
                path: self.path.clone(),
            });
        }
        // Aligned, so it is on one page.
        let (gpa, _) = memory.translate(self.address)?;
        let bytes = value.to_le_bytes();
        let bytes = bytes.get(..self.size as usize).unwrap_or_default();
        phys.write(gpa, bytes).map_err(|source| WriteError::Phys {
            path: self.path.clone(),
            source,
        })
    }
}
