//! The checks of declared properties, judged on reports made by hand.

use ktstr_scenario::checks::judge_workers;
use ktstr_scenario::{
    Assert, AssertResult, BandwidthSpan, CgroupAccount, CgroupLevel, CgroupReport, Check,
    CpuDemand, MaskSpan, NodePages, Outcome, PolicyAccount, PolicyKind, Quota, TimingSlack,
    WorkerExit, WorkerReport,
};

use crate::samples::{MS, cpus, find, outcome, spinner, why_not};

const LOAD_NS: u64 = 10_000 * MS;

/// A worker that ran for 10 s and got `cpu_ms`.
fn worker(pid: i32, cpu_ms: u64) -> WorkerReport {
    spinner(pid, LOAD_NS / MS, cpu_ms)
}

fn level(name: &str, cpu_ms: u64) -> CgroupLevel {
    CgroupLevel {
        name: name.to_owned(),
        spans: vec![BandwidthSpan {
            wall_ns: LOAD_NS,
            cpu_time_ns: cpu_ms * MS,
            quota: None,
        }],
        ..CgroupLevel::default()
    }
}

fn weighted(name: &str, weight: u32, cpu_ms: u64) -> CgroupLevel {
    CgroupLevel {
        cpu_weight: Some(weight),
        ..level(name, cpu_ms)
    }
}

/// A cgroup held to `pct` percent of a CPU.
fn limited(name: &str, pct: u64, cpu_ms: u64) -> CgroupLevel {
    let mut level = level(name, cpu_ms);
    level.spans[0].quota = Some(Quota {
        quota_ns: pct * MS,
        period_ns: 100 * MS,
    });
    level
}

/// A cgroup on `cpuset` whose levels, outermost first, are below the workload root.
fn cgroup(cpuset: &str, levels: Vec<CgroupLevel>, workers: Vec<WorkerReport>) -> CgroupReport {
    let name = levels.last().unwrap().name.clone();
    let levels = [level("/ktstr", 0)].into_iter().chain(levels).collect();
    CgroupReport {
        account: Some(CgroupAccount { levels }),
        ..CgroupReport::new(name, Some(cpus(cpuset)), workers)
    }
}

fn spinners(first_pid: i32, count: i32, cpu_ms: u64) -> Vec<WorkerReport> {
    (first_pid..first_pid + count)
        .map(|pid| worker(pid, cpu_ms))
        .collect()
}

fn judge(cgroups: &[CgroupReport]) -> AssertResult {
    judge_workers(&Assert::DEFAULT, &TimingSlack::default(), cgroups)
}

#[test]
fn fault_b1_cpu_time_beyond_the_quota_of_a_cgroup_above_fails() {
    // 152 % of a CPU for 10 s, where 20 % are allowed.
    let over = |used_ms| {
        let levels = vec![limited("outer", 20, used_ms), level("outer/inner", used_ms)];
        judge(&[cgroup("0-1", levels, spinners(1, 2, used_ms / 2))])
    };
    let failed = over(15_200);
    let check = find(&failed, "cpu_quota");
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!(check.subject.cgroup.as_deref(), Some("outer"));
    assert!(
        check.detail.contains("used 152 % of a CPU"),
        "{}",
        check.detail
    );
    assert_eq!(outcome(&over(2_000), "cpu_quota"), Outcome::Pass);
    assert_eq!(outcome(&over(2_200), "cpu_quota"), Outcome::Pass);
    assert_eq!(outcome(&over(2_500), "cpu_quota"), Outcome::Fail);
}

#[test]
fn each_quota_holds_for_its_own_time() {
    let quota = |pct: u64| {
        Some(Quota {
            quota_ns: pct * MS,
            period_ns: 100 * MS,
        })
    };
    let span = |wall_ms: u64, used_ms: u64, quota| BandwidthSpan {
        wall_ns: wall_ms * MS,
        cpu_time_ns: used_ms * MS,
        quota,
    };
    let judged = |spans| {
        let level = CgroupLevel {
            spans,
            ..level("a", 0)
        };
        judge(&[cgroup("0-1", vec![level], spinners(1, 2, 5_000))])
    };
    // What was used while there was no limit does not count against one.
    let pass = judged(vec![
        span(5_000, 10_000, None),
        span(5_000, 1_000, quota(20)),
    ]);
    assert_eq!(outcome(&pass, "cpu_quota"), Outcome::Pass);
    let fail = judged(vec![span(5_000, 0, None), span(5_000, 8_000, quota(20))]);
    assert_eq!(outcome(&fail, "cpu_quota"), Outcome::Fail);
}

