//! BPF maps in a guest's memory that is all the input's.

use std::slice;

use super::guest;
use super::render_bounded;
use super::synthetic::fake_kernel::MAX_CPUS;
use crate::bpf::{ElementValue, Globals, Map, MapElements, Maps, ObjectBtf, ObjectBtfCache};
use crate::budget::Budget;
use crate::kernel::{Kernel, PerCpu};

/// Of the maps that are found, so many are read.
const READ_MAPS: usize = 4;
/// A little above what is read of a map at most.
const MAX_ELEMENT_BYTES: usize = 17 << 20;

/// A guest's memory: what is in its maps. Arrays and hash tables with one value or one for each CPU, and
/// global variables with their own type information.
pub fn map_memory(input: &[u8]) {
    let kernel = guest::kernel(input);
    let Ok(percpu) = PerCpu::read(&kernel, MAX_CPUS) else {
        return;
    };
    let budget = Budget::default();
    let maps = Maps::new(&kernel).expect("the types are there");
    let Ok(maps) = maps.all(&budget) else {
        return;
    };
    let elements = MapElements::new(&kernel, &percpu).expect("the types are there");
    for map in maps.iter().take(READ_MAPS) {
        for limit in [3, usize::MAX] {
            elements_hold(&kernel, &elements, map, limit, &budget);
        }
        globals_hold(&kernel, &percpu, map, &budget);
    }
}

fn elements_hold(kernel: &Kernel, reader: &MapElements, map: &Map, limit: usize, budget: &Budget) {
    let Ok(read) = reader.read(map, limit, budget) else {
        return;
    };
    assert!(read.elements.len() <= limit);
    let mut bytes = 0;
    for element in &read.elements {
        let values = match &element.value {
            ElementValue::Single(value) => slice::from_ref(value),
            ElementValue::PerCpu(values) => values,
        };
        for value in values {
            assert_eq!(value.len(), map.value_size as usize);
            bytes += value.len();
        }
        bytes += element.key.len() + size_of_val(element) + size_of_val(values);
    }
    assert!(bytes <= MAX_ELEMENT_BYTES, "{bytes} bytes of a map");
    let types = ObjectBtf::new(kernel).expect("the types are there");
    if let (Ok(types), Some(element)) = (
        types.read(map.btf, &ObjectBtfCache::default(), budget),
        read.elements.first(),
    ) {
        render_bounded(&types, map.key_type, &element.key);
        if let ElementValue::Single(value) = &element.value {
            render_bounded(&types, map.value_type, value);
        }
    }
}

fn globals_hold(kernel: &Kernel, percpu: &PerCpu, map: &Map, budget: &Budget) {
    let globals = Globals::new(kernel, percpu).expect("the types are there");
    let Ok(Some(section)) = globals.section(map, &ObjectBtfCache::default(), budget) else {
        return;
    };
    let _ = section.read(budget);
    for path in ["a", "a.b", "a[1]", "a.b[0].c"] {
        match section.field(path, budget) {
            Ok(field) => {
                assert!(matches!(field.size, 1 | 2 | 4 | 8));
                let _ = field.read(kernel.memory());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
