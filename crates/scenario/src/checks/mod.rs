//! The checks: pure functions of what was measured.
//!
//! Each check is in a file of its own and gives one [`CheckResult`](ktstr_report::CheckResult), which
//! speaks of the worst that was seen; or it says why it was not judged. What could not be measured is
//! inconclusive, never a pass.

mod affinity;
mod cpu_quota;
mod cpu_share;
mod cpus_online;
mod entitlement;
mod isolation;
mod kernel_log;
mod live;
mod max_gap;
mod max_spread;
mod max_throughput_cv;
mod mem_binding;
mod nice_share;
mod per_worker;
mod progress;
mod restraint;
mod sched_policy;
mod verdict;
mod view;

use ktstr_report::{AssertResult, CgroupReport, TimingSlack};
use ktstr_topology::{CpuSet, Topology};

pub use live::{LiveError, judge_live_machine, read_kernel_log, read_online_cpus};

use crate::Assert;

const OFF: &str = "turned off by the test";
const NO_BOUND: &str = "the test sets no bound";
const NONE_DECLARED: &str = "the test declares nothing that it could check";
const NO_ACCOUNT: &str = "there is no account of the cgroups: take one with `begin_account`";

/// Judges the reports of workers. The result holds the checks only; the reports themselves are for the
/// caller to add.
pub fn judge_workers(
    assert: &Assert,
    timing: &TimingSlack,
    cgroups: &[CgroupReport],
) -> AssertResult {
    let mut result = AssertResult::default();
    progress::judge(&mut result, assert.progress, cgroups);
    isolation::judge(&mut result, assert.isolation, cgroups);
    max_gap::judge(&mut result, assert.max_gap_ms, timing, cgroups);
    max_spread::judge(&mut result, assert.max_spread_pct, timing, cgroups);
    per_worker::judge_all(&mut result, assert, cgroups);
    max_throughput_cv::judge(&mut result, assert.max_throughput_cv, cgroups);
    cpu_quota::judge(&mut result, assert.cpu_quota, timing, cgroups);
    cpu_share::judge(&mut result, assert.cpu_share, timing, cgroups);
    affinity::judge(&mut result, assert.affinity, cgroups);
    nice_share::judge(&mut result, assert.nice_share, timing, cgroups);
    sched_policy::judge(&mut result, assert.sched_policy, cgroups);
    mem_binding::judge(&mut result, assert.mem_binding, cgroups);
    result
}

/// Judges the machine: whether all CPUs of `topology` are `online`, and whether its kernel complained in
/// `kernel_log`, records as /dev/kmsg gives them.
pub fn judge_machine(
    assert: &Assert,
    topology: &Topology,
    online: &CpuSet,
    kernel_log: &str,
) -> AssertResult {
    let mut result = AssertResult::default();
    cpus_online::judge(&mut result, assert.cpus_online, topology, online);
    kernel_log::judge(&mut result, assert.kernel_log, kernel_log);
    result
}
