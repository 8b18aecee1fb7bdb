//! What a guest can say to have very much read or rendered, and that it is not.

use ktstr_introspect::bpf::{Globals, MapElements, Maps, ObjectBtfCache, Programs, Value};
use ktstr_introspect::btf::{Btf, TypeId};
use ktstr_introspect::kernel::{
    DispatchQueue, DispatchQueues, PerCpu, ReadError, Runqueues, Tasks,
};
use ktstr_introspect::{Budget, BudgetExhausted, BudgetLimits};

use crate::btf_builder::BtfBuilder;
use crate::busy_bpf::with_bss;
use crate::fake_bpf::{FakeBpf, MapSpec};
use crate::fake_kernel::MAX_CPUS;
use crate::fake_sched::{DSQ_LINK, Era, FakeSched};

const MIB: usize = 1 << 20;

fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Struct(members) => members
            .iter()
            .map(|(name, value)| name.len() + text_bytes(value))
            .sum(),
        Value::Array(elements) => elements.iter().map(text_bytes).sum(),
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

#[test]
fn the_same_bytes_are_not_rendered_without_end() {
    let mut builder = BtfBuilder::new();
    let char_ = builder.int("char", 1, 0);
    let text = builder.array(char_, 1 << 20);
    let wide = builder.int("wide", 1 << 20, 0);
    let members: Vec<_> = (0..20).flat_map(|_| [("t", text), ("w", wide)]).collect();
    let union = builder.union("u", 1 << 20, &members);
    let btf = Btf::parse(&builder.bytes()).unwrap();
    let value = Value::render(&btf, TypeId(union), &[b'x'; MIB], &Budget::default()).unwrap();
    assert!(text_bytes(&value) <= 4 * MIB, "{}", text_bytes(&value));
    assert_eq!(value.get("t"), Some(&Value::Text("x".repeat(MIB))));
    let Value::Struct(members) = value else {
        panic!("{value}")
    };
    assert_eq!(members.last(), Some(&("w".to_owned(), Value::Cut)));
}

#[test]
fn names_are_cut_where_the_kernel_cuts_them() {
    let mut builder = BtfBuilder::new();
    let long = "é".repeat(4000);
    let int = builder.int("int", 4, 0);
    let id = builder.structure(&long, 4, &[(&long, int, 0)]);
    let btf = Btf::parse(&builder.bytes()).unwrap();
    let of = btf.get(TypeId(id)).unwrap();
    assert_eq!(of.name(), &long[..512]);
    assert_eq!(of.members().next().unwrap().name, &long[..512]);
    assert_eq!(btf.named(&long[..512]).count(), 1);
}

#[test]
fn values_without_bytes_are_not_read_without_end() {
    let mut bpf = FakeBpf::new();
    let nothing = MapSpec {
        id: 1,
        map_type: 2,
        max_entries: u32::MAX,
        ..MapSpec::default()
    };
    let array = bpf.map("array", nothing, 0);
    bpf.fill_maps(&[array]);
    let kernel = bpf.fake.attach();
    let elements = MapElements::new(&kernel, &PerCpu::read(&kernel, MAX_CPUS).unwrap()).unwrap();
    let map = Maps::new(&kernel)
        .unwrap()
        .all(&Budget::default())
        .unwrap()
        .remove(0);
    let read = elements.read(&map, usize::MAX, &Budget::default()).unwrap();
    assert!(
        read.cut && read.elements.len() < MIB,
        "{}",
        read.elements.len()
    );
}

#[test]
fn a_hash_table_is_not_longer_than_memory() {
    let mut bpf = FakeBpf::new();
    let spec = MapSpec {
        id: 1,
        map_type: 1,
        key_size: 4,
        value_size: 8,
        max_entries: 1 << 31,
        ..MapSpec::default()
    };
    let hash = bpf.hash("hash", spec, &[&[(1, 1)]]);
    bpf.fake
        .kernel
        .write(hash + 104, &(1_u32 << 31).to_le_bytes());
    bpf.fill_maps(&[hash]);
    let kernel = bpf.fake.attach();
    let elements = MapElements::new(&kernel, &PerCpu::read(&kernel, MAX_CPUS).unwrap()).unwrap();
    let map = Maps::new(&kernel)
        .unwrap()
        .all(&Budget::default())
        .unwrap()
        .remove(0);
    assert_eq!(
        elements.read(&map, 9, &Budget::default()).unwrap_err(),
        ReadError::Unstable {
            what: "a hash table"
        }
    );
}

