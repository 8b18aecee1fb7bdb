//! Our own microVM on a real KVM: that of an emulated machine with AMD-V, in which this binary is the host.

use ktstr::prelude::*;

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

#[test]
fn a_test_passes_on_one_cpu() {
    let sidecar = e2e::run_nested("one_cpu");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_test_passes_on_two_nodes_with_an_llc_each() {
    let sidecar = e2e::run_nested("two_nodes");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[test]
fn a_kernel_panic_is_reported_from_within() {
    let sidecar = e2e::run_nested("kernel_panics");
    let failure = sidecar.failure.expect("a failure");
    assert_eq!(
        failure.summary,
        "the guest kernel panicked: sysrq triggered crash"
    );
}
