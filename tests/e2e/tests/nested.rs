//! Our own microVM on a real KVM: that of an emulated machine with AMD-V, in which this binary is the host.

use std::process::Command;

use ktstr::prelude::*;
use ktstr_report::{RunStore, Sidecar};

/// The guest's own view of its machine, and a load on all of its CPUs.
fn load_and_look(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    for cpu in ctx.topo.cpus().iter() {
        let llc = ctx.topo.llc_of(cpu).context("a CPU without LLC")?;
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index3/shared_cpu_list");
        let seen: CpuSet = std::fs::read_to_string(&file)
            .with_context(|| file.clone())?
            .parse()?;
        ensure!(seen == ctx.topo.llc_cpus(llc), "{file} is {seen}");
        let node = ctx.topo.node_of(cpu).context("a CPU without node")?;
        let link = format!("/sys/devices/system/cpu/cpu{cpu}/node{node}");
        ensure!(std::path::Path::new(&link).exists(), "{link} is missing");
    }
    let clocks = "/sys/devices/system/clocksource/clocksource0/available_clocksource";
    let has_kvm_clock = std::fs::read_to_string(clocks)?.contains("kvm-clock");
    let what = "whether the guest has KVM's clock";
    result.push(CheckResult::equal(
        "hypervisor",
        what,
        &has_kvm_clock.to_string(),
        "true",
    ));
    Ok(result)
}

#[ktstr_test]
#[ignore = "run nested by the tests of this file"]
fn one_cpu(ctx: &Ctx) -> Result<AssertResult> {
    load_and_look(ctx)
}

#[ktstr_test(numa_nodes = 2, llcs = 2, cores = 2)]
#[ignore = "run nested by the tests of this file"]
fn two_nodes(ctx: &Ctx) -> Result<AssertResult> {
    load_and_look(ctx)
}

#[ktstr_test]
#[ignore = "run nested by the tests of this file"]
fn kernel_panics(_: &Ctx) -> Result<AssertResult> {
    std::fs::write("/proc/sysrq-trigger", "c")?;
    bail!("the kernel goes on");
}

/// Runs one of the tests above on the `nested` engine.
fn nested(name: &str) -> Sidecar {
    let runs = tempfile::tempdir().expect("a folder");
    let ended = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--ignored", "--exact", "--nocapture", name])
        .env("KTSTR_ENGINE", "nested")
        .env("KTSTR_RUNS_DIR", runs.path())
        .env_remove("KTSTR_RUN_ID")
        .output()
        .expect("this binary runs");
    let store = RunStore::new(runs.path());
    let mut run = store
        .latest_run()
        .expect("a readable store")
        .expect("a run");
    let sidecar = run.sidecars.pop().expect("a sidecar").sidecar;
    let text = String::from_utf8_lossy(&ended.stdout);
    let engine = sidecar.engine.as_ref().expect("an engine");
    assert_eq!(engine.name, "nested", "{text}");
    assert!(engine.detail.starts_with("kvm (our own microVM"), "{text}");
    assert_eq!(
        ended.status.success(),
        sidecar.outcome == Outcome::Pass,
        "{text}"
    );
    sidecar
}

#[test]
fn a_test_passes_on_one_cpu() {
    let sidecar = nested("one_cpu");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_test_passes_on_two_nodes_with_an_llc_each() {
    let sidecar = nested("two_nodes");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_kernel_panic_is_reported_from_within() {
    let sidecar = nested("kernel_panics");
    let failure = sidecar.failure.expect("a failure");
    assert_eq!(
        failure.summary,
        "the guest kernel panicked: sysrq triggered crash"
    );
}
