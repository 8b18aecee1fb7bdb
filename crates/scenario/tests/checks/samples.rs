//! Reports made by hand, and what the checks say of them.

use ktstr_scenario::{
    AssertResult, CheckResult, CpuDemand, CpuSet, Outcome, PolicyAccount, PolicyKind, WorkerExit,
    WorkerReport,
};

pub(crate) const MS: u64 = 1_000_000;

pub(crate) fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

/// A worker without any fault: it spun on CPU 0 for `wall_ms`, and got `cpu_ms`.
pub(crate) fn spinner(pid: i32, wall_ms: u64, cpu_ms: u64) -> WorkerReport {
    WorkerReport {
        work_units: 1_024_000,
        iterations: 1000,
        wall_time_ns: wall_ms * MS,
        cpu_time_ns: cpu_ms * MS,
        cpus_used: cpus("0"),
        policy: Some(PolicyAccount {
            kind: PolicyKind::Weighted,
            declared: "SCHED_OTHER, nice 0".to_owned(),
            seen: Some("SCHED_OTHER, nice 0".to_owned()),
            ext_due: Some(false),
            ext_seen: Some(false),
        }),
        cpu_demand: CpuDemand::Constant,
        ..WorkerReport::sentinel(pid, "SpinWait", WorkerExit::Completed)
    }
}

pub(crate) fn find<'a>(result: &'a AssertResult, check: &str) -> &'a CheckResult {
    let found = result.checks.iter().find(|found| found.check == check);
    found.unwrap_or_else(|| panic!("{check} was not judged: {result:#?}"))
}

pub(crate) fn outcome(result: &AssertResult, check: &str) -> Outcome {
    find(result, check).outcome
}

pub(crate) fn why_not(result: &AssertResult, check: &str) -> String {
    assert!(
        result.checks.iter().all(|found| found.check != check),
        "{check} was judged: {result:#?}"
    );
    let found = result.not_checked.iter().find(|found| found.check == check);
    found.map(|found| found.why.clone()).unwrap()
}
