//! What a test came to, from what its machine said and how it ended. A pure function of the record.

use ktstr_machine::{End, KillReason};
use ktstr_report::{AssertResult, Failure, FailureKind, Outcome, Thresholds};
use ktstr_wire::{CRASH_MARK, Message, TestEnd};

use crate::drive::{Limits, Record};

/// Lines of a chain of causes, outermost first, as one text.
pub(crate) fn numbered(chain: &[String]) -> String {
    let line = |(number, cause): (usize, &String)| format!("{number}: {cause}\n");
    chain.iter().enumerate().map(line).collect()
}

/// Judges a record. In order of precedence: a crash of the kernel, a crash of the test's process, the
/// result that the guest sent, and, where there is none, how the machine ended.
pub(crate) fn judge(
    record: &Record,
    limits: Limits,
    thresholds: &Thresholds,
) -> (Outcome, Option<Failure>, AssertResult) {
    let sent = record.result.clone();
    let mut result = sent
        .as_ref()
        .map(|end| end.result.clone())
        .unwrap_or_default();
    // A body that did not want to run is no test of the scheduler.
    if let Some(observation) = &record.observation
        && result.skipped.is_none()
    {
        result.merge(observation.judge(thresholds));
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
    } else if let Some(end) = &sent {
        judge_end(end.error.as_deref(), &result)
    } else {
        without_result(record, limits)
    };
    (outcome, failure, result)
}

/// Judges what a body came to: the error that it returned, or all checks.
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
    let place = match (record.phase, record.booted()) {
        (Some(phase), _) => phase.describe(),
        (None, true) => "between its first message and the body of the test",
        (None, false) => "before PID 1 spoke",
    };
    let damaged: Vec<String> = record
        .frame_errors
        .iter()
        .map(ToString::to_string)
        .collect();
    match &record.end {
        End::Stopped(KillReason::Watchdog) => {
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

fn inconclusive(kind: FailureKind, summary: String, detail: &str) -> (Outcome, Option<Failure>) {
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
