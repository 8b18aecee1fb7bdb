//! What is in a map: arrays (`kernel/bpf/arraymap.c`) and hash tables (`kernel/bpf/hashtab.c`), each with one
//! value or one for each CPU.

use super::{Map, MapType};
use crate::btf::Field;
use crate::budget::Budget;
use crate::kernel::BudgetedMemory;
use crate::kernel::{Kernel, PerCpu, ReadError, stable};

/// The lowest bit of a pointer that ends a chain; above it is the number of the bucket.
const NULLS: u64 = 1;
/// Buckets are read in pieces of this many.
const BUCKETS_AT_ONCE: u64 = 4096;
/// Memory that the elements of one map take here at most, and that of its buckets: it is to leave something of the
/// budget for others.
const MAX_ELEMENT_BYTES: usize = 16 << 20;

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its key, as it is in memory; of an array the index in four bytes.
    pub key: Vec<u8>,
    pub value: ElementValue,
}

/// A value of a map, as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ElementValue {
    /// The only one.
    Single(Vec<u8>),
    /// One for each possible CPU, in their order.
    PerCpu(Vec<Vec<u8>>),
}

/// Entries of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elements {
    /// The entries; those of an array in order.
    pub elements: Vec<Element>,
    /// Whether there are more, which were not asked for.
    pub cut: bool,
}

/// Reads what is in maps.
#[derive(Clone, Debug)]
pub struct MapElements {
    kernel: Kernel,
    percpu: PerCpu,
    array: ArrayFields,
    hash: HashFields,
}

#[derive(Clone, Copy, Debug)]
struct ArrayFields {
    elem_size: Field,
    value: u64,
}

#[derive(Clone, Copy, Debug)]
struct HashFields {
    buckets: Field,
    n_buckets: Field,
    bucket_bytes: u64,
    /// Of the chain in a bucket.
    head: u64,
    /// Of the key in an element, which begins with the chain's next.
    key: u64,
}

