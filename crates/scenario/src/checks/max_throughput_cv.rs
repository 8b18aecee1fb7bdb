//! `max_throughput_cv`: the workers of one type in one cgroup did about the same work per CPU time.

use ktstr_report::{AssertResult, CheckResult, Subject, WorkerReport};

use super::Case;
use super::figure::{Measured, float};
use super::view::{Peers, peers};

struct Variation<'a> {
    peers: Peers<'a>,
    cv: f64,
    slowest: &'a WorkerReport,
}

pub(super) fn judge(case: &Case<'_>, result: &mut AssertResult) {
    let bound = case.bound();
    let worst = peers(case.cgroups)
        .into_iter()
        .filter_map(variation)
        .max_by(|a, b| a.cv.total_cmp(&b.cv));
    let Some(worst) = worst else {
        let why = "no two workers of one type in one cgroup have CPU time and work to compare";
        return result.push(CheckResult::inconclusive(case.check, why).with_bound(bound));
    };
    let name = &worst.peers.cgroup.name;
    let detail = format!(
        "work per CPU time of the {} {} workers of cgroup `{name}` varies by {:.3} (standard deviation over \
         mean), worker {} being the slowest; the bound is {bound:.3}",
        worst.peers.workers.len(),
        worst.peers.work_type,
        worst.cv,
        worst.slowest.pid,
    );
    let subject = Subject {
        cgroup: Some(name.clone()),
        worker: Some(worst.slowest.pid),
        cpu: None,
    };
    let measured = Measured {
        value: worst.cv,
        bound,
    };
    let judged = CheckResult::judged(case.check, measured.is_within(), detail);
    result.push(measured.of(judged, subject));
}

/// `None` without two workers that got CPU time, or when none of them did any work.
fn variation(peers: Peers<'_>) -> Option<Variation<'_>> {
    let rates = peers
        .workers
        .iter()
        .filter(|worker| worker.cpu_time_ns > 0)
        .map(|worker| {
            (
                float(worker.work_units) / float(worker.cpu_time_ns),
                *worker,
            )
        });
    let rates: Vec<(f64, &WorkerReport)> = rates.collect();
    let count = float(rates.len() as u64);
    let mean = rates.iter().map(|(rate, _)| rate).sum::<f64>() / count;
    if rates.len() < 2 || mean <= 0.0 {
        return None;
    }
    let variance = rates
        .iter()
        .map(|(rate, _)| (rate - mean).powi(2))
        .sum::<f64>()
        / count;
    let (_, slowest) = rates.iter().min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Variation {
        slowest,
        cv: variance.sqrt() / mean,
        peers,
    })
}
