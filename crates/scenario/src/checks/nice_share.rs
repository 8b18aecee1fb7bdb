//! `nice_share`: the workers of a cgroup that compete for CPUs got them by their niceness.
//!
//! Weights are the kernel's; tolerance and figure are those of `cpu_share`.

use ktstr_report::{
    AssertResult, CgroupReport, CheckResult, PolicyKind, Subject, TimingSlack, WorkerReport,
};
use ktstr_topology::CpuSet;

use super::entitlement::{Claim, misallocated_pct, nice_weight, share_out};
use super::figure::{Measured, float};
use super::restraint::{frozen, rationed};
use super::share::{bound_pct, tells_apart};
use super::{Case, NONE_DECLARED, share};

struct Shares<'a> {
    cgroup: &'a CgroupReport,
    got: Vec<f64>,
    entitled: Vec<f64>,
    measured: Measured,
}

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let (timing, cgroups) = (case.timing, case.cgroups);
    let declaring: Vec<&CgroupReport> = cgroups.iter().filter(|cgroup| differ(cgroup)).collect();
    if declaring.is_empty() {
        return result.push_not_checked(case.check.name(), NONE_DECLARED);
    }
    let mut judged = Vec::new();
    for cgroup in declaring {
        match obstacle(cgroup, cgroups).map_or(Ok(()), Err) {
            Err(why) => result.push_not_checked(case.check.name(), why),
            Ok(()) => match shares(cgroup, timing) {
                Ok(shares) => judged.push(shares),
                Err(why) => result.push_not_checked(case.check.name(), why),
            },
        }
    }
    let worst = judged
        .iter()
        .max_by(|a, b| a.measured.value.total_cmp(&b.measured.value));
    if let Some(worst) = worst {
        result.push(conclude(case, worst));
    }
}

/// Whether the workers have different nice levels.
fn differ(cgroup: &CgroupReport) -> bool {
    let mut levels = cgroup.workers.iter().map(|worker| worker.nice);
    let first = levels.next();
    levels.any(|nice| Some(nice) != first)
}

/// Why more than niceness decides what the workers get.
fn obstacle(cgroup: &CgroupReport, cgroups: &[CgroupReport]) -> Option<String> {
    let name = &cgroup.name;
    let Some(cpus) = cgroup.cpuset.as_ref().filter(|cpus| !cpus.is_empty()) else {
        return Some(format!("the CPUs of cgroup `{name}` are not known"));
    };
    let rival = cgroups.iter().find(|other| {
        let theirs = other.cpuset.as_ref();
        !std::ptr::eq(*other, cgroup)
            && theirs.is_none_or(|theirs| !theirs.intersection(cpus).is_empty())
    });
    if let Some(rival) = rival {
        return Some(format!(
            "cgroup `{name}` competes for its CPUs with cgroup `{}`",
            rival.name
        ));
    }
    if cgroup.workers.len() <= cpus.len() {
        return Some(format!("nobody competes for the CPUs of cgroup `{name}`"));
    }
    if let Some(why) =
        frozen(cgroup).or_else(|| rationed(cgroup, cgroups).map(|ration| ration.clause))
    {
        return Some(why);
    }
    cgroup
        .workers
        .iter()
        .find_map(|worker| worker_obstacle(name, worker))
}

fn worker_obstacle(name: &str, worker: &WorkerReport) -> Option<String> {
    let beyond_niceness = || {
        if worker.nice_changes > 0 {
            let pid = worker.pid;
            return Some(format!(
                "the niceness of worker {pid} was changed under the load"
            ));
        }
        let kind = worker.policy.as_ref().map(|policy| policy.kind);
        matches!(kind, Some(kind) if kind != PolicyKind::Weighted)
            .then(|| format!("workers of cgroup `{name}` have a policy that ignores niceness"))
    };
    share::obstacle(name, worker).or_else(beyond_niceness)
}

fn shares<'a>(cgroup: &'a CgroupReport, timing: &TimingSlack) -> Result<Shares<'a>, String> {
    let workers = &cgroup.workers;
    let load_ns = workers.iter().map(|worker| worker.wall_time_ns).min();
    let cpus = cgroup.cpuset.as_ref().map_or(0, CpuSet::len);
    let bound = bound_pct(timing, load_ns.unwrap_or(0), cpus)?;
    let rate = |worker: &WorkerReport| float(worker.cpu_time_ns) / float(worker.wall_time_ns);
    let got: Vec<f64> = workers.iter().map(rate).collect();
    let total: f64 = got.iter().sum();
    let claims: Vec<Claim> = workers
        .iter()
        .map(|worker| Claim {
            weight: nice_weight(worker.nice),
            cap: 1.0,
        })
        .collect();
    let entitled = share_out(total, &claims);
    if total <= 0.0 {
        return Err(format!(
            "the workers of cgroup `{}` got no CPU time",
            cgroup.name
        ));
    }
    let measured = Measured {
        value: misallocated_pct(&got, &entitled),
        bound,
    };
    let same = Claim {
        weight: 1.0,
        cap: 1.0,
    };
    let equal = share_out(total, &vec![same; workers.len()]);
    tells_apart(measured, misallocated_pct(&equal, &entitled), timing)?;
    Ok(Shares {
        cgroup,
        got,
        entitled,
        measured,
    })
}

fn conclude(case: &Case<'_>, shares: &Shares<'_>) -> CheckResult {
    let short = |at: usize| shares.entitled[at] - shares.got[at];
    let workers = &shares.cgroup.workers;
    let loser = (0..workers.len()).max_by(|&a, &b| short(a).total_cmp(&short(b)));
    let name = &shares.cgroup.name;
    let loser_is = loser.map(|at| {
        format!(
            "; worker {} (nice {}) got {:.1} % of a CPU and was due {:.1} %",
            workers[at].pid,
            workers[at].nice,
            shares.got[at] * 100.0,
            shares.entitled[at] * 100.0
        )
    });
    let detail = format!(
        "of the CPU time that the {} workers of cgroup `{name}` got, {:.1} % went to the wrong ones by their \
         niceness, and the bound is {:.1} %{}",
        workers.len(),
        shares.measured.value,
        shares.measured.bound,
        loser_is.unwrap_or_default()
    );
    let subject = Subject {
        cgroup: Some(name.clone()),
        worker: loser.map(|at| workers[at].pid),
        cpu: None,
    };
    let judged = CheckResult::judged(case.check, shares.measured.is_within(), detail);
    shares.measured.of(judged, subject)
}
