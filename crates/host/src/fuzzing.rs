//! Fuzz target: the outcome of a test, whatever its guest sends and however its machine ends.
//!
//! `fuzz/` runs it under libFuzzer, the test here with the seeds and what was once found. Not public API: it is
//! there only for tests and with the feature `fuzzing`.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ktstr_machine::{End, StopReason};
use ktstr_report::{
    Assert, AssertResult, CheckResult, Expectation, FailedLoad, KernelExit, Outcome, RefusedCall,
    SchedulerEnd, SchedulerReport, Sidecar,
};
use ktstr_wire::{CRASH_MARK, Decoder, GuestStage, Message, Stream, TestEnd};

use crate::plan::{Limits, TestPlan};
use crate::run::{Record, empty_record};
use crate::verdict::{apply_expectation, blank_sidecar, conclude};

/// Messages in any order, and any end. A green test has a result, the last word after it, and nothing that speaks
/// against it; one under a scheduler was attached.
pub fn verdict(input: &[u8]) {
    outcome(input);
}

/// The outcome, once all that must hold of it does.
fn outcome(input: &[u8]) -> Outcome {
    let mut input = Unstructured::new(input);
    let flags: u8 = input.arbitrary().unwrap_or_default();
    let mut run = Run {
        record: Record {
            end: End::Stopped(StopReason::Done),
            ..empty_record()
        },
        sent: Vec::new(),
        damaged: false,
    };
    // Ends early where the input ends within an operation.
    let _ = run.build(&mut input);
    run.judge(flags & 1 != 0, expectation_of(flags >> 1).as_ref())
}

struct Run {
    record: Record,
    /// Names of the messages, and what matters of them.
    sent: Vec<(&'static str, bool)>,
    damaged: bool,
}

impl Run {
    fn build(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            let [operation, more]: [u8; 2] = input.arbitrary()?;
            // Whether it is what a passing test sends.
            let mut is_good = true;
            let message = match operation % 16 {
                0 => Message::Hello {
                    release: "7.3.4".to_owned(),
                },
                1 => Message::Stage(GuestStage::Body),
                2 => Message::Remark("r".to_owned()),
                3 => {
                    is_good = more & 0b0010_0010 == 0;
                    Message::Result(result(more))
                }
                4 => {
                    is_good = more & 1 == 0;
                    Message::SchedulerAttached(if is_good { "x" } else { "y" }.to_owned())
                }
                5 => {
                    let report = report(more);
                    is_good = report.end == SchedulerEnd::Attached && report.was_attached();
                    Message::Scheduler(Box::new(report))
                }
                6 => Message::SetupFailed(vec!["no module".to_owned()]),
                7 => Message::Bye,
                8 if more & 1 != 0 => {
                    self.damaged = true;
                    Message::LinkDamaged("noise".to_owned())
                }
                8 => {
                    let mut decoder = Decoder::<Message>::default();
                    decoder.push(b"noise");
                    self.record.frame_errors.extend(decoder.finish());
                    self.damaged = true;
                    continue;
                }
                9 => Message::Sidecar(vec![more]),
                10 => Message::Exit(more),
                11 => Message::Output(Stream::Stdout, vec![more]),
                12 => Message::SchedulerLog(vec![more]),
                13 => Message::FailureDump(vec![more]),
                14 => {
                    self.record.end = end(more);
                    continue;
                }
                _ => {
                    self.record.crash = format!("{CRASH_MARK} the test panicked");
                    continue;
                }
            };
            self.sent.push((message.kind_name(), is_good));
            self.record.order.take(&message);
            self.record.keep(message);
        }
        Ok(())
    }

    fn count(&self, name: &str) -> usize {
        self.sent.iter().filter(|(sent, _)| *sent == name).count()
    }

    fn was_good(&self, name: &str) -> bool {
        self.count(name) == 1 && self.sent.contains(&(name, true))
    }

    fn judge(self, has_scheduler: bool, expect: Option<&Expectation>) -> Outcome {
        let mut sidecar = blank_sidecar(&plan());
        sidecar.scheduler = has_scheduler.then(SchedulerReport::default);
        let panicked = matches!(self.record.end, End::Panicked { .. });
        let crashed = !self.record.crash.is_empty();
        let names: Vec<&str> = self.sent.iter().map(|(name, _)| *name).collect();
        let is_whole = names.first() == Some(&"hello") && names.ends_with(&["result", "bye"]);
        let once = ["hello", "result", "bye"]
            .iter()
            .all(|name| self.count(name) == 1);
        let is_sound =
            is_whole && once && self.was_good("result") && self.count("setup-failed") == 0;
        let was_attached = self.was_good("scheduler-attached") && self.was_good("scheduler");
        let damaged = self.damaged;
        let limits = Limits {
            boot: Duration::from_secs(1),
            run: None,
        };
        conclude(&mut sidecar, self.record, limits, &Assert::default());
        if let Some(what) = expect {
            apply_expectation(&mut sidecar, what);
        }
        assert_reason(&sidecar);
        if !sidecar.outcome.is_green() {
            return sidecar.outcome;
        }
        assert!(is_sound, "{names:?}");
        assert!(!panicked && !crashed && !damaged, "{sidecar:?}");
        if sidecar.outcome == Outcome::Pass && expect.is_none() {
            assert!(was_attached || !has_scheduler, "{sidecar:?}");
            assert!(sidecar.result.judged() > 0, "{sidecar:?}");
            assert_eq!(sidecar.result.with_outcome(Outcome::Fail).count(), 0);
        }
        sidecar.outcome
    }
}

