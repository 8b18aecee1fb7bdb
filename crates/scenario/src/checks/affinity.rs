//! `affinity`: no worker ran outside the CPUs that it was bound to at the time.
//!
//! Nothing is tolerated: when sched_setaffinity(2) returns, the kernel has moved the task. What a worker sees
//! while its mask is being set is not counted.

use ktstr_report::{AssertResult, CgroupReport, CheckResult, MaskSpan, Subject};
use ktstr_topology::CpuSet;

use super::figure::{Measured, plural};
use super::restraint::moved;
use super::view::{Placed, all};
use super::{Case, NONE_DECLARED};

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let cgroups = case.cgroups;
    if all(cgroups).all(|placed| placed.worker.mask_changes == 0) {
        return result.push_not_checked(case.check.name(), NONE_DECLARED);
    }
    for why in cgroups
        .iter()
        .filter(|cgroup| bound(cgroup))
        .filter_map(moved)
    {
        result.push_not_checked(case.check.name(), why);
    }
    let watched: Vec<(Placed<'_>, &MaskSpan, &CpuSet)> = all(cgroups)
        .filter(|placed| moved(placed.cgroup).is_none())
        .flat_map(|placed| {
            let spans = placed.worker.masks.iter();
            spans.filter_map(move |span| Some((placed, span, span.mask.as_ref()?)))
        })
        .collect();
    let strays = watched.iter().map(|(placed, span, mask)| {
        let outside = span.cpus_used.difference(mask);
        (placed, span, *mask, outside)
    });
    let Some((placed, span, mask, outside)) = strays.max_by_key(|(.., outside)| outside.len())
    else {
        if all(cgroups)
            .any(|placed| placed.worker.mask_changes > 0 && moved(placed.cgroup).is_none())
        {
            let why = "no worker that is bound to CPUs reported where it ran";
            result.push(CheckResult::inconclusive(case.check, why).with_bound(0.0));
        }
        return;
    };
    let measured = Measured::count(outside.len());
    let Some(first) = outside.iter().next() else {
        let count = plural(watched.len(), "mask");
        let unwatched = all(cgroups).any(|placed| {
            let last = placed.worker.masks.last();
            last.is_some_and(|span| span.changes < placed.worker.mask_changes)
        });
        let rest = if unwatched {
            "; under masks set after these some workers were not seen"
        } else {
            ""
        };
        let detail = format!("under each of {count} workers stayed within it{rest}");
        let pass = CheckResult::pass(case.check, detail);
        return result.push(measured.of(pass, Subject::default()));
    };
    let mut subject = placed.subject();
    subject.cpu = Some(first);
    let detail = format!(
        "{placed} ran on CPUs {outside} while it was bound to CPUs {mask} (change {} of its mask)",
        span.changes
    );
    result.push(measured.of(CheckResult::fail(case.check, detail), subject));
}

fn bound(cgroup: &CgroupReport) -> bool {
    cgroup.workers.iter().any(|worker| worker.mask_changes > 0)
}
