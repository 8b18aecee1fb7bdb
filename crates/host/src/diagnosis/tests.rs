//! Failures of published schedulers, as `examples/scheduler-tests/tests/public_bugs.rs` recorded them: the sidecar,
//! and of the dump the CPUs.

use ktstr_monitor::Reading;
use ktstr_report::{CheckResult, Renderer, SchedulerReport};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Recorded {
    sidecar: Sidecar,
    moments: Vec<RecordedMoment>,
}

#[derive(Deserialize)]
struct RecordedMoment {
    cpus: Reading<Vec<CpuState>>,
}

impl Recorded {
    fn read(json: &str) -> Self {
        serde_json::from_str(json).expect("a record")
    }

    fn cause(&self) -> String {
        let scenes: Vec<Scene<'_>> = self
            .moments
            .iter()
            .map(|moment| Scene {
                cpus: moment.cpus.as_deref().unwrap_or_default(),
            })
            .collect();
        cause(&self.sidecar, &scenes)
    }

    /// The first three lines of the report.
    fn head(mut self) -> String {
        self.sidecar.cause = self.cause();
        let report = Renderer::default().test(&self.sidecar, None);
        report
            .lines()
            .take(3)
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn first_cpus(&mut self) -> &mut Vec<CpuState> {
        self.moments[0].cpus.as_mut().expect("CPUs")
    }
}

const FIFO_HOG: &str = include_str!("recorded/bpfland_1.1.4_under_a_fifo_hog.json");
const COSMOS: &str = include_str!("recorded/cosmos_1.1.3_cpu_offline.json");
const COMES_BACK: &str = include_str!("recorded/bpfland_1.1.4_cpu_comes_back.json");
const RUSTY: &str = include_str!("recorded/rusty_1.1.4_cpu_comes_back.json");
const OLDER: &str = include_str!("recorded/lavd_1.1.1_on_7.3.json");

#[test]
fn fault_i1_a_real_time_task_on_the_cpu_is_the_cause_of_a_stall() {
    insta::assert_snapshot!(Recorded::read(FIFO_HOG).head());
}

#[test]
fn fault_i2_g2_the_panic_of_a_scheduler_comes_first() {
    insta::assert_snapshot!(Recorded::read(COSMOS).head());
}

#[test]
fn fault_i3_a_queue_that_nobody_dispatches_from_is_the_cause_of_a_stall() {
    insta::assert_snapshot!(Recorded::read(COMES_BACK).head());
}

#[test]
fn fault_a5_a_reload_on_hotplug_says_which_cpu_went() {
    insta::assert_snapshot!(Recorded::read(RUSTY).head());
}

#[test]
fn fault_i4_a_kernel_function_that_is_missing_is_why_a_scheduler_is_not_loaded() {
    insta::assert_snapshot!(Recorded::read(OLDER).head());
}

/// The kernel's own complaint stands beside the scheduler's end.
#[test]
fn a_complaint_of_the_kernel_is_named_too() {
    let mut recorded = Recorded::read(COSMOS);
    let warning = "the guest's kernel printed `WARNING: CPU: 0 PID: 9 at kernel/sched/ext.c:1500 \
                   scx_dsq_insert_commit+0x1a/0x20`";
    recorded.sidecar.result.push(CheckResult {
        detail: warning.to_owned(),
        ..CheckResult::at_most("kernel_log", 1.0, 0.0, "lines")
    });
    let cause = recorded.cause();
    assert!(cause.ends_with(&format!("; {warning}")), "{cause}");
}

#[test]
fn a_green_test_and_an_attached_scheduler_have_no_cause() {
    let mut recorded = Recorded::read(FIFO_HOG);
    recorded.sidecar.outcome = Outcome::Pass;
    assert_eq!(recorded.cause(), "");
    let mut recorded = Recorded::read(FIFO_HOG);
    recorded.sidecar.scheduler.as_mut().expect("one").end = SchedulerEnd::Attached;
    assert_eq!(recorded.cause(), "");
}

/// With the hog gone, or of another class, nothing in the state explains the stall: no rule may fit.
#[test]
fn what_is_not_sure_is_not_said() {
    for class in [None, Some("fair"), Some("ext")] {
        let mut recorded = Recorded::read(FIFO_HOG);
        recorded.moments.truncate(1);
        let running = &mut recorded.first_cpus()[1].running;
        match class {
            None => *running = None,
            Some(class) => running.as_mut().expect("the hog").class = class.to_owned(),
        }
        let cause = recorded.cause();
        assert!(
            cause.ends_with("failed to run for 7.468s; its process ended with exit status 1"),
            "{cause}"
        );
    }
}

#[test]
fn a_task_on_the_local_dsq_of_a_cpu_that_cannot_run_it_is_told() {
    let with = |change: &dyn Fn(&mut Vec<CpuState>)| {
        let mut recorded = Recorded::read(FIFO_HOG);
        recorded.moments.truncate(1);
        change(recorded.first_cpus());
        recorded.cause()
    };
    let offline = with(&|cpus| cpus[1].online = false);
    assert!(
        offline.contains("it is on the local DSQ of CPU 1, which is offline"),
        "{offline}"
    );
    let forbidden = with(&|cpus| cpus[1].waiting[0].cpus = "0".to_owned());
    assert!(
        forbidden.contains("it is on the local DSQ of CPU 1, and may use only CPUs 0"),
        "{forbidden}"
    );
}

#[test]
fn a_verifier_that_refuses_is_quoted() {
    let log = "libbpf: prog 'mine_enqueue': BPF program load failed: Permission denied\n\
               libbpf: prog 'mine_enqueue': -- BEGIN PROG LOAD LOG --\n0: R1=ctx()\n\
               R2 invalid mem access 'scalar'\nprocessed 12 insns (limit 1000000)\n\
               -- END PROG LOAD LOG --\nError: Failed to load\n";
    assert_eq!(
        log::refusal(log, Some("7.3.4")).as_deref(),
        Some("kernel 7.3.4's verifier refused `mine_enqueue`: R2 invalid mem access 'scalar'")
    );
}

#[test]
fn the_last_error_is_taken_with_the_root_of_its_causes() {
    let log = "INFO up\nError: Failed to load BPF program\n\nCaused by:\n    0: one\n    1: Invalid argument (os error 22)\n\nStack backtrace:\n";
    assert_eq!(
        log::last_error(log).as_deref(),
        Some("Error: Failed to load BPF program: Invalid argument (os error 22)")
    );
    let usage = "error: unexpected argument '--slize' found\n\n  tip: a similar argument exists\n";
    assert_eq!(
        log::last_error(usage).as_deref(),
        Some("error: unexpected argument '--slize' found")
    );
    assert_eq!(log::last_error("all is well\n"), None);
}

proptest! {
    /// What a program prints is read without a panic, and cut.
    #[test]
    fn any_log_is_read(log in "(thread ')?(libbpf: (prog '|extern \\(func ksym\\) ')?|Error: )?\\PC{0,30}( panicked at |\nCaused by:\n|': not found in kernel)?\\PC{0,400}(\n\\PC{0,30}){0,3}") {
        for text in [log::panic(&log), log::refusal(&log, None), log::last_error(&log)].into_iter().flatten() {
            prop_assert!(text.len() < 700);
        }
        let report = SchedulerReport { log, ..SchedulerReport::default() };
        let _ = died(&report);
    }
}