/// Has `name` be a table of 65,536 ids, all of the same object.
fn one_object_with_very_many_ids(bpf: &mut FakeBpf, name: &str, object: u64) {
    let kernel = &mut bpf.fake.kernel;
    let mut slot = object;
    for (shift, entries) in [(0, 64), (6, 64), (12, 16)] {
        let node = kernel.object(8 + 64 * 8);
        kernel.write(node, &[shift]);
        for number in 0..entries {
            kernel.write_u64(node + 8 + number * 8, slot);
        }
        slot = node + 2;
    }
    let table = bpf.fake.address(name);
    bpf.fake.kernel.write_u64(table + 8, slot);
}

#[test]
fn fault_d4_an_object_with_very_many_ids_is_read_once() {
    let (mut bpf, map) = with_bss();
    let stats = bpf.per_cpu([3, 4]);
    let program = bpf.program(5, "enqueue", stats);
    bpf.fill_programs(&[program]);
    one_object_with_very_many_ids(&mut bpf, "prog_idr", program);
    one_object_with_very_many_ids(&mut bpf, "map_idr", map);
    let kernel = bpf.fake.attach();
    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let budget = Budget::default();
    let programs = Programs::new(&kernel, &percpu).unwrap();
    assert_eq!(programs.all(&budget).unwrap().len(), 1);
    let maps = Maps::new(&kernel).unwrap();
    assert_eq!(maps.all(&budget).unwrap().len(), 1);
    // Nodes above those of the last level, which is one node, lead to it again and again.
    assert!(budget.spent().nodes < 2 * 70_000, "{:?}", budget.spent());
}

#[test]
fn fault_d4_types_that_several_maps_have_are_read_once() {
    let (bpf, map) = with_bss();
    let kernel = bpf.fake.attach();
    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let (budget, cache) = (Budget::default(), ObjectBtfCache::default());
    let maps = Maps::new(&kernel).unwrap().all(&budget).unwrap();
    let bss = maps.iter().find(|one| one.address == map).unwrap();
    let globals = Globals::new(&kernel, &percpu).unwrap();
    let spent = |_| {
        let before = budget.spent().bytes;
        globals.section(bss, &cache, &budget).unwrap().unwrap();
        budget.spent().bytes - before
    };
    let spent: Vec<u64> = (0..1000).map(spent).collect();
    assert!(spent[0] > 500, "{}", spent[0]);
    assert!(spent[1..].iter().all(|&bytes| bytes == 0), "{spent:?}");
}

#[test]
fn fault_d4_a_guest_has_no_more_cpus_than_its_machine() {
    let mut bpf = FakeBpf::new();
    let cpus = bpf.fake.address("nr_cpu_ids");
    bpf.fake.kernel.write(cpus, &8192_u32.to_le_bytes());
    let kernel = bpf.fake.attach();
    let percpu = PerCpu::read(&kernel, 2).unwrap();
    assert_eq!(percpu.cpus(), 2);
    assert_eq!(percpu.addresses(0).count(), 2);
    let runqueues = Runqueues::new(&kernel, &percpu).unwrap();
    assert_eq!(runqueues.read().unwrap().len(), 2);
}

/// A hash table in which 1000 buckets lead to the same queue of 10,000 tasks, in 242 KiB.
#[test]
fn fault_d2_a_queue_that_many_buckets_lead_to_is_not_read_for_each() {
    let mut fake = FakeSched::new(Era::Variables);
    let (queue, node_bytes) = (fake.kernel.object(64), 24);
    let nodes = fake.kernel.object(10_000 * node_bytes);
    let tasks: Vec<u64> = (0..10_000)
        .map(|number| nodes + number * node_bytes - DSQ_LINK)
        .collect();
    fake.queue(queue, 7, &tasks);
    fake.kernel.write_u64(queue + 32, 1);
    let table = fake.kernel.object(8 + 1000 * 8);
    fake.kernel.write_u64(table, 1000);
    for bucket in 0..1000 {
        fake.kernel.write_u64(table + 8 + bucket * 8, queue + 32);
    }
    let hash = fake.address("dsq_hash");
    fake.kernel.write_u64(hash, table);
    let error = user_queues(&fake, &Budget::default()).unwrap_err();
    let what = "the table of dispatch queues";
    assert_eq!(error, ReadError::Unstable { what });
}

