//! `isolation`: no worker ran outside the CPUs of its cgroup.

use ktstr_report::{AssertResult, CgroupReport};
use ktstr_topology::CpuSet;

use super::OFF;
use super::restraint::moved;
use super::verdict::{Check, Measured, float, plural};
use super::view::{Placed, completed};

const CHECK: Check = Check {
    name: "isolation",
    unit: "CPUs",
};

pub(super) fn judge(result: &mut AssertResult, on: bool, cgroups: &[CgroupReport]) {
    if !on {
        return result.push_not_checked(CHECK.name, OFF);
    }
    let unjudged: Vec<String> = cgroups.iter().filter_map(moved).collect();
    let all_unjudged = !unjudged.is_empty() && unjudged.len() == cgroups.len();
    for why in unjudged {
        result.push_not_checked(CHECK.name, why);
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
        return CHECK.inconclusive(result, Some(0.0), why);
    };
    let measured = Measured {
        value: float(outside.len() as u64),
        bound: 0.0,
    };
    let first = outside.iter().next();
    let Some(first) = first else {
        let count = plural(judged.len(), "worker");
        let detail = format!("all of {count} stayed within their cgroups' CPUs");
        return CHECK.conclude(result, true, measured, Default::default(), detail);
    };
    let mut subject = placed.subject();
    subject.cpu = Some(first);
    let detail = format!("{placed} ran on CPUs {outside}, outside its cgroup's CPUs {allowed}");
    CHECK.conclude(result, false, measured, subject, detail);
}
