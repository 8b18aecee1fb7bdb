//! Tests under a scheduler that was made elsewhere: `KTSTR_SCHEDULER` names its program.
//!
//! `cargo xtask setup --schedulers` builds this one, and says how to run these.

use ktstr::prelude::*;

declare_scheduler!(SCX_BPFLAND, {
    name = "bpfland",
    binary = "scx_bpfland",
    ops = "bpfland",
    topology = (1, 1, 4, 1),
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