impl MapElements {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        let btf = &kernel.image().btf;
        let array = btf.structure("bpf_array")?;
        let hash = btf.structure("bpf_htab")?;
        let bucket = hash.inner("buckets")?;
        Ok(Self {
            array: ArrayFields {
                elem_size: array.field("elem_size")?,
                value: array.offset("value")?,
            },
            hash: HashFields {
                buckets: hash.field("buckets")?,
                n_buckets: hash.field("n_buckets")?,
                bucket_bytes: bucket.size()?,
                head: bucket.offset("head")?,
                key: btf.structure("htab_elem")?.offset("key")?,
            },
            kernel: kernel.clone(),
            percpu: percpu.clone(),
        })
    }

    /// At most `limit` entries of `map`, and not more than take 16 MiB here; of a hash table those in the first
    /// 16 MiB of its buckets.
    pub fn read(&self, map: &Map, limit: usize, budget: &Budget) -> Result<Elements, ReadError> {
        let memory = self.kernel.memory().within(budget);
        let limit = limit.min(self.most_elements(map));
        match map.map_type {
            MapType::ARRAY | MapType::PERCPU_ARRAY => self.array(memory, map, limit),
            MapType::HASH | MapType::LRU_HASH | MapType::PERCPU_HASH | MapType::LRU_PERCPU_HASH => {
                self.hash(memory, map, limit)
            }
            _ => Err(ReadError::Unsupported {
                what: "what is in maps of this type can't be read from outside: only arrays and hash tables",
            }),
        }
    }

    fn most_elements(&self, map: &Map) -> usize {
        let values = match map.map_type {
            MapType::PERCPU_ARRAY | MapType::PERCPU_HASH | MapType::LRU_PERCPU_HASH => {
                self.percpu.cpus()
            }
            _ => 1,
        };
        // An element without a byte in it takes memory too; the key of an array is made here, whatever it says.
        let value = u64::from(map.value_size) + size_of::<Vec<u8>>() as u64;
        let key = map.key_size.max(u32::BITS / 8);
        let element = u64::from(key) + size_of::<Element>() as u64;
        let bytes = value.saturating_mul(values.into()).saturating_add(element);
        MAX_ELEMENT_BYTES / usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The address of value `index` of an array with one value each.
    pub fn array_address(&self, map: &Map, index: u32) -> Result<u64, ReadError> {
        let memory = self.kernel.memory();
        let elem_size = memory.u32(map.address.wrapping_add(self.array.elem_size.offset))?;
        let at = u64::from(elem_size).wrapping_mul(index.into());
        Ok(map.address.wrapping_add(self.array.value).wrapping_add(at))
    }

    fn array(
        &self,
        memory: BudgetedMemory<'_>,
        map: &Map,
        limit: usize,
    ) -> Result<Elements, ReadError> {
        let first = self.array_address(map, 0)?;
        let step = match map.map_type {
            // A pointer for each.
            MapType::PERCPU_ARRAY => 8,
            _ => self.array_address(map, 1)?.wrapping_sub(first),
        };
        let count = usize::try_from(map.max_entries).unwrap_or(usize::MAX);
        let elements = (0..map.max_entries).take(limit).map(|index| {
            let at = first.wrapping_add(step.wrapping_mul(index.into()));
            memory.budget().charge_nodes(1)?;
            let value = if map.map_type == MapType::PERCPU_ARRAY {
                self.per_cpu(memory, memory.u64(at)?, map)?
            } else {
                ElementValue::Single(memory.bytes(at, map.value_size.into())?)
            };
            Ok(Element {
                key: index.to_le_bytes().into(),
                value,
            })
        });
        Ok(Elements {
            elements: elements.collect::<Result<_, ReadError>>()?,
            cut: count > limit,
        })
    }

    /// The value of each CPU at the per-CPU address `variable`.
    fn per_cpu(
        &self,
        memory: BudgetedMemory<'_>,
        variable: u64,
        map: &Map,
    ) -> Result<ElementValue, ReadError> {
        let values = self.percpu.addresses(variable);
        let values = values.map(|at| {
            memory.budget().charge_nodes(1)?;
            memory.bytes(at, map.value_size.into())
        });
        Ok(ElementValue::PerCpu(values.collect::<Result<_, _>>()?))
    }

    fn hash(
        &self,
        memory: BudgetedMemory<'_>,
        map: &Map,
        limit: usize,
    ) -> Result<Elements, ReadError> {
        let hash = &self.hash;
        let table = memory.u64(map.address.wrapping_add(hash.buckets.offset))?;
        let count = u64::from(memory.u32(map.address.wrapping_add(hash.n_buckets.offset))?);
        // `htab_map_alloc` makes as many as there can be entries, rounded up, and they are in memory once.
        let is_too_long = count.saturating_mul(hash.bucket_bytes) > memory.phys_end();
        if is_too_long || count > u64::from(map.max_entries).next_power_of_two() {
            return Err(ReadError::Unstable {
                what: "a hash table",
            });
        }
        let mut found = Elements::default();
        let mut bucket = 0;
        while bucket < count {
            let now = BUCKETS_AT_ONCE.min(count - bucket);
            let read_bytes = bucket.saturating_mul(hash.bucket_bytes);
            if read_bytes >= MAX_ELEMENT_BYTES as u64 {
                found.cut = true;
                return Ok(found);
            }
            let at = table.wrapping_add(read_bytes);
            let bytes = memory.bytes(at, now.saturating_mul(hash.bucket_bytes))?;
            for number in 0..now {
                let offset = number * hash.bucket_bytes + hash.head;
                let head = usize::try_from(offset).ok();
                let head = head.and_then(|at| crate::bytes::u64_at(&bytes, at));
                // An empty bucket is not worth another look.
                if head.is_some_and(|head| head & NULLS == 1) {
                    continue;
                }
                let left = limit - found.elements.len();
                let address = at.wrapping_add(offset);
                let chain = stable(|| self.chain(memory, map, (address, bucket + number), left))?;
                found.elements.extend(chain.elements);
                if chain.cut {
                    found.cut = true;
                    return Ok(found);
                }
            }
            bucket += now;
        }
        Ok(found)
    }

    /// The elements of one bucket. Elements move to other chains while the guest runs: the end of the chain
    /// says whose it is.
    fn chain(
        &self,
        memory: BudgetedMemory<'_>,
        map: &Map,
        (head, bucket): (u64, u64),
        limit: usize,
    ) -> Result<Elements, ReadError> {
        let mut found = Elements::default();
        let mut at = memory.u64(head)?;
        while at & NULLS == 0 {
            if found.elements.len() == limit {
                found.cut = true;
                return Ok(found);
            }
            memory.budget().charge_nodes(1)?;
            found.elements.push(self.hash_element(memory, map, at)?);
            at = memory.u64(at)?;
        }
        if at >> 1 != bucket {
            return Err(ReadError::Unstable {
                what: "a hash table",
            });
        }
        Ok(found)
    }

    fn hash_element(
        &self,
        memory: BudgetedMemory<'_>,
        map: &Map,
        element: u64,
    ) -> Result<Element, ReadError> {
        let key_at = element.wrapping_add(self.hash.key);
        let value_at = key_at.wrapping_add(u64::from(map.key_size).next_multiple_of(8));
        let value = match map.map_type {
            MapType::PERCPU_HASH | MapType::LRU_PERCPU_HASH => {
                self.per_cpu(memory, memory.u64(value_at)?, map)?
            }
            _ => ElementValue::Single(memory.bytes(value_at, map.value_size.into())?),
        };
        Ok(Element {
            key: memory.bytes(key_at, map.key_size.into())?,
            value,
        })
    }
}
