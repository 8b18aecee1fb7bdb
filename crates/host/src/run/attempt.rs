//! Booting once more, after a fault that is the emulator's own.
//!
//! A boot that fails is a finding: a race in a kernel's boot that shows in three boots of ten would hide behind a second
//! try. So it is tried again only where CPUs are emulated, only before PID 1 spoke, and only for faults that are known to
//! be the emulator's, by their signs. The report and the summary of the run name each test that needed it.

use std::time::Duration;

use ktstr_machine::{End, StopReason};
use ktstr_report::{BootAttempt, KERNEL_PANIC};

use super::console::console_end;
use super::drive::DriveError;
use super::record::Record;
use crate::events::{RunEvent, RunObserver};

/// How a kernel's first complaint about itself begins, wherever it stands in a line of its console.
const COMPLAINTS: [&str; 8] = [
    "------------[ cut here",
    "Oops: ",
    "BUG: ",
    "int3: ",
    "general protection fault",
    "WARNING: CPU",
    "INFO: rcu",
    KERNEL_PANIC,
];

/// Drives a machine, and a second one if the first boot met a fault of the emulator.
pub(crate) fn boot(
    is_emulated: bool,
    queued: Duration,
    on: &mut dyn RunObserver,
    mut drive: impl FnMut(&mut dyn RunObserver) -> Result<Record, DriveError>,
) -> Result<Record, DriveError> {
    let mut attempt = |attempt, on: &mut dyn RunObserver| {
        on.event(&RunEvent::Booting { attempt, queued });
        drive(on)
    };
    let first = attempt(1, on)?;
    let Some(fault) = emulators_fault(&first, is_emulated) else {
        return Ok(first);
    };
    for remark in first.performance.iter().chain(&first.remarks) {
        on.event(&RunEvent::Remark(remark));
    }
    on.event(&RunEvent::Retry(&BootAttempt {
        end: first.end.to_string(),
        console_tail: console_end(&first.console),
        fault: fault.to_owned(),
    }));
    attempt(2, on)
}

/// The emulator's fault by which a boot failed, if it is known to be one.
fn emulators_fault(record: &Record, is_emulated: bool) -> Option<&'static str> {
    if !is_emulated || record.booted() {
        return None;
    }
    let complaint = record
        .console
        .lines()
        .find(|line| COMPLAINTS.iter().any(|start| line.contains(start)));
    match (&record.end, complaint) {
        // QEMU before 10 with a thread for each vCPU: one runs the old code of a static key that another one has just
        // patched. The kernel's own handler of the breakpoint has gone by then.
        (End::Panicked { .. } | End::Reset, Some(first)) if first.contains("int3: ") => {
            Some("a vCPU met a breakpoint that the kernel had patched away (Oops: int3)")
        }
        (End::Stopped(StopReason::Watchdog), None) => {
            Some("the vCPUs stood still without a word of the kernel, as when an interrupt is lost")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::empty_record;

    fn record(end: End, console: &str) -> Record {
        Record {
            end,
            console: console.to_owned(),
            ..empty_record()
        }
    }

    fn panicked(console: &str) -> Record {
        let text = "Kernel panic - not syncing: Fatal exception".to_owned();
        record(End::Panicked { text }, console)
    }

    const INT3: &str = "[ 0.1] Linux\n[ 0.9] Oops: int3: 0000 [#1] SMP NOPTI\n[ 0.9] Kernel panic - not syncing: x\n";

    /// What an observer is told.
    #[derive(Default)]
    struct Told {
        boots: Vec<u32>,
        retries: Vec<BootAttempt>,
    }

    impl RunObserver for Told {
        fn event(&mut self, event: &RunEvent<'_>) {
            match event {
                RunEvent::Booting { attempt, .. } => self.boots.push(*attempt),
                RunEvent::Retry(attempt) => self.retries.push((*attempt).clone()),
                _ => {}
            }
        }
    }

    /// What is told of it, if each boot ends as the first.
    fn boots(is_emulated: bool, record: impl Fn() -> Record) -> Told {
        let mut told = Told::default();
        let booted = boot(is_emulated, Duration::ZERO, &mut told, |_| Ok(record()));
        booted.expect("driven");
        told
    }

    #[test]
    fn fault_a3_a_boot_is_tried_again_only_for_a_fault_of_the_emulator() {
        let hung = || record(End::Stopped(StopReason::Watchdog), "[ 0.1] Linux\n");
        let int3 = || panicked(INT3);
        for (boot, words) in [
            (&hung as &dyn Fn() -> Record, "as when an interrupt is lost"),
            (&int3, "(Oops: int3)"),
        ] {
            let told = boots(true, boot);
            assert_eq!(told.boots, [1, 2]);
            let [attempt] = &told.retries[..] else {
                panic!("{:?}", told.retries);
            };
            assert!(attempt.fault.contains(words), "{attempt:?}");
            // A real CPU has none of these faults.
            let told = boots(false, boot);
            assert_eq!((told.boots.len(), told.retries.len()), (1, 0));
        }
    }

    #[test]
    fn fault_a3_a_boot_that_fails_otherwise_is_a_finding() {
        let warned = "[ 0.2] ------------[ cut here ]------------\n";
        let rcu = "[ 30.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n";
        let watchdog = || End::Stopped(StopReason::Watchdog);
        let triple = || End::TripleFault { vcpu: 0, rip: None };
        let broken = || End::Broken {
            message: "x".to_owned(),
        };
        let null = "[ 0.2] BUG: kernel NULL pointer dereference\n";
        for again in [
            &(|| panicked("[ 0.2] Kernel panic - not syncing: No working init found\n"))
                as &dyn Fn() -> Record,
            &|| panicked(&format!("{null}{INT3}")),
            &|| record(watchdog(), warned),
            &|| record(watchdog(), rcu),
            &|| record(End::Reset, "[ 0.2] Linux\n"),
            &|| record(End::PoweredOff, "[ 0.2] Linux\n"),
            &|| record(triple(), ""),
            &|| record(broken(), ""),
            &|| record(End::Stopped(StopReason::User), ""),
            &|| Record {
                release: Some("7.3.4".to_owned()),
                ..record(watchdog(), "")
            },
        ] {
            let told = boots(true, again);
            assert_eq!(told.boots, [1], "{:?}", again().end);
        }
    }
}