#[test]
fn a_quota_without_figures_is_inconclusive() {
    let level = CgroupLevel {
        spans: Vec::new(),
        trouble: Some("can't read cpu.stat".to_owned()),
        ..level("a", 0)
    };
    let result = judge(&[cgroup("0-1", vec![level], spinners(1, 2, 1))]);
    assert_eq!(outcome(&result, "cpu_quota"), Outcome::Inconclusive);
}

#[test]
fn a_quota_that_says_nothing_is_not_judged() {
    let judged = |levels, workers| judge(&[cgroup("0-1", levels, workers)]);
    let wide = judged(vec![limited("a", 200, 20_000)], spinners(1, 2, 10_000));
    assert!(why_not(&wide, "cpu_quota").contains("can't use more than its quota"));
    let mut fifo = spinners(1, 2, 10_000);
    fifo[0].policy.as_mut().unwrap().kind = PolicyKind::RealTime;
    let fifo = judged(vec![limited("a", 20, 20_000)], fifo);
    assert!(why_not(&fifo, "cpu_quota").contains("real-time workers"));
    let none = judged(vec![level("a", 20_000)], spinners(1, 2, 10_000));
    assert!(why_not(&none, "cpu_quota").contains("declares nothing"));
    let stalling = TimingSlack {
        gap_ms: 20_000,
        ..TimingSlack::default()
    };
    let quiet = cgroup("0-1", vec![limited("a", 20, 2_000)], spinners(1, 2, 1_000));
    let short = judge_workers(&Assert::DEFAULT, &stalling, &[quiet]);
    assert!(why_not(&short, "cpu_quota").contains("too short to tell"));
}

#[test]
fn fault_b2_shares_that_are_not_by_weight_fail() {
    let judged = |heavy_ms, light_ms| {
        judge(&[
            cgroup(
                "0-7",
                vec![weighted("heavy", 400, heavy_ms)],
                spinners(1, 8, heavy_ms / 8),
            ),
            cgroup(
                "0-7",
                vec![weighted("light", 50, light_ms)],
                spinners(11, 8, light_ms / 8),
            ),
        ])
    };
    let failed = judged(38_200, 35_200);
    let check = find(&failed, "cpu_share");
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!(check.subject.cgroup.as_deref(), Some("heavy"));
    assert!(
        check.detail.contains("`heavy` got 52.0 % (88.9 % due)"),
        "{}",
        check.detail
    );
    assert_eq!(outcome(&judged(65_000, 9_000), "cpu_share"), Outcome::Pass);
    assert_eq!(outcome(&judged(0, 0), "cpu_share"), Outcome::Inconclusive);
}

#[test]
fn a_share_is_no_more_than_workers_can_use() {
    // Entitled to 3.5 of 4 CPUs by its weight, with one worker.
    let pass = judge(&[
        cgroup(
            "0-3",
            vec![weighted("one", 700, 10_000)],
            spinners(1, 1, 10_000),
        ),
        cgroup("0-3", vec![level("many", 30_000)], spinners(11, 16, 1_875)),
    ]);
    assert_eq!(outcome(&pass, "cpu_share"), Outcome::Pass);
}

#[test]
fn weights_hold_at_each_level() {
    // `a` and `b` are equals, so that the two below `a` share one half.
    let judged = |each: [u64; 3]| {
        let below = |name: &str, cpu_ms| vec![weighted("a", 100, 0), weighted(name, 100, cpu_ms)];
        judge(&[
            cgroup("0", below("a/x", each[0]), spinners(1, 1, each[0])),
            cgroup("0", below("a/y", each[1]), spinners(2, 1, each[1])),
            cgroup(
                "0",
                vec![weighted("b", 100, each[2])],
                spinners(3, 1, each[2]),
            ),
        ])
    };
    assert_eq!(
        outcome(&judged([2_500, 2_500, 5_000]), "cpu_share"),
        Outcome::Pass
    );
    assert_eq!(
        outcome(&judged([3_333, 3_333, 3_333]), "cpu_share"),
        Outcome::Fail
    );
}

