//! What a machine is made of.

use std::collections::BTreeMap;

use ktstr_topology::{NumaMemory, Topology};

use crate::arch::cpu_ids::{CpuIds, MAX_APIC_ID};
use crate::devices::virtio::console::PortKind;
use crate::devices::virtio::device::VirtioDevice;
use crate::memory::NodeMemory;
use crate::pause_port::{OnPause, PausePort};
use crate::start_error::StartError;

/// What a machine is made of. [`Self::create`] makes it; what it then runs is another matter.
#[derive(Debug)]
pub struct VmConfig {
    pub(crate) topology: Topology,
    pub(crate) numa: NumaMemory,
    pub(crate) nodes: Vec<NodeMemory>,
    pub(crate) ports: BTreeMap<u32, PortKind>,
    pub(crate) devices: Vec<Box<dyn VirtioDevice>>,
    pub(crate) host_cpus: Vec<u32>,
    pub(crate) pause_port: Option<PausePort>,
    llc_from_bit: u32,
}

impl VmConfig {
    /// A machine of shape `topology` with one piece of memory for each NUMA node.
    pub fn new(topology: Topology, nodes: Vec<NodeMemory>) -> Self {
        Self {
            topology,
            numa: NumaMemory::uniform(&topology, 0),
            nodes,
            ports: BTreeMap::new(),
            devices: Vec::new(),
            host_cpus: Vec::new(),
            pause_port: None,
            llc_from_bit: 0,
        }
    }

    /// How far the NUMA nodes are from each other and how fast they are, and nodes without CPUs. How much
    /// memory they have is told by the memory itself. Without this all are equal.
    #[must_use]
    pub fn numa(mut self, numa: NumaMemory) -> Self {
        self.numa = numa;
        self
    }

    /// Gives the console a port with this number, below [`MAX_PORTS`](crate::MAX_PORTS). A machine without any has no
    /// console.
    #[must_use]
    pub fn port(mut self, number: u32, kind: PortKind) -> Self {
        self.ports.insert(number, kind);
        self
    }

    /// Puts a device on the bus, after the console: up to 30.
    #[must_use]
    pub fn device(mut self, device: Box<dyn VirtioDevice>) -> Self {
        self.devices.push(device);
        self
    }

    /// Gives each vCPU a host CPU for itself: its thread stays there with `SCHED_FIFO`, `hlt` and `pause` don't
    /// leave the guest, and the guest is told so by `KVM_HINTS_REALTIME`. Whatever serves the machine must
    /// have a higher priority: see [`ServicePriority`](crate::ServicePriority).
    #[must_use]
    pub fn dedicated(mut self, host_cpus: Vec<u32>) -> Self {
        self.host_cpus = host_cpus;
        self
    }

    /// Has the number of an LLC begin at this bit of APIC ids, 15 at most, even if fewer do for the CPUs in it. So a
    /// few CPUs can have the ids of many, above 254, for which a machine has other interrupt controllers.
    #[must_use]
    pub fn llc_from_apic_id_bit(mut self, bit: u32) -> Self {
        self.llc_from_bit = bit.min(15);
        self
    }

    /// Gives the guest a port by which it pauses the machine: an `out` there. The machine stays paused
    /// until [`MicroVm::release`](crate::MicroVm::release).
    #[must_use]
    pub fn pause_port(mut self, port: u16, on_pause: OnPause) -> Self {
        self.pause_port = Some(PausePort { port, on_pause });
        self
    }

    /// Finds what no machine can be made of, and numbers the CPUs.
    pub(crate) fn check(&self) -> Result<CpuIds, StartError> {
        let (described, declared) = (self.numa.cpu_nodes(), self.topology.numa_nodes());
        if described != declared {
            return Err(StartError::CpuNodeCount {
                described,
                declared,
            });
        }
        let declared = self.numa.nodes().len();
        if self.nodes.len() != declared {
            return Err(StartError::NodeCount {
                given: self.nodes.len(),
                declared,
            });
        }
        let (given, vcpus) = (self.host_cpus.len(), self.topology.cpu_count());
        if given > 0 && given != vcpus as usize {
            return Err(StartError::HostCpus { given, vcpus });
        }
        let ids = CpuIds::new(self.topology).with_llc_from_bit(self.llc_from_bit);
        if ids.highest() > MAX_APIC_ID {
            return Err(StartError::TooManyCpus {
                topology: self.topology,
                highest: ids.highest(),
            });
        }
        Ok(ids)
    }
}
