//! Cgroups and workers against a second witness: the guest's own cgroup files and /proc.

use std::fs;
use std::time::{Duration, Instant};

use ktstr::prelude::*;
use ktstr::scenario::cgroup::{CgroupKind, Knob};
use ktstr::scenario::workload::Gate;

fn read(ctx: &Ctx, cgroup: &str, file: &str) -> Result<String> {
    let path = ctx.cgroups.path(cgroup)?.join(file);
    Ok(fs::read_to_string(&path)
        .with_context(|| path.display().to_string())?
        .trim()
        .to_owned())
}

/// A check that holds if the kernel says what it was told.
fn equal(result: &mut AssertResult, what: &str, seen: &str, wanted: &str) {
    result.push(CheckResult::equal("witness", what, seen, wanted));
}

#[ktstr_test(cores = 2)]
fn every_knob_works_on_a_nested_leaf(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    let leaf = "outer/middle/leaf";
    ctx.cgroups.create(leaf, CgroupKind::Domain)?;
    let mib = 1 << 20;
    for (knob, wanted) in [
        (Knob::Cpus(CpuSet::from_range(1..2)), "1"),
        (Knob::Mems(CpuSet::from_range(0..1)), "0"),
        (Knob::CpuMax(CpuMax::Pct(50)), "50000 100000"),
        (Knob::CpuWeight(250), "250"),
        (Knob::MemoryMax(Limit::At(64 * mib)), "67108864"),
        (Knob::MemoryHigh(Limit::At(32 * mib)), "33554432"),
        (Knob::MemoryLow(Limit::At(mib)), "1048576"),
        (Knob::PidsMax(Limit::At(77)), "77"),
        (Knob::Freeze(true), "1"),
        (Knob::Freeze(false), "0"),
        (Knob::CpuMax(CpuMax::Max), "max 100000"),
        (Knob::MemoryMax(Limit::Max), "max"),
    ] {
        ctx.cgroups
            .set(leaf, &knob)
            .with_context(|| format!("{knob:?}"))?;
        equal(
            &mut result,
            knob.file(),
            &read(ctx, leaf, knob.file())?,
            wanted,
        );
    }
    equal(
        &mut result,
        "effective",
        &ctx.cgroups.effective_cpuset(leaf)?.to_string(),
        "1",
    );
    ctx.cgroups.remove(leaf)?;
    equal(
        &mut result,
        "left over",
        &format!("{:?}", ctx.cgroups.names()),
        "[]",
    );
    Ok(result)
}

#[ktstr_test(cores = 2)]
fn mistakes_are_errors_that_name_them(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    ctx.cgroups.create("real", CgroupKind::Domain)?;
    ctx.cgroups.create("threads", CgroupKind::Threaded)?;
    let own = i32::try_from(std::process::id())?;
    let mut refused =
        |what: &str, outcome: std::result::Result<(), CgroupError>, words: &[&str]| {
            let text = outcome.map_or_else(
                |error| error.to_string(),
                |()| "nothing went wrong".to_owned(),
            );
            let named = words.iter().all(|word| text.contains(word));
            equal(
                &mut result,
                what,
                if named { "named" } else { &text },
                "named",
            );
        };
    refused(
        "a wrong name",
        ctx.cgroups.freeze("rael"),
        &["rael", "real"],
    );
    refused(
        "removing a wrong name",
        ctx.cgroups.remove("rael"),
        &["rael", "real"],
    );
    refused(
        "the harness itself",
        ctx.cgroups.move_task("real", own),
        &[&own.to_string()],
    );
    refused(
        "climbing",
        ctx.cgroups.create("../out", CgroupKind::Domain),
        &["../out"],
    );
    refused(
        "memory of threads",
        ctx.cgroups.set_memory_max("threads", Limit::Max),
        &["memory", "threads"],
    );
    refused(
        "a CPU too many",
        ctx.cgroups.set_cpuset("real", &CpuSet::from_range(9..10)),
        &["9"],
    );
    ctx.cgroups.remove("real")?;
    ctx.cgroups.remove("threads")?;
    Ok(result)
}

fn state_of(pid: i32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .chars()
        .take(1)
        .collect())
}

/// Workers are where they were put before they ran at all, and /proc agrees with their reports.
#[ktstr_test(llcs = 2, cores = 2)]
fn nobody_runs_before_the_release(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    ctx.cgroups.create("cell", CgroupKind::Domain)?;
    ctx.cgroups.set_cpuset("cell", &ctx.topo.llc_cpus(1))?;
    let gate = Gate::new()?;
    let config = WorkloadConfig::new(WorkType::SpinWait, 2);
    let mut workload = WorkloadHandle::spawn_behind(config, &gate)?;
    let pids = workload.worker_pids_for_cgroup_procs()?;
    ctx.cgroups.move_tasks("cell", &pids)?;
    equal(
        &mut result,
        "iterations before the release",
        &format!("{:?}", workload.snapshot_iterations()),
        "[0, 0]",
    );
    for &pid in &pids {
        let allowed = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let allowed = allowed
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        equal(
            &mut result,
            "allowed CPUs",
            allowed.unwrap_or_default().trim(),
            "2-3",
        );
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        equal(&mut result, "cgroup", cgroup.trim(), "0::/ktstr/cell");
        equal(&mut result, "state", &state_of(pid)?, "S");
    }
    workload.start()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while workload.snapshot_iterations().contains(&0) {
        ensure!(Instant::now() < deadline, "a worker does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    let reports = workload.stop_and_collect()?;
    for (report, pid) in reports.iter().zip(pids) {
        equal(
            &mut result,
            "pid",
            &report.pid.to_string(),
            &pid.to_string(),
        );
        let inside = report.cpus_used.is_subset(&ctx.topo.llc_cpus(1));
        equal(
            &mut result,
            "CPUs used are inside",
            &inside.to_string(),
            "true",
        );
    }
    ctx.cgroups.remove("cell")?;
    Ok(result)
}
