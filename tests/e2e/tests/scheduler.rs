//! The scheduler's lifecycle, with our own scheduler: healthy, and with each fault that the lifecycle can see.
//!
//! Tests of faults expect them, so that they pass only if the fault is found, by its name. What a report says
//! when something else happens is read from victims, as in `faults`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use e2e::Again;
use ktstr::prelude::*;
use ktstr_report::{FailureKind, SchedulerEnd, Sidecar};

declare_scheduler!(KTSTR, {
    name = "ktstr",
    binary = "scx_ktstr",
    topology = (1, 2, 2, 1),
    checks = { cpu_share = off, cpu_quota = off },
});

// Shorter than the kernel's own 30 s, which a test that stalls would take.
declare_scheduler!(IMPATIENT, {
    name = "impatient",
    binary = "scx_ktstr",
    topology = (1, 1, 2, 1),
    sched_args = ["--timeout-ms", "5000"],
});

declare_scheduler!(ELSEWHERE, {
    name = "elsewhere",
    binary = "scx_ktstr",
    kernels = ["1.2"],
});

declare_scheduler!(GONE, {
    name = "gone",
    binary_path = "no/such/scx_gone",
});

declare_scheduler!(MISSPELT, {
    name = "misspelt",
    binary = "scx_kstr",
});

declare_scheduler!(MISNAMED, {
    name = "misnamed",
    binary = "scx_ktstr",
    ops = "other",
});

declare_scheduler!(SWITCHED_ON, {
    name = "switched-on",
    enable = "echo switching on, NO_COLOR=$NO_COLOR; echo 1 > /proc/sys/kernel/sched_schedstats",
    disable = "echo 0 > /proc/sys/kernel/sched_schedstats",
    is_enabled = "grep -q 1 /proc/sys/kernel/sched_schedstats",
});

declare_scheduler!(CELLS, {
    name = "cells",
    enable = "grep -q cpuset /sys/fs/cgroup/cells.slice/cgroup.subtree_control && touch /tmp/cells",
    disable = "rm /tmp/cells",
    is_enabled = "test -e /tmp/cells",
});

declare_scheduler!(NOTHING, {
    name = "nothing",
    enable = "true",
    disable = "true",
});

/// Folder of a crate that a test below writes.
const EDITED_CRATE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/scx-edited");

const EDITED: Scheduler = Scheduler::named("edited")
    .binary_discover("scx_edited")
    .declared_in(EDITED_CRATE);

#[ktstr_test(
    scheduler = IMPATIENT,
    watchdog_timeout_s = 8,
    num_snapshots = 1,
    post_vm = the_kernels_watchdog_has_the_tests_limit
)]
fn healthy_on_one_llc(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

/// What the host reads in the kernel, of a scheduler that sets 5 s itself.
fn the_kernels_watchdog_has_the_tests_limit(vm: &VmResult) -> Result<()> {
    for snapshot in &vm.observation.snapshots {
        let sched_ext = snapshot.kernel.sched_ext.as_ref();
        let timeout_ms = sched_ext.ok().and_then(|scx| scx.watchdog_timeout_ms);
        ensure!(timeout_ms == Some(8000), "{:?}", snapshot.kernel.sched_ext);
    }
    ensure!(!vm.observation.snapshots.is_empty(), "there is no snapshot");
    let checks = vm.sidecar.result.with_outcome(Outcome::Pass);
    let checks: Vec<&str> = checks.map(|check| check.check.as_str()).collect();
    ensure!(checks.contains(&"watchdog_timeout"), "{checks:?}");
    Ok(())
}

#[ktstr_test(scheduler = KTSTR)]
fn healthy_on_two_llcs(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady_llc(ctx)?)
}

#[ktstr_test(scheduler = KTSTR, llcs = 4, cores = 1)]
fn healthy_on_four_llcs(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::oversubscribed(ctx)?)
}