/// What is not green says why.
fn assert_reason(sidecar: &Sidecar) {
    let reason = sidecar.reason();
    assert_eq!(reason.is_none(), sidecar.outcome == Outcome::Pass);
    assert!(reason.is_none_or(|reason| !reason.is_empty()));
}

fn expectation_of(flags: u8) -> Option<Expectation> {
    match flags % 8 {
        1 => Some(Expectation::Stall),
        2 => Some(Expectation::ScxError { contains: None }),
        3 => Some(Expectation::Check("max_gap_ms".into())),
        4 => Some(Expectation::Check("scheduler_alive".into())),
        5 => Some(Expectation::LoadFailure),
        _ => None,
    }
}

/// The bits say which checks there are, and which of them hold.
fn result(bits: u8) -> TestEnd {
    let is = |bit: u8| bits & (1 << bit) != 0;
    let mut result = match is(4) {
        true => AssertResult::skip("not here"),
        false => AssertResult::default(),
    };
    let check = |name, holds| CheckResult::at_most(name, if holds { 0.0 } else { 2.0 }, 1.0, "");
    if is(0) {
        result.push(check(SchedulerReport::ATTACHED, !is(7)));
        result.push(check(SchedulerReport::ALIVE, !is(6)));
    }
    if is(1) {
        result.push(check("kernel_log", false));
    }
    if is(2) {
        result.push(check("max_gap_ms", false));
    }
    if is(3) {
        result.push(check("progress", true));
    }
    TestEnd {
        result,
        error: is(5).then(|| vec!["an error".to_owned()]),
    }
}

fn report(bits: u8) -> SchedulerReport {
    const ENDS: [SchedulerEnd; 11] = [
        SchedulerEnd::Attached,
        SchedulerEnd::NeverLoaded,
        SchedulerEnd::Died,
        SchedulerEnd::Left,
        SchedulerEnd::Stalled,
        SchedulerEnd::Error,
        SchedulerEnd::Reloaded,
        SchedulerEnd::FellBack,
        SchedulerEnd::Unproven,
        SchedulerEnd::Unknown,
        SchedulerEnd::Detached,
    ];
    SchedulerReport {
        name: "x".to_owned(),
        ops: Some("x".to_owned()),
        attach_ms: (bits & 0x80 == 0).then_some(1),
        end: ENDS[usize::from(bits & 0x3f) % ENDS.len()],
        exit: Some(KernelExit::default()),
        failed_load: (bits & 0x40 != 0).then(|| FailedLoad {
            bpf_calls: Some(1),
            refused: Some(RefusedCall::default()),
        }),
        ..SchedulerReport::default()
    }
}

fn end(number: u8) -> End {
    let text = || "Kernel panic - not syncing: x".to_owned();
    match number % 8 {
        0 => End::PoweredOff,
        1 => End::Reset,
        2 => End::TripleFault { vcpu: 0, rip: None },
        3 => End::Panicked { text: text() },
        4 => End::Killed { signal: 9 },
        5 => End::Stopped(StopReason::Watchdog),
        6 => End::Broken { message: text() },
        _ => End::Stopped(StopReason::Done),
    }
}

fn plan() -> TestPlan {
    TestPlan::new("t".to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use ktstr_report::Outcome;

    #[test]
    fn kept_inputs_of_the_verdict_hold() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let mut inputs = 0;
        for kept in ["seeds", "regressions"] {
            let Ok(folder) = fs::read_dir(fuzz.join(kept).join("verdict")) else {
                continue;
            };
            for file in folder {
                let path = file.unwrap().path();
                eprintln!("{}", path.display());
                super::verdict(&fs::read(path).unwrap());
                inputs += 1;
            }
        }
        assert!(inputs > 0, "there is no input for the verdict");
        super::verdict(&[]);
    }

    /// Under a scheduler that is attached to the end: what else could be wrong is judged from here.
    const PASSING: [u8; 15] = [1, 0, 0, 4, 0, 1, 0, 5, 0, 3, 0b1001, 7, 0, 14, 7];

    #[test]
    fn what_a_passing_test_sends_is_a_pass_and_no_part_of_it_can_be_missing() {
        assert_eq!(super::outcome(&PASSING), Outcome::Pass);
        // Hello, the attach, the scheduler's report, the result and the last word; a stage is nobody's evidence.
        for at in [1, 3, 7, 9, 11] {
            let input = [&PASSING[..at], &PASSING[at + 2..]].concat();
            let outcome = super::outcome(&input);
            assert!(!outcome.is_green(), "without operation {}", PASSING[at]);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_run_has_a_verdict(input in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            super::verdict(&input);
        }

        /// Runs that are nearly right: what random bytes never are.
        #[test]
        fn a_run_with_one_thing_wrong_is_not_green(at in 0_usize..14, byte: u8, flags: u8) {
            let mut input = PASSING;
            input[0] = flags;
            input[at + 1] = byte;
            super::verdict(&input);
        }
    }
}
