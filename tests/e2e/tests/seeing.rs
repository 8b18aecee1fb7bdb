//! What the host sees of the kernel: snapshots that a test asks for, and the dump of one that fails.

use std::sync::atomic::{AtomicBool, Ordering};

use e2e::Again;
use ktstr::Observation;
use ktstr::prelude::*;
use ktstr_report::{SchedulerEnd, Sidecar};
use serde_json::Value;

declare_scheduler!(KTSTR, {
    name = "ktstr",
    binary = "scx_ktstr",
    topology = (1, 1, 2, 1),
    sched_args = ["--timeout-ms", "5000"],
});

#[ktstr_test(scheduler = KTSTR, duration_s = 3, num_snapshots = 3, post_vm = judge_snapshots)]
fn snapshots_show_the_scheduler_at_work(ctx: &Ctx) -> Result<AssertResult> {
    ctx.capture_snapshot("before the load")?;
    let result = scenarios::steady(ctx)?;
    ctx.capture_snapshot("after the load")?;
    Ok(result)
}

fn judge_snapshots(vm: &VmResult) -> Result<AssertResult> {
    let labels: Vec<&str> = vm
        .observation
        .snapshots
        .iter()
        .map(|moment| moment.label.as_str())
        .collect();
    ensure!(labels.len() == 5, "the snapshots are {labels:?}");
    ensure!(labels[0] == "before the load" && labels[4] == "after the load");
    let kernel = &vm
        .snapshot("periodic 3")
        .context("the second periodic one")?
        .kernel;
    let scx = kernel.sched_ext.as_ref().map_err(Clone::clone)?;
    ensure!(scx.ops.as_deref() == Some("ktstr"), "{scx:?}");
    let cpus = kernel.cpus.as_ref().map_err(Clone::clone)?;
    let workers = cpus
        .iter()
        .flat_map(|cpu| cpu.running.iter().chain(&cpu.waiting));
    ensure!(workers.clone().any(|task| task.class == "ext"), "{cpus:?}");

    let mut result = AssertResult::default();
    let enqueued = vm.global_series("nr_enqueued");
    result.push(enqueued.nondecreasing());
    result.push(enqueued.always("at least 1 from the load on", |count| count >= 0.0));
    let clock = vm.observation.series("clock of CPU 0", "ns", |sample| {
        u32::try_from(sample.rq(0)?.clock_ns / 1_000_000)
            .ok()
            .map(f64::from)
    });
    result.push(clock.nondecreasing());
    Ok(result)
}

/// A snapshot is of the moment in which it is asked for: the task that asks still runs then, beside one that is busy.
#[ktstr_test(llcs = 1, cores = 2, duration_s = 1, post_vm = judge_who_asked)]
fn who_asks_for_a_snapshot_runs_in_it(ctx: &Ctx) -> Result<AssertResult> {
    std::fs::write("/proc/thread-self/comm", ASKER)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = std::thread::Builder::new().name(BUSY.to_owned());
        busy.spawn_scoped(scope, || {
            while !done.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })?;
        let taken = (0..SNAPSHOTS).try_for_each(|number| ctx.capture_snapshot(&number.to_string()));
        done.store(true, Ordering::Relaxed);
        Ok(taken?)
    })
    .map(|()| AssertResult::default())
}

const ASKER: &str = "asker";
const BUSY: &str = "busy";
const SNAPSHOTS: usize = 10;

fn judge_who_asked(vm: &VmResult) -> Result<()> {
    let snapshots = &vm.observation.snapshots;
    ensure!(snapshots.len() == SNAPSHOTS, "{snapshots:?}");
    let mut beside_busy = 0;
    for snapshot in snapshots {
        let cpus = snapshot.kernel.cpus.as_ref().map_err(Clone::clone)?;
        let running = cpus.iter().filter_map(|cpu| cpu.running.as_ref());
        let running: Vec<&str> = running.map(|task| task.comm.as_str()).collect();
        ensure!(running.contains(&ASKER), "{}: {cpus:?}", snapshot.label);
        beside_busy += usize::from(running.contains(&BUSY));
    }
    // The busy one may be off its CPU for a kernel thread.
    ensure!(beside_busy > SNAPSHOTS / 2, "{snapshots:?}");
    judge_samples(vm)
}

