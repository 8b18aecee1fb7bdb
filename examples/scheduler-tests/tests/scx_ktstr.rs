//! Tests of a sched_ext scheduler that is built in the same workspace.
//!
//! Run them with `cargo ktstr test`, or choose a kernel with `--kernel debian/6.16`. `KTSTR_SCHEDULER` names
//! another scheduler's program to run them under.

use ktstr::prelude::*;

declare_scheduler!(SCX_KTSTR, {
    name = "ktstr",
    binary = "scx_ktstr",
    topology = (1, 2, 2, 1),
    // It knows nothing of cgroups. A test that declares a weight or a quota is told that they are not checked.
    checks = { cpu_share = off, cpu_quota = off },
});

/// On the declared machine: two LLCs of two cores.
#[ktstr_test(scheduler = SCX_KTSTR)]
fn steady(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

/// On one LLC with two threads a core. What a test doesn't declare, its scheduler does.
#[ktstr_test(scheduler = SCX_KTSTR, llcs = 1, threads = 2)]
fn oversubscribed_threads(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::oversubscribed(ctx)?)
}

/// With an argument of its own.
#[ktstr_test(scheduler = SCX_KTSTR, extra_sched_args = ["--slice-us", "5000"])]
fn short_slices(ctx: &Ctx) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("batch").workers(4),
        CgroupDef::named("pipes")
            .workers(4)
            .work_type(WorkType::PipeIo),
    ];
    Ok(execute_defs(ctx, defs)?)
}

/// A scheduler that loses a task is to be disabled by the kernel: anything else fails this test, a scheduler
/// that doesn't load included.
#[ktstr_test(
    scheduler = SCX_KTSTR,
    duration_s = 30,
    extra_sched_args = ["--fault", "stall-one", "--timeout-ms", "5000"],
    expect_err(stall)
)]
fn a_lost_task_is_noticed(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}
