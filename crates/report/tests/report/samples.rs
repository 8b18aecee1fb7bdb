//! Sidecars as a host would write them.

use ktstr_report::{
    AssertResult, BootAttempt, CgroupReport, CheckResult, EngineInfo, Failure, FailureKind,
    KernelExit, KernelInfo, NotChecked, Outcome, SCHEMA_VERSION, SchedulerEnd, SchedulerReport,
    Sidecar, Subject, Timings, WakeLatency, WorkerExit, WorkerReport,
};
use ktstr_topology::Topology;

pub(crate) const RUN: &str = "20260102T030405.678Z-1f3a-9c0b1d2e";

/// A test that passed, with one check that was not judged.
pub(crate) fn pass(test: &str) -> Sidecar {
    let checks = [
        "workers_progress",
        "cpuset_respected",
        "max_gap_ms",
        "cpus_online",
        "dmesg_clean",
    ];
    Sidecar {
        scheduler: None,
        other_lives: Vec::new(),
        expected: None,
        schema: SCHEMA_VERSION,
        run_id: RUN.to_owned(),
        test: test.to_owned(),
        outcome: Outcome::Pass,
        failure: None,
        result: AssertResult {
            checks: checks.map(passed).into(),
            not_checked: vec![not_checked("max_spread_pct", "one worker in the cgroup")],
            cgroups: vec![cgroup("cg_0", "0-1", vec![worker(71), worker(72)])],
            ..AssertResult::default()
        },
        kernel: Some(KernelInfo {
            release: "7.3.4+deb13-cloud-amd64".to_owned(),
            key: "debian-7.3.4-1-cloud-amd64".to_owned(),
            source: "Debian trixie-backports 7.3.4-1".to_owned(),
        }),
        engine: Some(EngineInfo {
            name: "tcg".to_owned(),
            detail: "QEMU 7.2.22, one emulation thread".to_owned(),
        }),
        topology: Topology::new(1, 2, 2, 1).unwrap(),
        memory_mib: 512,
        numa: None,
        kaslr: false,
        started_unix_ms: 1_767_323_045_678,
        timings: Timings {
            prepare_ms: 12,
            queued_ms: 0,
            boot_ms: 2_400,
            test_ms: 2_700,
            teardown_ms: 88,
            total_ms: 5_200,
        },
        engine_memory_bytes: None,
        boot_retries: Vec::new(),
        console_tail: "[    2.1] Run /init as init process\n[    4.9] reboot: Power down\n"
            .to_owned(),
        output: "two workers released\n".to_owned(),
        cause: String::new(),
        failure_dump: String::new(),
        failure_maps: String::new(),
        remarks: Vec::new(),
    }
}

/// A check did not hold, another had no signal, and a worker sent no report.
pub(crate) fn check_failed(test: &str) -> Sidecar {
    let mut sidecar = pass(test);
    sidecar.outcome = Outcome::Fail;
    sidecar.result.checks[2] = CheckResult {
        check: "max_gap_ms".to_owned(),
        outcome: Outcome::Fail,
        value: Some(3120.4),
        bound: Some(2000.0),
        unit: "ms".to_owned(),
        subject: Subject {
            cgroup: Some("cg_1".to_owned()),
            worker: Some(74),
            cpu: Some(2),
        },
        detail: "worker 74 made no progress for 3120.4 ms, from 1.2 s after the start".to_owned(),
    };
    sidecar.result.push(CheckResult {
        outcome: Outcome::Inconclusive,
        detail: "no worker measured a wake-up".to_owned(),
        ..passed("max_p99_wake_latency_ns")
    });
    let mut starved = worker(74);
    starved.max_gap_ns = 3_120_400_000;
    starved.cpu_time_ns = 412_000_000;
    starved.wake_latency = WakeLatency {
        samples: 40,
        p50_ns: 90_000,
        p99_ns: 2_500_000,
        max_ns: 11_000_000,
    };
    let killed = WorkerReport::sentinel(75, "SpinWait", WorkerExit::Signaled(9));
    sidecar
        .result
        .cgroups
        .push(cgroup("cg_1", "2-3", vec![starved, killed]));
    sidecar
        .result
        .notes
        .push("the cpuset of cg_1 was changed at 1.0 s".to_owned());
    sidecar
        .remarks
        .push("1 frame failed its checksum".to_owned());
    sidecar
}

/// The guest kernel panicked.
pub(crate) fn guest_died(test: &str) -> Sidecar {
    let mut sidecar = pass(test);
    sidecar.outcome = Outcome::Fail;
    sidecar.result = AssertResult::default();
    sidecar.failure = Some(Failure {
        kind: FailureKind::Guest,
        summary: "kernel panic: sysrq triggered crash".to_owned(),
        detail: "the machine was reset 1.3 s after the test began\nno result had arrived"
            .to_owned(),
    });
    sidecar.output = "\u{1b}[2Jabout to crash\r\n".to_owned();
    sidecar.console_tail = (1..=70)
        .map(|line| format!("[    3.{line:02}] line {line} of the console\r\n"))
        .collect::<String>()
        + "[    4.00] Kernel panic - not syncing: sysrq triggered crash\r\n";
    sidecar
}

/// The harness failed before there was a kernel or an engine.
pub(crate) fn harness_failed(test: &str) -> Sidecar {
    let mut sidecar = guest_died(test);
    sidecar.failure = Some(Failure {
        kind: FailureKind::Harness,
        summary: "can't pack the initramfs".to_owned(),
        detail: "1. can't read /lib/x.so\n2. Permission denied (os error 13)".to_owned(),
    });
    sidecar.kernel = None;
    sidecar.engine = None;
    sidecar.output.clear();
    sidecar.console_tail.clear();
    sidecar
}