#[ktstr_test(
    scheduler = KTSTR,
    llcs = 1,
    duration_s = 30,
    extra_sched_args = ["--fault", "stall-one"],
    watchdog_timeout_s = 5,
    expect_err(stall)
)]
fn a_stalled_task_is_found(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

/// The last CPU is stranded, and two workers may run nowhere else.
#[ktstr_test(scheduler = IMPATIENT, duration_s = 30, extra_sched_args = ["--fault", "strand-cpu"], expect_err(stall))]
fn a_stranded_cpu_is_found(ctx: &Ctx) -> Result<AssertResult> {
    let last = CpuSet::from_range(1..2);
    let defs = vec![
        CgroupDef::named("stranded")
            .workers(2)
            .cpuset(CpusetSpec::Exact(last)),
    ];
    Ok(execute_defs(ctx, defs)?)
}

#[ktstr_test(
    scheduler = IMPATIENT,
    duration_s = 30,
    extra_sched_args = ["--fault", "error"],
    expect_err(scx_error(contains = "ktstr: dispatch gives up on CPU"))
)]
fn an_error_of_the_scheduler_is_found(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

#[ktstr_test(
    scheduler = IMPATIENT,
    duration_s = 30,
    extra_sched_args = ["--fault", "ignore-affinity"],
    expect_err(scx_error(contains = "not allowed for"))
)]
fn ignored_affinity_is_found_by_the_kernel(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("bound")
            .workers(2)
            .cpuset(CpusetSpec::Exact(CpuSet::from_range(0..1))),
    ];
    Ok(execute_defs(ctx, defs)?)
}

#[ktstr_test(
    scheduler = IMPATIENT,
    extra_sched_args = ["--fault", "never-load"],
    expect_err(load_failure(contains = "the kernel refused BPF_PROG_LOAD: EACCES"))
)]
fn a_scheduler_that_does_not_load_is_found(_: &Ctx) -> Result<AssertResult> {
    bail!("the body is not to run");
}

#[ktstr_test(
    scheduler = IMPATIENT,
    duration_s = 30,
    extra_sched_args = ["--fault", "crash"],
    expect_err(check(scheduler_alive))
)]
fn a_crash_of_its_process_is_found(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

#[ktstr_test(
    scheduler = KTSTR,
    llcs = 1,
    duration_s = 8,
    extra_sched_args = ["--fault", "starve-cgroup", "--starve-ms", "6000"],
    max_gap_ms = 1500,
    expect_err(check(max_gap_ms))
)]
fn a_starved_cgroup_is_found(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("fed").workers(2),
        CgroupDef::named("starved").workers(1),
    ];
    Ok(execute_defs(ctx, defs)?)
}

#[ktstr_test(
    scheduler = KTSTR,
    llcs = 1,
    cores = 1,
    duration_s = 5,
    extra_sched_args = ["--fault", "unfair-slices"],
    max_spread_pct = 10,
    expect_err(check(max_spread_pct))
)]
fn unfair_slices_are_found(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![CgroupDef::named("equals").workers(2)];
    Ok(execute_defs(ctx, defs)?)
}

/// A dozen workers wait in the local queue of one CPU, while the other is idle.
#[ktstr_test(
    scheduler = KTSTR,
    llcs = 1,
    duration_s = 4,
    extra_sched_args = ["--fault", "leak-dsq"],
    max_local_dsq_depth = 6,
    expect_err(check(max_local_dsq_depth))
)]
fn a_growing_local_queue_is_found(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![CgroupDef::named("heap").workers(12)];
    Ok(execute_defs(ctx, defs)?)
}

#[ktstr_test(scheduler = SWITCHED_ON, post_vm = it_was_told_to_print_plainly)]
fn one_that_is_part_of_the_kernel_is_switched_on(_: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    let seen = std::fs::read_to_string("/proc/sys/kernel/sched_schedstats")?;
    let what = "the switch";
    result.push(CheckResult::equal("witness", what, seen.trim(), "1"));
    Ok(result)
}

