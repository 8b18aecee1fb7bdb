//! The outcome of a test, from what its machine said and how it ended. A pure function of the record.
//!
//! A result frame alone is not a pass. The guest must have finished after it, nothing on the link may be corrupted or
//! out of order, and a declared scheduler must have been attached.

use ktstr_machine::{End, StopReason};
use ktstr_report::{
    Assert, AssertResult, Failure, FailureKind, Outcome, SchedulerEnd, SchedulerReport,
};
use ktstr_wire::{CRASH_MARK, Message, TestEnd};

use crate::plan::Limits;
use crate::run::{Life, Record};

/// The causes of an error, one numbered line each, as one text. `chain` begins with the error itself, which is told
/// elsewhere. A cause that the line before it already contains is left out.
pub(crate) fn numbered(chain: &[String]) -> String {
    let mut text = String::new();
    let mut number = 0;
    for pair in chain.windows(2) {
        let [told, cause] = pair else { continue };
        if !told.contains(cause.as_str()) {
            number += 1;
            text.push_str(&format!("{number}: {cause}\n"));
        }
    }
    text
}

/// What a record is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms<'a> {
    pub(crate) limits: Limits,
    pub(crate) assert: &'a Assert,
    /// Whether the test runs under a scheduler that it declares.
    pub(crate) has_scheduler: bool,
}

/// Judges a record. In order of precedence: a crash of the kernel, a crash of the test's process, the
/// result that the guest sent, and, where there is none, how the machine ended. A result that is no failure counts only
/// if nothing speaks against it.
pub(crate) fn judge(record: &Record, terms: Terms<'_>) -> (Outcome, Option<Failure>, AssertResult) {
    let sent = record.result.clone();
    let mut result = sent
        .as_ref()
        .map(|end| end.result.clone())
        .unwrap_or_default();
    // A skipped body doesn't exercise the scheduler.
    if let Some(observation) = &record.observation
        && result.skipped.is_none()
    {
        result.merge(observation.judge(terms.assert));
        observation.weigh_stalls(&mut result);
    }
    let (outcome, failure) = if let End::Panicked { .. } = &record.end {
        // The whole text is in the console's end.
        fail(FailureKind::Guest, record.end.to_string(), "")
    } else if let Some(crash) = crash_text(&record.crash) {
        let (summary, backtrace) = crash.split_once('\n').unwrap_or((crash, ""));
        fail(FailureKind::Test, summary.trim().to_owned(), backtrace)
    } else if let Some(chain) = &record.setup_failed {
        let summary = format!("the guest could not be made ready: {}", outermost(chain));
        fail(FailureKind::Harness, summary, &numbered(chain))
    } else if let Some(what) = &record.damaged_to_guest {
        inconclusive(FailureKind::Harness, damaged_to_guest(what), "")
    } else if let Some(end) = &sent {
        let judged = judge_end(end.error.as_deref(), &result);
        match against_result(record, &result, terms) {
            Some(against) if judged.0 != Outcome::Fail => against,
            // A check that failed is a finding still, and none that the test may have expected.
            Some((_, against)) if judged.1.is_none() => (Outcome::Fail, against),
            Some((_, Some(against))) => {
                result.notes.push(against.summary);
                judged
            }
            _ => judged,
        }
    } else {
        without_result(record, terms.limits)
    };
    (outcome, failure, result)
}

/// What speaks against a result that was sent and is no failure by itself.
fn against_result(
    record: &Record,
    result: &AssertResult,
    terms: Terms<'_>,
) -> Option<(Outcome, Option<Failure>)> {
    if let Some((kind, summary)) = against_end(record) {
        return Some(match kind {
            FailureKind::Host => inconclusive(kind, summary, ""),
            _ => fail(kind, summary, ""),
        });
    }
    let unproven = || {
        let passed = terms.has_scheduler && result.outcome() == Outcome::Pass;
        passed.then(|| unproven(record)).flatten()
    };
    let summary = against_link(record).or_else(unproven)?;
    Some(inconclusive(FailureKind::Harness, summary, ""))
}

