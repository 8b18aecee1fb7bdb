//! Tests without a machine: their bodies run in the victim's own process.

use std::thread;
use std::time::Duration;

use ktstr::prelude::*;
use ktstr_report::FailureKind;

use crate::failed;
use crate::victim::{Reported, Victim};

/// Without a kernel or QEMU to be found: none is looked for.
fn on_host(name: &str) -> Reported {
    let environment = [
        ("KTSTR_KERNEL", "/no/such/vmlinuz"),
        ("KTSTR_QEMU", "/no/such/qemu"),
    ];
    Victim::of(&format!("host_only::{name}"), &environment).finish()
}

/// Variables that cargo and nextest set are there, unlike in a machine.
#[ktstr_test(host_only)]
#[ignore = "run by the tests of this file"]
fn looks_around(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(std::process::id() != 1);
    let mut result = AssertResult::default();
    let victims_own = std::env::var("KTSTR_QEMU")?;
    result.push(CheckResult::equal(
        "host",
        "KTSTR_QEMU",
        &victims_own,
        "/no/such/qemu",
    ));
    let cpus = ctx.topo.cpu_count().to_string();
    result.push(CheckResult::equal("host", "the declared CPUs", &cpus, "1"));
    Ok(result)
}

#[ktstr_test(host_only)]
#[ignore = "run by the tests of this file"]
fn judges_nothing(_: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::default())
}

#[ktstr_test(host_only)]
#[ignore = "run by the tests of this file"]
fn panics(_: &Ctx) -> Result<AssertResult> {
    panic!("the body gives up at {}", 42);
}

#[ktstr_test(host_only, timeout_s = 0.2)]
#[ignore = "run by the tests of this file"]
fn hangs(_: &Ctx) -> Result<AssertResult> {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_body_runs_on_the_host_and_is_judged_by_its_own_checks() {
    let reported = on_host("looks_around");
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{}", reported.text);
    assert_eq!(sidecar.result.checks.len(), 2, "{}", reported.text);
    let engine = sidecar.engine.as_ref().expect("an engine");
    assert_eq!(engine.name, "host");
    assert_eq!(reported.left_in_temporary, Vec::<String>::new());
}

#[test]
fn a_body_without_a_check_is_inconclusive() {
    let reported = on_host("judges_nothing");
    assert!(!reported.success, "{}", reported.text);
    assert!(reported.text.contains("INCONCLUSIVE"), "{}", reported.text);
}

#[test]
fn a_panic_on_the_host_is_reported() {
    let reported = on_host("panics");
    let (_, summary) = failed(&reported, FailureKind::Test);
    assert_eq!(summary, "the test panicked: the body gives up at 42");
    let place = "tests/e2e/tests/faults/host_only.rs:";
    assert!(reported.text.contains(place), "{}", reported.text);
}

#[test]
fn a_hanging_body_on_the_host_fails_in_time() {
    let reported = on_host("hangs");
    let (_, summary) = failed(&reported, FailureKind::Test);
    assert_eq!(summary, "the test still ran after 0.2 s, on the host");
}
