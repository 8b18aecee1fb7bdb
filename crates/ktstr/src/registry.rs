//! The tests of a binary.

use ktstr_declaration::{Boot, MachineShape, Packed, Run, SchedulerOptions, Watch};
use ktstr_guest::TestCase;
use ktstr_host::VmResult;
use ktstr_report::{AssertResult, Expectation};
use ktstr_scenario::{Assert, Ctx};
use ktstr_topology::Topology;

use crate::scheduler::SchedulerUse;

/// All tests of this binary, gathered by the linker.
#[linkme::distributed_slice]
pub static TESTS: [TestEntry];

/// One test, as `#[ktstr_test]` declares it: what belongs together goes whole to whoever acts on it.
#[derive(Debug)]
pub struct TestEntry {
    /// Full path of the function.
    pub name: &'static str,
    /// Its machine.
    pub shape: MachineShape,
    /// How the machine runs.
    pub boot: Boot,
    /// What the guest gets.
    pub packed: Packed,
    /// The run of the body.
    pub run: Run,
    /// What the host captures.
    pub watch: Watch,
    /// The scheduler to run under, if not the kernel's own.
    pub scheduler: Option<SchedulerUse>,
    /// What is expected to go wrong, if anything.
    pub expect: Option<Expectation>,
    /// Checks.
    pub assert: Assert,
    /// Whether the body runs on the host, without a machine.
    pub host_only: bool,
    /// What is run on the host when the machine has ended.
    pub post_vm: Option<PostVm>,
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

/// The shape of these counts, which the attribute has already found possible.
pub const fn topology(declared: [Option<u32>; 4]) -> Topology {
    match Topology::declared(declared, None) {
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
        run: entry.run,
        scheduler: entry
            .scheduler
            .map_or(SchedulerOptions::DEFAULT, |scheduler| scheduler.options),
        assert: entry.assert,
        body: entry.body,
    })
}
