//! How much memory a machine gets. What a test declares is the least: more is given for its CPUs, and for the files that
//! are packed for it.

use ktstr_declaration::MachineShape;
use ktstr_machine::HostMemory;
use ktstr_topology::{NumaError, NumaMemory, NumaSpec, Topology};

/// Memory of a machine for which nothing is declared.
const DEFAULT_MIB: u64 = 512;

/// What a distribution's kernel needs to be of use.
const MIN_MIB: u64 = 256;

/// What each CPU adds: its kernel threads and caches, and the workers of a test, of which there are more the more CPUs.
const PER_CPU_MIB: u64 = 64;

/// What is declared of a machine's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The least that the NUMA nodes with CPUs share; 512 MiB if unset.
    pub memory_mib: Option<u64>,
    /// What is special about the NUMA nodes. Memory that is declared for each of them is taken as it is.
    pub numa: NumaSpec,
}

/// The memory of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sized {
    pub(crate) numa: NumaMemory,
    /// What a report says about it, if it is more than was declared.
    pub(crate) remark: Option<String>,
}

impl From<&MachineShape> for MemoryPlan {
    fn from(shape: &MachineShape) -> Self {
        Self {
            memory_mib: shape.memory_mib,
            numa: shape.numa.to_spec(),
        }
    }
}

impl MemoryPlan {
    /// The memory of a machine of this shape, without what its files may add.
    pub fn resolve(&self, topology: &Topology) -> Result<NumaMemory, NumaError> {
        Ok(self.sized(topology, 0)?.numa)
    }

    /// The same where at least `needed_mib` are needed for what is packed.
    pub(crate) fn sized(&self, topology: &Topology, needed_mib: u64) -> Result<Sized, NumaError> {
        self.sized_on(topology, needed_mib, HostMemory::now().total_mib)
    }

    fn sized_on(
        &self,
        topology: &Topology,
        needed_mib: u64,
        host_mib: Option<u64>,
    ) -> Result<Sized, NumaError> {
        let declared_mib = self.memory_mib.unwrap_or(DEFAULT_MIB);
        let cpus = u64::from(topology.cpu_count());
        // A machine with very many CPUs does with less rather than not at all.
        let for_cpus_mib = (PER_CPU_MIB * cpus).min(host_mib.unwrap_or(u64::MAX) / 2);
        let floor_mib = declared_mib.max(MIN_MIB).max(for_cpus_mib);
        let memory_mib = if needed_mib > floor_mib {
            // Huge pages are of 2 MiB, and no node has half of one.
            needed_mib.next_multiple_of(2 * u64::from(topology.numa_nodes()))
        } else {
            floor_mib
        };
        let is_by_node = !self.numa.node_memory_mib.is_empty();
        let remark = (memory_mib > declared_mib && !is_by_node).then(|| {
            let why = if needed_mib > floor_mib {
                "the files that are packed need it".to_owned()
            } else if for_cpus_mib > MIN_MIB {
                format!("{PER_CPU_MIB} MiB for each of {cpus} CPUs")
            } else {
                format!("no machine has less than {MIN_MIB} MiB")
            };
            format!("the machine has {memory_mib} MiB instead of {declared_mib} MiB: {why}")
        });
        Ok(Sized {
            numa: self.numa.resolve(topology, memory_mib)?,
            remark,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST_MIB: Option<u64> = Some(16_384);

    fn sized(declared: Option<u64>, topology: &str, needed_mib: u64) -> (Vec<u64>, String) {
        let plan = MemoryPlan {
            memory_mib: declared,
            numa: NumaSpec::default(),
        };
        let topology = topology.parse().unwrap();
        let sized = plan.sized_on(&topology, needed_mib, HOST_MIB).unwrap();
        let nodes = sized.numa.nodes().iter();
        let nodes = nodes.map(|node| node.memory_mib).collect();
        (nodes, sized.remark.unwrap_or_default())
    }

    #[test]
    fn fault_f3_what_is_declared_is_the_least() {
        for (declared, topology, needed_mib, nodes, remark) in [
            (None, "1,1,2,1", 0, vec![512], ""),
            (Some(1024), "1,1,2,1", 400, vec![1024], ""),
            (
                Some(96),
                "1,1,2,1",
                0,
                vec![256],
                "the machine has 256 MiB instead of 96 MiB: no machine has less than 256 MiB",
            ),
            (
                Some(96),
                "2,4,4,1",
                0,
                vec![512, 512],
                "the machine has 1024 MiB instead of 96 MiB: 64 MiB for each of 16 CPUs",
            ),
            (
                None,
                "2,2,1,1",
                1001,
                vec![502, 502],
                "the machine has 1004 MiB instead of 512 MiB: the files that are packed need it",
            ),
        ] {
            let (found, said) = sized(declared, topology, needed_mib);
            assert_eq!((found, said.as_str()), (nodes, remark));
        }
    }

    #[test]
    fn very_many_cpus_take_no_more_than_half_of_the_host() {
        assert_eq!(sized(None, "1,64,64,1", 0).0, [8192]);
        assert_eq!(sized(Some(9000), "1,64,64,1", 0).0, [9000]);
    }

    #[test]
    fn nodes_that_are_declared_one_by_one_stay_as_they_are() {
        let numa = NumaSpec {
            node_memory_mib: vec![128, 64],
            ..NumaSpec::default()
        };
        let plan = MemoryPlan {
            memory_mib: None,
            numa,
        };
        let topology = "2,2,8,1".parse().unwrap();
        let sized = plan.sized_on(&topology, 5000, HOST_MIB).unwrap();
        assert_eq!((sized.numa.total_mib(), sized.remark), (192, None));
    }
}
