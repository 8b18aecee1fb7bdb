//! The body of a test for the host only.

use ktstr_host::Body;
use ktstr_report::{AssertResult, TimingSlack};
use ktstr_scenario::{CgroupManager, Ctx};
use ktstr_topology::NumaMemory;
use ktstr_wire::TestEnd;

use crate::registry::TestEntry;

/// The body of `entry`, ready to be run. Its own checks judge it: those of a machine's CPUs and kernel log would
/// speak of a host that others use as well.
pub(crate) fn host_body(entry: &'static TestEntry, slack: TimingSlack) -> Body {
    Box::new(move || match call(entry, slack) {
        Ok(result) => TestEnd {
            result,
            error: None,
        },
        Err(error) => TestEnd {
            result: AssertResult::default(),
            error: Some(error.chain().map(ToString::to_string).collect()),
        },
    })
}

fn call(entry: &TestEntry, slack: TimingSlack) -> anyhow::Result<AssertResult> {
    let cgroups = CgroupManager::of_tests(CgroupManager::WORKLOAD_ROOT)?;
    let no_memory = NumaMemory::uniform(&entry.shape.topology, 0);
    let ctx = Ctx::new(
        entry.shape.topology,
        no_memory,
        cgroups,
        entry.run.duration(),
        entry.assert,
        slack,
    );
    (entry.body)(&ctx)
}
