//! The tests of a binary.

use std::time::Duration;

use ktstr_guest::TestCase;
use ktstr_report::AssertResult;
use ktstr_scenario::{Assert, Ctx};
use ktstr_topology::Topology;

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
    /// Memory of the machine, if declared.
    pub memory_mib: Option<u64>,
    /// How long the scenario holds.
    pub duration_ms: u64,
    /// How long the guest may take, if declared.
    pub timeout_ms: Option<u64>,
    /// Kernel modules, by name.
    pub modules: &'static [&'static str],
    /// Checks.
    pub assert: Assert,
    /// The body.
    pub body: fn(&Ctx) -> anyhow::Result<AssertResult>,
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
        body: entry.body,
    })
}
