//! What the kernel's own scheduler must get right, on machines of several shapes.
//!
//! Run them with `cargo ktstr test`. Each boots its own machine; the checks that every test gets (all
//! workers made progress, nobody left its cpuset, no long gaps, a fair spread, all CPUs online, a clean
//! kernel log) need no words here.

use ktstr::prelude::*;

/// The smallest machine: four spinners share one CPU.
#[ktstr_test]
fn one_cpu_is_shared(ctx: &Ctx) -> Result<AssertResult> {
    Ok(execute_defs(
        ctx,
        vec![CgroupDef::named("spinners").workers(4)],
    )?)
}

/// Two cgroups side by side, as many workers as CPUs.
#[ktstr_test(llcs = 2, cores = 2)]
fn steady_on_two_llcs(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

/// One cgroup pinned to each LLC: nobody may stray.
#[ktstr_test(llcs = 2, cores = 2)]
fn pinned_to_llcs(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady_llc(ctx)?)
}

/// SMT: two cores of two threads. Pairs that wake each other through pipes, beside spinners.
#[ktstr_test(cores = 2, threads = 2)]
fn wakeups_on_smt_siblings(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("pipes")
            .workers(4)
            .work_type(WorkType::PipeIo),
        CgroupDef::named("spinners")
            .workers(2)
            .work_type(WorkType::SpinWait),
    ];
    Ok(execute_defs(ctx, defs)?)
}

/// Two NUMA nodes with a cgroup on each.
#[ktstr_test(numa_nodes = 2, llcs = 2, cores = 2, memory_mib = 1024)]
fn one_cgroup_on_each_numa_node(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("node0")
            .workers(2)
            .cpuset(CpusetSpec::Numa(0)),
        CgroupDef::named("node1")
            .workers(2)
            .cpuset(CpusetSpec::Numa(1)),
    ];
    Ok(execute_defs(ctx, defs)?)
}

/// Far more workers than CPUs.
#[ktstr_test(llcs = 2, cores = 2, duration_s = 3)]
fn oversubscribed(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::oversubscribed(ctx)?)
}

/// Threads of one process instead of processes, waking each other through futexes.
#[ktstr_test(cores = 2)]
fn futex_threads(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("threads")
            .workers(2)
            .work_type(WorkType::FutexPingPong)
            .clone_mode(CloneMode::Thread),
    ];
    Ok(execute_defs(ctx, defs)?)
}

/// A quarter of one CPU for one cgroup, the rest for the other: bandwidth control at work.
#[ktstr_test(cores = 2, max_spread_pct = off)]
fn quota_is_kept(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = execute_defs(
        ctx,
        vec![
            CgroupDef::named("capped").workers(1).cpu_quota_pct(25),
            CgroupDef::named("free").workers(1),
        ],
    )?;
    let capped = result
        .cgroups
        .iter()
        .find(|cgroup| cgroup.name == "capped")
        .context("no report")?;
    let on_cpu_pct = 100.0
        - capped.workers[0]
            .off_cpu_pct()
            .context("the worker did not run")?;
    result.push(CheckResult::at_most("quota", on_cpu_pct, 40.0, "%"));
    Ok(result)
}
