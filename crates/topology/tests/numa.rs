//! Nodes' memory is shared out fully, has its defaults, and what can't be is refused by name.

use ktstr_topology::{MemoryNode, NumaError, NumaMemory, NumaSpec, Topology};
use proptest::prelude::*;

fn two_nodes() -> Topology {
    Topology::new(2, 2, 1, 1).expect("in range")
}

fn with_distances(rows: &[&[u8]]) -> Result<NumaMemory, NumaError> {
    let spec = NumaSpec {
        node_distances: rows.iter().map(|row| row.to_vec()).collect(),
        ..NumaSpec::default()
    };
    spec.resolve(&two_nodes(), 512)
}

proptest! {
    #[test]
    fn all_memory_is_shared_out_evenly(nodes in 1_u32..9, memory_mib in 0_u64..1 << 20) {
        let topology = Topology::new(nodes, nodes, 1, 1).unwrap();
        let numa = NumaMemory::uniform(&topology, memory_mib);
        prop_assert_eq!(&numa, &NumaSpec::default().resolve(&topology, memory_mib).unwrap());
        prop_assert_eq!(numa.total_mib(), memory_mib);
        let sizes: Vec<_> = numa.nodes().iter().map(|node| node.memory_mib).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        prop_assert!(sizes.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn nodes_travel_as_they_are(
        memory in prop::collection::vec(16_u64..4096, 2),
        memory_only in prop::collection::vec(16_u64..4096, 0..3),
        latency in 1_u32..1000,
    ) {
        let count = memory.len() + memory_only.len();
        let spec = NumaSpec {
            node_memory_mib: memory,
            memory_only_node_mib: memory_only,
            node_latency_ns: vec![latency; count],
            ..NumaSpec::default()
        };
        let numa = spec.resolve(&two_nodes(), 0).unwrap();
        let text = serde_json::to_string(&numa).unwrap();
        prop_assert_eq!(serde_json::from_str::<NumaMemory>(&text).unwrap(), numa);
    }
}

#[test]
fn a_node_without_cpus_is_slower_and_belongs_to_the_nearest() {
    let spec = NumaSpec {
        node_memory_mib: vec![768, 256],
        memory_only_node_mib: vec![128],
        node_distances: vec![vec![10, 20, 60], vec![20, 10, 30], vec![60, 30, 10]],
        ..NumaSpec::default()
    };
    let numa = spec.resolve(&two_nodes(), 4096).unwrap();
    assert_eq!(numa.total_mib(), 1152);
    let memory_only = MemoryNode {
        memory_mib: 128,
        latency_ns: 300,
        bandwidth_mb_s: 20_480,
    };
    assert_eq!(numa.nodes()[2], memory_only);
    assert!(numa.tells_performance());
    assert_eq!(numa.nearest_cpu_nodes(), [0, 1, 1]);
    assert_eq!(
        numa.performance_from(1),
        [(200, 25_600), (100, 51_200), (300, 20_480)]
    );
    assert_eq!(numa.performance_from(0)[2], (600, 10_240));
    assert_eq!(numa.performance_from(3), []);
}

#[test]
fn nothing_is_told_of_the_performance_of_plain_nodes() {
    let plain = NumaMemory::uniform(&two_nodes(), 512);
    assert!(!plain.tells_performance());
    assert_eq!(plain.distances(), [[10, 20], [20, 10]]);
    let spec = NumaSpec {
        node_bandwidth_mb_s: vec![1000, 2000],
        ..NumaSpec::default()
    };
    assert!(spec.resolve(&two_nodes(), 512).unwrap().tells_performance());
}

#[test]
fn impossible_distances_are_named() {
    let told: Vec<String> = [
        &[&[10, 30][..], &[20, 10]][..],
        &[&[10, 20], &[20, 11]],
        &[&[10, 10], &[10, 10]],
        &[&[10, 255], &[255, 10]],
        &[&[10, 20]],
        &[&[10, 20], &[20]],
    ]
    .into_iter()
    .map(|rows| with_distances(rows).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    `node_distances` is asymmetric: 30 from NUMA node 0 to node 1, but 20 from node 1 to node 0; declare the same for both
    `node_distances` from NUMA node 1 to itself is 11: it is 10 by definition
    `node_distances` from NUMA node 0 to node 1 is 10: another node is at 11 to 254, where 10 is the node itself
    `node_distances` from NUMA node 0 to node 1 is 255: another node is at 11 to 254, where 10 is the node itself
    `node_distances` has 1 entries, but 2 are needed: one for each NUMA node
    row 1 of `node_distances` has 1 entries, but 2 are needed: from NUMA node 1 to each node
    ");
}

#[test]
fn lists_of_the_wrong_length_and_impossible_values_are_named() {
    let told = |spec: NumaSpec| spec.resolve(&two_nodes(), 512).unwrap_err().to_string();
    let told = [
        told(NumaSpec {
            node_memory_mib: vec![512],
            ..NumaSpec::default()
        }),
        told(NumaSpec {
            memory_only_node_mib: vec![64],
            node_latency_ns: vec![100, 100],
            ..NumaSpec::default()
        }),
        told(NumaSpec {
            node_latency_ns: vec![100, 0],
            ..NumaSpec::default()
        }),
        told(NumaSpec {
            node_bandwidth_mb_s: vec![65_535, 1],
            ..NumaSpec::default()
        }),
    ];
    insta::assert_snapshot!(told.join("\n"), @r"
    `node_memory_mib` has 1 entries, but 2 are needed: one for each NUMA node
    `node_latency_ns` has 2 entries, but 3 are needed: one for each NUMA node
    `node_latency_ns` of NUMA node 1 is 0: 1 to 65534 can be told to a kernel
    `node_bandwidth_mb_s` of NUMA node 0 is 65535: 1 to 65534 can be told to a kernel
    ");
}

#[test]
fn what_travels_is_checked_again() {
    let numa = NumaMemory::uniform(&two_nodes(), 512);
    let text = serde_json::to_string(&numa).unwrap();
    for (part, wrong) in [
        ("[10,20]", "[10,30]"),
        ("\"cpu_nodes\":2", "\"cpu_nodes\":3"),
        ("\"latency_ns\":100", "\"latency_ns\":0"),
    ] {
        assert!(text.contains(part), "{text}");
        let text = text.replacen(part, wrong, 1);
        assert!(serde_json::from_str::<NumaMemory>(&text).is_err(), "{text}");
    }
}