#[test]
fn shares_that_weights_alone_do_not_decide_are_not_judged() {
    let pair = |change: fn(&mut CgroupReport)| {
        let mut other = cgroup("0", vec![weighted("b", 50, 5_000)], spinners(2, 1, 5_000));
        change(&mut other);
        let first = cgroup("0", vec![weighted("a", 400, 5_000)], spinners(1, 1, 5_000));
        why_not(&judge(&[first, other]), "cpu_share")
    };
    for (change, part) in [
        (
            (|c| c.cpuset = Some("0-1".parse().unwrap())) as fn(&mut CgroupReport),
            "shares some of its CPUs",
        ),
        (|c| c.cpuset = Some("1".parse().unwrap()), "nobody competes"),
        (
            |c| c.workers[0].cpu_demand = CpuDemand::Sleeping,
            "don't want a CPU all the time",
        ),
        (|c| c.workers[0].exit = WorkerExit::TimedOut, "did not last"),
        (
            |c| c.workers[0].policy.as_mut().unwrap().kind = PolicyKind::RealTime,
            "are real-time tasks",
        ),
        (
            |c| {
                c.account.as_mut().unwrap().levels[1]
                    .changed
                    .push("cpu.weight".to_owned());
            },
            "was changed under the load",
        ),
        (
            |c| c.account.as_mut().unwrap().levels[1].frozen = true,
            "was frozen",
        ),
        (
            |c| c.account.as_mut().unwrap().levels[1] = limited("b", 5, 5_000),
            "has a quota",
        ),
    ] {
        let why = pair(change);
        assert!(why.contains(part), "{why}");
    }
    let short = TimingSlack {
        gap_ms: 5_000,
        ..TimingSlack::default()
    };
    let cgroups = [
        cgroup("0", vec![weighted("a", 400, 5_000)], spinners(1, 1, 5_000)),
        cgroup("0", vec![weighted("b", 50, 5_000)], spinners(2, 1, 5_000)),
    ];
    let result = judge_workers(&Assert::DEFAULT, &short, &cgroups);
    assert!(why_not(&result, "cpu_share").contains("too short, to tell"));
    // 100 to 150 would be 40 to 60 %, which equal shares are near to.
    let alike = [
        cgroup("0", vec![weighted("a", 100, 5_000)], spinners(1, 1, 5_000)),
        cgroup("0", vec![weighted("b", 150, 5_000)], spinners(2, 1, 5_000)),
    ];
    assert!(why_not(&judge(&alike), "cpu_share").contains("too near to equal shares"));
}

#[test]
fn workers_share_by_niceness() {
    let judged = |nice_0_ms, nice_10_ms| {
        let mut workers = vec![worker(1, nice_0_ms), worker(2, nice_10_ms)];
        workers[1].nice = 10;
        judge(&[cgroup("0", vec![level("a", 10_000)], workers)])
    };
    let failed = judged(5_000, 5_000);
    let check = find(&failed, "nice_share");
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!(check.subject.worker, Some(1));
    assert_eq!(outcome(&judged(9_000, 1_000), "nice_share"), Outcome::Pass);
    let short = judged(0, 0);
    assert!(why_not(&short, "nice_share").contains("got no CPU time"));
}

#[test]
fn niceness_that_decides_nothing_is_not_judged() {
    let judged = |cpuset: &str, change: fn(&mut WorkerReport)| {
        let mut workers = vec![worker(1, 5_000), worker(2, 5_000)];
        workers[1].nice = 10;
        change(&mut workers[1]);
        why_not(
            &judge(&[cgroup(cpuset, vec![level("a", 10_000)], workers)]),
            "nice_share",
        )
    };
    assert!(judged("0-1", |_| {}).contains("nobody competes"));
    for (change, part) in [
        (
            (|w| w.nice = 0) as fn(&mut WorkerReport),
            "declares nothing",
        ),
        (|w| w.nice_changes = 1, "was changed under the load"),
        (
            |w| w.cpu_demand = CpuDemand::Sleeping,
            "don't want a CPU all the time",
        ),
        (
            |w| w.policy.as_mut().unwrap().kind = PolicyKind::Idle,
            "a policy that ignores niceness",
        ),
    ] {
        let why = judged("0", change);
        assert!(why.contains(part), "{why}");
    }
}

fn masked(spans: &[(u32, &str, &str)]) -> WorkerReport {
    WorkerReport {
        mask_changes: u32::try_from(spans.len()).unwrap(),
        masks: spans
            .iter()
            .map(|&(changes, mask, used)| MaskSpan {
                changes,
                mask: Some(cpus(mask)),
                cpus_used: cpus(used),
            })
            .collect(),
        ..worker(1, 10_000)
    }
}

