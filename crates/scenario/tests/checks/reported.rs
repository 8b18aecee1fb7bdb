//! The checks, judged on reports made by hand.

use ktstr_scenario::checks::{judge_machine, judge_workers};
use ktstr_scenario::{
    Assert, AssertResult, CgroupReport, CpuDemand, Outcome, TimingSlack, Topology, WorkerExit,
    WorkerReport,
};

use crate::samples::{MS, cpus, find, outcome, spinner, why_not};

/// A worker that did its work without any fault: a second, all of it on CPU 0.
fn good(pid: i32) -> WorkerReport {
    WorkerReport {
        max_gap_ns: MS,
        ..spinner(pid, 1000, 1000)
    }
}

fn cgroup(name: &str, cpuset: &str, workers: Vec<WorkerReport>) -> CgroupReport {
    CgroupReport::new(name, Some(cpus(cpuset)), workers)
}

fn judge(assert: Assert, cgroups: &[CgroupReport]) -> AssertResult {
    judge_workers(&assert, &TimingSlack::default(), cgroups)
}

#[test]
fn good_workers_pass_every_default_check() {
    let result = judge(
        Assert::DEFAULT,
        &[cgroup("a", "0-1", vec![good(1), good(2)])],
    );
    let judged: Vec<&str> = result.checks.iter().map(|c| c.check.as_str()).collect();
    assert_eq!(
        judged,
        [
            "progress",
            "isolation",
            "max_gap_ms",
            "max_spread_pct",
            "sched_policy"
        ]
    );
    assert_eq!(result.outcome(), Outcome::Pass, "{result:#?}");
}

#[test]
fn every_check_that_is_off_is_named_as_not_judged() {
    let off = Assert::DEFAULT
        .progress(false)
        .isolation(false)
        .cpus_online(false)
        .kernel_log(false)
        .cpu_quota(false)
        .cpu_share(false)
        .affinity(false)
        .nice_share(false)
        .sched_policy(false)
        .mem_binding(false)
        .no_max_gap_ms()
        .no_max_spread_pct();
    let workers = judge(off, &[cgroup("a", "0", vec![good(1), good(2)])]);
    let machine = judge_machine(&off, &Topology::SINGLE, &cpus("0"), "");
    for (result, check) in [
        (&workers, "progress"),
        (&workers, "isolation"),
        (&workers, "max_gap_ms"),
        (&workers, "max_spread_pct"),
        (&workers, "cpu_quota"),
        (&workers, "cpu_share"),
        (&workers, "affinity"),
        (&workers, "nice_share"),
        (&workers, "sched_policy"),
        (&workers, "mem_binding"),
        (&machine, "cpus_online"),
        (&machine, "kernel_log"),
    ] {
        assert_eq!(why_not(result, check), "turned off by the test");
    }
    for check in [
        "max_p99_wake_latency_ns",
        "min_iteration_rate",
        "min_work_rate",
        "max_migration_ratio",
        "max_throughput_cv",
    ] {
        assert_eq!(why_not(&workers, check), "the test sets no bound");
    }
    assert_eq!(workers.outcome(), Outcome::Inconclusive);
}

#[test]
fn no_workers_is_inconclusive_not_a_pass() {
    for cgroups in [vec![], vec![cgroup("a", "0", vec![])]] {
        let result = judge(Assert::DEFAULT, &cgroups);
        for check in ["progress", "isolation", "max_gap_ms", "max_spread_pct"] {
            assert_eq!(outcome(&result, check), Outcome::Inconclusive, "{check}");
        }
    }
}

#[test]
fn a_dead_worker_fails_progress_and_is_told_by_how_it_died() {
    for (exit, told) in [
        (WorkerExit::Signaled(9), "was killed by SIGKILL"),
        (WorkerExit::Signaled(99), "was killed by signal 99"),
        (WorkerExit::Exited(3), "exited with status 3"),
        (WorkerExit::TimedOut, "did not stop when told"),
        (WorkerExit::Panicked("boom".into()), "panicked: boom"),
        (
            WorkerExit::WaitFailed("gone".into()),
            "exit status is unknown: gone",
        ),
    ] {
        let dead = WorkerReport::sentinel(7, "SpinWait", exit);
        let idle = WorkerReport {
            work_units: 0,
            iterations: 0,
            ..good(6)
        };
        let result = judge(
            Assert::DEFAULT,
            &[cgroup("a", "0-2", vec![idle, dead, good(8)])],
        );
        let check = find(&result, "progress");
        assert_eq!(check.outcome, Outcome::Fail);
        assert!(check.detail.contains(told), "{}", check.detail);
        assert_eq!(check.value, Some(2.0));
        assert_eq!(check.subject.worker, Some(7), "the dead one is the worst");
        assert_eq!(check.subject.cgroup.as_deref(), Some("a"));
    }
}

