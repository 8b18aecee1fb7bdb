//! What the monitor costs, in one machine, for `cargo xtask bench monitor`. Each prints one line of JSON.
//!
//! | argument | what is measured |
//! |---|---|
//! | `idle4`, `idle16`, `idle64` | samples of a machine with so many CPUs and no load |
//! | `spin` | the work that a guest with a spinning worker on each CPU gets done |

use std::process::ExitCode;
use std::thread;

use ktstr::prelude::*;
use serde_json::json;

/// Lets the duration pass: the samples are of a machine at rest.
fn rest(ctx: &Ctx) -> Result<AssertResult> {
    thread::sleep(ctx.duration);
    Ok(AssertResult::default())
}

#[ktstr_test(cores = 4, duration_s = 10, post_vm = print_cost)]
fn idle4(ctx: &Ctx) -> Result<AssertResult> {
    rest(ctx)
}

#[ktstr_test(llcs = 4, cores = 4, duration_s = 10, post_vm = print_cost)]
fn idle16(ctx: &Ctx) -> Result<AssertResult> {
    rest(ctx)
}

#[ktstr_test(llcs = 8, cores = 8, memory_mib = 1024, duration_s = 10, timeout_s = 300, post_vm = print_cost)]
fn idle64(ctx: &Ctx) -> Result<AssertResult> {
    rest(ctx)
}

/// All bounds on timing are off: a check that a busy host breaks would be no measurement.
#[ktstr_test(cores = 2, duration_s = 5, max_gap_ms = off, max_spread_pct = off, post_vm = print_work)]
fn spin(ctx: &Ctx) -> Result<AssertResult> {
    Ok(scenarios::steady(ctx)?)
}

/// Wall time of the median sample, and the CPU time of the monitor's thread.
fn print_cost(vm: &VmResult) -> Result<()> {
    let recording = &vm.observation.recording;
    let mut took_ns: Vec<u64> = recording
        .samples
        .iter()
        .map(|sample| sample.took_ns)
        .collect();
    took_ns.sort_unstable();
    let median_ns = took_ns
        .get(took_ns.len() / 2)
        .context("no sample was taken")?;
    let cost = recording.cost;
    let line = json!({
        "cpus": vm.sidecar.topology.cpu_count(),
        "samples": cost.samples,
        "median_sample_ns": median_ns,
        "longest_sample_ns": cost.longest_sample_ns,
        "monitor_cpu_ns": cost.cpu_ns,
        "span_ns": cost.span_ns,
    });
    println!("{line}");
    Ok(())
}

fn print_work(vm: &VmResult) -> Result<()> {
    let cgroups = &vm.sidecar.result.cgroups;
    let workers = || cgroups.iter().flat_map(|cgroup| &cgroup.workers);
    let work_units: u64 = workers().map(|worker| worker.work_units).sum();
    let wall_time_ns = workers().map(|worker| worker.wall_time_ns).max();
    let samples = vm.observation.recording.cost.samples;
    println!(
        "{}",
        json!({ "work_units": work_units, "wall_time_ns": wall_time_ns, "samples": samples })
    );
    Ok(())
}

const MEASUREMENTS: [&str; 4] = [
    "monitor_bench::idle4",
    "monitor_bench::idle16",
    "monitor_bench::idle64",
    "monitor_bench::spin",
];

fn main() -> Result<ExitCode> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let is_asked_for = |test: &&str| test.strip_prefix("monitor_bench::") == Some(&name);
    let Some(test) = MEASUREMENTS.into_iter().find(is_asked_for) else {
        bail!("say what to measure: idle4, idle16, idle64 or spin");
    };
    // Panics, and so fails, unless the test passes.
    ktstr::__private::run(test);
    Ok(ExitCode::SUCCESS)
}
