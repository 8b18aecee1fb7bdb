//! `mem_binding`: the workers' memory is on the NUMA nodes that were declared for it.
//!
//! Each worker allocates some pages when it begins, and asks the kernel at its end where they are. Nothing is
//! tolerated: the kernel allocates a task's own memory on the nodes of its cpuset only.

use ktstr_report::{AssertResult, CgroupReport, CheckResult, Subject};
use ktstr_topology::CpuSet;

use super::figure::{Measured, float, plural};
use super::view::{Placed, completed};
use super::{Case, NONE_DECLARED};

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let cgroups = case.cgroups;
    if cgroups.iter().all(|cgroup| nodes(cgroup).is_none()) {
        return result.push_not_checked(case.check.name(), NONE_DECLARED);
    }
    let bound: Vec<&CgroupReport> = cgroups
        .iter()
        .filter(|cgroup| nodes(cgroup).is_some())
        .collect();
    let (moved, still): (Vec<&CgroupReport>, Vec<&CgroupReport>) =
        bound.into_iter().partition(|cgroup| mems_changed(cgroup));
    for cgroup in moved {
        let why = format!(
            "cpuset.mems of cgroup `{}` was changed under the load",
            cgroup.name
        );
        result.push_not_checked(case.check.name(), why);
    }
    let told: Vec<(Placed<'_>, &CpuSet)> = still
        .iter()
        .filter_map(|cgroup| Some((*cgroup, nodes(cgroup)?)))
        .flat_map(|(cgroup, nodes)| {
            let workers = completed(std::slice::from_ref(cgroup));
            workers.map(move |placed| (placed, nodes))
        })
        .filter(|(placed, _)| !placed.worker.node_pages.is_empty())
        .collect();
    let strays = told.iter().map(|(placed, nodes)| {
        let pages = placed.worker.node_pages.iter();
        let outside = pages.filter(|on| !nodes.contains(on.node));
        (placed, nodes, outside.map(|on| on.pages).sum::<u64>())
    });
    let Some((placed, nodes, outside)) = strays.max_by_key(|(.., outside)| *outside) else {
        if !still.is_empty() {
            let why = "no worker reported where its memory is";
            result.push(CheckResult::inconclusive(case.check, why).with_bound(0.0));
        }
        return;
    };
    let measured = Measured {
        value: float(outside),
        bound: 0.0,
    };
    if outside == 0 {
        let count = plural(told.len(), "worker");
        let detail = format!("the memory of {count} is on the declared NUMA nodes");
        let pass = CheckResult::pass(case.check, detail);
        return result.push(measured.of(pass, Subject::default()));
    }
    let pages = &placed.worker.node_pages;
    let on: Vec<String> = pages
        .iter()
        .map(|on| format!("{} on node {}", on.pages, on.node))
        .collect();
    let detail = format!(
        "{placed} has {}, where its memory is bound to NUMA nodes {nodes}",
        on.join(", ")
    );
    let fail = CheckResult::fail(case.check, detail);
    result.push(measured.of(fail, placed.subject()));
}

/// The innermost nodes that were declared.
fn nodes(cgroup: &CgroupReport) -> Option<&CpuSet> {
    let levels = &cgroup.account.as_ref()?.levels;
    levels
        .iter()
        .rev()
        .find_map(|level| level.cpuset_mems.as_ref())
}

fn mems_changed(cgroup: &CgroupReport) -> bool {
    let mut levels = cgroup.account.iter().flat_map(|account| &account.levels);
    levels.any(|level| level.changed.iter().any(|file| file == "cpuset.mems"))
}
