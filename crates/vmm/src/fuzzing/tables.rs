//! What a machine says of its shape: ACPI tables and CPUID leaves, of any topology and any NUMA memory.

mod acpi;
mod cpuid;

use arbitrary::{Result, Unstructured};
use ktstr_topology::{NumaMemory, NumaSpec, Topology};

use crate::arch::cpu_ids::CpuIds;
use crate::arch::ram::place;
use crate::memory::RamRegion;

/// A topology with memory for its nodes, and the leaves of a host. Tables are whole and say of every CPU, all
/// RAM and every pair of nodes what was declared, and the leaves of every CPU say the same.
pub fn tables(input: &[u8]) {
    let mut input = Unstructured::new(input);
    if let Ok(Some(declared)) = declared(&mut input) {
        let ids = CpuIds::new(declared.topology);
        acpi::check(&ids, &declared.numa, &declared.regions);
        let supported = cpuid::host_leaves(&mut input).unwrap_or_default();
        cpuid::check(&ids, &supported);
    }
}

struct Declared {
    topology: Topology,
    numa: NumaMemory,
    regions: Vec<RamRegion>,
}

/// `None` if the shape or the memory is impossible, which was said then.
fn declared(input: &mut Unstructured<'_>) -> Result<Option<Declared>> {
    let [nodes, llcs_per_node, threads, wide]: [u8; 4] = input.arbitrary()?;
    let cores: u16 = input.arbitrary()?;
    // Most inputs are shapes that people have.
    let cores = if wide == 0xff { cores } else { cores % 17 };
    let nodes = u32::from(if wide & 1 == 0 {
        nodes % 9
    } else {
        nodes % 100
    });
    let llcs = nodes * u32::from(llcs_per_node % 33);
    let Ok(topology) = Topology::new(nodes, llcs, cores.into(), u32::from(threads % 4)) else {
        return Ok(None);
    };
    let spec = spec(input, nodes as usize)?;
    let Ok(numa) = spec.resolve(&topology, 0) else {
        return Ok(None);
    };
    let lens: Option<Vec<u64>> = numa
        .nodes()
        .iter()
        .map(|node| node.memory_mib.checked_mul(1 << 20))
        .collect();
    let regions = lens.and_then(|lens| place(&lens).ok());
    Ok(regions.map(|regions| Declared {
        topology,
        numa,
        regions,
    }))
}

/// Memory of each node, and by the bits of the first byte what is declared beside it.
fn spec(input: &mut Unstructured<'_>, nodes: usize) -> Result<NumaSpec> {
    const DISTANCES: u8 = 1 << 0;
    const ONE_WAY: u8 = 1 << 1;
    const LATENCIES: u8 = 1 << 2;
    const BANDWIDTHS: u8 = 1 << 3;
    let [declared, memory_only]: [u8; 2] = input.arbitrary()?;
    let all = nodes + usize::from(memory_only % 5);
    let mut memory = Vec::with_capacity(all);
    for _ in 0..all {
        memory.push(u64::from(input.arbitrary::<u32>()?));
    }
    let memory_only_node_mib = memory.split_off(nodes);
    let mut node_distances = Vec::new();
    if declared & DISTANCES != 0 {
        node_distances = vec![vec![10; all]; all];
        let pairs = (0..all).flat_map(|from| (0..from).map(move |to| (from, to)));
        for (from, to) in pairs {
            let distance: u8 = input.arbitrary()?;
            let one_way = declared & ONE_WAY != 0 && to == 1;
            node_distances[from][to] = distance;
            node_distances[to][from] = distance ^ u8::from(one_way);
        }
    }
    let mut words = |bit| {
        let count = if declared & bit == 0 { 0 } else { all };
        (0..count)
            .map(|_| Ok(u32::from(input.arbitrary::<u16>()?)))
            .collect::<Result<Vec<_>>>()
    };
    Ok(NumaSpec {
        node_memory_mib: memory,
        memory_only_node_mib,
        node_distances,
        node_latency_ns: words(LATENCIES)?,
        node_bandwidth_mb_s: words(BANDWIDTHS)?,
    })
}
