//! The topology in QEMU's words, and where RAM lies in guest-physical addresses.

use ktstr_topology::Topology;

use crate::memory::Region;

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
pub(crate) fn cpu_args(topology: &Topology) -> Vec<String> {
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
    let nodes = topology.numa_nodes();
    for node in 0..nodes {
        args.push("-numa".to_owned());
        args.push(format!("node,nodeid={node},memdev=ram{node}"));
    }
    for llc in 0..topology.llcs() {
        let node = llc / topology.llcs_per_node();
        args.push("-numa".to_owned());
        args.push(format!("cpu,node-id={node},socket-id={llc}"));
    }
    for from in 0..nodes {
        for to in (0..nodes).filter(|&to| to != from) {
            let distance = topology.distance(from, to);
            args.push("-numa".to_owned());
            args.push(format!("dist,src={from},dst={to},val={distance}"));
        }
    }
    args
}

/// Where the nodes' RAM lies, one backing file a node: from 0 on, with a hole for PCI below 4 GiB.
pub(crate) fn ram_regions(node_memory_mib: &[u64]) -> Vec<Region> {
    let total: u64 = node_memory_mib.iter().map(|mib| mib * MIB).sum();
    let low = if total < SPLIT_FROM { total } else { LOW_RAM };
    let mut regions = Vec::new();
    let mut at = 0;
    for (file, mib) in node_memory_mib.iter().enumerate() {
        let end = at + mib * MIB;
        let parts = [(at..end.min(low), 0), (at.max(low)..end, FOUR_GIB - low)];
        for (part, shift) in parts {
            if !part.is_empty() {
                regions.push(Region {
                    gpa: part.start + shift,
                    len: part.end - part.start,
                    file,
                    offset: part.start - at,
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

    fn layout(node_memory_mib: &[u64]) -> Vec<(u64, u64, usize, u64)> {
        ram_regions(node_memory_mib)
            .iter()
            .map(|region| {
                let mib = |bytes: u64| bytes / MIB;
                (
                    mib(region.gpa),
                    mib(region.len),
                    region.file,
                    mib(region.offset),
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
