//! Faults on our own microVM with a real KVM: that of an emulated machine with AMD-V, in which the bodies of
//! this file run as on a host.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use ktstr::prelude::*;
use ktstr_report::FailureKind;
use nix::sys::signal::Signal;

use crate::entries;
use crate::raw_syscalls::tgkill;
use crate::victim::{Reported, Victim, kill, wait_until};
use crate::victims::ring0::{ENTRY, NOTHING};

/// The microVM's tests with guests of a few instructions, here to be run on that KVM as well.
#[path = "../../../../crates/vmm/tests/tiny_guest.rs"]
mod tiny_guest;

/// How much shared memory may come and go by itself. A guest that has booted has several times as much.
const SHARED_MEMORY_SLACK_MIB: u64 = 16;

fn nested(name: &str) -> Reported {
    Victim::of(&format!("kvm::{name}"), &[("KTSTR_ENGINE", "nested")]).finish()
}

fn passes(name: &str) {
    let reported = nested(name);
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{}", reported.text);
    let engine = sidecar.engine.as_ref().expect("an engine");
    assert_eq!(engine.name, "nested", "{}", reported.text);
}

#[test]
fn what_ring_0_does_is_reported_with_its_place_and_leaves_nothing() {
    passes("ring_0_goes_wrong");
}

#[test]
fn a_driver_without_sense_harms_its_own_guest_at_most() {
    passes("a_driver_goes_wrong");
}

#[test]
fn a_host_that_is_killed_leaves_nothing() {
    passes("hosts_are_killed");
}

#[test]
fn the_microvms_own_tests_pass_on_a_real_kvm() {
    passes("tiny_guests");
}

#[test]
fn a_fatal_signal_to_a_vcpu_thread_is_reported_by_pid_1() {
    let reported = nested("vcpu_thread_is_killed");
    let (_, summary) = crate::failed(&reported, FailureKind::Test);
    assert!(
        summary.starts_with("the test process got SIGSEGV"),
        "{summary}"
    );
}

/// Runs victims one by one, each in a machine of its own, and judges what each leaves behind.
struct Victims {
    result: AssertResult,
    /// When the first has run, and the cache is filled.
    shared_memory_mib: Option<u64>,
}

impl Victims {
    fn new() -> Self {
        Self {
            result: AssertResult::default(),
            shared_memory_mib: None,
        }
    }

    fn run(&mut self, name: &str) -> Reported {
        let reported = Victim::start(name, &[]).finish();
        println!("{}", reported.text);
        let before = *self.shared_memory_mib.get_or_insert_with(shared_memory_mib);
        self.equal(name, "what it leaves behind", &left(before), "");
        let files = reported.left_in_temporary.join(", ");
        self.equal(name, "its temporary files", &files, "");
        reported
    }

    fn equal(&mut self, name: &str, what: &str, seen: &str, wanted: &str) {
        self.result
            .push(CheckResult::equal(name, what, seen, wanted));
    }
}

#[ktstr_test(host_only, timeout_s = 420)]
#[ignore = "run nested by the tests of this file"]
fn ring_0_goes_wrong(_: &Ctx) -> Result<AssertResult> {
    let mut victims = Victims::new();

    let name = "ring0::faults_three_times";
    let wanted = "the guest ended without a result, in the body of the test: triple fault on vCPU 0 (its RIP is \
                  lost: KVM has reset it): it could not deliver an exception, nor the double fault after it";
    let said = summary(&victims.run(name));
    victims.equal(name, "the report", &said, wanted);

    let name = "ring0::runs_into_nothing";
    let wanted = format!(
        "the engine broke, in the body of the test: vCPU 0 broke down at RIP {NOTHING:#x}: KVM could not emulate \
         an instruction"
    );
    let said = summary(&victims.run(name));
    let start = said.get(..wanted.len()).unwrap_or(&said);
    victims.equal(name, "the report's start", start, &wanted);

    let name = "ring0::spins_with_interrupts_off";
    let wanted = "the watchdog ended the machine after 8.0 s, in the body of the test";
    let reported = victims.run(name);
    victims.equal(name, "the report", &summary(&reported), wanted);
    let remark = format!("vCPU 0 when the watchdog fired: RIP {:#x}", ENTRY + 1);
    let remarks = reported
        .sidecar
        .map_or_else(Vec::new, |sidecar| sidecar.remarks);
    victims.equal(name, "the remarks", &remarks.join("; "), &remark);
    Ok(victims.result)
}

#[ktstr_test(host_only, timeout_s = 420)]
#[ignore = "run nested by the tests of this file"]
fn a_driver_goes_wrong(_: &Ctx) -> Result<AssertResult> {
    let mut victims = Victims::new();
    let reported = victims.run("virtio::driver_writes_garbage");
    let sidecar = reported.sidecar.context("no sidecar")?;
    // The result came out. What else the garbage on the link was is not known.
    let outcome = format!("{:?}", sidecar.outcome);
    victims.equal("garbage", "the outcome", &outcome, "Inconclusive");
    let passed = sidecar.result.outcome() == Outcome::Pass;
    victims.equal("garbage", "its checks pass", &passed.to_string(), "true");
    victims.result.merge(sidecar.result);
    Ok(victims.result)
}

