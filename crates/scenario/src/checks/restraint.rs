//! What a test itself declares that keeps workers from running, or makes their shares unequal.

use ktstr_report::{CgroupReport, PolicyKind};
use ktstr_topology::CpuSet;

use super::entitlement::nice_weight;
use super::figure::float;
use super::view::{Placed, all};

/// How much lighter than the heaviest a worker may be for the library's bound on gaps to be judged.
const MAX_WEIGHT_RATIO: f64 = 16.0;

/// Weight of a task of SCHED_IDLE (`WEIGHT_IDLEPRIO` in kernel/sched/sched.h).
const IDLE_WEIGHT: f64 = 3.0;

/// A quota that the workers of `cgroup` can exhaust, as a clause, and what it leaves each of them over the load.
pub(super) struct Rationed {
    pub(super) clause: String,
    pub(super) cpu_time_each_ns: f64,
}

/// The narrowest quota that held for `cgroup` or one above it, if its workers can exhaust it.
pub(super) fn rationed(cgroup: &CgroupReport, cgroups: &[CgroupReport]) -> Option<Rationed> {
    let levels = cgroup.account.iter().flat_map(|account| &account.levels);
    let quotas = levels.filter_map(|level| Some((level, level.narrowest_quota()?)));
    quotas
        .filter(|(level, quota)| quota.cpus() < usable_cpus(&level.name, cgroups))
        .map(|(level, quota)| Rationed {
            clause: format!(
                "cgroup `{}` is held to {:.0} % of a CPU",
                level.name,
                quota.cpus() * 100.0
            ),
            cpu_time_each_ns: quota.cpus() * float(level.wall_ns())
                / float(workers_below(&level.name, cgroups) as u64),
        })
        .min_by(|a, b| a.cpu_time_each_ns.total_cmp(&b.cpu_time_each_ns))
}

/// The cgroup that was frozen while load was held, as a clause.
pub(super) fn frozen(cgroup: &CgroupReport) -> Option<String> {
    let mut levels = cgroup.account.iter().flat_map(|account| &account.levels);
    let level = levels.find(|level| level.frozen)?;
    Some(format!("cgroup `{}` was frozen for a time", level.name))
}

/// The clause that says so, if the CPUs of `cgroup` were changed while load was held.
pub(super) fn moved(cgroup: &CgroupReport) -> Option<String> {
    let mut levels = cgroup.account.iter().flat_map(|account| &account.levels);
    let level = levels.find(|level| level.changed.iter().any(|file| file == "cpuset.cpus"))?;
    Some(format!(
        "the CPUs of cgroup `{}` were changed under the load",
        level.name
    ))
}

/// Whether the declared weights of cgroups on the same CPUs differ, as a clause.
pub(super) fn uneven_weights(cgroup: &CgroupReport, cgroups: &[CgroupReport]) -> Option<String> {
    let weight = path_weight(cgroup);
    let other =
        rivals(cgroup, cgroups).find(|other| path_weight(other).to_bits() != weight.to_bits())?;
    Some(format!(
        "cgroups `{}` and `{}` compete with different weights",
        cgroup.name, other.name
    ))
}

/// Whether what was declared makes `placed` so light beside others on the same CPUs that long gaps are its due.
pub(super) fn light(placed: &Placed<'_>, cgroups: &[CgroupReport]) -> Option<String> {
    let own = path_weight(placed.cgroup) * task_weight(placed);
    let others = rivals(placed.cgroup, cgroups);
    let heaviest = others
        .flat_map(|cgroup| all(std::slice::from_ref(cgroup)))
        .map(|other| path_weight(other.cgroup) * task_weight(&other))
        .fold(own, f64::max);
    (heaviest / own > MAX_WEIGHT_RATIO).then(|| {
        format!(
            "workers of cgroup `{}` weigh less than 1/{MAX_WEIGHT_RATIO:.0} of others on their CPUs, as declared",
            placed.cgroup.name
        )
    })
}

/// Cgroups that share CPUs with `cgroup`, itself included.
fn rivals<'a>(
    cgroup: &CgroupReport,
    cgroups: &'a [CgroupReport],
) -> impl Iterator<Item = &'a CgroupReport> {
    let cpus = cgroup.cpuset.clone();
    cgroups
        .iter()
        .filter(move |other| match (&cpus, &other.cpuset) {
            (Some(ours), Some(theirs)) => !ours.intersection(theirs).is_empty(),
            _ => false,
        })
}

fn path_weight(cgroup: &CgroupReport) -> f64 {
    let levels = cgroup.account.iter().flat_map(|account| &account.levels);
    levels
        .map(|level| f64::from(level.weight()) / 100.0)
        .product()
}

fn task_weight(placed: &Placed<'_>) -> f64 {
    match placed.worker.policy.as_ref().map(|policy| policy.kind) {
        Some(PolicyKind::Idle) => IDLE_WEIGHT,
        // What real-time tasks leave to others is not a matter of weights.
        Some(PolicyKind::RealTime | PolicyKind::Deadline) => nice_weight(0),
        _ => nice_weight(placed.worker.nice),
    }
}

/// Workers in the cgroup `level` and below it. The workload root has all.
pub(super) fn below<'a>(
    level: &str,
    cgroups: &'a [CgroupReport],
) -> impl Iterator<Item = &'a CgroupReport> {
    cgroups.iter().filter(move |cgroup| {
        let levels = cgroup.account.iter().flat_map(|account| &account.levels);
        levels.into_iter().any(|other| other.name == level)
    })
}

fn workers_below(level: &str, cgroups: &[CgroupReport]) -> usize {
    below(level, cgroups)
        .map(|cgroup| cgroup.workers.len())
        .sum()
}

/// Most CPUs that the workers in the cgroup `level` and below it can use at a time.
pub(super) fn usable_cpus(level: &str, cgroups: &[CgroupReport]) -> f64 {
    let cpus = below(level, cgroups).map(|cgroup| {
        let cpus = cgroup.cpuset.as_ref().map_or(usize::MAX, CpuSet::len);
        cgroup.workers.len().min(cpus)
    });
    float(cpus.sum::<usize>() as u64)
}