fn it_was_told_to_print_plainly(vm: &VmResult) -> Result<()> {
    let scheduler = vm.sidecar.scheduler.as_ref();
    let log = &scheduler.context("there is no scheduler")?.log;
    ensure!(log.contains("switching on, NO_COLOR=1\n"), "{log}");
    Ok(())
}

#[ktstr_test]
fn the_kernels_options_are_where_libbpf_looks(_: &Ctx) -> Result<AssertResult> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let config = std::fs::read_to_string(format!("/boot/config-{}", release.trim()))?;
    let mut result = AssertResult::default();
    let seen = config.contains("CONFIG_64BIT=y").to_string();
    let what = "whether it has CONFIG_64BIT";
    result.push(CheckResult::equal("witness", what, &seen, "true"));
    Ok(result)
}

/// Tests whose report is read by the tests below.
mod victims {
    use super::*;

    #[ktstr_test(scheduler = KTSTR, llcs = 1, duration_s = 0.5, expect_err(stall))]
    #[ignore = "fails on purpose"]
    fn expects_a_stall_that_does_not_come(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = IMPATIENT, extra_sched_args = ["--fault", "never-load"], expect_err(stall))]
    #[ignore = "fails on purpose"]
    fn never_loads(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = IMPATIENT, duration_s = 30, extra_sched_args = ["--fault", "stall-one"])]
    #[ignore = "fails on purpose"]
    fn stalls(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = IMPATIENT, duration_s = 30, extra_sched_args = ["--fault", "crash"])]
    #[ignore = "fails on purpose"]
    fn crashes(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = IMPATIENT, duration_s = 30, extra_sched_args = ["--fault", "detach"])]
    #[ignore = "fails on purpose"]
    fn falls_back(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = IMPATIENT, extra_sched_args = ["--falt", "never-load"], expect_err(load_failure))]
    #[ignore = "fails on purpose"]
    fn has_a_wrong_argument(_: &Ctx) -> Result<AssertResult> {
        bail!("the body is not to run");
    }

    #[ktstr_test(scheduler = NOTHING)]
    #[ignore = "is inconclusive on purpose"]
    fn is_switched_on_by_nothing(_: &Ctx) -> Result<AssertResult> {
        Ok(AssertResult::default())
    }

    /// A CPU goes offline and comes back; each time the kernel ends the scheduler, which loads itself again.
    #[ktstr_test(scheduler = IMPATIENT, timeout_s = 120, extra_sched_args = ["--restart"])]
    #[ignore = "fails on purpose"]
    fn reloads(_: &Ctx) -> Result<AssertResult> {
        let enables = || std::fs::read_to_string("/sys/kernel/sched_ext/enable_seq");
        for online in ["0", "1"] {
            let before = enables()?;
            std::fs::write("/sys/devices/system/cpu/cpu1/online", online)?;
            while enables()? == before {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        Ok(AssertResult::default())
    }

    #[ktstr_test(scheduler = ELSEWHERE)]
    #[ignore = "skipped on purpose"]
    fn is_for_other_kernels(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = GONE)]
    #[ignore = "fails on purpose"]
    fn has_no_file(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = MISSPELT)]
    #[ignore = "fails on purpose"]
    fn has_no_target(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }

    #[ktstr_test(scheduler = EDITED, expect_err(load_failure))]
    #[ignore = "fails on purpose"]
    fn does_not_compile(_: &Ctx) -> Result<AssertResult> {
        bail!("the body is not to run");
    }

    #[ktstr_test(scheduler = MISNAMED)]
    #[ignore = "fails on purpose"]
    fn has_another_name(ctx: &Ctx) -> Result<AssertResult> {
        Ok(scenarios::steady(ctx)?)
    }
}

