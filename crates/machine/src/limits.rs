//! What every engine asks of a machine's memory.

use crate::host_memory::HostMemory;
use crate::spec::{MIN_NODE_MEMORY_MIB, MachineSpec, SpecError};

/// What a kernel needs beside its initramfs and the files unpacked from it, in MiB.
const KERNEL_MIB: u64 = 64;

/// Whether the memory is enough for the machine, and not more than the host has at all.
pub(crate) fn check_memory(spec: &MachineSpec, initrd_bytes: u64) -> Result<(), SpecError> {
    let (described, declared) = (spec.numa.cpu_nodes(), spec.topology.numa_nodes());
    if described != declared {
        return Err(SpecError::NodeCount {
            described,
            declared,
        });
    }
    for (node, memory) in spec.numa.nodes().iter().enumerate() {
        let memory_mib = memory.memory_mib;
        if memory_mib < MIN_NODE_MEMORY_MIB {
            return Err(SpecError::TooLittleMemory { memory_mib, node });
        }
    }
    let memory_mib = spec.numa.total_mib();
    // What the host has left at this moment is waited for elsewhere. Huge pages are a part of the total.
    let total_mib = HostMemory::now().total_mib.unwrap_or(u64::MAX);
    if memory_mib > total_mib {
        return Err(SpecError::TooMuchMemory {
            memory_mib,
            total_mib,
        });
    }
    let initrd_mib = initrd_bytes.div_ceil(1 << 20);
    // The archive and its files are in memory together for a while.
    let needed_mib = initrd_mib.saturating_mul(2).saturating_add(KERNEL_MIB);
    if initrd_bytes > 0 && needed_mib > memory_mib {
        return Err(SpecError::InitrdTooLarge {
            initrd_mib,
            memory_mib,
            needed_mib,
        });
    }
    Ok(())
}
