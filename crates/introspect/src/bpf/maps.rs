//! Maps (`struct bpf_map`, `include/linux/bpf.h`).

use super::xarray::IdTable;
use crate::btf::{Field, TypeId};
use crate::budget::Budget;
use crate::bytes;
use crate::kernel::record::{Record, RecordBuilder, value, value_u32};
use crate::kernel::{Kernel, ReadError};

/// What kind of map it is (`enum bpf_map_type`, `include/uapi/linux/bpf.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapType(pub u32);

impl MapType {
    /// `BPF_MAP_TYPE_HASH`.
    pub const HASH: Self = Self(1);
    /// `BPF_MAP_TYPE_ARRAY`.
    pub const ARRAY: Self = Self(2);
    /// `BPF_MAP_TYPE_PERCPU_HASH`.
    pub const PERCPU_HASH: Self = Self(5);
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    pub const PERCPU_ARRAY: Self = Self(6);
    /// `BPF_MAP_TYPE_LRU_HASH`.
    pub const LRU_HASH: Self = Self(9);
    /// `BPF_MAP_TYPE_LRU_PERCPU_HASH`.
    pub const LRU_PERCPU_HASH: Self = Self(10);
}

/// A map, without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Address of its `struct bpf_map`.
    pub address: u64,
    pub id: u32,
    /// Its name, of which the kernel keeps 15 bytes. libbpf calls global data by the object's first 8 bytes
    /// and the section: `scx_bpfl.bss`.
    pub name: String,
    /// What kind it is.
    pub map_type: MapType,
    /// The name of the kind, as this kernel has it, in small letters: `percpu_array`.
    pub type_name: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most entries.
    pub max_entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
    /// Address of the `struct btf` of its types; 0 for none.
    pub btf: u64,
    /// The type of a key in that; 0 for none.
    pub key_type: TypeId,
    /// The type of a value in that; 0 for none.
    pub value_type: TypeId,
}

/// Reads the list of maps.
#[derive(Clone, Debug)]
pub struct Maps {
    kernel: Kernel,
    table: IdTable,
    record: Record,
    fields: Fields,
    type_names: Vec<(u32, String)>,
}

#[derive(Clone, Debug)]
struct Fields {
    id: Field,
    name: Field,
    map_type: Field,
    key_size: Field,
    value_size: Field,
    max_entries: Field,
    flags: Field,
    btf: Option<Field>,
    key_type: Option<Field>,
    value_type: Option<Field>,
}

impl Maps {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel) -> Result<Self, ReadError> {
        let btf = &kernel.image().btf;
        let mut map = RecordBuilder::new(btf.structure("bpf_map")?);
        let fields = Fields {
            id: map.need("id")?,
            name: map.need("name")?,
            map_type: map.need("map_type")?,
            key_size: map.need("key_size")?,
            value_size: map.need("value_size")?,
            max_entries: map.need("max_entries")?,
            flags: map.need("map_flags")?,
            btf: map.want("btf")?,
            key_type: map.want("btf_key_type_id")?,
            value_type: map.want("btf_value_type_id")?,
        };
        let types = btf.find(crate::btf::Kind::Enum, "bpf_map_type");
        let type_names = types.into_iter().flat_map(|types| types.enumerators());
        Ok(Self {
            table: IdTable::new(kernel, "map_idr")?,
            record: map.finish(),
            fields,
            type_names: type_names
                .filter_map(|one| {
                    let name = one.name.strip_prefix("BPF_MAP_TYPE_")?;
                    Some((u32::try_from(one.value).ok()?, name.to_ascii_lowercase()))
                })
                .collect(),
            kernel: kernel.clone(),
        })
    }

    /// All maps, in order of their ids.
    pub fn all(&self, budget: &Budget) -> Result<Vec<Map>, ReadError> {
        let memory = self.kernel.memory().within(budget);
        let mut bytes = Vec::new();
        self.table
            .objects(budget)?
            .into_iter()
            .map(|address| {
                self.record.read_within(memory, address, &mut bytes)?;
                Ok(self.map(address, &bytes))
            })
            .collect()
    }

    fn map(&self, address: u64, bytes: &[u8]) -> Map {
        let fields = &self.fields;
        let number = |field| value_u32(field, bytes);
        let type_id = |field: Option<Field>| TypeId(field.map_or(0, number));
        let map_type = number(fields.map_type);
        let type_name = self.type_names.iter().find(|(of, _)| *of == map_type);
        let name = usize::try_from(fields.name.offset).ok();
        let name = name.and_then(|at| bytes.get(at..at.checked_add(16)?));
        Map {
            address,
            id: number(fields.id),
            name: name.map(bytes::text).unwrap_or_default(),
            map_type: MapType(map_type),
            type_name: type_name.map_or_else(|| map_type.to_string(), |(_, name)| name.clone()),
            key_size: number(fields.key_size),
            value_size: number(fields.value_size),
            max_entries: number(fields.max_entries),
            flags: number(fields.flags),
            btf: fields.btf.map_or(0, |field| value(field, bytes)),
            key_type: type_id(fields.key_type),
            value_type: type_id(fields.value_type),
        }
    }
}