#[test]
fn a_worker_is_held_to_the_mask_of_the_time() {
    let judged = |worker| judge(&[cgroup("0-3", vec![level("a", 10_000)], vec![worker])]);
    let pass = judged(masked(&[(1, "0", "0"), (2, "1-2", "2")]));
    assert_eq!(outcome(&pass, "affinity"), Outcome::Pass);
    let failed = judged(masked(&[(1, "0", "0"), (2, "1-2", "0,2")]));
    let check = find(&failed, "affinity");
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!(
        (check.subject.worker, check.subject.cpu),
        (Some(1), Some(0))
    );
    let silent = judged(WorkerReport {
        masks: Vec::new(),
        ..masked(&[(1, "0", "0")])
    });
    assert_eq!(outcome(&silent, "affinity"), Outcome::Inconclusive);
    assert!(why_not(&judged(worker(1, 1)), "affinity").contains("declares nothing"));
    let mut moved = cgroup("0-3", vec![level("a", 1)], vec![masked(&[(1, "0", "3")])]);
    moved.account.as_mut().unwrap().levels[1]
        .changed
        .push("cpuset.cpus".to_owned());
    let moved = judge(&[moved]);
    assert!(why_not(&moved, "affinity").contains("were changed under the load"));
    assert!(why_not(&moved, "isolation").contains("were changed under the load"));
}

#[test]
fn policy_and_class_are_those_that_are_due() {
    let judged = |change: fn(&mut PolicyAccount)| {
        let mut worker = worker(7, 10_000);
        change(worker.policy.as_mut().unwrap());
        judge(&[cgroup("0", vec![level("a", 10_000)], vec![worker])])
    };
    assert_eq!(outcome(&judged(|_| {}), "sched_policy"), Outcome::Pass);
    for (change, part) in [
        (
            (|p| p.seen = Some("SCHED_BATCH, nice 0".to_owned())) as fn(&mut PolicyAccount),
            "ended under SCHED_BATCH, nice 0, where SCHED_OTHER, nice 0 is declared",
        ),
        (|p| p.ext_due = Some(true), "was not in the sched_ext class"),
        (|p| p.ext_seen = Some(true), "was in the sched_ext class"),
    ] {
        let result = judged(change);
        let check = find(&result, "sched_policy");
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(check.detail.contains(part), "{}", check.detail);
    }
    let unknown = judged(|p| p.ext_due = None);
    let check = find(&unknown, "sched_policy");
    assert_eq!(check.outcome, Outcome::Pass);
    assert!(
        check.detail.contains("could not be told"),
        "{}",
        check.detail
    );
    let silent = judged(|p| p.seen = None);
    assert_eq!(outcome(&silent, "sched_policy"), Outcome::Inconclusive);
}

#[test]
fn memory_is_on_the_declared_nodes() {
    let judged = |pages: &[(u32, u64)], changed: bool| {
        let pages = pages.iter().map(|&(node, pages)| NodePages { node, pages });
        let worker = WorkerReport {
            node_pages: pages.collect(),
            ..worker(1, 10_000)
        };
        let outer = CgroupLevel {
            cpuset_mems: Some(cpus("1")),
            changed: changed
                .then(|| "cpuset.mems".to_owned())
                .into_iter()
                .collect(),
            ..level("outer", 10_000)
        };
        judge(&[cgroup(
            "0",
            vec![outer, level("outer/a", 10_000)],
            vec![worker],
        )])
    };
    assert_eq!(
        outcome(&judged(&[(1, 64)], false), "mem_binding"),
        Outcome::Pass
    );
    let failed = judged(&[(0, 3), (1, 61)], false);
    let check = find(&failed, "mem_binding");
    assert_eq!((check.outcome, check.value), (Outcome::Fail, Some(3.0)));
    assert!(
        check.detail.contains("3 on node 0, 61 on node 1"),
        "{}",
        check.detail
    );
    assert_eq!(
        outcome(&judged(&[], false), "mem_binding"),
        Outcome::Inconclusive
    );
    assert!(why_not(&judged(&[(0, 64)], true), "mem_binding").contains("was changed"));
}

