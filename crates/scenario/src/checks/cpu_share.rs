//! `cpu_share`: cgroups that compete for the same CPUs got them by their weights.
//!
//! Each group of cgroups with the same CPUs is judged by itself. At every level of the hierarchy the CPUs are
//! shared out by weight, and what a cgroup has too few workers to use goes to the others. The figure is the part
//! of the CPU time that went to the wrong cgroups.

use std::collections::BTreeMap;

use ktstr_report::{
    AssertResult, CgroupLevel, CgroupReport, CheckResult, PolicyKind, Subject, TimingSlack,
    WorkerReport,
};

use super::entitlement::{Claim, misallocated_pct, share_out};
use super::figure::{Measured, float};
use super::share::{bound_pct, tells_apart};
use super::{Case, NONE_DECLARED, share};

struct Rivals<'a> {
    cgroups: Vec<&'a CgroupReport>,
    cpus: usize,
}

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let (timing, cgroups) = (case.timing, case.cgroups);
    let declares = |cgroup: &CgroupReport| levels(cgroup).any(|level| level.cpu_weight.is_some());
    if !cgroups.iter().any(declares) {
        return result.push_not_checked(case.check.name(), NONE_DECLARED);
    }
    let mut judged = Vec::new();
    for rivals in rivals(cgroups) {
        if !rivals.cgroups.iter().any(|cgroup| declares(cgroup)) {
            continue;
        }
        match rivals
            .comparable(cgroups)
            .and_then(|()| rivals.figures(timing))
        {
            Ok(figures) => judged.push((rivals, figures)),
            Err(Why::NotJudged(why)) => result.push_not_checked(case.check.name(), why),
            Err(Why::NoFigures(why)) => {
                result.push(CheckResult::inconclusive(case.check, why));
            }
        }
    }
    let worst = judged
        .iter()
        .max_by(|(_, a), (_, b)| a.measured.value.total_cmp(&b.measured.value));
    if let Some((rivals, figures)) = worst {
        result.push(rivals.conclude(case, figures));
    }
}

enum Why {
    NotJudged(String),
    NoFigures(String),
}

struct Figures {
    /// CPUs that each got, and was entitled to.
    got: Vec<f64>,
    entitled: Vec<f64>,
    measured: Measured,
}

fn levels(cgroup: &CgroupReport) -> impl Iterator<Item = &CgroupLevel> {
    cgroup.account.iter().flat_map(|account| &account.levels)
}

/// Cgroups by the CPUs that they have.
fn rivals(cgroups: &[CgroupReport]) -> Vec<Rivals<'_>> {
    let mut rivals: BTreeMap<String, Rivals<'_>> = BTreeMap::new();
    for cgroup in cgroups {
        let cpus = cgroup.cpuset.clone().unwrap_or_default();
        let group = rivals.entry(cpus.to_string()).or_insert_with(|| Rivals {
            cgroups: Vec::new(),
            cpus: cpus.len(),
        });
        group.cgroups.push(cgroup);
    }
    rivals.into_values().collect()
}