/// A victim's sidecar and printed report.
fn run(name: &str) -> (Sidecar, String) {
    let Again { sidecar, text, .. } = e2e::run_again(&format!("victims::{name}"), &[]);
    (sidecar, text)
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn an_expectation_that_is_not_met_says_what_happened() {
    let (sidecar, text) = run("expects_a_stall_that_does_not_come");
    assert_eq!(sidecar.outcome, Outcome::Fail);
    let scheduler = sidecar.scheduler.expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::Attached);
    assert_eq!(scheduler.ops.as_deref(), Some("ktstr"));
    assert_eq!(scheduler.exit.and_then(|exit| exit.kind), Some(64));
    assert!(scheduler.log.contains("attached as \"ktstr\""), "{text}");
    let words = "expected a stall, but scheduler `ktstr` was attached to the end of the test, and every \
                 judged check held";
    contains(&text, &[words]);
}

#[test]
fn one_that_never_loads_passes_no_test_and_shows_the_verifiers_log() {
    let (sidecar, text) = run("never_loads");
    assert_eq!(sidecar.outcome, Outcome::Fail);
    let scheduler = sidecar.scheduler.expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::NeverLoaded);
    let words = "expected a stall, but scheduler `impatient` was never attached; its process ended with exit \
                 status 1";
    contains(
        &text,
        &[
            words,
            "ktstr_never_loads",
            "END PROG LOAD LOG",
            "the scheduler's log",
        ],
    );
}

#[test]
fn a_stall_is_reported_with_the_kernels_reason_and_dump() {
    let (sidecar, text) = run("stalls");
    let scheduler = sidecar.scheduler.as_ref().expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::Stalled);
    let exit = scheduler.exit.as_ref().expect("the kernel's words");
    assert_eq!(exit.reason, "runnable task stall");
    assert_eq!(exit.kind, Some(1026));
    contains(&exit.message, &["failed to run for"]);
    contains(&scheduler.dump, &["CPU states", "fault=1 fault_seen=1"]);
    let failed: Vec<&str> = sidecar
        .result
        .with_outcome(Outcome::Fail)
        .map(|check| check.check.as_str())
        .collect();
    assert!(failed.contains(&"scheduler_alive"), "{failed:?}");
    let words =
        "scheduler `impatient` was disabled by the kernel's watchdog; runnable task stall: ";
    contains(&text, &[words, "the kernel's dump", "until scheduler"]);
}

#[test]
fn a_crashed_process_is_told_from_a_scheduler_that_falls_back() {
    let (sidecar, text) = run("crashes");
    let scheduler = sidecar.scheduler.expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::Died, "{text}");
    contains(
        &text,
        &[
            "scheduler `impatient` died",
            "its process was killed by SIGABRT",
        ],
    );
    let (sidecar, text) = run("falls_back");
    let scheduler = sidecar.scheduler.expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::FellBack, "{text}");
    contains(&text, &["is no longer attached, though its process lives"]);
}

#[test]
fn fault_a5_a_scheduler_that_loads_itself_again_was_not_attached_to_the_end() {
    let (sidecar, text) = run("reloads");
    assert_eq!(sidecar.outcome, Outcome::Fail, "{text}");
    let scheduler = sidecar.scheduler.expect("a scheduler");
    assert_eq!(scheduler.end, SchedulerEnd::Reloaded, "{text}");
    assert_eq!(scheduler.enables, Some(3), "{text}");
    let exits: Vec<String> = scheduler.exits.iter().map(ToString::to_string).collect();
    assert_eq!(
        exits,
        [
            "unregistered from the main kernel: cpu 1 going offline, exiting scheduler",
            "unregistered from the main kernel: cpu 1 going online, exiting scheduler",
            "unregistered from user space",
        ]
    );
    let words = "scheduler `impatient` was disabled and loaded again; unregistered from the main kernel: cpu 1 going \
                 offline, exiting scheduler; the kernel enabled it 3 times";
    contains(&text, &[words]);
}

#[test]
fn fault_a1_a_program_that_ends_before_it_loads_anything_is_no_load_failure() {
    let (sidecar, text) = run("has_a_wrong_argument");
    assert_eq!(sidecar.outcome, Outcome::Fail, "{text}");
    let words = "expected a scheduler that the kernel refuses to load, but scheduler `impatient` was never attached; \
                 its process ended with exit status 2; it ended before it had the kernel load anything";
    contains(&text, &[words]);
}