#[test]
fn what_a_scheduler_turns_off_says_by_whom_and_a_test_can_turn_it_on() {
    let assert = Assert::DEFAULT
        .off_by_scheduler(Check::CpuQuota, "x")
        .off_by_scheduler(Check::CpuShare, "x")
        .cpu_quota(true);
    let report = cgroup(
        "0-1",
        vec![limited("a", 20, 20_000)],
        spinners(1, 2, 10_000),
    );
    let result = judge_workers(&assert, &TimingSlack::default(), &[report]);
    assert_eq!(outcome(&result, "cpu_quota"), Outcome::Fail);
    assert_eq!(why_not(&result, "cpu_share"), "turned off by scheduler `x`");
}

#[test]
fn fault_c1_what_a_quota_makes_due_is_no_fault() {
    let slow = || WorkerReport {
        max_gap_ns: 9_000 * MS,
        ..worker(1, 20)
    };
    let idle = || WorkerReport {
        work_units: 0,
        iterations: 0,
        ..worker(2, 0)
    };
    let tight = |pct| cgroup("0-7", vec![limited("a", pct, 400)], vec![slow(), idle()]);
    let judged = judge(&[tight(1)]);
    assert_eq!(outcome(&judged, "progress"), Outcome::Pass);
    for check in ["max_gap_ms", "max_spread_pct"] {
        assert_eq!(
            why_not(&judged, check),
            "cgroup `a` is held to 1 % of a CPU"
        );
    }
    let left_out = judged
        .not_checked
        .iter()
        .find(|left_out| left_out.check == "progress");
    assert!(
        left_out.unwrap().why.contains("50 ms for each worker"),
        "{left_out:?}"
    );
    // With half a second for each, one that does nothing is stuck.
    assert_eq!(outcome(&judge(&[tight(10)]), "progress"), Outcome::Fail);
    // One that does not stop is never excused, and a test's own bound is always judged.
    let mut stuck = tight(1);
    stuck.workers[1].exit = WorkerExit::TimedOut;
    assert_eq!(outcome(&judge(&[stuck]), "progress"), Outcome::Fail);
    let own = Assert::DEFAULT.max_gap_ms(2_000);
    let own = judge_workers(&own, &TimingSlack::default(), &[tight(1)]);
    assert_eq!(outcome(&own, "max_gap_ms"), Outcome::Fail);
}

#[test]
fn what_freezing_and_weights_make_due_is_no_fault() {
    let slow = |nice| WorkerReport {
        max_gap_ns: 9_000 * MS,
        nice,
        ..worker(1, 20)
    };
    let mut frozen = cgroup("0", vec![level("a", 0)], vec![slow(0), slow(0)]);
    frozen.account.as_mut().unwrap().levels[1].frozen = true;
    for worker in &mut frozen.workers {
        worker.iterations = 0;
    }
    let frozen = judge(&[frozen]);
    assert_eq!(outcome(&frozen, "progress"), Outcome::Pass);
    assert!(why_not(&frozen, "max_gap_ms").contains("was frozen"));
    let mixed = judge(&[cgroup("0", vec![level("a", 0)], vec![slow(19), slow(0)])]);
    // Nice 0 is the heaviest here, and has no excuse.
    assert_eq!(outcome(&mixed, "max_gap_ms"), Outcome::Fail);
    assert!(why_not(&mixed, "max_spread_pct").contains("different nice levels"));
    let unequal = |light: WorkerReport| {
        let mut heavy = worker(2, 9_000);
        heavy.max_gap_ns = MS;
        judge(&[
            cgroup("0", vec![weighted("heavy", 10_000, 9_000)], vec![heavy]),
            cgroup("0", vec![weighted("light", 1, 1)], vec![light]),
        ])
    };
    let judged = unequal(slow(0));
    assert_eq!(outcome(&judged, "max_gap_ms"), Outcome::Pass);
    let left_out = judged
        .not_checked
        .iter()
        .find(|left_out| left_out.check == "max_gap_ms");
    assert!(
        left_out.unwrap().why.contains("weigh less than 1/16"),
        "{left_out:?}"
    );
}

#[test]
fn reports_without_an_account_say_so() {
    let report = CgroupReport::new("a", Some(cpus("0")), vec![worker(1, 10_000)]);
    let result = judge(&[report]);
    for check in ["cpu_quota", "cpu_share", "mem_binding"] {
        assert!(why_not(&result, check).contains("begin_account"), "{check}");
    }
}