#[test]
fn a_worker_that_worked_and_then_died_fails_progress() {
    let mut panicked = good(6);
    panicked.exit = WorkerExit::Panicked("late".into());
    let result = judge(
        Assert::DEFAULT,
        &[cgroup("a", "0-1", vec![good(5), panicked])],
    );
    assert_eq!(outcome(&result, "progress"), Outcome::Fail);
}

#[test]
fn a_worker_without_work_fails_progress() {
    let idle = WorkerReport {
        work_units: 0,
        iterations: 0,
        ..good(6)
    };
    let result = judge(Assert::DEFAULT, &[cgroup("a", "0-1", vec![good(5), idle])]);
    let check = find(&result, "progress");
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!(check.subject.worker, Some(6));
}

#[test]
fn a_worker_outside_its_cpuset_fails_isolation() {
    let stray = WorkerReport {
        cpus_used: cpus("1,3-4"),
        ..good(9)
    };
    let result = judge(Assert::DEFAULT, &[cgroup("a", "0-1", vec![good(8), stray])]);
    let check = find(&result, "isolation");
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!((check.value, check.subject.cpu), (Some(2.0), Some(3)));
    assert_eq!(
        check.detail,
        "worker 9 (SpinWait) of cgroup `a` ran on CPUs 3-4, outside its cgroup's CPUs 0-1"
    );
}

#[test]
fn an_unknown_cpuset_leaves_isolation_open() {
    let mut unknown = cgroup("a", "0", vec![good(1)]);
    unknown.cpuset = None;
    let result = judge(Assert::DEFAULT, &[unknown]);
    assert_eq!(outcome(&result, "isolation"), Outcome::Inconclusive);
}

#[test]
fn gaps_are_held_to_the_bound_and_the_engines_allowance() {
    let slow = WorkerReport {
        max_gap_ns: 120 * MS,
        max_gap_cpu: 1,
        max_gap_at_ns: 500 * MS,
        ..good(4)
    };
    let cgroups = [cgroup("a", "0-1", vec![good(3), slow])];
    let assert = Assert::DEFAULT.max_gap_ms(100);
    let check = find(&judge(assert, &cgroups), "max_gap_ms").clone();
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!((check.value, check.bound), (Some(120.0), Some(100.0)));
    assert_eq!(
        (check.subject.worker, check.subject.cpu),
        (Some(4), Some(1))
    );

    let timing = TimingSlack {
        gap_ms: 50,
        spread_pct: 0.0,
        why: "CPUs are emulated".into(),
    };
    let check = find(&judge_workers(&assert, &timing, &cgroups), "max_gap_ms").clone();
    assert_eq!(check.outcome, Outcome::Pass);
    assert!(
        check
            .detail
            .ends_with("150 ms (100 ms, and 50 ms because CPUs are emulated)"),
        "{}",
        check.detail
    );
}

#[test]
fn only_dead_workers_leave_gaps_open() {
    let dead = WorkerReport::sentinel(1, "SpinWait", WorkerExit::TimedOut);
    let result = judge(Assert::DEFAULT, &[cgroup("a", "0", vec![dead])]);
    assert_eq!(outcome(&result, "max_gap_ms"), Outcome::Inconclusive);
    assert_eq!(result.outcome(), Outcome::Fail, "progress decides");
}

/// Two workers, one of them off the CPU for half of its time.
fn uneven() -> Vec<WorkerReport> {
    let starved = WorkerReport {
        cpu_time_ns: 500 * MS,
        ..good(2)
    };
    vec![good(1), starved]
}

