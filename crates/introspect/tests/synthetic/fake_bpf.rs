//! A made-up kernel with BPF maps and programs.

use super::btf_builder::BtfBuilder;
use super::fake_sched::{Era, FakeSched};

const MAP_BYTES: u64 = 96;
/// Of the elements of arrays, and of what hash tables have besides.
pub(crate) const ARRAY_VALUES: u64 = 104;
const NULLS: u64 = 1;

pub(crate) struct FakeBpf {
    pub(crate) fake: FakeSched,
    pub(crate) map_idr: u64,
    prog_idr: u64,
}

/// What a map is made with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MapSpec {
    pub(crate) id: u32,
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) btf: u64,
    pub(crate) value_type: u32,
}

impl FakeBpf {
    pub(crate) fn new() -> Self {
        Self::on(FakeSched::new(Era::Bare))
    }

    /// Adds tables of maps and programs to a kernel.
    pub(crate) fn on(mut fake: FakeSched) -> Self {
        add_types(&mut fake.btf);
        let [map_idr, prog_idr] = ["map_idr", "prog_idr"].map(|name| fake.kernel.symbol(name, 24));
        Self {
            fake,
            map_idr,
            prog_idr,
        }
    }

    /// Fills a table with two levels: the first object by itself in the first node, all others in another.
    pub(crate) fn fill(&mut self, table: u64, objects: &[u64]) -> [u64; 3] {
        let kernel = &mut self.fake.kernel;
        let nodes = [0; 3].map(|_| kernel.object(8 + 64 * 8));
        let [top, first, second] = nodes;
        kernel.write(top, &[6]);
        kernel.write_u64(top + 8, first + 2);
        kernel.write_u64(top + 8 + 5 * 8, second + 2);
        // A mark, which is nothing.
        kernel.write_u64(top + 8 + 6 * 8, (257 << 2) | 2);
        for (number, object) in objects.iter().enumerate() {
            let (node, slot) = if number == 0 {
                (first, 9)
            } else {
                (second, number as u64)
            };
            kernel.write_u64(node + 8 + slot * 8, *object);
        }
        kernel.write_u64(table + 8, top + 2);
        nodes
    }

    pub(crate) fn fill_maps(&mut self, maps: &[u64]) -> [u64; 3] {
        self.fill(self.map_idr, maps)
    }

    pub(crate) fn fill_programs(&mut self, programs: &[u64]) {
        self.fill(self.prog_idr, programs);
    }

    pub(crate) fn map(&mut self, name: &str, spec: MapSpec, extra_bytes: u64) -> u64 {
        let kernel = &mut self.fake.kernel;
        let map = kernel.object(MAP_BYTES + 64 + extra_bytes);
        kernel.write(map + 40, name.as_bytes());
        kernel.write_u64(map + 32, spec.btf);
        for (at, value) in [
            (0, spec.map_type),
            (4, spec.key_size),
            (8, spec.value_size),
            (12, spec.max_entries),
            (20, spec.id),
            (28, spec.value_type),
        ] {
            kernel.write(map + at, &value.to_le_bytes());
        }
        // The step of an array.
        let step = spec.value_size.next_multiple_of(8);
        kernel.write(map + MAP_BYTES, &step.to_le_bytes());
        map
    }

    /// An array with these values.
    pub(crate) fn array(&mut self, name: &str, spec: MapSpec, values: &[Vec<u8>]) -> u64 {
        let step = u64::from(spec.value_size.next_multiple_of(8));
        let map = self.map(name, spec, step * values.len() as u64);
        for (at, value) in (map + ARRAY_VALUES..)
            .step_by(usize::try_from(step).unwrap())
            .zip(values)
        {
            self.fake.kernel.write(at, value);
        }
        map
    }

    /// A hash table with these buckets of keys and words.
    pub(crate) fn hash(&mut self, name: &str, spec: MapSpec, buckets: &[&[(u64, u64)]]) -> u64 {
        let map = self.map(name, spec, 0);
        let kernel = &mut self.fake.kernel;
        let table = kernel.object(16 * buckets.len() as u64);
        kernel.write_u64(map + MAP_BYTES, table);
        kernel.write_u64(map + MAP_BYTES + 8, buckets.len() as u64);
        for (number, bucket) in (0..).zip(buckets) {
            let mut next = number << 1 | NULLS;
            for (key, word) in bucket.iter().rev() {
                let element = kernel.object(64);
                kernel.write_u64(element, next);
                kernel.write_u64(element + 16, *key);
                kernel.write_u64(element + 24, *word);
                next = element;
            }
            kernel.write_u64(table + number * 16, next);
        }
        map
    }

