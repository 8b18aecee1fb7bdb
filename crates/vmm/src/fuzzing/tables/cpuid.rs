//! The leaves of every CPU, read as a kernel reads them.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};
use kvm_bindings::kvm_cpuid_entry2;

use crate::arch::cpu_ids::CpuIds;
use crate::arch::cpuid;

/// CPUs whose leaves are looked at, of machines with more.
const CPUS_LOOKED_AT: u32 = 48;
/// Leaves with sub-leaves (`__do_cpuid_func` of arch/x86/kvm/cpuid.c).
#[rustfmt::skip]
const INDEXED: [u32; 11] = [
    0x4, 0x7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x1d, 0x1f, 0x8000_001d,
];
/// Widest APIC id field that the cache leaves can tell, as a shift.
const WIDEST_SHARING: u32 = 12;

/// Leaves as KVM lists them: no two the same, and an index only where the leaf has sub-leaves.
pub(super) fn host_leaves(input: &mut Unstructured<'_>) -> Result<Vec<kvm_cpuid_entry2>> {
    let mut leaves = BTreeMap::new();
    while !input.is_empty() && leaves.len() < 64 {
        let [kind, index]: [u8; 2] = input.arbitrary()?;
        let [eax, ebx, ecx, edx]: [u32; 4] = input.arbitrary()?;
        let function = u32::from(kind & 0x3f) | u32::from(kind >> 7) << 31;
        let index = if INDEXED.contains(&function) {
            u32::from(index % 4)
        } else {
            0
        };
        leaves.insert(
            (function, index),
            kvm_cpuid_entry2 {
                function,
                index,
                eax,
                ebx: match kind & 0x40 {
                    0 => ebx,
                    _ => u32::from_le_bytes(*b"Auth"),
                },
                ecx,
                edx,
                ..kvm_cpuid_entry2::default()
            },
        );
    }
    Ok(leaves.into_values().collect())
}

pub(super) fn check(ids: &CpuIds, supported: &[kvm_cpuid_entry2]) {
    let topology = ids.topology();
    let stride = (topology.cpu_count() / CPUS_LOOKED_AT).max(1);
    let looked_at = (0..topology.cpu_count()).step_by(stride as usize);
    let all: Vec<_> = looked_at
        .map(|cpu| (cpu, cpuid::build(supported, ids, cpu, false)))
        .collect();
    for (cpu, leaves) in &all {
        let mut places = BTreeSet::new();
        for leaf in leaves {
            assert!(places.insert((leaf.function, leaf.index)), "a leaf twice");
        }
        let id = ids.id(*cpu);
        assert_eq!(leaf(leaves, 0xb, 0).edx, id);
        assert_eq!(leaf(leaves, 1, 0).ebx >> 24, id & 0xff);
        assert_eq!(leaf(leaves, 0xb, 0).ebx, topology.threads_per_core());
        assert_eq!(leaf(leaves, 0xb, 1).ebx, topology.cpus_per_llc());
        assert!(leaf(leaves, 0, 0).eax >= 0xb);
    }
    let (_, first) = &all[0];
    let amd = leaf(first, 0, 0).ebx == u32::from_le_bytes(*b"Auth")
        || leaf(first, 0, 0).ebx == u32::from_le_bytes(*b"Hygo");
    let caches = if amd { 0x8000_001d } else { 0x4 };
    for ((cpu, leaves), (other, others)) in all.iter().zip(all.iter().skip(1)) {
        let ids = (leaf(leaves, 0xb, 0).edx, leaf(others, 0xb, 0).edx);
        let together = |shift: u32| ids.0 >> shift == ids.1 >> shift;
        let same_llc = topology.llc_of(*cpu) == topology.llc_of(*other);
        let same_core = topology.thread_siblings(*cpu).contains(*other);
        assert_eq!(together(leaf(leaves, 0xb, 0).eax), same_core);
        assert_eq!(together(leaf(leaves, 0xb, 1).eax), same_llc);
        // As the kernel computes it (`cacheinfo_amd_init_llc_id` and its siblings).
        let shift = |index| {
            let sharing = (leaf(leaves, caches, index).eax >> 14 & 0xfff) + 1;
            sharing.next_power_of_two().trailing_zeros()
        };
        assert_eq!(together(shift(0)), same_core);
        if leaf(leaves, 0xb, 1).eax <= WIDEST_SHARING {
            assert_eq!(together(shift(3)), same_llc);
        }
    }
}

fn leaf(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> &kvm_cpuid_entry2 {
    let mut found = leaves
        .iter()
        .filter(|leaf| (leaf.function, leaf.index) == (function, index));
    found.next().expect("the leaf is there")
}
