//! Bugs of published schedulers, as tests that find them. They stay here since the reports that they give are
//! what `crates/host` learns its diagnoses from.
//!
//! `cargo xtask setup --schedulers` builds the programs; KTSTR_SCHEDULER names the one to run, `--kernel` the kernel.

use std::fs;
use std::thread;
use std::time::Duration;

use ktstr::prelude::*;

declare_scheduler!(BPFLAND, { name = "bpfland", binary = "scx_bpfland", topology = (1, 1, 2, 1) });
declare_scheduler!(COSMOS, { name = "cosmos", binary = "scx_cosmos", topology = (1, 1, 4, 1) });
declare_scheduler!(RUSTY, { name = "rusty", binary = "scx_rusty", topology = (1, 1, 4, 1) });
declare_scheduler!(LAVD, { name = "lavd", binary = "scx_lavd", topology = (1, 1, 4, 1) });

/// Linux 6.17 has no deadline server for tasks of sched_ext, so a real-time task starves them: a stall.
#[ktstr_test(scheduler = BPFLAND, watchdog_timeout_s = 5, duration_s = 9)]
#[ignore = "needs KTSTR_SCHEDULER=scx_bpfland and kernel 6.17"]
fn a_fifo_hog_starves_ext_tasks(ctx: &Ctx) -> Result<AssertResult> {
    let on_cpu_1 = || AffinityIntent::Exact([1].into_iter().collect());
    Ok(execute_defs(
        ctx,
        vec![
            CgroupDef::named("hog")
                .sched_policy(SchedPolicy::Fifo(50))
                .affinity(on_cpu_1()),
            CgroupDef::named("victim").affinity(on_cpu_1()),
        ],
    )?)
}

/// scx_cosmos 1.1.3 panics once a CPU has gone offline.
#[ktstr_test(scheduler = COSMOS, duration_s = 6)]
#[ignore = "needs KTSTR_SCHEDULER=scx_cosmos"]
fn cosmos_and_a_cpu_that_goes_offline(ctx: &Ctx) -> Result<AssertResult> {
    with_hotplug(ctx, 2, None)
}

/// scx_bpfland 1.1.4 leaves tasks on the queue of a CPU that was offline for a while.
#[ktstr_test(scheduler = BPFLAND, cores = 4, watchdog_timeout_s = 5, duration_s = 14)]
#[ignore = "needs KTSTR_SCHEDULER=scx_bpfland"]
fn bpfland_and_a_cpu_that_comes_back(ctx: &Ctx) -> Result<AssertResult> {
    with_hotplug(ctx, 3, Some(Duration::from_secs(3)))
}

/// scx_rusty 1.1.4 restarts itself when a CPU goes offline.
#[ktstr_test(scheduler = RUSTY, duration_s = 10)]
#[ignore = "needs KTSTR_SCHEDULER=scx_rusty"]
fn rusty_and_a_cpu_that_comes_back(ctx: &Ctx) -> Result<AssertResult> {
    with_hotplug(ctx, 3, Some(Duration::from_secs(3)))
}

/// scx_lavd 1.1.1 calls a kernel function that Linux 7.3 no longer has.
#[ktstr_test(scheduler = LAVD)]
#[ignore = "needs KTSTR_SCHEDULER=scx_lavd 1.1.1 and kernel 7.3"]
fn a_scheduler_older_than_its_kernel(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

/// Four workers, while `cpu` goes offline after a second and, if `back_after` says so, comes back.
fn with_hotplug(ctx: &Ctx, cpu: usize, back_after: Option<Duration>) -> Result<AssertResult> {
    let online = format!("/sys/devices/system/cpu/cpu{cpu}/online");
    let hotplug = thread::spawn(move || -> std::io::Result<()> {
        thread::sleep(Duration::from_secs(1));
        fs::write(&online, "0")?;
        if let Some(pause) = back_after {
            thread::sleep(pause);
            fs::write(&online, "1")?;
        }
        Ok(())
    });
    let result = execute_defs(ctx, vec![CgroupDef::named("load").workers(4)])?;
    hotplug.join().expect("the hotplug thread does not panic")?;
    Ok(result)
}
