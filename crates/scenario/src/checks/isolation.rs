//! `isolation`: no worker ran outside the CPUs of its cgroup.

use ktstr_report::{AssertResult, CheckResult, Subject};
use ktstr_topology::CpuSet;

use super::Case;
use super::figure::{Measured, plural};
use super::restraint::moved;
use super::view::{Placed, completed};

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let cgroups = case.cgroups;
    let unjudged: Vec<String> = cgroups.iter().filter_map(moved).collect();
    let all_unjudged = !unjudged.is_empty() && unjudged.len() == cgroups.len();
    for why in unjudged {
        result.push_not_checked(case.check.name(), why);
    }
    if all_unjudged {
        return;
    }
    let judged: Vec<(Placed<'_>, &CpuSet)> = completed(cgroups)
        .filter(|placed| moved(placed.cgroup).is_none())
        .filter(|placed| !placed.worker.cpus_used.is_empty())
        .filter_map(|placed| Some((placed, placed.cgroup.cpuset.as_ref()?)))
        .collect();
    let strays = judged.iter().map(|(placed, allowed)| {
        let outside = placed.worker.cpus_used.difference(allowed);
        (placed, *allowed, outside)
    });
    let Some((placed, allowed, outside)) = strays.max_by_key(|(.., outside)| outside.len()) else {
        let why = "no worker reported where it ran, in a cgroup whose CPUs are known";
        return result.push(CheckResult::inconclusive(case.check, why).with_bound(0.0));
    };
    let measured = Measured::count(outside.len());
    let first = outside.iter().next();
    let Some(first) = first else {
        let count = plural(judged.len(), "worker");
        let detail = format!("all of {count} stayed within their cgroups' CPUs");
        let pass = CheckResult::pass(case.check, detail);
        return result.push(measured.of(pass, Subject::default()));
    };
    let mut subject = placed.subject();
    subject.cpu = Some(first);
    let detail = format!("{placed} ran on CPUs {outside}, outside its cgroup's CPUs {allowed}");
    result.push(measured.of(CheckResult::fail(case.check, detail), subject));
}
