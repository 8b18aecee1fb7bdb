//! The tests of a binary.

use std::time::Duration;

use ktstr_guest::TestCase;
use ktstr_host::VmResult;
use ktstr_report::{AssertResult, Expectation};
use ktstr_scenario::{Assert, Ctx};
use ktstr_topology::{NumaSpec, Topology};

use crate::scheduler::SchedulerUse;

/// All tests of this binary, gathered by the linker.
#[linkme::distributed_slice]
pub static TESTS: [TestEntry];

/// One test, as `#[ktstr_test]` declares it.
#[derive(Debug)]
pub struct TestEntry {
    /// Full path of the function.
    pub name: &'static str,
    /// Shape of the machine.
    pub topology: Topology,
    /// Memory that the NUMA nodes with CPUs share, if declared.
    pub memory_mib: Option<u64>,
    /// What is special about the NUMA nodes.
    pub numa: NumaEntry,
    /// The scheduler to run under, if not the kernel's own.
    pub scheduler: Option<SchedulerUse>,
    /// What is expected to go wrong, if anything.
    pub expect: Option<Expectation>,
    /// Whether it needs performance mode.
    pub performance_mode: bool,
    /// How long the scenario holds.
    pub duration_ms: u64,
    /// How long the guest may take, if declared.
    pub timeout_ms: Option<u64>,
    /// What the host writes into global variables of the scheduler's BPF programs, before the body.
    pub bpf_map_write: &'static [(&'static str, i128)],
    /// Snapshots to take while the scenario holds.
    pub num_snapshots: u32,
    /// What is run on the host when the machine has ended.
    pub post_vm: Option<PostVm>,
    /// Kernel modules, by name.
    pub modules: &'static [&'static str],
    /// Whether the body runs on the host, without a machine.
    pub host_only: bool,
    /// Whether the kernel chooses its own addresses.
    pub kaslr: bool,
    /// Checks.
    pub assert: Assert,
    /// The body.
    pub body: fn(&Ctx) -> anyhow::Result<AssertResult>,
}

impl TestEntry {
    /// Whether its scheduler's program is the one that the environment names, if it names any.
    pub(crate) fn takes_scheduler_from_environment(&self) -> bool {
        self.scheduler
            .is_some_and(|scheduler| scheduler.scheduler.is_discovered())
    }
}

/// A function that judges what is left of a machine.
pub(crate) type PostVm = fn(&VmResult) -> anyhow::Result<AssertResult>;

/// What a test's `post_vm` function may return besides its error.
pub trait PostVmOutcome {
    /// The checks that it came to.
    fn into_checks(self) -> AssertResult;
}

impl PostVmOutcome for () {
    fn into_checks(self) -> AssertResult {
        AssertResult::default()
    }
}

impl PostVmOutcome for AssertResult {
    fn into_checks(self) -> AssertResult {
        self
    }
}

/// For the code that the attribute makes.
pub fn post_vm_result<T: PostVmOutcome>(
    returned: anyhow::Result<T>,
) -> anyhow::Result<AssertResult> {
    returned.map(PostVmOutcome::into_checks)
}

/// A [`NumaSpec`] in a static.
#[derive(Clone, Copy, Debug)]
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
    pub(crate) fn to_spec(self) -> NumaSpec {
        NumaSpec {
            node_memory_mib: self.node_memory_mib.to_vec(),
            memory_only_node_mib: self.memory_only_node_mib.to_vec(),
            node_distances: self.node_distances.iter().map(|row| row.to_vec()).collect(),
            node_latency_ns: self.node_latency_ns.to_vec(),
            node_bandwidth_mb_s: self.node_bandwidth_mb_s.to_vec(),
        }
    }
}

/// A shape that the attribute has already found possible.
pub const fn topology(numa_nodes: u32, llcs: u32, cores: u32, threads: u32) -> Topology {
    match Topology::new(numa_nodes, llcs, cores, threads) {
        Ok(topology) => topology,
        Err(_) => panic!("the topology is impossible"),
    }
}

pub(crate) fn find(name: &str) -> Option<&'static TestEntry> {
    TESTS.iter().find(|entry| entry.name == name)
}

/// What the guest side needs of a test.
pub(crate) fn guest_case(name: &str) -> Option<TestCase> {
    find(name).map(|entry| TestCase {
        duration: Duration::from_millis(entry.duration_ms),
        assert: entry.assert,
        bpf_map_write: entry.bpf_map_write,
        body: entry.body,
    })
}
