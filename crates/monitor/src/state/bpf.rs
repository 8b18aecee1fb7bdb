//! BPF maps and what is in them.

use ktstr_introspect::Budget;
use ktstr_introspect::bpf::{
    Element, ElementValue, GlobalSection, Globals, Map, MapElements, Maps, ObjectBtf,
    ObjectBtfCache, Value,
};
use ktstr_introspect::btf::{Btf, TypeId};
use ktstr_introspect::kernel::{Kernel, PerCpu, ReadError};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::{MapContent, MapEntry, MapState};
use crate::kernel_source::missing;

/// Entries of one map that are kept.
const MAX_ENTRIES: usize = 256;
/// What a map costs besides its content: its part of what is kept and written.
const MAP_BYTES: u64 = 1024;
/// Maps that are named though the look has ended before them.
const MAX_UNREAD_MAPS: usize = 256;

/// Reads maps.
#[derive(Debug)]
pub(super) struct MapReader {
    maps: Maps,
    elements: MapElements,
    globals: Globals,
    types: ObjectBtf,
}

impl MapReader {
    pub(super) fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        Ok(Self {
            maps: Maps::new(kernel)?,
            elements: MapElements::new(kernel, percpu)?,
            globals: Globals::new(kernel, percpu)?,
            types: ObjectBtf::new(kernel)?,
        })
    }

    /// All maps; of those for which the budget does not do, only that they are there, and of very many not even
    /// that.
    pub(super) fn read(&self, budget: &Budget) -> Result<Vec<MapState>, ReadError> {
        let maps = self.maps(budget)?;
        let cache = ObjectBtfCache::default();
        let mut read = Vec::new();
        for map in &maps {
            let fits = budget.charge_bytes(MAP_BYTES).is_ok();
            if !fits && read.len() >= MAX_UNREAD_MAPS {
                break;
            }
            read.push(self.map(map, &cache, budget));
        }
        Ok(read)
    }

    pub(super) fn maps(&self, budget: &Budget) -> Result<Vec<Map>, ReadError> {
        self.maps.all(budget)
    }

    pub(super) fn section(
        &self,
        map: &Map,
        cache: &ObjectBtfCache,
        budget: &Budget,
    ) -> Result<Option<GlobalSection>, ReadError> {
        self.globals.section(map, cache, budget)
    }

    fn map(&self, map: &Map, cache: &ObjectBtfCache, budget: &Budget) -> MapState {
        let (name, content) = match self.section(map, cache, budget) {
            Ok(Some(section)) => (
                section.name.clone(),
                section.read(budget).map(MapContent::Globals),
            ),
            Ok(None) => (map.name.clone(), self.entries(map, cache, budget)),
            Err(error) => (map.name.clone(), Err(error)),
        };
        MapState {
            id: map.id,
            name,
            kind: map.type_name.clone(),
            content: content.map_err(missing),
        }
    }

    fn entries(
        &self,
        map: &Map,
        cache: &ObjectBtfCache,
        budget: &Budget,
    ) -> Result<MapContent, ReadError> {
        let read = self.elements.read(map, MAX_ENTRIES, budget)?;
        let btf = match map.btf {
            0 => None,
            address => Some(self.types.read(address, cache, budget)?),
        };
        let render = |id: TypeId, bytes: &[u8]| render(btf.as_ref(), id, bytes, budget);
        let entry = |element: &Element| MapEntry {
            key: render(map.key_type, &element.key),
            values: match &element.value {
                ElementValue::Single(bytes) => vec![render(map.value_type, bytes)],
                ElementValue::PerCpu(values) => {
                    let each = values.iter();
                    each.map(|bytes| render(map.value_type, bytes)).collect()
                }
            },
        };
        Ok(MapContent::Entries {
            entries: read.elements.iter().map(entry).collect(),
            cut: read.cut,
        })
    }
}

/// As the type says, else as bytes.
fn render(btf: Option<&Btf>, id: TypeId, bytes: &[u8], budget: &Budget) -> Value {
    btf.filter(|_| id != TypeId(0))
        .and_then(|btf| Value::render(btf, id, bytes, budget).ok())
        .unwrap_or_else(|| Value::Bytes(bytes.to_vec()))
}

/// As JSON has it: numbers, texts, objects. A pointer is a text, since readers of JSON round large numbers.
pub(super) fn serialize<S: Serializer>(value: &Value, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Value::Uint(value) => to.serialize_u64(*value),
        Value::Int(value) => to.serialize_i64(*value),
        Value::Bool(value) => to.serialize_bool(*value),
        Value::Float(value) => to.serialize_f64(*value),
        Value::Enum {
            name: Some(name), ..
        } => to.serialize_str(name),
        Value::Enum { value, name: None } => to.serialize_i64(*value),
        Value::Text(text) => to.serialize_str(text),
        Value::Pointer(address) => to.serialize_str(&format!("{address:#x}")),
        Value::Struct(members) => {
            let mut map = to.serialize_map(Some(members.len()))?;
            for (name, value) in members {
                map.serialize_entry(name, &Serialized(value))?;
            }
            map.end()
        }
        Value::Array(elements) => serialize_all(elements, to),
        Value::Bytes(bytes) => {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            to.serialize_str(&digits.collect::<Vec<_>>().join(" "))
        }
        Value::Cut => to.serialize_str("…"),
    }
}

pub(super) fn serialize_all<S: Serializer>(values: &[Value], to: S) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(values.len()))?;
    for value in values {
        list.serialize_element(&Serialized(value))?;
    }
    list.end()
}

struct Serialized<'a>(&'a Value);

impl Serialize for Serialized<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        serialize(self.0, to)
    }
}
