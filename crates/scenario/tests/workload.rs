//! Workers on the machine that the tests run on: how they begin, work, stop and die.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_scenario::workload::{Gate, WorkloadError, in_worker};
use ktstr_scenario::{
    CloneMode, CpuDemand, CpuSet, SchedPolicy, WorkType, WorkerControl, WorkerExit, WorkerReport,
    WorkloadConfig, WorkloadHandle,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ALL: [WorkType; 7] = [
    WorkType::SpinWait,
    WorkType::YieldHeavy,
    WorkType::Mixed,
    WorkType::Bursty {
        on: Duration::from_millis(5),
        off: Duration::from_millis(5),
    },
    WorkType::PipeIo,
    WorkType::FutexPingPong,
    WorkType::futex_fan_out(),
];

/// Far longer than anything here takes; a wait that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come true in {PATIENCE:?}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

fn spawn(work_type: WorkType, workers: usize, mode: CloneMode) -> WorkloadHandle {
    let mut config = WorkloadConfig::new(work_type, workers);
    config.clone_mode = mode;
    WorkloadHandle::spawn(config).unwrap()
}

fn all_iterate(handle: &WorkloadHandle, from: u64) {
    wait_for("every worker iterating", || {
        handle.snapshot_iterations().iter().all(|&done| done > from)
    });
}

/// Waits until the task has slept more often than just at the gate.
fn sleeps_often(tid: i32) {
    wait_for("the worker sleeping now and then", || {
        let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap() > 20
    });
}

/// State of a task that is there, as proc_pid_stat(5) has it.
fn state(tid: i32) -> char {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.chars().next().unwrap()
}

/// Whether the process is there and not a zombie.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some(None | Some('Z' | 'X')))
}

fn custom(name: &'static str, run: fn(&mut WorkerControl<'_>)) -> WorkType {
    WorkType::Custom { name, run }
}

#[test]
fn every_type_works_and_stops_as_process_and_as_thread() {
    for mode in [CloneMode::Fork, CloneMode::Thread] {
        for work_type in ALL {
            let workers = work_type.group_size().max(2);
            let mut handle = spawn(work_type, workers, mode);
            handle.start().unwrap();
            assert_eq!(handle.wait_running(), 0);
            all_iterate(&handle, 5);
            let sleeps = work_type.cpu_demand() == CpuDemand::Sleeping;
            if sleeps {
                handle.worker_tids().into_iter().for_each(sleeps_often);
            }
            let asked = Instant::now();
            let reports = handle.stop_and_collect().unwrap();
            assert!(
                asked.elapsed() < Duration::from_secs(4),
                "{work_type} stopped late"
            );
            assert_eq!(reports.len(), workers);
            for report in reports {
                assert_eq!(report.exit, WorkerExit::Completed, "{work_type} {mode:?}");
                assert_eq!(report.work_type, work_type.name());
                assert_eq!(report.cpu_demand, work_type.cpu_demand());
                assert!(report.iterations > 5 && report.work_units >= report.iterations);
                assert!(report.wall_time_ns > 0 && report.cpu_time_ns > 0);
                assert!(!report.cpus_used.is_empty());
                let wakes = report.wake_latency.samples;
                assert_eq!(wakes > 0, sleeps, "{work_type}: {wakes} wake-ups");
                if sleeps {
                    assert!(report.voluntary_switches > 0, "{work_type}");
                }
            }
        }
    }
}

#[test]
fn no_worker_works_before_the_gate_opens_and_then_all_do() {
    let gate = Gate::new().unwrap();
    let behind = |mode| {
        let mut config = WorkloadConfig::new(WorkType::SpinWait, 1);
        config.clone_mode = mode;
        WorkloadHandle::spawn_behind(config, &gate).unwrap()
    };
    let handles = [behind(CloneMode::Fork), behind(CloneMode::Thread)];
    for handle in &handles {
        let tid = handle.worker_tids()[0];
        // It sleeps at the gate: a worker at work never does.
        wait_for("the worker asleep", || state(tid) == 'S');
        assert_eq!(handle.snapshot_iterations(), [0]);
    }
    gate.open();
    for handle in handles {
        assert_eq!(handle.wait_running(), 0);
        all_iterate(&handle, 0);
        assert!(handle.stop_and_collect().unwrap()[0].completed());
    }
}