/// Samples at the pauses of the guest are of the same moments as the snapshots.
fn judge_samples(vm: &VmResult) -> Result<()> {
    let Observation {
        recording,
        snapshots,
        ..
    } = &vm.observation;
    if recording.interval_ns > 0 {
        return Ok(());
    }
    // The last one is for the failure dump, at the end of the body.
    ensure!(recording.samples.len() == SNAPSHOTS + 1, "{recording:?}");
    for (sample, snapshot) in recording.samples.iter().zip(snapshots) {
        let cpus = snapshot.kernel.cpus.as_ref().map_err(Clone::clone)?;
        for (number, cpu) in cpus.iter().enumerate() {
            let rq = sample.rq(number).context("a runqueue")?;
            ensure!(rq.clock_ns == cpu.clock_ns, "{sample:?} {cpu:?}");
        }
    }
    Ok(())
}

#[test]
fn with_the_guests_clock_there_is_a_sample_at_each_pause_and_none_between() {
    let pauses = [("KTSTR_MONITOR", "pauses")];
    let Again { sidecar, text, .. } = e2e::run_again("who_asks_for_a_snapshot_runs_in_it", &pauses);
    assert_eq!(sidecar.outcome, Outcome::Pass, "{text}");
}

/// Tests whose report is read by the tests below.
mod victims {
    use super::*;

    #[ktstr_test(scheduler = KTSTR, duration_s = 30, extra_sched_args = ["--fault", "stall-one"])]
    #[ignore = "fails on purpose"]
    fn stalls(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(max_imbalance_ratio = 1.5, duration_s = 4, llcs = 1, cores = 2)]
    #[ignore = "fails on purpose"]
    fn is_uneven(ctx: &Ctx) -> Result<AssertResult> {
        let one = CpuSet::from_range(0..1);
        let heap = CgroupDef::named("heap")
            .workers(4)
            .cpuset(CpusetSpec::Exact(one));
        Ok(execute_defs(ctx, vec![heap])?)
    }

