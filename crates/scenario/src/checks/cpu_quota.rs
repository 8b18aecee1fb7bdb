//! `cpu_quota`: no cgroup used more CPU time than its quota allows, or that of one above it.
//!
//! Tolerated are: a tenth of the quota; the quota of one period for each span, which may be left over when the
//! span begins; for each CPU 15 ms, a slice of the kernel's bandwidth control (5 ms) and a tick beyond it
//! (10 ms at most). An engine whose CPUs stand still adds that time for each CPU of the quota and one more:
//! a task is charged for it, and the cgroup pays it back only later.

use ktstr_report::{
    AssertResult, CgroupLevel, CgroupReport, CheckResult, PolicyKind, Subject, TimingSlack,
};

use super::figure::{Measured, float};
use super::restraint::{below, usable_cpus};
use super::{Case, NONE_DECLARED};

const TOLERANCE: f64 = 1.1;
const EACH_CPU_NS: f64 = 15e6;
const NS_PER_MS: f64 = 1e6;

/// Share of what the workers could use beyond which a bound tells nothing.
const MAX_BOUND: f64 = 0.9;

struct Usage<'a> {
    level: &'a CgroupLevel,
    quota_cpus: f64,
    measured: Measured,
}

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let (timing, cgroups) = (case.timing, case.cgroups);
    let mut usages = Vec::new();
    let mut troubles = Vec::new();
    let mut left_out = Vec::new();
    for level in levels(cgroups) {
        if let Some(trouble) = &level.trouble {
            troubles.push(trouble.clone());
        }
        if level.narrowest_quota().is_none() {
            continue;
        }
        match usage(level, timing, cgroups) {
            Ok(usage) => usages.push(usage),
            Err(why) => left_out.push(why),
        }
    }
    let none_declared = usages.is_empty() && left_out.is_empty() && troubles.is_empty();
    for why in left_out {
        result.push_not_checked(case.check.name(), why);
    }
    let over = |usage: &Usage<'_>| usage.measured.value / usage.measured.bound;
    let worst = usages.iter().max_by(|a, b| over(a).total_cmp(&over(b)));
    match worst {
        Some(worst) if !worst.measured.is_within() => {
            result.push(conclude(case, worst));
        }
        _ if !troubles.is_empty() => {
            result.push(CheckResult::inconclusive(case.check, troubles.join("; ")));
        }
        Some(worst) => result.push(conclude(case, worst)),
        None if none_declared => result.push_not_checked(case.check.name(), NONE_DECLARED),
        None => {}
    }
}

/// Every cgroup on the way to a worker, once.
fn levels(cgroups: &[CgroupReport]) -> Vec<&CgroupLevel> {
    let mut levels: Vec<&CgroupLevel> = Vec::new();
    for level in cgroups
        .iter()
        .flat_map(|cgroup| &cgroup.account)
        .flat_map(|account| &account.levels)
    {
        if levels.iter().all(|known| known.name != level.name) {
            levels.push(level);
        }
    }
    levels
}

fn usage<'a>(
    level: &'a CgroupLevel,
    timing: &TimingSlack,
    cgroups: &[CgroupReport],
) -> Result<Usage<'a>, String> {
    let name = &level.name;
    let real_time = below(name, cgroups)
        .flat_map(|cgroup| &cgroup.workers)
        .filter_map(|worker| worker.policy.as_ref())
        .any(|policy| matches!(policy.kind, PolicyKind::RealTime | PolicyKind::Deadline));
    if real_time {
        return Err(format!(
            "cgroup `{name}` has real-time workers, which `cpu.max` does not limit"
        ));
    }
    let usable = usable_cpus(name, cgroups);
    let (mut wall_ns, mut used_ns, mut allowed_ns) = (0.0, 0.0, 0.0);
    let mut quota_cpus = f64::INFINITY;
    for span in &level.spans {
        let Some(quota) = span.quota else { continue };
        let stalled_ms = float(timing.gap_ms) * (quota.cpus().ceil() + 1.0).min(usable);
        wall_ns += float(span.wall_ns);
        used_ns += float(span.cpu_time_ns);
        allowed_ns += quota.cpus() * float(span.wall_ns) * TOLERANCE
            + float(quota.quota_ns)
            + usable * EACH_CPU_NS
            + stalled_ms * NS_PER_MS;
        quota_cpus = quota_cpus.min(quota.cpus());
    }
    if quota_cpus >= usable {
        return Err(format!(
            "the workers of cgroup `{name}` can't use more than its quota"
        ));
    }
    let measured = Measured {
        value: used_ns * 100.0 / wall_ns,
        bound: allowed_ns * 100.0 / wall_ns,
    };
    if wall_ns <= 0.0
        || (measured.bound >= usable * 100.0 * MAX_BOUND && measured.value <= measured.bound)
    {
        return Err(format!(
            "the load was too short to tell whether cgroup `{name}` kept its quota"
        ));
    }
    Ok(Usage {
        level,
        quota_cpus,
        measured,
    })
}

fn conclude(case: &Case<'_>, usage: &Usage<'_>) -> CheckResult {
    let name = &usage.level.name;
    let (value, bound) = (usage.measured.value, usage.measured.bound);
    let own_ns: f64 = below(name, case.cgroups)
        .flat_map(|cgroup| &cgroup.workers)
        .map(|worker| float(worker.cpu_time_ns))
        .sum();
    let changed = usage.level.spans.len() > 1;
    let detail = format!(
        "cgroup `{name}` used {value:.0} % of a CPU (cpu.stat), where cpu.max allows {}{:.0} %; the bound is \
         {bound:.0} %. Its workers counted {:.2} s of CPU time themselves, to the end",
        if changed { "at the narrowest " } else { "" },
        usage.quota_cpus * 100.0,
        own_ns / 1e9,
    );
    let subject = Subject {
        cgroup: Some(name.clone()),
        ..Subject::default()
    };
    let judged = CheckResult::judged(case.check, usage.measured.is_within(), detail);
    usage.measured.of(judged, subject)
}