#[test]
fn collecting_what_was_never_started_starts_it() {
    let reports = spawn(WorkType::SpinWait, 2, CloneMode::Fork)
        .stop_and_collect()
        .unwrap();
    assert!(reports.iter().all(WorkerReport::completed), "{reports:?}");
}

#[test]
fn a_killed_worker_leaves_a_sentinel_and_its_partner_stops() {
    for work_type in [
        WorkType::SpinWait,
        WorkType::PipeIo,
        WorkType::FutexPingPong,
    ] {
        let mut handle = spawn(work_type, 2, CloneMode::Fork);
        handle.start().unwrap();
        all_iterate(&handle, 0);
        let victim = handle.worker_pids_for_cgroup_procs().unwrap()[0];
        if work_type.group_size() == 2 {
            // Stopped first, so that its partner waits for it when it dies.
            kill(Pid::from_raw(victim), Signal::SIGSTOP).unwrap();
            wait_for("the victim stopped", || state(victim) == 'T');
            let partner = handle.worker_tids()[1];
            wait_for("the partner waiting for it", || state(partner) == 'S');
        }
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        let killed = WorkerExit::Signaled(Signal::SIGKILL as i32);
        wait_for("the death being seen", || {
            handle.dead_workers() == [(victim, killed.clone())]
        });
        if work_type.group_size() == 2 {
            let partner = handle.worker_tids()[1];
            wait_for("the partner asleep, not spinning", || state(partner) == 'S');
        }
        let reports = handle.stop_and_collect().unwrap();
        assert_eq!((reports[0].pid, &reports[0].exit), (victim, &killed));
        assert_eq!(reports[0].iterations, 0);
        assert!(reports[1].completed(), "{work_type}: {:?}", reports[1].exit);
        assert!(reports[1].iterations > 0);
    }
}

#[test]
fn a_worker_that_aborts_is_told_from_one_that_was_stopped() {
    let aborts = custom("Aborts", |_| std::process::abort());
    let mut handle = spawn(aborts, 1, CloneMode::Fork);
    handle.start().unwrap();
    wait_for("the death being seen", || !handle.dead_workers().is_empty());
    let reports = handle.stop_and_collect().unwrap();
    assert_eq!(
        reports[0].exit,
        WorkerExit::Signaled(Signal::SIGABRT as i32)
    );
    assert_eq!(reports[0].work_type, "Aborts");
}

#[test]
fn a_panic_becomes_the_workers_report() {
    for mode in [CloneMode::Fork, CloneMode::Thread] {
        let panics = custom("Panics", |control| {
            assert!(in_worker());
            control.iteration(7);
            panic!("on {}", "purpose");
        });
        let mut handle = spawn(panics, 1, mode);
        handle.start().unwrap();
        wait_for("the panic being seen", || !handle.dead_workers().is_empty());
        let reports = handle.stop_and_collect().unwrap();
        assert_eq!(reports[0].exit, WorkerExit::Panicked("on purpose".into()));
        assert_eq!(reports[0].work_units, 7);
    }
    assert!(!in_worker());
}

#[test]
fn workers_that_do_not_stop_share_one_deadline_and_are_killed() {
    let stubborn = custom("Stubborn", |control| {
        loop {
            control.iteration(1);
            thread::sleep(Duration::from_millis(20));
        }
    });
    let mut handle = spawn(stubborn, 3, CloneMode::Fork);
    handle.start().unwrap();
    all_iterate(&handle, 0);
    let pids = handle.worker_tids();
    let asked = Instant::now();
    let reports = handle.stop_and_collect().unwrap();
    let took = asked.elapsed();
    assert!(
        took > Duration::from_secs(5) && took < Duration::from_secs(9),
        "one deadline of 5 s for all three, not {took:?}"
    );
    for report in &reports {
        assert_eq!(report.exit, WorkerExit::TimedOut);
    }
    assert!(pids.iter().all(|&pid| !runs(pid)));
}

/// Starts a helper process, reports its pid as its work, and works on.
fn with_helper(control: &mut WorkerControl<'_>) {
    let helper = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn();
    control.iteration(helper.map_or(0, |child| u64::from(child.id())));
    while control.sleep(Duration::from_millis(5)) {}
}

#[test]
fn what_a_worker_started_is_killed_with_it() {
    let mut handle = spawn(custom("Helper", with_helper), 1, CloneMode::Fork);
    handle.start().unwrap();
    all_iterate(&handle, 0);
    let reports = handle.stop_and_collect().unwrap();
    assert!(reports[0].completed());
    let helper = i32::try_from(reports[0].work_units).unwrap();
    assert!(helper > 0);
    wait_for("the helper being gone", || !runs(helper));
}