    /// A per-CPU allocation with a word for each CPU.
    pub(crate) fn per_cpu(&mut self, words: [u64; 2]) -> u64 {
        let kernel = &mut self.fake.kernel;
        // Behind the runqueues, in each CPU's area.
        let variable = self.fake.runqueues + 2048 + 64 * self.fake.allocated;
        self.fake.allocated += 1;
        for (area, word) in self.fake.areas.iter().zip(words) {
            kernel.write_u64(variable.wrapping_add(*area), word);
        }
        variable
    }

    /// A `struct btf` with these types.
    pub(crate) fn object_btf(&mut self, btf: &BtfBuilder) -> u64 {
        let bytes = btf.bytes();
        let kernel = &mut self.fake.kernel;
        let data = kernel.object(bytes.len() as u64);
        kernel.write(data, &bytes);
        let object = kernel.object(24);
        kernel.write_u64(object, data);
        kernel.write_u64(object + 8, bytes.len() as u64);
        object
    }

    pub(crate) fn program(&mut self, id: u32, name: &str, stats: u64) -> u64 {
        let kernel = &mut self.fake.kernel;
        let aux = kernel.object(64);
        kernel.write(aux, &id.to_le_bytes());
        kernel.write(aux + 4, name.as_bytes());
        kernel.write_u64(aux + 24, 0x1000);
        kernel.write_u64(aux + 32, 0x1080);
        let program = kernel.object(32);
        kernel.write(program, &27_u32.to_le_bytes());
        kernel.write_u64(program + 8, stats);
        kernel.write_u64(program + 16, aux);
        program
    }
}

/// The types that maps and programs are read by.
pub(crate) fn add_types(btf: &mut BtfBuilder) {
    add_map_types(btf);
    add_program_types(btf);
}

fn add_map_types(btf: &mut BtfBuilder) {
    let byte = btf.int("unsigned char", 1, 0);
    let u32_ = btf.int("unsigned int", 4, 0);
    let char_ = btf.int("char", 1, 0);
    let name = btf.array(char_, 16);
    let pointer = btf.pointer(0);
    let slots = btf.array(pointer, 64);
    btf.structure("xa_node", 520, &[("shift", byte, 0), ("slots", slots, 8)]);
    let xarray = btf.structure("xarray", 16, &[("xa_head", pointer, 8)]);
    btf.structure("idr", 24, &[("idr_rt", xarray, 0)]);
    let map = btf.structure(
        "bpf_map",
        96,
        &[
            ("map_type", u32_, 0),
            ("key_size", u32_, 4),
            ("value_size", u32_, 8),
            ("max_entries", u32_, 12),
            ("map_flags", u32_, 16),
            ("id", u32_, 20),
            ("btf_key_type_id", u32_, 24),
            ("btf_value_type_id", u32_, 28),
            ("btf", pointer, 32),
            ("name", name, 40),
        ],
    );
    btf.enumeration(
        "bpf_map_type",
        &[("BPF_MAP_TYPE_HASH", 1), ("BPF_MAP_TYPE_ARRAY", 2)],
    );
    let flexible = btf.array(char_, 0);
    btf.structure(
        "bpf_array",
        104,
        &[
            ("map", map, 0),
            ("elem_size", u32_, 96),
            ("value", flexible, 104),
        ],
    );
    let bucket = btf.structure("bucket", 16, &[("head", pointer, 0)]);
    let buckets = btf.pointer(bucket);
    btf.structure(
        "bpf_htab",
        112,
        &[("buckets", buckets, 96), ("n_buckets", u32_, 104)],
    );
    btf.structure(
        "htab_elem",
        16,
        &[("hash_node", pointer, 0), ("key", flexible, 16)],
    );
    btf.structure(
        "btf",
        24,
        &[
            ("data", pointer, 0),
            ("data_size", u32_, 8),
            ("base_btf", pointer, 16),
        ],
    );
}

fn add_program_types(btf: &mut BtfBuilder) {
    let u32_ = btf.int("unsigned int", 4, 0);
    let u64_ = btf.int("unsigned long", 8, 0);
    let char_ = btf.int("char", 1, 0);
    let name = btf.array(char_, 16);
    let pointer = btf.pointer(0);
    btf.structure(
        "bpf_prog",
        24,
        &[
            ("type", u32_, 0),
            ("stats", pointer, 8),
            ("aux", pointer, 16),
        ],
    );
    let ksym = btf.structure("bpf_ksym", 16, &[("start", u64_, 0), ("end", u64_, 8)]);
    btf.structure(
        "bpf_prog_aux",
        64,
        &[("id", u32_, 0), ("name", name, 4), ("ksym", ksym, 24)],
    );
    btf.structure(
        "bpf_prog_stats",
        24,
        &[("cnt", u64_, 0), ("nsecs", u64_, 8), ("misses", u64_, 16)],
    );
}