/// Kills hosts while their guests boot, and looks what is left of them.
#[ktstr_test(host_only, timeout_s = 420)]
#[ignore = "run nested by the tests of this file"]
fn hosts_are_killed(_: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    for (name, signal) in [("vCPU thread", Signal::SIGSEGV), ("host", Signal::SIGKILL)] {
        let mut victim = Victim::start("body_waits", &[]);
        let pid = victim.child.id();
        let thread = wait_until("the guest starts", || vcpu_thread(pid));
        // What the cache holds was written before.
        let before = shared_memory_mib();
        wait_until("the guest has taken memory", || {
            (shared_memory_mib() > before + 2 * SHARED_MEMORY_SLACK_MIB).then_some(())
        });
        ensure!(machines() > 0, "KVM is not in use");
        let status = wait_until("it is dead", || {
            match signal {
                Signal::SIGKILL => kill(pid),
                // Rust's own handler takes the first one to be an overflow of a stack, and makes way.
                _ => drop(tgkill(i32::try_from(pid).ok()?, thread, signal)),
            }
            victim.child.try_wait().expect("our child")
        });
        let died_of = status
            .signal()
            .map_or_else(|| status.to_string(), |signal| signal.to_string());
        let wanted = (signal as i32).to_string();
        result.push(CheckResult::equal(
            name,
            "the signal that ended it",
            &died_of,
            &wanted,
        ));
        result.push(CheckResult::equal(
            name,
            "what is left of it",
            &left(before),
            "",
        ));
        let files = entries(victim.temporary.path()).join(", ");
        result.push(CheckResult::equal(name, "its temporary files", &files, ""));
    }
    Ok(result)
}

#[ktstr_test(host_only, timeout_s = 420)]
#[ignore = "run nested by the tests of this file"]
fn tiny_guests(_: &Ctx) -> Result<AssertResult> {
    let ticks_before = interval_timer_ticks()?;
    let ended = Command::new(std::env::current_exe()?)
        .args(["kvm::tiny_guest::", "--test-threads=1"])
        // Judges the speed of the host.
        .args(["--skip", "the_probe_answers_in_time"])
        .output()?;
    let said = String::from_utf8_lossy(&ended.stdout);
    println!("{said}");
    let passed = said.matches(" ... ok").count();
    let mut result = AssertResult::default();
    result.push(CheckResult::equal(
        "tiny guests",
        "the end",
        &ended.status.to_string(),
        "exit status: 0",
    ));
    let passed = f64::from(u32::try_from(passed)?);
    result.push(CheckResult::at_least("tiny guests", passed, 12.0, "tests"));
    result.push(CheckResult::equal(
        "tiny guests",
        "what is left",
        &left(shared_memory_mib()),
        "",
    ));
    // What saves an outer machine whose local timer's interrupt was lost.
    let ticks = f64::from(interval_timer_ticks()? - ticks_before);
    result.push(CheckResult::at_least("interval timer", ticks, 1.0, "ticks"));
    Ok(result)
}

/// Interrupts of the legacy timer since this machine's start, on its one CPU.
fn interval_timer_ticks() -> Result<u32> {
    let interrupts = fs::read_to_string("/proc/interrupts")?;
    let line = interrupts
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("0:"));
    let count = line.and_then(|line| line.split_whitespace().next());
    Ok(count.context("no line for interrupt 0")?.parse()?)
}

/// In this very process, which the outer machine's PID 1 watches.
#[ktstr_test(host_only)]
#[ignore = "run nested by the tests of this file"]
fn vcpu_thread_is_killed(_: &Ctx) -> Result<AssertResult> {
    let spin = tiny_guest::start(Topology::SINGLE, &tiny_guest::SPIN);
    ensure!(spin.is_some(), "no KVM");
    let own = std::process::id();
    let thread = wait_until("the guest runs", || vcpu_thread(own));
    tgkill(i32::try_from(own)?, thread, Signal::SIGSEGV)?;
    wait_until("this process is dead", || None)
}

fn summary(reported: &Reported) -> String {
    let failure = reported
        .sidecar
        .as_ref()
        .and_then(|sidecar| sidecar.failure.as_ref());
    failure.map_or_else(|| reported.text.clone(), |failure| failure.summary.clone())
}

/// What is left of machines that have ended, in words; nothing once all is gone.
fn left(shared_memory_before_mib: u64) -> String {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let mut left = processes();
        if machines() > 0 {
            left.push(format!("{} users of KVM", machines()));
        }
        let more = shared_memory_mib().saturating_sub(shared_memory_before_mib);
        if more > SHARED_MEMORY_SLACK_MIB {
            left.push(format!("{more} MiB of shared memory"));
        }
        left.extend(entries("/dev/shm"));
        // What was killed goes in its own time.
        if left.is_empty() || std::time::Instant::now() > until {
            return left.join(", ");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// How many machines and vCPUs hold the KVM of this machine.
fn machines() -> u32 {
    let count =
        fs::read_to_string("/sys/module/kvm_amd/refcnt").expect("the module of this machine's KVM");
    count.trim().parse().expect("a number")
}

/// Memory of memfds, among others.
fn shared_memory_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("readable");
    let line = text
        .lines()
        .find(|line| line.starts_with("Shmem:"))
        .expect("a line");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        / 1024
}

/// Processes of this binary, but for this one and PID 1.
fn processes() -> Vec<String> {
    let own_binary = std::env::current_exe().expect("this binary");
    let own = std::process::id().to_string();
    entries("/proc")
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok() && *name != own && name != "1")
        .filter(|pid| {
            fs::read_link(PathBuf::from("/proc").join(pid).join("exe"))
                .is_ok_and(|exe| exe == own_binary)
        })
        .map(|pid| format!("process {pid}"))
        .collect()
}

fn vcpu_thread(pid: u32) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let is_vcpu = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm"))
            .is_ok_and(|name| name.starts_with("ktstr-vcpu"))
    };
    let task = tasks.flatten().find(is_vcpu)?;
    task.file_name().to_str()?.parse().ok()
}