#[test]
fn fault_a4_a_command_that_switches_nothing_on_is_no_scheduler() {
    let (sidecar, text) = run("is_switched_on_by_nothing");
    assert_eq!(sidecar.outcome, Outcome::Inconclusive, "{text}");
    let unproven: Vec<&str> = sidecar
        .result
        .with_outcome(Outcome::Inconclusive)
        .map(|check| check.check.as_str())
        .collect();
    assert_eq!(unproven, ["scheduler_attached", "scheduler_alive"]);
    contains(
        &text,
        &["scheduler `nothing` was not shown to be attached; `true` ended with success"],
    );
}

#[test]
fn a_test_for_other_kernels_is_skipped() {
    let (sidecar, text) = run("is_for_other_kernels");
    assert_eq!(sidecar.outcome, Outcome::Skip);
    contains(
        &text,
        &["scheduler `elsewhere` is declared for kernels 1.2"],
    );
}

#[test]
fn what_can_not_be_had_is_named_before_a_machine_starts() {
    let (sidecar, text) = run("has_no_file");
    assert_eq!(sidecar.timings.boot_ms, 0);
    contains(&text, &["scheduler `gone`: no file ", "scx_gone"]);
    let (sidecar, text) = run("has_no_target");
    assert_eq!(sidecar.timings.boot_ms, 0);
    contains(&text, &["has a binary `scx_kstr`; it has: ", "scx_ktstr"]);
}

/// One whose last edit broke it: what was built before is still there, and no failure to load is met by it.
#[test]
fn a_build_that_fails_fails_the_test_with_the_compilers_words() {
    let folder = Path::new(EDITED_CRATE);
    std::fs::create_dir_all(folder.join("src")).expect("a folder");
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("a file");
    let manifest = "[package]\nname = \"scx-edited\"\nedition = \"2024\"\n\n\
                    [[bin]]\nname = \"scx_edited\"\npath = \"src/main.rs\"\n\n[workspace]\n";
    write("Cargo.toml", manifest);
    write("src/main.rs", "fn main() {}\n");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let built = Command::new(cargo)
        .arg("build")
        .current_dir(folder)
        .output();
    let built = built.expect("cargo runs");
    assert!(built.status.success(), "{built:?}");

    write("src/main.rs", "fn main() {\n    atach();\n}\n");
    let (sidecar, text) = run("does_not_compile");
    assert_eq!(sidecar.outcome, Outcome::Fail, "{text}");
    assert_eq!(sidecar.timings.boot_ms, 0, "a machine was started");
    let failure = sidecar.failure.expect("a failure");
    assert_eq!(failure.kind, FailureKind::Harness, "{text}");
    contains(
        &text,
        &[
            "cargo build --package",
            "--bin scx_edited",
            "cannot find function `atach` in this scope",
            "src/main.rs:2:5",
        ],
    );
}

#[test]
fn a_scheduler_by_another_name_is_not_the_one_under_test() {
    let (sidecar, text) = run("has_another_name");
    assert_eq!(sidecar.outcome, Outcome::Fail);
    contains(
        &text,
        &["calls `ktstr`, not `other`", "declare `ops = \"ktstr\"`"],
    );
}

#[ktstr_test(scheduler = CELLS, workload_root_cgroup = "/cells.slice")]
fn a_declared_workload_root_is_there_before_the_scheduler(ctx: &Ctx) -> Result<AssertResult> {
    ctx.cgroups.create("a", CgroupKind::Domain)?;
    let path = ctx.cgroups.path("a")?.display().to_string();
    ctx.cgroups.remove("a")?;
    let mut result = scenarios::steady(ctx)?;
    let wanted = "/sys/fs/cgroup/cells.slice/a";
    result.push(CheckResult::equal("root", "the path", &path, wanted));
    Ok(result)
}
