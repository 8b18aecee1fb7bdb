//! BPF objects of a running kernel: maps, programs, and what is in them.
//!
//! Found from the kernel's own tables of ids, so nothing has to be known of who loaded them. Values are
//! rendered with the type information that was loaded with them.

mod elements;
mod globals;
mod maps;
mod object_btf;
mod programs;
mod value;
mod xarray;

pub use elements::{Element, ElementValue, Elements, MapElements};
pub use globals::{FieldKind, GlobalError, GlobalField, GlobalSection, Globals, WriteError};
pub use maps::{Map, MapType, Maps};
pub use object_btf::{ObjectBtf, ObjectBtfCache};
pub use programs::{Program, ProgramStats, Programs};
pub use value::Value;
