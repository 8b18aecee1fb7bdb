//! The topology in QEMU's words, and where RAM lies in guest-physical addresses.

use ktstr_topology::{NumaMemory, Topology};
use ktstr_vmm::RamRegion;

const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 4096 * MIB;

/// RAM from which on `q35` keeps less of it below 4 GiB (`pc_q35_init`, hw/i386/pc_q35.c).
const SPLIT_FROM: u64 = 0xb000_0000;

/// RAM below 4 GiB on a `q35` that has [`SPLIT_FROM`] or more.
const LOW_RAM: u64 = 0x8000_0000;

/// The values of `-smp` and `-numa`.
///
/// An LLC is a socket: every CPU model shows the guest that the L3 is shared by a socket, while dies need
/// an Intel model (before QEMU 10). CPUs are numbered in the same order as by [`Topology`].
pub(crate) fn cpu_args(topology: &Topology, numa: &NumaMemory) -> Vec<String> {
    let mut args = vec![
        "-smp".to_owned(),
        format!(
            "{},sockets={},dies=1,cores={},threads={}",
            topology.cpu_count(),
            topology.llcs(),
            topology.cores_per_llc(),
            topology.threads_per_core()
        ),
    ];
    let mut numa_arg = |arg: String| args.extend(["-numa".to_owned(), arg]);
    for (node, nearest) in numa.nearest_cpu_nodes().iter().enumerate() {
        let initiator = if numa.tells_performance() {
            format!(",initiator={nearest}")
        } else {
            String::new()
        };
        numa_arg(format!("node,nodeid={node},memdev=ram{node}{initiator}"));
    }
    for llc in 0..topology.llcs() {
        let node = llc / topology.llcs_per_node();
        numa_arg(format!("cpu,node-id={node},socket-id={llc}"));
    }
    for (from, row) in numa.distances().iter().enumerate() {
        for (to, distance) in row.iter().enumerate().filter(|&(to, _)| to != from) {
            numa_arg(format!("dist,src={from},dst={to},val={distance}"));
        }
    }
    if numa.tells_performance() {
        for from in 0..numa.cpu_nodes() {
            for (to, (latency_ns, bandwidth_mb_s)) in (0..).zip(numa.performance_from(from)) {
                let to: u32 = to;
                let of = |data: &str| {
                    format!(
                        "hmat-lb,initiator={from},target={to},hierarchy=memory,data-type={data}"
                    )
                };
                numa_arg(format!("{},latency={latency_ns}", of("access-latency")));
                numa_arg(format!(
                    "{},bandwidth={bandwidth_mb_s}M",
                    of("access-bandwidth")
                ));
            }
        }
    }
    args
}

/// What `-M` needs for the values of `-numa`.
pub(crate) fn machine_option(numa: &NumaMemory) -> &'static str {
    if numa.tells_performance() {
        ",hmat=on"
    } else {
        ""
    }
}

/// Where the nodes' RAM lies, one backing file a node: from 0 on, with a hole for PCI below 4 GiB.
pub(crate) fn ram_regions(node_memory_mib: &[u64]) -> Vec<RamRegion> {
    let total: u64 = node_memory_mib.iter().map(|mib| mib * MIB).sum();
    let low = if total < SPLIT_FROM { total } else { LOW_RAM };
    let mut regions = Vec::new();
    let mut at = 0;
    for (node, mib) in (0..).zip(node_memory_mib) {
        let end = at + mib * MIB;
        let parts = [(at..end.min(low), 0), (at.max(low)..end, FOUR_GIB - low)];
        for (part, shift) in parts {
            if !part.is_empty() {
                regions.push(RamRegion {
                    gpa: part.start + shift,
                    len_bytes: part.end - part.start,
                    node,
                    offset_bytes: part.start - at,
                });
            }
        }
        at = end;
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(node_memory_mib: &[u64]) -> Vec<(u64, u64, u32, u64)> {
        ram_regions(node_memory_mib)
            .iter()
            .map(|region| {
                let mib = |bytes: u64| bytes / MIB;
                (
                    mib(region.gpa),
                    mib(region.len_bytes),
                    region.node,
                    mib(region.offset_bytes),
                )
            })
            .collect()
    }

    #[test]
    fn small_machines_have_no_hole() {
        assert_eq!(layout(&[512]), [(0, 512, 0, 0)]);
        assert_eq!(layout(&[1408, 1407]), [(0, 1408, 0, 0), (1408, 1407, 1, 0)]);
    }

    #[test]
    fn ram_above_the_hole_starts_at_4_gib() {
        assert_eq!(layout(&[2816]), [(0, 2048, 0, 0), (4096, 768, 0, 2048)]);
        assert_eq!(
            layout(&[3072, 1024]),
            [(0, 2048, 0, 0), (4096, 1024, 0, 2048), (5120, 1024, 1, 0)]
        );
        assert_eq!(layout(&[2048, 2048]), [(0, 2048, 0, 0), (4096, 2048, 1, 0)]);
    }
}
