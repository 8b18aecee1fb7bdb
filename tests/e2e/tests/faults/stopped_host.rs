//! A host that stands still now and then, while QEMU runs the guest on: the monitor misses samples.

use std::fs;
use std::time::{Duration, Instant};

use ktstr::prelude::*;
use nix::sys::signal::Signal;

use crate::victim::{Victim, cpu_ticks, send, wait_until};

/// Samples that the host can take between two stops. Far fewer in a row than break the bound.
const SAMPLES_BETWEEN: u64 = 2;

/// CPU time of QEMU, in ticks of 10 ms, for which the host is stopped.
const STOP_TICKS: u64 = 50;

/// Longest stop, for a guest that has nothing to do.
const LONGEST_STOP: Duration = Duration::from_secs(3);

/// Beyond its bound from its first moment to its last.
#[ktstr_test(
    llcs = 1,
    cores = 2,
    duration_s = 6,
    max_imbalance_ratio = 1.5,
    sustained_samples = 15
)]
#[ignore = "run by the tests of this file"]
fn is_uneven(ctx: &Ctx) -> Result<AssertResult> {
    let heap = CgroupDef::named("heap")
        .workers(4)
        .cpuset(CpusetSpec::Exact(CpuSet::from_range(0..1)));
    Ok(execute_defs(ctx, vec![heap])?)
}

#[test]
fn patches_of_missing_samples_hide_no_violation() {
    // Only there does the guest run on while the test's process is stopped.
    let victim = Victim::of("stopped_host::is_uneven", &[("KTSTR_ENGINE", "tcg")]);
    let (host, qemu) = (victim.child.id(), victim.qemu());
    let monitor = wait_until("the monitor runs", || monitor_of(host));
    while let Some(before) = looks(host, monitor) {
        wait_until("the monitor has looked again", || {
            let enough = looks(host, monitor).is_none_or(|now| now >= before + SAMPLES_BETWEEN);
            enough.then_some(())
        });
        send(host, Signal::SIGSTOP);
        let (from, since) = (cpu_ticks(qemu), Instant::now());
        wait_until("the guest has run on", || {
            let ran = cpu_ticks(qemu) >= from + STOP_TICKS;
            (ran || since.elapsed() >= LONGEST_STOP).then_some(())
        });
        send(host, Signal::SIGCONT);
    }
    let reported = victim.finish();
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    assert_eq!(sidecar.outcome, Outcome::Inconclusive, "{}", reported.text);
    let mut open = sidecar.result.with_outcome(Outcome::Inconclusive);
    let check = open.find(|check| check.check == "max_imbalance_ratio");
    let detail = &check.expect("left open").detail;
    assert!(
        detail.contains("samples in a row were beyond the bound (")
            && detail.ends_with(": 15 in a row would break it"),
        "{detail}"
    );
    assert!(!detail.contains("taken (0)"), "{detail}");
}

/// The monitor's thread.
fn monitor_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        let is_it = name.trim_end() == "ktstr-monitor";
        is_it.then(|| thread.file_name().to_str()?.parse().ok())?
    })
}

/// How often the monitor has gone to sleep, which it does after each sample; `None` once it has ended.
fn looks(pid: u32, monitor: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{monitor}/status")).ok()?;
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}
