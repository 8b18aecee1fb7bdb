//! What a test declares is checked: quotas, weights, masks, niceness, policies, memory nodes.
//!
//! Tests named `healthy` have schedulers that keep what they are to keep, and are for `--stress-count`. The
//! others plant a fault for each check.

mod planted;
mod raw_syscalls;

use ktstr::prelude::*;
use ktstr_report::Sidecar;

// Plain: it knows nothing of cgroups.
declare_scheduler!(PLAIN, {
    name = "plain",
    binary = "scx_ktstr",
    topology = (1, 1, 4, 1),
    checks = { cpu_share = off, cpu_quota = off },
});

fn exactly(cpus: std::ops::Range<u32>) -> CpusetSpec {
    CpusetSpec::exact(CpuSet::from_range(cpus))
}

/// Weights on CPUs 0 and 1, nice levels on CPUs 2 and 3; on CPU 4 quotas, of which one is on the cgroup above, masks, and
/// memory on a node.
fn limits(ctx: &Ctx) -> Result<AssertResult> {
    ctx.cgroups.create("outer", CgroupKind::Domain)?;
    ctx.cgroups.set_cpu_max("outer", CpuMax::Pct(20))?;
    let defs = vec![
        CgroupDef::named("heavy")
            .workers(2)
            .cpuset(exactly(0..2))
            .cpu_weight(400),
        CgroupDef::named("light")
            .workers(4)
            .cpuset(exactly(0..2))
            .cpu_weight(50),
        CgroupDef::named("nice")
            .workers(4)
            .cpuset(exactly(2..4))
            .nice_levels([-5, 10]),
        CgroupDef::named("outer/inner")
            .workers(2)
            .cpuset(exactly(4..5))
            .affinity(AffinityIntent::SingleCpu),
        CgroupDef::named("tight")
            .workers(2)
            .cpuset(exactly(4..5))
            .cpuset_mems(CpuSet::from_range(0..1))
            .cpu_quota_pct(5),
    ];
    let result = execute_defs(ctx, defs)?;
    let held = std::fs::read_to_string(ctx.cgroups.path("outer")?.join("cpu.max"))?;
    ensure!(
        held.trim() == "20000 100000",
        "the quota of `outer` was not put back: {held}"
    );
    ctx.cgroups.remove("outer")?;
    Ok(result)
}

/// The checks of `sidecar` that came to `outcome`.
fn checks(sidecar: &Sidecar, outcome: Outcome) -> Vec<&str> {
    let checks = sidecar.result.with_outcome(outcome);
    checks.map(|check| check.check.as_str()).collect()
}

#[ktstr_test(cores = 5, duration_s = 4, post_vm = limits_were_judged)]
fn healthy_limits_under_eevdf(ctx: &Ctx) -> Result<AssertResult> {
    limits(ctx)
}

fn limits_were_judged(vm: &VmResult) -> Result<()> {
    let judged = checks(&vm.sidecar, Outcome::Pass);
    for check in [
        "cpu_quota",
        "cpu_share",
        "affinity",
        "nice_share",
        "sched_policy",
        "mem_binding",
    ] {
        ensure!(judged.contains(&check), "{check} is not among {judged:?}");
    }
    Ok(())
}

#[ktstr_test(scheduler = PLAIN, cores = 5, duration_s = 4, post_vm = what_is_off_says_by_whom)]
fn healthy_limits_under_a_plain_scheduler(ctx: &Ctx) -> Result<AssertResult> {
    limits(ctx)
}

fn what_is_off_says_by_whom(vm: &VmResult) -> Result<()> {
    let judged = checks(&vm.sidecar, Outcome::Pass);
    for check in ["affinity", "nice_share", "sched_policy", "mem_binding"] {
        ensure!(judged.contains(&check), "{check} is not among {judged:?}");
    }
    for check in ["cpu_quota", "cpu_share"] {
        let left_out = &vm.sidecar.result.not_checked;
        let why = left_out.iter().find(|left_out| left_out.check == check);
        let why = why.map(|left_out| left_out.why.as_str());
        ensure!(
            why == Some("turned off by scheduler `plain`"),
            "{check}: {why:?}"
        );
    }
    Ok(())
}

/// Each of 20 workers is due 7.5 ms in 3 s, those of a frozen cgroup none. All stop when told.
#[ktstr_test(cores = 4, duration_s = 3, timeout_s = 90)]
fn fault_c1_workers_under_a_narrow_quota_and_frozen_ones_stop_when_told(
    ctx: &Ctx,
) -> Result<AssertResult> {
    let defs = vec![
        CgroupDef::named("tight").workers(20).cpu_quota_pct(5),
        CgroupDef::named("frozen")
            .workers(2)
            .knob(Knob::Freeze(true)),
    ];
    Ok(execute_defs(ctx, defs)?)
}
