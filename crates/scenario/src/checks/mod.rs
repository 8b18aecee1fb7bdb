//! The checks of the guest: pure functions of what was measured.
//!
//! Each gives one [`CheckResult`](ktstr_report::CheckResult), which speaks of the worst that was seen; or it says
//! why it was not judged. What could not be measured is inconclusive, never a pass.

mod affinity;
mod cpu_quota;
mod cpu_share;
mod cpus_online;
mod entitlement;
mod figure;
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
mod share;
mod view;

use ktstr_declaration::{Check, JudgedBy};
use ktstr_report::{Assert, AssertResult, CgroupReport, Setting, TimingSlack};
use ktstr_topology::{CpuSet, Topology};

pub use live::{LiveError, judge_live_machine, read_kernel_log, read_online_cpus};

/// What a check judges by.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    check: Check,
    /// The check is on.
    setting: Setting<f64>,
    timing: &'a TimingSlack,
    cgroups: &'a [CgroupReport],
}

impl Case<'_> {
    fn bound(&self) -> f64 {
        self.setting.get().unwrap_or_default()
    }
}

/// Adds to the result what the check found.
type Judge = fn(&Case<'_>, &mut AssertResult);

/// What a check can't do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Reports,
    /// The accounts that the cgroup manager took over the load.
    Accounts,
}

/// How the checks of workers are judged, but those of one figure of each worker: they are in `per_worker`.
const JUDGES: &[(Check, Needs, Judge)] = &[
    (Check::Progress, Needs::Reports, progress::judge),
    (Check::Isolation, Needs::Reports, isolation::judge),
    (Check::MaxGapMs, Needs::Reports, max_gap::judge),
    (Check::MaxSpreadPct, Needs::Reports, max_spread::judge),
    (
        Check::MaxThroughputCv,
        Needs::Reports,
        max_throughput_cv::judge,
    ),
    (Check::CpuQuota, Needs::Accounts, cpu_quota::judge),
    (Check::CpuShare, Needs::Accounts, cpu_share::judge),
    (Check::Affinity, Needs::Reports, affinity::judge),
    (Check::NiceShare, Needs::Reports, nice_share::judge),
    (Check::SchedPolicy, Needs::Reports, sched_policy::judge),
    (Check::MemBinding, Needs::Accounts, mem_binding::judge),
];

const NO_ACCOUNT: &str = "there is no account of the cgroups: take one with `begin_account`";
const NONE_DECLARED: &str = "the test declares nothing that it could check";

/// Judges the reports of workers. The result holds the checks only; the reports themselves are for the
/// caller to add.
pub fn judge_workers(
    assert: &Assert,
    timing: &TimingSlack,
    cgroups: &[CgroupReport],
) -> AssertResult {
    let mut result = AssertResult::default();
    let has_account = cgroups.iter().any(|cgroup| cgroup.account.is_some());
    let of_workers = |check: &&Check| check.spec().judged_by == JudgedBy::Workers;
    for &check in Check::ALL.iter().filter(of_workers) {
        unless_off(&mut result, assert, check, |result, setting| {
            let case = Case {
                check,
                setting,
                timing,
                cgroups,
            };
            match JUDGES.iter().find(|(of, ..)| *of == check) {
                Some((_, Needs::Accounts, _)) if !has_account => {
                    result.push_not_checked(check.name(), NO_ACCOUNT);
                }
                Some((.., judge)) => judge(&case, result),
                None => per_worker::judge(&case, result),
            }
        });
    }
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
    unless_off(&mut result, assert, Check::CpusOnline, |result, _| {
        cpus_online::judge(result, topology, online);
    });
    unless_off(&mut result, assert, Check::KernelLog, |result, _| {
        kernel_log::judge(result, kernel_log);
    });
    result
}

fn unless_off(
    result: &mut AssertResult,
    assert: &Assert,
    check: Check,
    judge: impl FnOnce(&mut AssertResult, Setting<f64>),
) {
    let setting = assert.of(check);
    match setting.why_not() {
        Some(why) => result.push_not_checked(check.name(), why),
        None => judge(result, setting),
    }
}
