//! `sched_policy`: each worker ended under the policy that was declared for it, and in its scheduling class.
//!
//! Nothing is tolerated. A class that can't be told is not judged.

use ktstr_report::{AssertResult, CheckResult, PolicyAccount, Subject};

use super::Case;
use super::figure::{Measured, plural};
use super::view::{Placed, completed};

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let cgroups = case.cgroups;
    let told: Vec<(Placed<'_>, &PolicyAccount, &str)> = completed(cgroups)
        .filter_map(|placed| {
            let policy = placed.worker.policy.as_ref()?;
            Some((placed, policy, policy.seen.as_deref()?))
        })
        .collect();
    if told.is_empty() {
        let why = "no worker reported the policy that it ran under";
        return result.push(CheckResult::inconclusive(case.check, why).with_bound(0.0));
    }
    let wrong: Vec<(Placed<'_>, String)> = told
        .iter()
        .filter_map(|(placed, policy, seen)| Some((*placed, fault(policy, seen)?)))
        .collect();
    let measured = Measured::count(wrong.len());
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
        let pass = CheckResult::pass(case.check, detail);
        return result.push(measured.of(pass, Subject::default()));
    };
    let detail = format!(
        "{placed} {fault}; so did {} in all",
        plural(wrong.len(), "worker")
    );
    let fail = CheckResult::fail(case.check, detail);
    result.push(measured.of(fail, placed.subject()));
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
