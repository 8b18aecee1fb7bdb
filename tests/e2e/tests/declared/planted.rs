//! A fault for each check.

use std::time::{Duration, Instant};

use ktstr::prelude::*;
use ktstr::scenario::checks::judge_workers;
use nix::sched::{CpuSet as NixCpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::PLAIN;
use crate::raw_syscalls::{make_batch, migrate_pages};

#[ktstr_test(scheduler = PLAIN, cores = 2, duration_s = 3, cpu_quota, expect_err(check(cpu_quota)))]
fn fault_b1_a_quota_that_is_ignored_is_found_on_the_cgroup_above(
    ctx: &Ctx,
) -> Result<AssertResult> {
    ctx.cgroups.create("outer", CgroupKind::Domain)?;
    ctx.cgroups.set_cpu_max("outer", CpuMax::Pct(20))?;
    let result = execute_defs(ctx, vec![CgroupDef::named("outer/inner").workers(2)])?;
    ctx.cgroups.remove("outer")?;
    Ok(result)
}

#[ktstr_test(scheduler = PLAIN, cores = 2, duration_s = 3, cpu_share, expect_err(check(cpu_share)))]
fn fault_b2_weights_that_are_ignored_are_found(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("heavy").workers(4).cpu_weight(400),
        CgroupDef::named("light").workers(4).cpu_weight(50),
    ];
    Ok(execute_defs(ctx, defs)?)
}

/// No CPU does so much.
#[ktstr_test(min_work_rate = 1e15, expect_err(check(min_work_rate)))]
fn a_rate_of_work_that_is_missed_is_found(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

#[ktstr_test(
    scheduler = PLAIN,
    cores = 2,
    duration_s = 3,
    extra_sched_args = ["--fault", "flat-weights"],
    expect_err(check(nice_share))
)]
fn niceness_that_is_ignored_is_found(ctx: &Ctx) -> Result<AssertResult> {
    let def = CgroupDef::named("nice").workers(4).nice_levels([0, 10]);
    Ok(execute_defs(ctx, vec![def])?)
}

/// Workers are moved, given another policy, and their memory is moved, behind the harness's back. The second run,
/// without that, passes the same checks.
#[ktstr_test(numa_nodes = 2, cores = 1)]
fn what_is_changed_behind_the_harness_is_found(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    for (meddle, wanted) in [(true, "Fail"), (false, "Pass")] {
        let judged = bound_workers(ctx, meddle)?;
        for check in ["affinity", "sched_policy", "mem_binding"] {
            let outcome = judged.checks.iter().find(|judged| judged.check == check);
            let seen = outcome.map_or("none".to_owned(), |check| format!("{:?}", check.outcome));
            let what = format!("{check} with{} meddling", if meddle { "" } else { "out" });
            result.push(CheckResult::equal("planted", &what, &seen, wanted));
        }
        let failed = judged.with_outcome(Outcome::Fail).count();
        let what = "the number of checks that failed";
        let wanted = if meddle { "3" } else { "0" };
        result.push(CheckResult::equal(
            "planted",
            what,
            &failed.to_string(),
            wanted,
        ));
    }
    Ok(result)
}

/// A worker that is bound to one CPU after the other, with memory on node 1 only.
fn bound_workers(ctx: &Ctx, meddle: bool) -> Result<AssertResult> {
    let one = |cpu| CpuSet::from_range(cpu..cpu + 1);
    ctx.cgroups.create("bound", CgroupKind::Domain)?;
    ctx.cgroups.set_cpuset_mems("bound", &one(1))?;
    let mut workload = WorkloadHandle::spawn(WorkloadConfig {
        tell_memory: true,
        ..WorkloadConfig::new(WorkType::SpinWait, 1)
    })?;
    let pids = workload.worker_pids_for_cgroup_procs()?;
    ctx.cgroups.move_tasks("bound", &pids)?;
    workload.set_affinity(0, &one(0))?;
    workload.start()?;
    let window = ctx.cgroups.begin_account();
    works(&workload)?;
    workload.set_affinity(0, &one(1))?;
    works(&workload)?;
    if meddle {
        let mut elsewhere = NixCpuSet::new();
        elsewhere.set(0)?;
        sched_setaffinity(Pid::from_raw(pids[0]), &elsewhere)?;
        make_batch(pids[0])?;
        migrate_pages(pids[0], 1, 0)?;
        works(&workload)?;
    }
    let account = window.account("bound")?;
    let report = CgroupReport {
        account: Some(account),
        ..CgroupReport::new("bound", Some(ctx.topo.cpus()), workload.stop_and_collect()?)
    };
    ctx.cgroups.remove("bound")?;
    let assert = Assert::DEFAULT.no_max_gap_ms();
    Ok(judge_workers(&assert, &ctx.timing, &[report]))
}

/// Waits until the only worker has got on, beyond what it had under way.
fn works(workload: &WorkloadHandle) -> Result<()> {
    let before = workload.snapshot_iterations()[0];
    let deadline = Instant::now() + Duration::from_secs(20);
    while workload.snapshot_iterations()[0] < before + 3 {
        ensure!(Instant::now() < deadline, "the worker does not get on");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