/// Many queues, each of which is short enough.
#[test]
fn fault_d2_dispatch_queues_have_one_bound_together() {
    let mut fake = FakeSched::new(Era::Variables);
    let table = fake.kernel.object(8 + 100 * 8);
    fake.kernel.write_u64(table, 100);
    for number in 0..100 {
        let (queue, nodes) = (fake.kernel.object(64), fake.kernel.object(100 * 24));
        let tasks: Vec<u64> = (0..100).map(|task| nodes + task * 24 - DSQ_LINK).collect();
        fake.queue(queue, number, &tasks);
        fake.kernel.write_u64(queue + 32, 1);
        fake.kernel.write_u64(table + 8 + number * 8, queue + 32);
    }
    let hash = fake.address("dsq_hash");
    fake.kernel.write_u64(hash, table);
    let all = user_queues(&fake, &Budget::default()).unwrap();
    assert_eq!(
        all.iter().map(|queue| queue.tasks.len()).sum::<usize>(),
        10_000
    );
    let limits = BudgetLimits {
        nodes: 5_000,
        ..BudgetLimits::default()
    };
    let error = user_queues(&fake, &Budget::new(limits)).unwrap_err();
    let exhausted = BudgetExhausted::Nodes { limit: 5_000 };
    assert_eq!(error, ReadError::Budget(exhausted));
}

fn user_queues(fake: &FakeSched, budget: &Budget) -> Result<Vec<DispatchQueue>, ReadError> {
    let kernel = fake.attach();
    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let queues = DispatchQueues::new(&kernel, &percpu).unwrap().unwrap();
    queues.user(budget)
}

#[test]
fn tasks_have_one_bound_together() {
    let mut fake = FakeSched::new(Era::Bare);
    let leaders: Vec<u64> = (0..20)
        .map(|number| fake.process(100 + number * 10, 10)[0])
        .collect();
    fake.link(&leaders);
    let kernel = fake.attach();
    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let tasks = Tasks::new(&kernel, &percpu).unwrap();
    assert_eq!(tasks.all(&Budget::default()).unwrap().len(), 200);
    let limits = BudgetLimits {
        bytes: 10_000,
        ..BudgetLimits::default()
    };
    let budget = Budget::new(limits);
    let exhausted = BudgetExhausted::Bytes {
        limit_bytes: 10_000,
    };
    let error = tasks.all(&budget).unwrap_err();
    assert_eq!(error, ReadError::Budget(exhausted));
    assert_eq!(budget.exhausted(), Some(exhausted));
}

/// 65,535 members far behind the bytes, each of which is nothing but costs memory.
#[test]
fn fault_d3_members_beyond_the_bytes_are_counted() {
    let mut builder = BtfBuilder::new();
    let int = builder.int("int", 4, 0);
    let members: Vec<_> = (0..60_000).map(|_| ("m", int, 100)).collect();
    let inner = builder.structure("inner", 104, &members);
    let outer: Vec<_> = (0..100).map(|_| ("inner", inner, 0)).collect();
    let id = builder.structure("outer", 104, &outer);
    let btf = Btf::parse(&builder.bytes()).unwrap();
    let budget = Budget::default();
    let value = Value::render(&btf, TypeId(id), &[0; 4], &budget).unwrap();
    // A mark at the end of each of two structures beside those that are counted.
    assert!(values(&value) <= 100_002, "{}", values(&value));
    let Value::Struct(members) = &value else {
        panic!("{value}")
    };
    assert_eq!(members.last(), Some(&("…".to_owned(), Value::Cut)));
    let limits = BudgetLimits {
        nodes: 1000,
        ..BudgetLimits::default()
    };
    let budget = Budget::new(limits);
    let value = Value::render(&btf, TypeId(id), &[0; 4], &budget).unwrap();
    assert!(values(&value) <= 1002, "{}", values(&value));
    assert!(budget.exhausted().is_some());
}

fn values(value: &Value) -> usize {
    1 + match value {
        Value::Struct(members) => members.iter().map(|(_, value)| values(value)).sum(),
        Value::Array(elements) => elements.iter().map(values).sum(),
        _ => 0,
    }
}
