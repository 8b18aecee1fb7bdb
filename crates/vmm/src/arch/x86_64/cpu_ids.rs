//! APIC ids: a CPU's place in the topology, packed into bit fields.

use ktstr_topology::Topology;

/// Highest APIC id that a machine may have: a message has 15 bits for it (`KVM_FEATURE_MSI_EXT_DEST_ID`).
pub const MAX_APIC_ID: u32 = (1 << 15) - 1;

/// Highest id in xAPIC mode: 255 means all CPUs.
const HIGHEST_NARROW: u32 = 254;

/// The APIC ids of a topology.
///
/// An id holds the LLC, the core in it and the thread in that, each in a field wide enough for its count
/// (Intel SDM volume 3, section 9.9.1). Where a count isn't a power of two, ids are left out. An LLC is also
/// a package: so its CPUs are found by kernels that take the LLC from the package (AMD CPUs before family
/// 17h) and by those that take it from the cache leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuIds {
    topology: Topology,
    thread_bits: u32,
    core_bits: u32,
}

impl CpuIds {
    pub(crate) fn new(topology: Topology) -> Self {
        Self {
            topology,
            thread_bits: bits_for(topology.threads_per_core()),
            core_bits: bits_for(topology.cores_per_llc()),
        }
    }

    /// With the LLC's number no lower than bit `bit`. Ids are left out where the fields below need fewer.
    pub(crate) fn with_llc_from_bit(self, bit: u32) -> Self {
        Self {
            core_bits: self.core_bits.max(bit.saturating_sub(self.thread_bits)),
            ..self
        }
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The id of `cpu`, which must be below the topology's CPU count.
    pub(crate) fn id(&self, cpu: u32) -> u32 {
        let threads = self.topology.threads_per_core();
        let (core, thread) = (cpu / threads, cpu % threads);
        let cores = self.topology.cores_per_llc();
        let (llc, core) = (core / cores, core % cores);
        llc << self.llc_shift() | core << self.core_shift() | thread
    }

    /// The highest id that is in use.
    pub(crate) fn highest(&self) -> u32 {
        self.id(self.topology.cpu_count() - 1)
    }

    /// Whether an id needs more than the 8-bit destination of xAPIC messages.
    pub(crate) fn are_wide(&self) -> bool {
        self.highest() > HIGHEST_NARROW
    }

    /// Bits to shift an id right by to get the core.
    pub(crate) fn core_shift(&self) -> u32 {
        self.thread_bits
    }

    /// Bits to shift an id right by to get the LLC, which is the package.
    pub(crate) fn llc_shift(&self) -> u32 {
        self.thread_bits + self.core_bits
    }
}

/// Width of a field that holds `count` different values.
fn bits_for(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::test_topology::any_topology;

    proptest! {
        #[test]
        fn ids_are_unique_and_tell_llc_and_core(topology in any_topology()) {
            let ids = CpuIds::new(topology);
            let cpus = topology.cpu_count();
            let seen: HashSet<_> = (0..cpus).map(|cpu| ids.id(cpu)).collect();
            prop_assert_eq!(seen.len(), cpus as usize);
            prop_assert_eq!(seen.iter().max(), Some(&ids.highest()));
            for cpu in 0..cpus {
                prop_assert_eq!(Some(ids.id(cpu) >> ids.llc_shift()), topology.llc_of(cpu));
                let core = ids.id(cpu) >> ids.core_shift();
                for other in [cpu.saturating_sub(1), (cpu + 1).min(cpus - 1)] {
                    let same = ids.id(other) >> ids.core_shift() == core;
                    prop_assert_eq!(same, topology.thread_siblings(cpu).contains(other));
                }
            }
        }
    }

    #[test]
    fn an_llc_can_begin_at_a_higher_bit() {
        let narrow = CpuIds::new(Topology::new(1, 2, 2, 2).unwrap());
        assert_eq!(narrow.with_llc_from_bit(1), narrow);
        let wide = narrow.with_llc_from_bit(9);
        let all: Vec<_> = (0..8).map(|cpu| wide.id(cpu)).collect();
        assert_eq!(all, [0, 1, 2, 3, 512, 513, 514, 515]);
        assert_eq!((wide.core_shift(), wide.llc_shift()), (1, 9));
        assert!(wide.are_wide() && !narrow.are_wide());
    }

    #[test]
    fn odd_counts_leave_ids_out() {
        let ids = CpuIds::new(Topology::new(1, 3, 3, 1).unwrap());
        let all: Vec<_> = (0..9).map(|cpu| ids.id(cpu)).collect();
        assert_eq!(all, [0, 1, 2, 4, 5, 6, 8, 9, 10]);
    }
}
