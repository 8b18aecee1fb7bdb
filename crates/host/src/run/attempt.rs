//! Booting once more, after a fault that is the emulator's own.
//!
//! A boot that fails is a finding: a race in a kernel's boot that shows in three boots of ten would hide behind a second
//! try. So it is tried again only where CPUs are emulated, only before PID 1 spoke, and only for faults that are known to
//! be the emulator's, by their signs. The report and the summary of the run name each test that needed it.

use ktstr_machine::{End, KillReason};
use ktstr_report::BootAttempt;

use super::console::console_end;
use super::drive::DriveError;
use super::record::Record;

/// How a kernel's first complaint about itself begins, wherever it stands in a line of its console.
const COMPLAINTS: [&str; 8] = [
    "------------[ cut here",
    "Oops: ",
    "BUG: ",
    "int3: ",
    "general protection fault",
    "WARNING: CPU",
    "INFO: rcu",
    "Kernel panic - not syncing",
];

/// A machine that was driven to its end, and the boots before it.
#[derive(Debug)]
pub(crate) struct Booted {
    pub(crate) record: Record,
    pub(crate) retries: Vec<BootAttempt>,
    /// Remarks of the boots before it.
    pub(crate) remarks: Vec<String>,
}

/// Drives a machine, and a second one if the first boot met a fault of the emulator.
pub(crate) fn boot(
    is_emulated: bool,
    mut drive: impl FnMut() -> Result<Record, DriveError>,
) -> Result<Booted, DriveError> {
    let first = drive()?;
    let Some(fault) = emulators_fault(&first, is_emulated) else {
        return Ok(Booted {
            record: first,
            retries: Vec::new(),
            remarks: Vec::new(),
        });
    };
    let attempt = BootAttempt {
        end: first.end.to_string(),
        console_tail: console_end(&first.console),
        fault: fault.to_owned(),
    };
    Ok(Booted {
        record: drive()?,
        retries: vec![attempt],
        remarks: first.remarks,
    })
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
        (End::Stopped(KillReason::Watchdog), None) => {
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

    /// How often it is booted, if each boot ends as the first.
    fn boots(is_emulated: bool, record: impl Fn() -> Record) -> (usize, Booted) {
        let mut boots = 0;
        let booted = boot(is_emulated, || {
            boots += 1;
            Ok(record())
        });
        (boots, booted.expect("driven"))
    }

    #[test]
    fn fault_a3_a_boot_is_tried_again_only_for_a_fault_of_the_emulator() {
        let hung = || record(End::Stopped(KillReason::Watchdog), "[ 0.1] Linux\n");
        let int3 = || panicked(INT3);
        for (boot, words) in [
            (&hung as &dyn Fn() -> Record, "as when an interrupt is lost"),
            (&int3, "(Oops: int3)"),
        ] {
            let (count, booted) = boots(true, boot);
            assert_eq!(count, 2);
            let [attempt] = &booted.retries[..] else {
                panic!("{booted:?}");
            };
            assert!(attempt.fault.contains(words), "{attempt:?}");
            // A real CPU has none of these faults.
            let (count, booted) = boots(false, boot);
            assert_eq!((count, booted.retries.len()), (1, 0));
        }
    }

    #[test]
    fn fault_a3_a_boot_that_fails_otherwise_is_a_finding() {
        let warned = "[ 0.2] ------------[ cut here ]------------\n";
        let rcu = "[ 30.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n";
        let watchdog = || End::Stopped(KillReason::Watchdog);
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
            &|| record(End::Stopped(KillReason::User), ""),
            &|| Record {
                release: Some("7.3.4".to_owned()),
                ..record(watchdog(), "")
            },
        ] {
            let (count, booted) = boots(true, again);
            assert_eq!(count, 1, "{:?}", booted.record.end);
        }
    }
}
