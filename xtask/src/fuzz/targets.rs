//! The fuzz targets, and how long an input of each may be.

/// A file in fuzz/fuzz_targets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) name: &'static str,
    /// Most bytes of an input: what its format can hold, or what is worth reading of one without an end.
    /// libFuzzer's own bound is 4096 bytes, which many formats have in their first structure.
    pub(super) max_len_bytes: u32,
}

const fn target(name: &'static str, max_len_bytes: u32) -> Target {
    Target {
        name,
        max_len_bytes,
    }
}

const KIB: u32 = 1 << 10;

pub(super) const TARGETS: [Target; 24] = [
    // Operations of a few bytes each, some thousand of them.
    target("serial", 16 * KIB),
    target("virtio_console", 16 * KIB),
    target("io_apic", 16 * KIB),
    target("disk", 16 * KIB),
    // A distance for each pair of 104 nodes, four numbers for each node, and leaves of 22 bytes.
    target("tables", 16 * KIB),
    // `setup_sects` counts up to 255 sectors before the compressed kernel.
    target("boot", 256 * KIB),
    target("image", 256 * KIB),
    // A little more than the target's own bound on what is unpacked.
    target("deb", 96 * KIB),
    // An ELF file counts sections of 64 bytes; lines of lists have some 50.
    target("modules", 64 * KIB),
    target("apt", 64 * KIB),
    target("frames", 64 * KIB),
    target("host_frames", 64 * KIB),
    // A line of control has what a command gives; a dump has some 2 KiB for each of a few vCPUs.
    target("qmp", 64 * KIB),
    target("info_registers", 16 * KIB),
    // Two bytes a message; a test sends a dozen.
    target("verdict", 256),
    // Two objects, the first as long as 16 bits say.
    target("btf", 128 * KIB),
    // A table of 256 tokens, and more than one marker's worth of symbols.
    target("kallsyms", 128 * KIB),
    // A byte, CR3, an address, and an entry of each of five levels.
    target("page_tables", 1 + 7 * 8),
    // Bits over all of the made-up kernel's tables (1.7 KiB), and over its objects (17 KiB).
    target("xarray", 4 * KIB),
    target("map_values", 32 * KIB),
    // All of the memory that is the input's.
    target("map_memory", 64 * KIB),
    // Five bytes for each of some hundred words that are exchanged.
    target("tasks", 4 * KIB),
    target("dispatch_queues", 4 * KIB),
    target("state_reader", 4 * KIB),
];

/// For the command line.
pub(super) const NAMES: [&str; TARGETS.len()] = {
    let mut names = [""; TARGETS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = TARGETS[index].name;
        index += 1;
    }
    names
};