/// This host can't run the test.
pub(crate) fn host_unfit(test: &str) -> Sidecar {
    let mut sidecar = harness_failed(test);
    sidecar.failure = Some(Failure {
        kind: FailureKind::Host,
        summary: "qemu-system-x86_64 is not installed".to_owned(),
        detail: "install it with: apt-get install qemu-system-x86".to_owned(),
    });
    sidecar
}

/// It ran, but nothing was judged.
pub(crate) fn inconclusive(test: &str) -> Sidecar {
    let mut sidecar = pass(test);
    sidecar.outcome = Outcome::Inconclusive;
    sidecar.result.checks.clear();
    sidecar
}

/// It decided not to run.
pub(crate) fn skipped(test: &str) -> Sidecar {
    let mut sidecar = pass(test);
    sidecar.outcome = Outcome::Skip;
    sidecar.result = AssertResult::skip("the kernel has no sched_ext");
    sidecar
}

/// It passed after a boot that died.
pub(crate) fn retried(test: &str) -> Sidecar {
    let mut sidecar = pass(test);
    sidecar.boot_retries.push(BootAttempt {
        end: "kernel panic: Oops: int3".to_owned(),
        console_tail: "[    0.4] Oops: int3: 0000\n".to_owned(),
        fault: "a vCPU met a breakpoint that the kernel had patched away (Oops: int3)".to_owned(),
    });
    sidecar
}

pub(crate) fn not_checked(check: &str, why: &str) -> NotChecked {
    NotChecked {
        check: check.to_owned(),
        why: why.to_owned(),
    }
}

fn passed(check: &str) -> CheckResult {
    CheckResult {
        check: check.to_owned(),
        outcome: Outcome::Pass,
        value: None,
        bound: None,
        unit: String::new(),
        subject: Subject::default(),
        detail: String::new(),
    }
}

fn cgroup(name: &str, cpus: &str, workers: Vec<WorkerReport>) -> CgroupReport {
    CgroupReport::new(name, Some(cpus.parse().unwrap()), workers)
}

fn worker(pid: i32) -> WorkerReport {
    WorkerReport {
        work_units: 90_000,
        iterations: 1_800,
        wall_time_ns: 2_000_000_000,
        cpu_time_ns: 1_960_000_000,
        run_delay_ns: Some(12_500_000),
        run_count: Some(310),
        max_gap_ns: 4_100_000,
        migrations: 3,
        ..WorkerReport::sentinel(pid, "SpinWait", WorkerExit::Completed)
    }
}

/// Disabled by the watchdog.
pub(crate) fn stalled(test: &str) -> Sidecar {
    let exit = KernelExit {
        kind: Some(1026),
        reason: "runnable task stall".to_owned(),
        message: "SpinWait[108] failed to run for 5.020s".to_owned(),
        uptime_ms: Some(9_408),
    };
    let report = SchedulerReport {
        exits: vec![exit.clone()],
        enables: Some(1),
        name: "ktstr".to_owned(),
        command: "/ktstr/scheduler/scx_ktstr --fault stall-one".to_owned(),
        ops: Some("ktstr".to_owned()),
        attach_ms: Some(680),
        end: SchedulerEnd::Stalled,
        detail: "its process ended with exit status 1".to_owned(),
        exit: Some(exit),
        dump: "CPU states\n----------\n\nCPU 0   : nr_run=1\n".to_owned(),
        log: "scx_ktstr: attached as \"ktstr\"\n".to_owned(),
        ..SchedulerReport::default()
    };
    let mut sidecar = pass(test);
    sidecar.outcome = Outcome::Fail;
    sidecar.result.push(CheckResult {
        check: "scheduler_alive".to_owned(),
        outcome: Outcome::Fail,
        value: None,
        bound: None,
        unit: String::new(),
        subject: Subject::default(),
        detail: report.sentence(),
    });
    sidecar.scheduler = Some(report);
    sidecar
}

/// Disabled as a CPU went offline, and loaded again by its process.
pub(crate) fn reloaded(test: &str) -> Sidecar {
    let exit = |reason: &str, message: &str, kind, uptime_ms| KernelExit {
        kind: Some(kind),
        reason: reason.to_owned(),
        message: message.to_owned(),
        uptime_ms: Some(uptime_ms),
    };
    let by_the_kernel = "unregistered from the main kernel";
    let exits = vec![
        exit(
            by_the_kernel,
            "cpu 3 going offline, exiting scheduler",
            66,
            12_780,
        ),
        exit(
            by_the_kernel,
            "expected hotplug seq 4 did not match actual 5",
            66,
            16_203,
        ),
        exit("unregistered from user space", "", 64, 19_015),
    ];
    let mut sidecar = stalled(test);
    let report = SchedulerReport {
        name: "rusty".to_owned(),
        command: "/ktstr/scheduler/scx_rusty".to_owned(),
        ops: Some("rusty_1.1.4".to_owned()),
        attach_ms: Some(3_520),
        end: SchedulerEnd::Reloaded,
        exit: KernelExit::decisive(&exits).cloned(),
        exits,
        enables: Some(2),
        log: "Running scx_rusty\n".to_owned(),
        ..SchedulerReport::default()
    };
    let alive = sidecar.result.checks.last_mut().unwrap();
    alive.detail = report.sentence();
    sidecar.scheduler = Some(report);
    sidecar
}