/// How the machine ended, if that was not after the guest's last word, and whose fault it is.
fn against_end(record: &Record) -> Option<(FailureKind, String)> {
    if record.said_bye {
        return None;
    }
    let kind = match &record.end {
        End::Killed { .. } => FailureKind::Host,
        End::Broken { .. } | End::FailedToStart { .. } => FailureKind::Harness,
        _ => FailureKind::Guest,
    };
    let summary = format!(
        "the guest sent its result and did not finish: {}",
        record.end
    );
    Some((kind, summary))
}

/// What is wrong with the stream of frames: something was lost, or is not what a guest of ours sends.
fn against_link(record: &Record) -> Option<String> {
    if let Some(first) = record.frame_errors.first() {
        let more = record.frame_errors.len() as u64 - 1 + record.more_frame_errors;
        let more = match more {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        return Some(format!(
            "frames on the link were corrupted, and what was lost is not known: {first}{more}"
        ));
    }
    let fault = record.order.faults().first()?;
    Some(format!("the guest's frames make no sense: {fault}"))
}

fn damaged_to_guest(what: &str) -> String {
    format!("the link to the guest was damaged, and the guest ended for that: {what}")
}

/// What is missing for a pass under a scheduler.
fn unproven(record: &Record) -> Option<String> {
    if record.lives.all().next().is_none() {
        return Some("the test passed, but its guest sent no report of the scheduler".to_owned());
    }
    if let Some(why) = record
        .lives
        .all()
        .find_map(|(life, end)| unproven_life(life, end))
    {
        return Some(why);
    }
    let checks = record.result.iter().flat_map(|end| &end.result.checks);
    let passed: Vec<&str> = checks
        .filter(|check| check.outcome == Outcome::Pass)
        .map(|check| check.check.as_str())
        .collect();
    let missing = [SchedulerReport::ATTACHED, SchedulerReport::ALIVE]
        .into_iter()
        .find(|name| !passed.contains(name))?;
    Some(format!("the test passed, but `{missing}` was not judged"))
}

/// What is missing for a pass in one of the scheduler's lives.
fn unproven_life(life: &Life, wanted: SchedulerEnd) -> Option<String> {
    let Some(report) = &life.report else {
        return Some("the test passed, but its guest sent no report of the scheduler".to_owned());
    };
    let is_named = life.attached == report.ops;
    let is_proven = is_named && report.was_attached() && report.end == wanted;
    (!is_proven).then(|| {
        let sentence = report.sentence();
        format!(
            "the test passed, but {sentence}{}",
            other_name(life, report)
        )
    })
}

fn other_name(life: &Life, report: &SchedulerReport) -> String {
    let name = |ops: &Option<String>| ops.clone().unwrap_or_else(|| "nothing".to_owned());
    if life.attached == report.ops {
        return String::new();
    }
    format!(
        "; the kernel called it {} at first, and {} at last",
        name(&life.attached),
        name(&report.ops)
    )
}

/// What speaks against all that came out of the machine around an inner one.
pub(crate) fn against_outer_machine(record: &Record) -> Option<String> {
    let what = if let End::Panicked { .. } = &record.end {
        record.end.to_string()
    } else if let Some(crash) = crash_text(&record.crash) {
        first_line(crash).to_owned()
    } else if let Some(chain) = &record.setup_failed {
        outermost(chain).to_owned()
    } else if let Some(what) = &record.damaged_to_guest {
        damaged_to_guest(what)
    } else if !record.said_bye {
        format!("it sent the result and did not finish: {}", record.end)
    } else {
        against_link(record)?
    };
    Some(format!("the outer machine can't be relied on: {what}"))
}

/// Judges how a body ended: by the error that it returned, or by all checks.
pub(crate) fn judge_end(
    error: Option<&[String]>,
    result: &AssertResult,
) -> (Outcome, Option<Failure>) {
    match error {
        None => (result.outcome(), None),
        Some(chain) => {
            let summary = format!("the test returned an error: {}", outermost(chain));
            fail(FailureKind::Test, summary, &numbered(chain))
        }
    }
}

fn without_result(record: &Record, limits: Limits) -> (Outcome, Option<Failure>) {
    let place = match (record.stage, record.booted()) {
        (Some(stage), _) => stage.describe(),
        (None, true) => "between its first message and the body of the test",
        (None, false) => "before PID 1 spoke",
    };
    let damaged: Vec<String> = record
        .frame_errors
        .iter()
        .map(ToString::to_string)
        .collect();
    match &record.end {
        End::Stopped(StopReason::Watchdog) => {
            let bound = if record.booted() {
                limits.run
            } else {
                Some(limits.boot)
            };
            let seconds = bound.map_or(0.0, |bound| bound.as_secs_f64());
            let summary = format!("the watchdog ended the machine after {seconds:.1} s, {place}");
            fail(FailureKind::Guest, summary, "")
        }
        End::Stopped(_) if record.said_bye => {
            // The guest did all it should; its result did not arrive whole. That is no evidence.
            let lost = Message::name_of_kind(Message::Result(TestEnd::default()).kind());
            let summary =
                format!("the guest finished, but no {lost} frame arrived that could be read");
            inconclusive(FailureKind::Harness, summary, &damaged.join("\n"))
        }
        End::Killed { .. } => {
            let summary = format!("{}, {place}", record.end);
            inconclusive(
                FailureKind::Host,
                summary,
                "nothing can be said of the test",
            )
        }
        End::FailedToStart { message } => fail(
            FailureKind::Harness,
            format!("the machine did not start: {}", first_line(message)),
            message,
        ),
        End::Broken { message } => fail(
            FailureKind::Harness,
            format!("the engine broke, {place}: {}", first_line(message)),
            message,
        ),
        end => fail(
            FailureKind::Guest,
            format!("the guest ended without a result, {place}: {end}"),
            "a body that ends its process, or reboots, does this",
        ),
    }
}

/// What COM2 says, if a process crashed.
fn crash_text(com2: &str) -> Option<&str> {
    let at = com2.find(CRASH_MARK)?;
    Some(com2[at + CRASH_MARK.len()..].trim_end())
}

pub(crate) fn fail(kind: FailureKind, summary: String, detail: &str) -> (Outcome, Option<Failure>) {
    (Outcome::Fail, Some(failure(kind, summary, detail)))
}

pub(crate) fn inconclusive(
    kind: FailureKind,
    summary: String,
    detail: &str,
) -> (Outcome, Option<Failure>) {
    (Outcome::Inconclusive, Some(failure(kind, summary, detail)))
}

fn failure(kind: FailureKind, summary: String, detail: &str) -> Failure {
    Failure {
        kind,
        summary,
        detail: detail.to_owned(),
    }
}

fn outermost(chain: &[String]) -> &str {
    chain.first().map_or("no reason was given", String::as_str)
}

fn first_line(text: &str) -> &str {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no reason was given")
        .trim()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ktstr_report::{CheckResult, KernelExit};
    use ktstr_wire::Decoder;

    use super::*;
    use crate::run::empty_record;

    const TERMS: Terms<'_> = Terms {
        limits: Limits {
            boot: Duration::from_secs(1),
            run: None,
        },
        assert: &Assert::DEFAULT,
        has_scheduler: false,
    };

    fn hello() -> Message {
        Message::Hello {
            release: "7.3.4".to_owned(),
        }
    }

    fn result(checks: &[&str]) -> Message {
        let mut end = TestEnd::default();
        for name in checks {
            end.result.push(CheckResult::at_most(*name, 0.0, 1.0, ""));
        }
        Message::Result(end)
    }

    fn record(messages: Vec<Message>) -> Record {
        let mut record = Record {
            end: End::Stopped(StopReason::Done),
            ..empty_record()
        };
        for message in messages {
            record.order.take(&message);
            record.keep(message);
        }
        record
    }

    fn passed() -> Record {
        record(vec![hello(), result(&["progress"]), Message::Bye])
    }

    fn judged(record: &Record, terms: Terms<'_>) -> (Outcome, String) {
        let (outcome, failure, _) = judge(record, terms);
        let summary = failure.map(|failure| failure.summary);
        (outcome, summary.unwrap_or_default())
    }

    #[test]
    fn a_guest_that_ended_for_a_damaged_frame_is_not_judged() {
        let damaged = Message::LinkDamaged("frame 3 (answer, 1 bytes) fails".to_owned());
        let cut_short = record(vec![hello(), damaged.clone()]);
        let told = record(vec![hello(), damaged, result(&["progress"]), Message::Bye]);
        for record in [cut_short, told] {
            let (outcome, summary) = judged(&record, TERMS);
            assert_eq!(outcome, Outcome::Inconclusive);
            let expected =
                "the link to the guest was damaged, and the guest ended for that: frame 3 ";
            assert!(summary.starts_with(expected), "{summary}");
        }
    }

    #[test]
    fn a_result_and_the_last_word_are_a_pass() {
        assert_eq!(judged(&passed(), TERMS), (Outcome::Pass, String::new()));
    }

    #[test]
    fn fault_a6_a_guest_that_ends_after_its_result_and_before_its_last_word_is_no_pass() {
        for (end, outcome) in [
            (End::Stopped(StopReason::Watchdog), Outcome::Fail),
            (End::TripleFault { vcpu: 1, rip: None }, Outcome::Fail),
            (End::Reset, Outcome::Fail),
            (End::PoweredOff, Outcome::Fail),
            (
                End::Broken {
                    message: "x".to_owned(),
                },
                Outcome::Fail,
            ),
            (End::Killed { signal: 9 }, Outcome::Inconclusive),
        ] {
            for sent in [
                result(&["progress"]),
                Message::Result(TestEnd {
                    result: AssertResult::skip("not here"),
                    error: None,
                }),
            ] {
                let mut record = record(vec![hello(), sent]);
                record.end = end.clone();
                let (judged, summary) = judged(&record, TERMS);
                assert_eq!(judged, outcome, "{end}");
                let words = format!("the guest sent its result and did not finish: {end}");
                assert_eq!(summary, words);
            }
        }
    }

    #[test]
    fn fault_a6_damage_on_the_link_is_no_pass() {
        let mut damaged = passed();
        let mut decoder = Decoder::<Message>::default();
        decoder.push(b"noise");
        damaged.frame_errors.extend(decoder.finish());
        damaged.more_frame_errors = 2;
        let (outcome, summary) = judged(&damaged, TERMS);
        assert_eq!(outcome, Outcome::Inconclusive);
        let words = "frames on the link were corrupted, and what was lost is not known: ";
        assert!(
            summary.starts_with(words) && summary.ends_with(" (and 2 more)"),
            "{summary}"
        );
    }

    #[test]
    fn fault_a6_a_guest_that_contradicts_itself_is_no_pass() {
        let failed = || {
            let mut end = TestEnd::default();
            end.result
                .push(CheckResult::at_most("progress", 2.0, 1.0, ""));
            Message::Result(end)
        };
        let pass = || result(&["progress"]);
        let (outcome, summary) = judged(
            &record(vec![hello(), pass(), failed(), Message::Bye]),
            TERMS,
        );
        assert_eq!(outcome, Outcome::Inconclusive);
        assert_eq!(
            summary,
            "the guest's frames make no sense: a result frame came after the result"
        );
        // The first result stands.
        let (outcome, _) = judged(
            &record(vec![hello(), failed(), pass(), Message::Bye]),
            TERMS,
        );
        assert_eq!(outcome, Outcome::Fail);
    }

    #[test]
    fn a_declared_scheduler_must_have_been_attached_for_a_pass() {
        let report = |end| SchedulerReport {
            name: "x".to_owned(),
            ops: Some("x_1".to_owned()),
            attach_ms: Some(1),
            end,
            exit: Some(KernelExit::default()),
            ..SchedulerReport::default()
        };
        let terms = Terms {
            has_scheduler: true,
            ..TERMS
        };
        let run = |attached: &str, end, checks: &[&str]| {
            let record = record(vec![
                hello(),
                Message::SchedulerAttached(attached.to_owned()),
                Message::Scheduler(Box::new(report(end))),
                result(checks),
                Message::Bye,
            ]);
            judged(&record, terms)
        };
        let both = [SchedulerReport::ATTACHED, SchedulerReport::ALIVE];
        let passed = run("x_1", SchedulerEnd::Attached, &both);
        assert_eq!(passed, (Outcome::Pass, String::new()));
        for (judged, words) in [
            (
                run("x_1", SchedulerEnd::Attached, &both[..1]),
                "the test passed, but `scheduler_alive` was not judged",
            ),
            (
                run("x_1", SchedulerEnd::FellBack, &both),
                "the test passed, but scheduler `x` is no longer attached, though its process lives",
            ),
            (
                run("y", SchedulerEnd::Attached, &both),
                "the test passed, but scheduler `x` was attached to the end of the test; the kernel called it y \
                 at first, and x_1 at last",
            ),
            (
                judged(&self::passed(), terms),
                "the test passed, but its guest sent no report of the scheduler",
            ),
        ] {
            assert_eq!(judged.0, Outcome::Inconclusive);
            assert!(judged.1.starts_with(words), "{}", judged.1);
        }
    }

    #[test]
    fn every_life_of_a_scheduler_counts_for_a_pass() {
        let terms = Terms {
            has_scheduler: true,
            ..TERMS
        };
        let attached = || Message::SchedulerAttached("x_1".to_owned());
        let report = |end| {
            Box::new(SchedulerReport {
                name: "x".to_owned(),
                ops: Some("x_1".to_owned()),
                attach_ms: Some(1),
                end,
                ..SchedulerReport::default()
            })
        };
        let lives = |first, last: Option<SchedulerEnd>| {
            let first = [attached(), Message::SchedulerDetached(report(first))];
            let last = last.map(|end| [attached(), Message::Scheduler(report(end))]);
            let end = [
                result(&[SchedulerReport::ATTACHED, SchedulerReport::ALIVE]),
                Message::Bye,
            ];
            let all = [hello()].into_iter().chain(first);
            judged(
                &record(all.chain(last.into_iter().flatten()).chain(end).collect()),
                terms,
            )
        };
        let pass = (Outcome::Pass, String::new());
        let (detached, to_the_end) = (SchedulerEnd::Detached, SchedulerEnd::Attached);
        assert_eq!(lives(detached, Some(to_the_end)), pass);
        assert_eq!(lives(detached, None), pass);
        for (first, last) in [
            (SchedulerEnd::Died, to_the_end),
            (detached, SchedulerEnd::Died),
        ] {
            let (outcome, why) = lives(first, Some(last));
            assert_eq!(outcome, Outcome::Inconclusive);
            assert_eq!(why, "the test passed, but scheduler `x` died");
        }
    }

    #[test]
    fn fault_a6_an_outer_machine_that_panicked_or_did_not_end_is_not_relied_on() {
        let sidecar = || Message::Sidecar(Vec::new());
        let fine = record(vec![hello(), sidecar(), Message::Bye]);
        assert_eq!(against_outer_machine(&fine), None);
        let mut panicked = fine;
        panicked.end = End::Panicked {
            text: "Kernel panic - not syncing: x".to_owned(),
        };
        assert_eq!(
            against_outer_machine(&panicked).as_deref(),
            Some("the outer machine can't be relied on: the guest kernel panicked: x")
        );
        let mut hung = record(vec![hello(), sidecar()]);
        hung.end = End::Stopped(StopReason::Watchdog);
        assert!(against_outer_machine(&hung).is_some());
        let twice = record(vec![hello(), sidecar(), sidecar(), Message::Bye]);
        assert!(against_outer_machine(&twice).is_some());
    }

    #[test]
    fn fault_f13_a_cause_is_told_once() {
        let chain = [
            "reading x: no such file; make it",
            "no such file",
            "error 2",
        ]
        .map(str::to_owned);
        assert_eq!(numbered(&chain), "1: error 2\n");
        assert_eq!(numbered(&chain[..1]), "");
        assert_eq!(numbered(&[]), "");
    }
}