#[test]
fn dropping_a_workload_kills_its_workers_and_what_they_started() {
    let mut handle = spawn(custom("Helper", with_helper), 2, CloneMode::Fork);
    handle.start().unwrap();
    all_iterate(&handle, 0);
    let pids = handle.worker_tids();
    let children = |pid: i32| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect::<Vec<i32>>()
    };
    let helpers: Vec<i32> = pids.iter().flat_map(|&pid| children(pid)).collect();
    drop(handle);
    for pid in pids.into_iter().chain(helpers) {
        wait_for("the process being gone", || !runs(pid));
    }
}

#[test]
fn workloads_that_never_started_leave_nothing_behind() {
    for mode in [CloneMode::Fork, CloneMode::Thread] {
        let handle = spawn(WorkType::PipeIo, 2, mode);
        let tids = handle.worker_tids();
        assert!(tids.iter().all(|&tid| tid > 0));
        drop(handle);
        for tid in tids {
            wait_for("the worker being gone", || !runs(tid));
        }
    }
}

#[test]
fn a_bound_worker_stays_on_its_cpu() {
    let allowed = fs::read_to_string("/proc/self/status").unwrap();
    let list = allowed
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed: CpuSet = list.unwrap().parse().unwrap();
    let last = allowed.iter().last().unwrap();
    let only = CpuSet::from_range(last..last + 1);
    for mode in [CloneMode::Fork, CloneMode::Thread] {
        let mut handle = spawn(WorkType::Mixed, 2, mode);
        handle.set_affinity(1, &only).unwrap();
        handle.start().unwrap();
        all_iterate(&handle, 20);
        let reports = handle.stop_and_collect().unwrap();
        assert_eq!((&reports[1].cpus_used, reports[1].migrations), (&only, 0));
    }
    let handle = spawn(WorkType::SpinWait, 1, CloneMode::Fork);
    let nowhere = CpuSet::from_range(8000..8001);
    assert!(matches!(
        handle.set_affinity(0, &nowhere),
        Err(WorkloadError::Affinity { .. })
    ));
    assert!(matches!(
        handle.set_affinity(1, &only),
        Err(WorkloadError::NoSuchWorker {
            index: 1,
            workers: 1
        })
    ));
}

#[test]
fn names_and_niceness_reach_the_worker() {
    let mut config = WorkloadConfig::new(WorkType::SpinWait, 1);
    config.spec.comm = Some("a-long-name-of-a-worker".into());
    config.spec.nice = 7;
    config.spec.sched_policy = SchedPolicy::Batch;
    let mut handle = WorkloadHandle::spawn(config).unwrap();
    handle.start().unwrap();
    all_iterate(&handle, 0);
    let pid = handle.worker_tids()[0];
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (head, tail) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = tail.split(' ').collect();
    assert!(head.ends_with("(a-long-name-of-"), "{head}");
    // Fields 19 (nice) and 41 (policy) of proc_pid_stat(5); the first here is field 3.
    assert_eq!((fields[16], fields[38]), ("7", "3"));
}

#[test]
fn what_can_not_be_is_refused_before_anything_is_spawned() {
    let refuse = |change: fn(&mut WorkloadConfig)| {
        let mut config = WorkloadConfig::new(WorkType::SpinWait, 1);
        change(&mut config);
        WorkloadHandle::spawn(config).unwrap_err().to_string()
    };
    assert!(refuse(|c| c.workers = 0).starts_with("a workload of 0 workers"));
    assert_eq!(
        refuse(|c| (c.workers, c.spec.work_type) = (3, WorkType::FutexPingPong)),
        "3 workers of FutexPingPong, which works in groups of 2: ask for a multiple of 2"
    );
    assert!(refuse(|c| c.spec.nice = 20).starts_with("the niceness is 20"));
    assert!(refuse(|c| c.spec.sched_policy = SchedPolicy::Fifo(0)).contains("from 1 to 99"));
}

#[test]
fn threads_are_not_for_cgroup_procs() {
    let handle = spawn(WorkType::SpinWait, 1, CloneMode::Thread);
    assert!(matches!(
        handle.worker_pids_for_cgroup_procs(),
        Err(WorkloadError::ThreadsNotProcesses)
    ));
}