#[test]
fn uneven_shares_fail_the_spread() {
    let cgroups = [cgroup("a", "0-1", uneven())];
    let check = find(&judge(Assert::DEFAULT, &cgroups), "max_spread_pct").clone();
    assert_eq!(check.outcome, Outcome::Fail);
    assert_eq!((check.value, check.subject.worker), (Some(50.0), Some(2)));
    let wide = Assert::DEFAULT.max_spread_pct(50.0);
    assert_eq!(
        outcome(&judge(wide, &cgroups), "max_spread_pct"),
        Outcome::Pass
    );
    let timing = TimingSlack {
        spread_pct: 40.0,
        ..TimingSlack::default()
    };
    let result = judge_workers(&Assert::DEFAULT, &timing, &cgroups);
    assert_eq!(outcome(&result, "max_spread_pct"), Outcome::Pass);
}

#[test]
fn workers_of_different_types_or_cgroups_are_not_compared() {
    let other = WorkerReport {
        work_type: "Mixed".into(),
        cpu_demand: CpuDemand::Yielding,
        cpu_time_ns: 100 * MS,
        ..good(3)
    };
    let result = judge(
        Assert::DEFAULT,
        &[
            cgroup("a", "0-1", vec![good(1), other]),
            cgroup("b", "0-1", vec![good(4)]),
        ],
    );
    assert!(why_not(&result, "max_spread_pct").contains("has one SpinWait worker"));
    assert_eq!(result.outcome(), Outcome::Pass);
}

#[test]
fn the_default_spread_is_left_out_where_shares_cant_be_equal() {
    let sleeper = |mut worker: WorkerReport| {
        worker.work_type = "PipeIo".into();
        worker.cpu_demand = CpuDemand::Sleeping;
        worker
    };
    let three = || vec![good(1), good(2), good(3)];
    let cases = [
        (vec![cgroup("a", "0-1", three())], "3 workers on the 2 CPUs"),
        (
            vec![cgroup("a", "0-3", uneven()), cgroup("b", "0-1", three())],
            "shares some of its CPUs with cgroup `b` but not all",
        ),
        (
            vec![cgroup(
                "a",
                "0-1",
                uneven().into_iter().map(sleeper).collect(),
            )],
            "sleep voluntarily",
        ),
    ];
    for (cgroups, told) in cases {
        let result = judge(Assert::DEFAULT, &cgroups);
        let why = why_not(&result, "max_spread_pct");
        assert!(why.contains(told), "{why}");
        // A bound of the test's own is judged all the same.
        let asked = judge(Assert::DEFAULT.max_spread_pct(1.0), &cgroups);
        find(&asked, "max_spread_pct");
    }
}

#[test]
fn the_tests_own_spread_with_one_worker_is_inconclusive() {
    let cgroups = [cgroup("a", "0", vec![good(1)])];
    let result = judge(Assert::DEFAULT.max_spread_pct(10.0), &cgroups);
    assert_eq!(outcome(&result, "max_spread_pct"), Outcome::Inconclusive);
}

#[test]
fn wake_latency_is_held_to_its_bound_or_left_open_without_samples() {
    let assert = Assert::DEFAULT.max_p99_wake_latency_ns(5_000);
    let mut waker = good(1);
    let judge_one =
        |worker: &WorkerReport| judge(assert, &[cgroup("a", "0", vec![worker.clone()])]);
    let check = "max_p99_wake_latency_ns";
    assert_eq!(outcome(&judge_one(&waker), check), Outcome::Inconclusive);
    waker.wake_latency.samples = 3;
    waker.wake_latency.p99_ns = 5_000;
    assert_eq!(outcome(&judge_one(&waker), check), Outcome::Pass);
    waker.wake_latency.p99_ns = 5_001;
    assert_eq!(outcome(&judge_one(&waker), check), Outcome::Fail);
}

#[test]
fn the_iteration_rate_is_per_cpu_time() {
    // Half a second of CPU time for 1000 iterations: 2000 a second.
    let cgroups = [cgroup("a", "0-1", uneven())];
    let at = |bound| {
        outcome(
            &judge(Assert::DEFAULT.min_iteration_rate(bound), &cgroups),
            "min_iteration_rate",
        )
    };
    assert_eq!(at(1000.0), Outcome::Pass);
    assert_eq!(at(1000.5), Outcome::Fail);
    let never_ran = WorkerReport {
        cpu_time_ns: 0,
        ..good(1)
    };
    let result = judge(
        Assert::DEFAULT.min_iteration_rate(1.0),
        &[cgroup("a", "0", vec![never_ran])],
    );
    assert_eq!(
        outcome(&result, "min_iteration_rate"),
        Outcome::Inconclusive
    );
}

