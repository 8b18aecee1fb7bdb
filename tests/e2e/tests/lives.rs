//! A scheduler that the test detaches and attaches while its body runs, and the phases that this makes.

use e2e::Again;
use ktstr::prelude::*;
use ktstr_report::SchedulerEnd;

declare_scheduler!(KTSTR, {
    name = "ktstr",
    binary = "scx_ktstr",
    topology = (1, 1, 2, 1),
    checks = { cpu_share = off },
});

/// A load under the scheduler, one under EEVDF, and one under the scheduler again.
fn with_a_pause(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    ctx.detach_scheduler()?;
    result.merge(scenarios::steady(ctx)?);
    ctx.attach_scheduler()?;
    result.merge(scenarios::steady(ctx)?);
    Ok(result)
}

#[ktstr_test(scheduler = KTSTR, duration_s = 1, post_vm = both_lives_and_each_phase_are_told)]
fn detached_and_attached_again(ctx: &Ctx) -> Result<AssertResult> {
    with_a_pause(ctx)
}

fn both_lives_and_each_phase_are_told(vm: &VmResult) -> Result<()> {
    let sidecar = &vm.sidecar;
    let last = sidecar.scheduler.as_ref().context("a scheduler")?;
    ensure!(
        (last.life, last.end) == (2, SchedulerEnd::Attached),
        "{last:?}"
    );
    let [first] = sidecar.other_lives.as_slice() else {
        bail!("{} other lives", sidecar.other_lives.len());
    };
    ensure!(
        (first.life, first.end) == (1, SchedulerEnd::Detached),
        "{first:?}"
    );
    for life in [first, last] {
        ensure!(life.exits.len() == 1 && life.enables == Some(1), "{life:?}");
        ensure!(life.log.contains("attached as \"ktstr\""), "{life:?}");
    }
    let ktstr = Some("ktstr");
    let phases = &sidecar.result.phases;
    let schedulers: Vec<[Option<&str>; 2]> = phases
        .iter()
        .map(|phase| {
            [
                phase.scheduler_from.as_deref(),
                phase.scheduler_to.as_deref(),
            ]
        })
        .collect();
    let wanted = [[ktstr; 2], [ktstr; 2], [None; 2], [ktstr; 2]];
    ensure!(schedulers == wanted, "{schedulers:?}");
    ensure!(
        phases.is_sorted_by(|a, b| a.to_ns <= b.from_ns),
        "{phases:?}"
    );
    for step in 0..3 {
        let cgroup = vm.phase_cgroup(Phase::step(step), "cg_0");
        let cgroup = cgroup.with_context(|| format!("step {step}"))?;
        ensure!(cgroup.total_iterations() > 0, "{cgroup:?}");
        ensure!(cgroup.run_delay_summary().is_some(), "{cgroup:?}");
    }
    ensure!(vm.phase_cgroup(Phase::BASELINE, "cg_0").is_none());
    Ok(())
}

#[ktstr_test(scheduler = KTSTR, duration_s = 0.5, post_vm = the_second_has_other_arguments)]
fn replaced(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    ctx.replace_scheduler(&["--slice-us", "5000"])?;
    result.merge(scenarios::steady(ctx)?);
    ctx.restart_scheduler()?;
    Ok(result)
}

fn the_second_has_other_arguments(vm: &VmResult) -> Result<()> {
    let last = vm.sidecar.scheduler.as_ref().context("a scheduler")?;
    let mut lives: Vec<_> = vm.sidecar.other_lives.iter().chain([last]).collect();
    lives.sort_by_key(|life| life.life);
    let changed: Vec<bool> = lives
        .iter()
        .map(|life| life.command.ends_with("--slice-us 5000"))
        .collect();
    ensure!(changed == [false, true, true], "{lives:?}");
    ensure!(lives.iter().all(|life| life.end.is_good()), "{lives:?}");
    Ok(())
}

#[ktstr_test(scheduler = KTSTR)]
fn what_can_not_be_is_refused(ctx: &Ctx) -> Result<AssertResult> {
    let attached = ctx.attach_scheduler().map_err(|error| error.to_string());
    ctx.detach_scheduler()?;
    let detached = ctx.detach_scheduler().map_err(|error| error.to_string());
    let mut result = AssertResult::default();
    for (what, seen, wanted) in [
        (
            "attached",
            attached,
            "the scheduler is attached already: detach it first",
        ),
        (
            "detached",
            detached,
            "the scheduler is not attached: the test has detached it",
        ),
    ] {
        let seen = seen.err().unwrap_or_default();
        result.push(CheckResult::equal("refused", what, &seen, wanted));
    }
    Ok(result)
}

/// Tests whose report is read by the tests below.
mod victims {
    use super::*;

    #[ktstr_test(scheduler = KTSTR, duration_s = 10)]
    #[ignore = "fails on purpose"]
    fn dies_in_its_second_life(ctx: &Ctx) -> Result<AssertResult> {
        let mut result = scenarios::steady(&with_duration(ctx, 0.5))?;
        ctx.replace_scheduler(&["--fault", "crash"])?;
        result.merge(scenarios::steady(ctx)?);
        Ok(result)
    }

    #[ktstr_test(scheduler = KTSTR, duration_s = 10, extra_sched_args = ["--fault", "crash"])]
    #[ignore = "fails on purpose"]
    fn dies_in_its_first_life(ctx: &Ctx) -> Result<AssertResult> {
        let mut result = scenarios::steady(ctx)?;
        ctx.replace_scheduler(&[])?;
        result.merge(scenarios::steady(&with_duration(ctx, 0.5))?);
        Ok(result)
    }

    fn with_duration(ctx: &Ctx, seconds: f64) -> Ctx {
        let mut ctx = ctx.clone();
        ctx.duration = std::time::Duration::from_secs_f64(seconds);
        ctx
    }
}

#[test]
fn a_scheduler_that_dies_fails_the_test_in_whichever_life() {
    for (name, life) in [
        ("dies_in_its_first_life", 1),
        ("dies_in_its_second_life", 2),
    ] {
        let Again { sidecar, text, .. } = e2e::run_again(&format!("victims::{name}"), &[]);
        assert_eq!(sidecar.outcome, Outcome::Fail, "{text}");
        let scheduler = sidecar.scheduler.expect("a scheduler");
        assert_eq!(
            (scheduler.life, scheduler.end),
            (life, SchedulerEnd::Died),
            "{text}"
        );
        let [other] = sidecar.other_lives.as_slice() else {
            panic!("{text}");
        };
        assert!(other.end.is_good(), "{text}");
        for part in ["the load was held for", "until scheduler `ktstr` had gone"] {
            assert!(text.contains(part), "no `{part}` in: {text}");
        }
    }
}
