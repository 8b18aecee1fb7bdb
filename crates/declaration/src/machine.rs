//! The machine that a test declares.

use ktstr_topology::{NumaSpec, Topology};

use crate::attribute::{Attribute, Fills, Needs, Takes};

/// The CPUs and the memory.
#[derive(Clone, Copy, Debug)]
pub struct MachineShape {
    /// NUMA nodes, LLCs, cores and threads.
    pub topology: Topology,
    /// The least memory that the NUMA nodes with CPUs share.
    pub memory_mib: Option<u64>,
    /// What the NUMA nodes differ in.
    pub numa: NumaEntry,
}

impl MachineShape {
    /// One CPU.
    pub const DEFAULT: Self = Self {
        topology: Topology::SINGLE,
        memory_mib: None,
        numa: NumaEntry::DEFAULT,
    };
}

/// A [`NumaSpec`] in a static.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumaEntry {
    /// [`NumaSpec::node_memory_mib`].
    pub node_memory_mib: &'static [u64],
    /// [`NumaSpec::memory_only_node_mib`].
    pub memory_only_node_mib: &'static [u64],
    /// [`NumaSpec::node_distances`].
    pub node_distances: &'static [&'static [u8]],
    /// [`NumaSpec::node_latency_ns`].
    pub node_latency_ns: &'static [u32],
    /// [`NumaSpec::node_bandwidth_mb_s`].
    pub node_bandwidth_mb_s: &'static [u32],
}

impl NumaEntry {
    /// Nodes that share the memory evenly, at the usual distances.
    pub const DEFAULT: Self = Self {
        node_memory_mib: &[],
        memory_only_node_mib: &[],
        node_distances: &[],
        node_latency_ns: &[],
        node_bandwidth_mb_s: &[],
    };

    /// The same, owned.
    pub fn to_spec(self) -> NumaSpec {
        NumaSpec {
            node_memory_mib: self.node_memory_mib.to_vec(),
            memory_only_node_mib: self.memory_only_node_mib.to_vec(),
            node_distances: self.node_distances.iter().map(|row| row.to_vec()).collect(),
            node_latency_ns: self.node_latency_ns.to_vec(),
            node_bandwidth_mb_s: self.node_bandwidth_mb_s.to_vec(),
        }
    }
}

pub(crate) const SHAPE: &[Attribute] = &[
    Attribute {
        name: "numa_nodes",
        takes: Takes::Form("2"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "1",
        text: "NUMA nodes with CPUs",
    },
    Attribute {
        name: "llcs",
        takes: Takes::Form("2"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "`numa_nodes`",
        text: "last-level caches in total; a multiple of `numa_nodes`",
    },
    Attribute {
        name: "cores",
        takes: Takes::Form("4"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "1",
        text: "cores in each LLC",
    },
    Attribute {
        name: "threads",
        takes: Takes::Form("2"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "1",
        text: "hardware threads on each core, 1 or 2",
    },
    Attribute {
        name: "memory_mib",
        takes: Takes::Whole(64..=1 << 20),
        fills: Fills::Optional("memory_mib"),
        needs: Needs::Machine,
        default: "512",
        text: "the least memory, shared evenly among the nodes with CPUs; raised to 256, to 64 for each CPU, and to what \
               the packed files need",
    },
    Attribute {
        name: "node_memory_mib",
        takes: Takes::Form("[768, 256]"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "even",
        text: "instead of `memory_mib`: the exact memory of each node with CPUs",
    },
    Attribute {
        name: "memory_only_node_mib",
        takes: Takes::Form("[256]"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "none",
        text: "nodes without CPUs, numbered after the others: the memory of each",
    },
    Attribute {
        name: "node_distances",
        takes: Takes::Form("[[10, 30], [30, 10]]"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "10 and 20",
        text: "a row for each node, from it to every node: 10 to itself, 11 to 254 to others, the same both ways",
    },
    Attribute {
        name: "node_latency_ns",
        takes: Takes::Form("[100, 300]"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "100; 300 without CPUs",
        text: "for each node, the time of an access to its memory from its nearest CPUs, as the kernel is told (HMAT)",
    },
    Attribute {
        name: "node_bandwidth_mb_s",
        takes: Takes::Form("[51200, 20480]"),
        fills: Fills::Section,
        needs: Needs::Machine,
        default: "51200; 20480 without CPUs",
        text: "for each node, the bandwidth to its memory from its nearest CPUs, as the kernel is told (HMAT)",
    },
];

/// How the machine runs: for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Whether the kernel chooses its own addresses at each boot (KASLR). It does so when its boot image unpacks
    /// itself, which takes time; entered directly, it runs at its link address.
    pub kaslr: bool,
    /// Whether each vCPU has a host CPU for itself, RAM is huge pages, and the guest knows it. An engine whose
    /// check of the machine passes gives all of it.
    pub performance_mode: bool,
    /// Size of a disk in MiB, if it has one.
    pub disk_mib: Option<u64>,
}

impl Boot {
    /// A test that says nothing about it.
    pub const DEFAULT: Self = Self {
        kaslr: false,
        performance_mode: false,
        disk_mib: None,
    };
}

pub(crate) const BOOT: &[Attribute] = &[
    Attribute {
        name: "performance_mode",
        takes: Takes::Flag,
        fills: Fills::Field("performance_mode"),
        needs: Needs::Machine,
        default: "`false`",
        text: "a host CPU for each vCPU, huge pages and real-time priority; skipped where the host can't give all of it",
    },
    Attribute {
        name: "kaslr",
        takes: Takes::Flag,
        fills: Fills::Field("kaslr"),
        needs: Needs::Machine,
        default: "`false`",
        text: "whether the kernel chooses its own addresses; it then unpacks itself, which takes time",
    },
    Attribute {
        name: "disk_mib",
        takes: Takes::Whole(1..=64 << 10),
        fills: Fills::Optional("disk_mib"),
        needs: Needs::Machine,
        default: "none",
        text: "a virtio disk of this size, `/dev/vda`: empty and sparse, in memory of the host, gone with the machine",
    },
];

/// What the guest gets beside the test's binary: for the initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Kernel modules to load, by name; those that they need come along.
    pub modules: &'static [&'static str],
}

impl Packed {
    /// Nothing.
    pub const DEFAULT: Self = Self { modules: &[] };
}

pub(crate) const PACKED: &[Attribute] = &[Attribute {
    name: "modules",
    takes: Takes::Texts("[\"veth\"]"),
    fills: Fills::Field("modules"),
    needs: Needs::Machine,
    default: "none",
    text: "kernel modules to load, by name",
}];
