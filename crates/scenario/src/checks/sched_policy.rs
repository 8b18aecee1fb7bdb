//! `sched_policy`: each worker ended under the policy that was declared for it, and in its scheduling class.
//!
//! Nothing is tolerated. A class that can't be told is not judged.

use ktstr_report::{AssertResult, CgroupReport, PolicyAccount, Switch};

use super::verdict::{Check, Measured, float, plural};
use super::view::{Placed, completed};

const CHECK: Check = Check {
    name: "sched_policy",
    unit: "workers",
};

pub(super) fn judge(result: &mut AssertResult, switch: Switch, cgroups: &[CgroupReport]) {
    if let Some(why) = switch.why_off() {
        return result.push_not_checked(CHECK.name, why);
    }
    let told: Vec<(Placed<'_>, &PolicyAccount, &str)> = completed(cgroups)
        .filter_map(|placed| {
            let policy = placed.worker.policy.as_ref()?;
            Some((placed, policy, policy.seen.as_deref()?))
        })
        .collect();
    if told.is_empty() {
        let why = "no worker reported the policy that it ran under";
        return CHECK.inconclusive(result, Some(0.0), why);
    }
    let wrong: Vec<(Placed<'_>, String)> = told
        .iter()
        .filter_map(|(placed, policy, seen)| Some((*placed, fault(policy, seen)?)))
        .collect();
    let measured = Measured {
        value: float(wrong.len() as u64),
        bound: 0.0,
    };
    let Some((placed, fault)) = wrong.first() else {
        let unknown = told
            .iter()
            .filter(|(_, policy, _)| policy.ext_due.is_none() || policy.ext_seen.is_none())
            .count();
        let rest = match unknown {
            0 => ", and in its scheduling class".to_owned(),
            _ => format!(
                "; the class of {} could not be told",
                plural(unknown, "worker")
            ),
        };
        let detail = format!(
            "each of {} ended under its policy{rest}",
            plural(told.len(), "worker")
        );
        return CHECK.conclude(result, true, measured, Default::default(), detail);
    };
    let detail = format!(
        "{placed} {fault}; so did {} in all",
        plural(wrong.len(), "worker")
    );
    CHECK.conclude(result, false, measured, placed.subject(), detail);
}

fn fault(policy: &PolicyAccount, seen: &str) -> Option<String> {
    if seen != policy.declared {
        return Some(format!(
            "ended under {seen}, where {} is declared",
            policy.declared
        ));
    }
    match (policy.ext_due, policy.ext_seen) {
        (Some(true), Some(false)) => Some(format!(
            "({seen}) was not in the sched_ext class, though the scheduler takes such tasks"
        )),
        (Some(false), Some(true)) => Some(format!(
            "({seen}) was in the sched_ext class, which no scheduler takes such tasks into"
        )),
        _ => None,
    }
}