impl Rivals<'_> {
    /// Whether weights alone decide what each gets.
    fn comparable(&self, cgroups: &[CgroupReport]) -> Result<(), Why> {
        let why = self.obstacle(cgroups);
        why.map_or(Ok(()), |why| Err(Why::NotJudged(why)))
    }

    fn obstacle(&self, cgroups: &[CgroupReport]) -> Option<String> {
        let first = self.cgroups.first()?;
        let Some(cpus) = first.cpuset.as_ref().filter(|cpus| !cpus.is_empty()) else {
            return Some(format!("the CPUs of cgroup `{}` are not known", first.name));
        };
        let overlapping = cgroups.iter().find(|other| match &other.cpuset {
            Some(theirs) => theirs != cpus && !theirs.intersection(cpus).is_empty(),
            None => true,
        });
        if let Some(other) = overlapping {
            return Some(format!(
                "cgroup `{}` shares some of its CPUs with cgroup `{}` but not all",
                first.name, other.name
            ));
        }
        let workers: usize = self.cgroups.iter().map(|cgroup| cgroup.workers.len()).sum();
        if self.cgroups.len() < 2 || workers <= cpus.len() {
            return Some(format!(
                "nobody competes for the CPUs of cgroup `{}`",
                first.name
            ));
        }
        self.cgroups.iter().find_map(|cgroup| obstacle(cgroup))
    }

    fn figures(&self, timing: &TimingSlack) -> Result<Figures, Why> {
        let mut got = Vec::new();
        let mut load_ns = u64::MAX;
        for cgroup in &self.cgroups {
            let own = cgroup.account.as_ref().and_then(|account| account.own());
            let trouble = levels(cgroup).find_map(|level| level.trouble.clone());
            let own = own.filter(|own| own.wall_ns() > 0 && trouble.is_none());
            let Some(own) = own else {
                let why = trouble
                    .unwrap_or_else(|| format!("there is no account of cgroup `{}`", cgroup.name));
                return Err(Why::NoFigures(why));
            };
            got.push(float(own.cpu_time_ns()) / float(own.wall_ns()));
            load_ns = load_ns.min(own.wall_ns());
        }
        let bound = bound_pct(timing, load_ns, self.cpus).map_err(Why::NotJudged)?;
        let total: f64 = got.iter().sum();
        if total <= 0.0 {
            return Err(Why::NoFigures("the cgroups got no CPU time".to_owned()));
        }
        let mut entitled = vec![0.0; got.len()];
        let members: Vec<usize> = (0..got.len()).collect();
        self.entitle(total, &members, 0, &mut entitled);
        let measured = Measured {
            value: misallocated_pct(&got, &entitled),
            bound,
        };
        let equal: Vec<Claim> = self
            .cgroups
            .iter()
            .map(|cgroup| self.equal(cgroup))
            .collect();
        let equal = misallocated_pct(&share_out(total, &equal), &entitled);
        tells_apart(measured, equal, timing).map_err(Why::NotJudged)?;
        Ok(Figures {
            got,
            entitled,
            measured,
        })
    }

    /// What `cgroup` would claim from a scheduler that knows nothing of cgroups.
    fn equal(&self, cgroup: &CgroupReport) -> Claim {
        Claim {
            weight: float(cgroup.workers.len() as u64),
            cap: float(cgroup.workers.len().min(self.cpus) as u64),
        }
    }

    /// Shares `total` out among the cgroups at `depth` that `members` are in or below.
    fn entitle(&self, total: f64, members: &[usize], depth: usize, entitled: &mut [f64]) {
        let mut children: Vec<(&CgroupLevel, Vec<usize>)> = Vec::new();
        for &member in members {
            let Some(level) = levels(self.cgroups[member]).nth(depth) else {
                // The innermost: cgroup v2 has no tasks beside child cgroups.
                entitled[member] = total;
                return;
            };
            match children
                .iter_mut()
                .find(|(known, _)| known.name == level.name)
            {
                Some((_, below)) => below.push(member),
                None => children.push((level, vec![member])),
            }
        }
        let claims: Vec<Claim> = children
            .iter()
            .map(|(level, below)| Claim {
                weight: f64::from(level.weight()),
                cap: self.cap(below),
            })
            .collect();
        for (share, (_, below)) in share_out(total, &claims).into_iter().zip(&children) {
            self.entitle(share, below, depth + 1, entitled);
        }
    }

    /// Most CPUs that these can use.
    fn cap(&self, members: &[usize]) -> f64 {
        let workers = members
            .iter()
            .map(|&member| self.cgroups[member].workers.len());
        float(workers.sum::<usize>().min(self.cpus) as u64)
    }

    fn conclude(&self, case: &Case<'_>, figures: &Figures) -> CheckResult {
        let total: f64 = figures.got.iter().sum();
        let shares = self.cgroups.iter().enumerate().map(|(at, cgroup)| {
            format!(
                "`{}` got {:.1} % ({:.1} % due)",
                cgroup.name,
                figures.got[at] * 100.0 / total,
                figures.entitled[at] * 100.0 / total
            )
        });
        let detail = format!(
            "of the CPU time on {} CPUs {}; {:.1} % went to the wrong ones, and the bound is {:.1} %",
            self.cpus,
            shares.collect::<Vec<_>>().join(", "),
            figures.measured.value,
            figures.measured.bound
        );
        let short = |at: usize| figures.entitled[at] - figures.got[at];
        let loser = (0..self.cgroups.len()).max_by(|&a, &b| short(a).total_cmp(&short(b)));
        let subject = Subject {
            cgroup: loser.map(|loser| self.cgroups[loser].name.clone()),
            ..Subject::default()
        };
        let judged = CheckResult::judged(case.check, figures.measured.is_within(), detail);
        figures.measured.of(judged, subject)
    }
}

/// Why more than the weight of `cgroup` decides what it gets.
fn obstacle(cgroup: &CgroupReport) -> Option<String> {
    let name = &cgroup.name;
    for level in levels(cgroup) {
        if level.narrowest_quota().is_some() {
            return Some(format!("cgroup `{}` has a quota", level.name));
        }
        if level.frozen {
            return Some(format!("cgroup `{}` was frozen for a time", level.name));
        }
        let changed = level.changed.iter().find(|file| file.starts_with("cpu"));
        if let Some(file) = changed {
            return Some(format!(
                "{file} of cgroup `{}` was changed under the load",
                level.name
            ));
        }
    }
    let beyond_weights = |worker: &WorkerReport| {
        let kind = worker.policy.as_ref().map(|policy| policy.kind);
        let is_real_time = matches!(kind, Some(PolicyKind::RealTime | PolicyKind::Deadline));
        is_real_time.then(|| format!("workers of cgroup `{name}` are real-time tasks"))
    };
    let mut workers = cgroup.workers.iter();
    workers.find_map(|worker| share::obstacle(name, worker).or_else(|| beyond_weights(worker)))
}
