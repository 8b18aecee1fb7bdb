//! What every engine asks of a machine's memory.

use ktstr_topology::Topology;

use crate::host_memory::HostMemory;
use crate::spec::{MIN_NODE_MEMORY_MIB, MachineSpec, SpecError};

/// What a kernel has for itself before it unpacks its initramfs, in MiB. Debian's 6.12 and 7.3 take 56 MiB of 256 MiB, 60 of
/// 512, and 186 of 4096, which is what [`RAM_PER_OWN`] adds; the rest is for kernels with more built in.
const KERNEL_MIB: u64 = 96;

/// Of so much memory, one part more is the kernel's own: the descriptors of its pages (`struct page`), and buffers.
const RAM_PER_OWN: u64 = 32;

/// What the kernel has for each CPU, in MiB.
const PER_CPU_MIB: u64 = 1;

/// Room in the root file system for what a test writes there, in MiB.
const ROOM_MIB: u64 = 16;

/// What a file or folder takes at least beside its bytes in the archive: its last page, inode and name.
const ENTRY_BYTES: u64 = 8 << 10;

const MIB: u64 = 1 << 20;

/// The memory in MiB with which an initramfs of so many bytes, and so many files and folders, is unpacked and leaves room.
///
/// The kernel unpacks into a tmpfs that may take half of the memory it has then, which is without the archive itself
/// (`init_mount_tree` in fs/namespace.c, `shmem_default_max_blocks` in mm/shmem.c).
pub fn memory_for_initrd_mib(bytes: u64, entries: u64, topology: &Topology) -> u64 {
    let archive_mib = bytes.div_ceil(MIB);
    let unpacked_bytes = bytes.saturating_add(entries.saturating_mul(ENTRY_BYTES));
    let root_mib = unpacked_bytes.div_ceil(MIB).saturating_add(ROOM_MIB);
    let without_own_mib = root_mib
        .saturating_mul(2)
        .saturating_add(archive_mib)
        .saturating_add(KERNEL_MIB)
        .saturating_add(PER_CPU_MIB * u64::from(topology.cpu_count()));
    without_own_mib.saturating_add(without_own_mib / (RAM_PER_OWN - 1))
}

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
    let initrd_mib = initrd_bytes.div_ceil(MIB);
    let needed_mib = memory_for_initrd_mib(initrd_bytes, spec.initrd_entries, &spec.topology);
    if initrd_bytes > 0 && needed_mib > memory_mib {
        return Err(SpecError::InitrdTooLarge {
            initrd_mib,
            memory_mib,
            needed_mib,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Debian's kernels have left when they mount the root file system, without the archive: measured on 6.12 and
    /// 7.3 as twice the size of the tmpfs. Between the points the line is straight.
    fn left_mib(memory_mib: u64) -> u64 {
        let own_mib = match memory_mib {
            0..=512 => 57 + memory_mib / 60,
            _ => 57 + memory_mib / 30,
        };
        memory_mib - own_mib
    }

    #[test]
    fn fault_f3_what_is_packed_fits_into_half_of_the_memory_that_is_left() {
        for archive_mib in [1, 28, 130, 170, 200, 400, 1000, 3000] {
            let memory_mib = memory_for_initrd_mib(archive_mib * MIB, 100, &Topology::SINGLE);
            let root_mib = (left_mib(memory_mib) - archive_mib) / 2;
            assert!(
                root_mib >= archive_mib + ROOM_MIB,
                "{archive_mib} MiB: {memory_mib} MiB"
            );
            assert!(
                memory_mib < 3 * archive_mib + archive_mib / 5 + 200,
                "{memory_mib} MiB is a waste"
            );
        }
    }

    #[test]
    fn many_small_files_take_a_page_each_and_more() {
        let few = memory_for_initrd_mib(MIB, 1, &Topology::SINGLE);
        let many = memory_for_initrd_mib(MIB, 100_000, &Topology::SINGLE);
        assert!(many > few + 2 * 390);
    }
}
