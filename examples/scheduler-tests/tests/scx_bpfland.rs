//! Tests under a scheduler that was made elsewhere: `KTSTR_SCHEDULER` names its program.
//!
//! `cargo xtask setup --schedulers` builds this one, and says how to run these.

use ktstr::prelude::*;

declare_scheduler!(SCX_BPFLAND, {
    name = "bpfland",
    binary = "scx_bpfland",
    ops = "bpfland",
    topology = (1, 1, 4, 1),
    // It goes by niceness, not by what cgroups declare.
    checks = { cpu_share = off, cpu_quota = off },
});

#[ktstr_test(scheduler = SCX_BPFLAND)]
#[ignore = "needs KTSTR_SCHEDULER: `cargo xtask setup --schedulers`"]
fn steady(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

#[ktstr_test(scheduler = SCX_BPFLAND)]
#[ignore = "needs KTSTR_SCHEDULER: `cargo xtask setup --schedulers`"]
fn oversubscribed(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::oversubscribed(ctx)?)
}

/// Two LLCs, whose idle CPUs it looks for apart from others.
#[ktstr_test(scheduler = SCX_BPFLAND, llcs = 2, cores = 2)]
#[ignore = "needs KTSTR_SCHEDULER: `cargo xtask setup --schedulers`"]
fn steady_on_two_llcs(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady_llc(ctx)?)
}

/// Cgroups with weights and a quota, and workers of different niceness.
#[ktstr_test(scheduler = SCX_BPFLAND, duration_s = 4)]
#[ignore = "needs KTSTR_SCHEDULER: `cargo xtask setup --schedulers`"]
fn limits(ctx: &Ctx) -> Result<AssertResult> {
    let on = |cpus| CpusetSpec::exact(CpuSet::from_range(cpus));
    let defs = vec![
        CgroupDef::named("heavy")
            .workers(2)
            .cpuset(on(0..2))
            .cpu_weight(400),
        CgroupDef::named("light")
            .workers(2)
            .cpuset(on(0..2))
            .cpu_weight(50),
        CgroupDef::named("nice")
            .workers(2)
            .cpuset(on(2..3))
            .nice_levels([0, 5]),
        CgroupDef::named("tight")
            .workers(2)
            .cpuset(on(3..4))
            .cpu_quota_pct(20),
    ];
    Ok(execute_defs(ctx, defs)?)
}