    #[ktstr_test(post_vm = refuse, duration_s = 0.5)]
    #[ignore = "fails on purpose"]
    fn is_refused_afterwards(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    fn refuse(_: &VmResult) -> Result<()> {
        bail!("seen enough")
    }
}

/// A victim's sidecar, printed report, and failure dump.
fn run(name: &str) -> (Sidecar, String, Value) {
    let Again {
        sidecar,
        text,
        dump,
    } = e2e::run_again(&format!("victims::{name}"), &[]);
    assert!(!sidecar.outcome.is_green(), "{text}");
    let dump = dump.unwrap_or_else(|| panic!("no dump: {text}"));
    (sidecar, text, serde_json::from_slice(&dump).expect("JSON"))
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// The variables in `.bss` of the scheduler at a moment of the dump.
fn bss(moment: &Value) -> &Value {
    let maps = moment["kernel"]["maps"]["Ok"].as_array().expect("maps");
    let globals =
        |map: &&Value| map["name"] == ".bss" && !map["content"]["Ok"]["globals"].is_null();
    let of_ours = |map: &&Value| !map["content"]["Ok"]["globals"]["victim_pid"].is_null();
    let map = maps
        .iter()
        .filter(globals)
        .find(of_ours)
        .expect("a .bss with our variables");
    &map["content"]["Ok"]["globals"]
}

/// There the memory is that of this process, not of QEMU's.
#[test]
fn on_our_own_microvm_the_host_sees_the_same() {
    let sidecar = e2e::run_nested("snapshots_show_the_scheduler_at_work");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
    let scheduler = sidecar.scheduler.as_ref().expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::Attached);
    assert_eq!(scheduler.ops.as_deref(), Some("ktstr"));
    // Bounds of the monitor, and what post_vm made of the snapshots.
    for name in ["max_local_dsq_depth", "nr_enqueued: nondecreasing"] {
        let mut checks = sidecar.result.with_outcome(Outcome::Pass);
        assert!(checks.any(|check| check.check == name), "{sidecar:#?}");
    }
}

/// Both vCPUs of a moment have a place: "user space" below the kernel's half, and in the kernel a function, or
/// none in a module or BPF program. Where they are is luck.
fn assert_places(moment: &Value) {
    let vcpus = moment["vcpus"]["Ok"].as_array().expect("vCPUs");
    assert_eq!(vcpus.len(), 2);
    for vcpu in vcpus {
        let rip = vcpu["rip"].as_str().expect("hexadecimal");
        match vcpu["place"].as_str() {
            Some("user space") => assert!(!rip.starts_with("0xffff"), "{vcpu}"),
            Some(function) => assert!(!function.is_empty() && rip.starts_with("0xffff"), "{vcpu}"),
            None => assert!(rip.starts_with("0xffff"), "{vcpu}"),
        }
    }
}

#[test]
fn failure_dump_renders_bss_fields() {
    let (sidecar, text, dump) = run("stalls");
    assert_eq!(dump["schema"], 1);
    let moments = dump["moments"].as_array().expect("moments");
    let first = moments.first().expect("a moment");
    let victim = bss(first)["victim_pid"].as_i64().expect("a number");
    assert!(victim > 0, "{first:#}");
    assert_eq!(bss(first)["fault"], 1);
    assert_eq!(bss(first)["workers_seen"], true);
    // The first moment is before the kernel's watchdog acts: the stuck task is the scheduler's victim.
    contains(
        &text,
        &[
            &format!("victim_pid = {victim}"),
            &format!("[{victim}] had been runnable for"),
            "longest waiting: ",
            "sched_ext: enabled, ops ktstr",
            "full dump",
        ],
    );
    let label = first["label"].as_str().expect("a label");
    contains(
        label,
        &[
            &format!("[{victim}] had been runnable for"),
            "ms without running",
        ],
    );
    // And then: the scheduler had gone, but its variables had not.
    let gone = moments
        .iter()
        .find(|moment| moment["label"] == "when the scheduler was found to be gone");
    assert_eq!(
        bss(gone.expect("a later moment"))["victim_pid"].as_i64(),
        Some(victim)
    );
    assert_places(first);
    assert_eq!(dump["scheduler"]["end"], "stalled");
    assert!(sidecar.failure_maps.contains("victim_pid"));
}

#[test]
fn a_bound_of_the_monitor_is_enforced_and_dumped() {
    let (sidecar, text, dump) = run("is_uneven");
    let failed: Vec<&CheckResult> = sidecar.result.with_outcome(Outcome::Fail).collect();
    let [imbalance] = failed[..] else {
        panic!("not one check: {text}");
    };
    assert_eq!(imbalance.check, "max_imbalance_ratio", "{text}");
    // Four workers on one CPU, and what else of the kernel was awake there at the worst moment.
    let ratio = imbalance.value.expect("a number");
    assert!(ratio >= 4.0, "{text}");
    let moment = &dump["moments"][0];
    assert_eq!(moment["label"], "at the end of the test's body");
    assert_places(moment);
    let words = format!("the busiest CPU had up to {ratio:.1} times as many runnable tasks");
    contains(&text, &[&words]);
}

#[test]
fn a_bound_that_nobody_watches_is_inconclusive() {
    let Again { sidecar, text, .. } =
        e2e::run_again("victims::is_uneven", &[("KTSTR_MONITOR", "off")]);
    assert_eq!(sidecar.outcome, Outcome::Inconclusive, "{text}");
    contains(&text, &["max_imbalance_ratio", "KTSTR_MONITOR is `off`"]);
}

#[test]
fn an_error_of_post_vm_fails_the_test() {
    let (_, text, _) = run("is_refused_afterwards");
    contains(&text, &["post_vm returned an error: seen enough"]);
}
