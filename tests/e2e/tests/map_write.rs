//! The host writes into a scheduler's global variables while it runs. That the number has arrived is told by the
//! scheduler, which does what it is then told to, and by the kernel, which says what that was.

use ktstr::prelude::*;

declare_scheduler!(KTSTR, {
    name = "ktstr",
    binary = "scx_ktstr",
    topology = (1, 1, 2, 1),
});

/// `FAULT_ERROR` of schedulers/scx-ktstr/src/bpf/settings.h.
const FAULT_ERROR: u32 = 5;

/// A count that the scheduler never comes to by itself: of what it takes from other LLCs, here none.
const STOLEN: u64 = 7_000_000_000_000;

#[ktstr_test(
    scheduler = KTSTR,
    bpf_map_write("fault" = 5),
    expect_err(scx_error(contains = "ktstr: dispatch gives up on CPU"))
)]
fn what_the_test_declares_is_written_before_its_body(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

#[ktstr_test(
    scheduler = KTSTR,
    duration_s = 1,
    post_vm = the_scheduler_dumps_what_was_written,
    expect_err(scx_error(contains = "ktstr: dispatch gives up on CPU"))
)]
fn what_the_body_asks_for_is_written_then(ctx: &Ctx) -> Result<AssertResult> {
    let healthy = scenarios::steady(ctx)?;
    let state = std::fs::read_to_string("/sys/kernel/sched_ext/state")?;
    ensure!(state.trim() == "enabled", "sched_ext is {state}");
    ensure!(
        healthy
            .checks
            .iter()
            .all(|check| check.outcome == Outcome::Pass)
    );
    ctx.bpf_map_write("nr_stolen", STOLEN)?;
    let still_healthy = scenarios::steady(ctx)?;
    ensure!(still_healthy.with_outcome(Outcome::Fail).next().is_none());
    ctx.bpf_map_write("fault", FAULT_ERROR)?;
    Ok(scenarios::steady(ctx)?)
}

/// Its `ops.dump` prints the variables as the BPF program reads them, within the guest.
fn the_scheduler_dumps_what_was_written(vm: &VmResult) -> Result<()> {
    let scheduler = vm.sidecar.scheduler.as_ref();
    let dump = &scheduler.context("there is no scheduler")?.dump;
    for written in [
        format!("stolen={STOLEN}\n"),
        format!("fault={FAULT_ERROR} "),
    ] {
        ensure!(dump.contains(&written), "no `{written}` in: {dump}");
    }
    Ok(())
}

/// Paths and numbers that can't be, and what the report's remarks say of them.
const REFUSED: [(&str, i128, &str); 5] = [
    (
        "fualt",
        1,
        "no BPF program has a global variable `fualt`; there are: ",
    ),
    (
        "workers_seen",
        2,
        "2 does not fit into `workers_seen`, which holds 0 to 1",
    ),
    (
        "fault",
        -1,
        "-1 does not fit into `fault`, which holds 0 to 4294967295",
    ),
    ("slice_ns", 1, "`slice_ns` is in `.rodata`"),
    (
        "exit_record",
        1,
        "`exit_record` in section `.data.exit` is not an integer",
    ),
];

#[ktstr_test(scheduler = KTSTR, duration_s = 1, post_vm = each_is_remarked)]
fn what_can_not_be_written_is_refused(ctx: &Ctx) -> Result<AssertResult> {
    for (path, value, _) in REFUSED {
        let refused = ctx
            .bpf_map_write(path, value)
            .map_err(|error| error.to_string());
        let words =
            format!("the host could not write {value} into `{path}`; the report's remarks say why");
        ensure!(refused.as_ref() == Err(&words), "{refused:?}");
    }
    Ok(scenarios::steady(ctx)?)
}

fn each_is_remarked(vm: &VmResult) -> Result<()> {
    let remarks = &vm.observation.remarks;
    ensure!(remarks.len() == REFUSED.len(), "{remarks:#?}");
    for (remark, (path, value, why)) in remarks.iter().zip(REFUSED) {
        let begin = format!("{value} was not written into `{path}`: ");
        ensure!(
            remark.starts_with(&begin) && remark.contains(why),
            "{remark}"
        );
    }
    ensure!(remarks[0].contains("victim_pid"), "{}", remarks[0]);
    Ok(())
}