#[test]
fn work_is_counted_per_cpu_time() {
    // 1.024 million units in a second of CPU time.
    let judged = |bound: f64, worker: WorkerReport| {
        let assert = Assert::DEFAULT.min_work_rate(bound);
        let result = judge(assert, &[cgroup("a", "0", vec![worker])]);
        find(&result, "min_work_rate").clone()
    };
    assert_eq!(judged(1_024_000.0, good(1)).outcome, Outcome::Pass);
    let failed = judged(1_024_001.0, good(1));
    assert_eq!(failed.outcome, Outcome::Fail);
    assert_eq!(
        failed.detail,
        "worker 1 (SpinWait) of cgroup `a`: units of work per second of CPU time is 1024000; the least allowed is \
         1024001"
    );
    let never_ran = WorkerReport {
        cpu_time_ns: 0,
        ..good(1)
    };
    assert_eq!(judged(1.0, never_ran).outcome, Outcome::Inconclusive);
}

#[test]
fn migrations_are_per_iteration() {
    let mut worker = good(1);
    worker.migrations = 10;
    let assert = Assert::DEFAULT.max_migration_ratio(0.01);
    let judge_one =
        |worker: &WorkerReport| judge(assert, &[cgroup("a", "0", vec![worker.clone()])]);
    let check = "max_migration_ratio";
    assert_eq!(outcome(&judge_one(&worker), check), Outcome::Pass);
    worker.migrations = 11;
    assert_eq!(outcome(&judge_one(&worker), check), Outcome::Fail);
    worker.iterations = 0;
    assert_eq!(outcome(&judge_one(&worker), check), Outcome::Inconclusive);
}

#[test]
fn throughput_varies_within_its_bound() {
    // 1.024 and 2.048 units a microsecond: mean 1.536, deviation 0.512, a third of it.
    let cgroups = [cgroup("a", "0-1", uneven())];
    let at = |bound| {
        outcome(
            &judge(Assert::DEFAULT.max_throughput_cv(bound), &cgroups),
            "max_throughput_cv",
        )
    };
    assert_eq!(at(0.34), Outcome::Pass);
    assert_eq!(at(0.33), Outcome::Fail);
    for workers in [
        vec![good(1)],
        vec![
            WorkerReport {
                work_units: 0,
                ..good(1)
            },
            WorkerReport {
                work_units: 0,
                ..good(2)
            },
        ],
    ] {
        let result = judge(
            Assert::DEFAULT.max_throughput_cv(1.0),
            &[cgroup("a", "0-1", workers)],
        );
        assert_eq!(outcome(&result, "max_throughput_cv"), Outcome::Inconclusive);
    }
}

#[test]
fn every_declared_cpu_must_be_online() {
    let topology = Topology::new(1, 2, 2, 1).unwrap();
    let log = "6,0,1,-;Linux version 7.3.4\n";
    let fine = judge_machine(&Assert::DEFAULT, &topology, &cpus("0-3"), log);
    assert_eq!(fine.outcome(), Outcome::Pass, "{fine:#?}");
    let result = judge_machine(&Assert::DEFAULT, &topology, &cpus("0,2"), log);
    let check = find(&result, "cpus_online");
    assert_eq!((check.outcome, check.subject.cpu), (Outcome::Fail, Some(1)));
    assert!(
        check.detail.starts_with("CPUs 1,3 are not online"),
        "{}",
        check.detail
    );
}

#[test]
fn a_complaint_of_the_kernel_fails_and_is_quoted() {
    let log = "6,0,1,-;Linux version 7.3.4\n4,1,2,-;BUG: workqueue lockup - pool cpus=0\n4,2,3,-;BUG: again\n";
    let result = judge_machine(&Assert::DEFAULT, &Topology::SINGLE, &cpus("0"), log);
    let check = find(&result, "kernel_log");
    assert_eq!((check.outcome, check.value), (Outcome::Fail, Some(2.0)));
    assert!(
        check
            .detail
            .contains("`BUG: workqueue lockup - pool cpus=0` (the first of 2"),
        "{}",
        check.detail
    );
    let empty = judge_machine(&Assert::DEFAULT, &Topology::SINGLE, &cpus("0"), "");
    assert_eq!(outcome(&empty, "kernel_log"), Outcome::Inconclusive);
}
