//! BPF maps and what is in them.

use ktstr_introspect::bpf::{
    Element, ElementValue, GlobalSection, Globals, Map, MapElements, Maps, ObjectBtf, Value,
};
use ktstr_introspect::btf::{Btf, TypeId};
use ktstr_introspect::kernel::{Kernel, PerCpu, ReadError};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Serialize, Serializer};

use super::{MapContent, MapEntry, MapState};
use crate::kernel_source::missing;

/// Entries of one map that are kept.
const MOST_ENTRIES: usize = 256;

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

    pub(super) fn read(&self) -> Result<Vec<MapState>, ReadError> {
        let maps = self.maps()?;
        Ok(maps.iter().map(|map| self.map(map)).collect())
    }

    pub(super) fn maps(&self) -> Result<Vec<Map>, ReadError> {
        self.maps.all()
    }

    pub(super) fn section(&self, map: &Map) -> Result<Option<GlobalSection>, ReadError> {
        self.globals.section(map)
    }

    fn map(&self, map: &Map) -> MapState {
        let (name, content) = match self.section(map) {
            Ok(Some(section)) => (
                section.name.clone(),
                section.read().map(MapContent::Globals),
            ),
            Ok(None) => (map.name.clone(), self.entries(map)),
            Err(error) => (map.name.clone(), Err(error)),
        };
        MapState {
            id: map.id,
            name,
            kind: map.type_name.clone(),
            content: content.map_err(missing),
        }
    }

    fn entries(&self, map: &Map) -> Result<MapContent, ReadError> {
        let read = self.elements.read(map, MOST_ENTRIES)?;
        let btf = match map.btf {
            0 => None,
            address => Some(self.types.read(address)?),
        };
        let render = |id: TypeId, bytes: &[u8]| render(btf.as_ref(), id, bytes);
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
fn render(btf: Option<&Btf>, id: TypeId, bytes: &[u8]) -> Value {
    btf.filter(|_| id != TypeId(0))
        .and_then(|btf| Value::render(btf, id, bytes).ok())
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
