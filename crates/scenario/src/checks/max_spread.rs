//! `max_spread_pct`: the workers of one type in one cgroup got about the same share of CPU time.

use ktstr_report::{
    AssertResult, CgroupReport, CheckResult, CpuDemand, Subject, TimingSlack, WorkerReport,
};

use super::Case;
use super::figure::Measured;
use super::restraint::{frozen, rationed, uneven_weights};
use super::view::{Peers, peers};

struct Spread<'a> {
    peers: Peers<'a>,
    /// Most and least time off the CPU.
    most: (f64, &'a WorkerReport),
    least: (f64, &'a WorkerReport),
}

impl Spread<'_> {
    fn value(&self) -> f64 {
        self.most.0 - self.least.0
    }
}

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let cgroups = case.cgroups;
    let bound_pct = case.bound() + case.timing.spread_pct;
    let no_data = |why: &str| CheckResult::inconclusive(case.check, why).with_bound(bound_pct);
    let groups = peers(cgroups);
    if groups.is_empty() {
        return result.push(no_data("no worker sent a report"));
    }
    let mut spreads = Vec::new();
    let mut left_out = 0;
    for group in groups {
        let judgeable = match case.setting.is_by_test() {
            true => Ok(()),
            false => equal_shares_are_due(&group, cgroups),
        };
        match (judgeable, group.workers.len()) {
            (_, 1) => {
                left_out += 1;
                let why = format!("cgroup `{}` has one {}", group.cgroup.name, group.work_type);
                result.push_not_checked(case.check.name(), why + " worker to compare");
            }
            (Err(why), _) => {
                left_out += 1;
                result.push_not_checked(case.check.name(), why);
            }
            (Ok(()), _) => spreads.extend(spread(group)),
        }
    }
    let Some(worst) = spreads
        .iter()
        .max_by(|a, b| a.value().total_cmp(&b.value()))
    else {
        if case.setting.is_by_test() || left_out == 0 {
            let why = "no two workers of one type in one cgroup reported times to compare";
            result.push(no_data(why));
        }
        return;
    };
    result.push(conclude(case, worst));
}

fn conclude(case: &Case<'_>, worst: &Spread<'_>) -> CheckResult {
    let measured = Measured {
        value: worst.value(),
        bound: case.bound() + case.timing.spread_pct,
    };
    let ((most, loser), (least, winner)) = (worst.most, worst.least);
    let name = &worst.peers.cgroup.name;
    let detail = format!(
        "of the {} {} workers of cgroup `{name}`, worker {} was off the CPU for {most:.1} % of its time and \
         worker {} for {least:.1} %: a spread of {:.1} points; the bound is {:.1}{}",
        worst.peers.workers.len(),
        worst.peers.work_type,
        loser.pid,
        winner.pid,
        measured.value,
        measured.bound,
        allowance(case.bound(), case.timing)
    );
    let subject = Subject {
        cgroup: Some(name.clone()),
        worker: Some(loser.pid),
        cpu: None,
    };
    let judged = CheckResult::judged(case.check, measured.is_within(), detail);
    measured.of(judged, subject)
}

fn spread(peers: Peers<'_>) -> Option<Spread<'_>> {
    let shares = peers
        .workers
        .iter()
        .filter_map(|worker| Some((worker.off_cpu_pct()?, *worker)));
    let mut shares: Vec<(f64, &WorkerReport)> = shares.collect();
    shares.sort_by(|a, b| a.0.total_cmp(&b.0));
    match shares.as_slice() {
        [least, .., most] => Some(Spread {
            most: *most,
            least: *least,
            peers,
        }),
        _ => None,
    }
}

/// Whether a fair scheduler would give these workers equal shares; the reason if not.
fn equal_shares_are_due(group: &Peers<'_>, cgroups: &[CgroupReport]) -> Result<(), String> {
    let (name, work_type) = (&group.cgroup.name, group.work_type);
    let mut demands = group.workers.iter().map(|worker| worker.cpu_demand);
    if demands.any(|demand| demand == CpuDemand::Sleeping) {
        return Err(format!(
            "workers of {work_type} in cgroup `{name}` sleep voluntarily, so off-CPU time says nothing about the \
             scheduler"
        ));
    }
    let declared = frozen(group.cgroup)
        .or_else(|| rationed(group.cgroup, cgroups).map(|ration| ration.clause))
        .or_else(|| uneven_weights(group.cgroup, cgroups));
    if let Some(why) = declared {
        return Err(why);
    }
    let nice = group.workers.iter().map(|worker| worker.nice);
    if nice.clone().min() != nice.max() {
        return Err(format!(
            "workers of cgroup `{name}` have different nice levels"
        ));
    }
    let Some(cpus) = group.cgroup.cpuset.as_ref().filter(|cpus| !cpus.is_empty()) else {
        return Err(format!("the CPUs of cgroup `{name}` are not known"));
    };
    let mut rivals = 0;
    for other in cgroups {
        match &other.cpuset {
            Some(theirs) if theirs == cpus => rivals += other.workers.len(),
            Some(theirs) if theirs.intersection(cpus).is_empty() => {}
            _ => {
                let other = &other.name;
                return Err(format!(
                    "cgroup `{name}` shares some of its CPUs with cgroup `{other}` but not all, so shares can't \
                     be equal"
                ));
            }
        }
    }
    if rivals > cpus.len() && !rivals.is_multiple_of(cpus.len()) {
        return Err(format!(
            "{rivals} workers on the {} CPUs of cgroup `{name}` can't be shared out evenly",
            cpus.len()
        ));
    }
    Ok(())
}

fn allowance(own_bound: f64, timing: &TimingSlack) -> String {
    if timing.spread_pct <= 0.0 {
        return String::new();
    }
    let (slack, why) = (timing.spread_pct, &timing.why);
    format!(" ({own_bound:.1}, and {slack:.1} because {why})")
}
