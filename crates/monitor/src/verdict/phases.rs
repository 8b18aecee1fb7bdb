//! A body judged phase by phase.

use ktstr_report::{Assert, AssertResult, CheckResult, Outcome, Phase};

use super::{Span, judge};
use crate::recording::Recording;

/// When a phase was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseSpan {
    /// Which.
    pub phase: Phase,
    /// On the clock of the samples.
    pub span: Span,
}

/// Judges the samples of `body` as a whole: a fault may lie across the edge of two phases, and phases may be too short to
/// judge. Where there is more than one phase, each is judged alone too, and so is what lies between them: what fails in a
/// part fails the body, and names the first phase that it failed in.
pub fn judge_phases(
    recording: &Recording,
    body: Span,
    phases: &[PhaseSpan],
    assert: &Assert,
) -> AssertResult {
    let mut judged = judge(recording, body, assert);
    if phases.len() > 1 {
        for (phase, span) in parts(body, phases).into_iter().rev() {
            let part = judge(recording, span, assert);
            let failures = part.checks.into_iter();
            for failure in failures.filter(|check| check.outcome == Outcome::Fail) {
                put(&mut judged, named(phase, failure));
            }
        }
    }
    judged
}

/// The phases, and what lies before, between and after them.
fn parts(body: Span, phases: &[PhaseSpan]) -> Vec<(Option<Phase>, Span)> {
    let mut parts = Vec::new();
    let mut from_ns = body.from_ns;
    for PhaseSpan { phase, span } in phases {
        if span.from_ns > from_ns {
            let to_ns = span.from_ns - 1;
            parts.push((None, Span { from_ns, to_ns }));
        }
        parts.push((Some(*phase), *span));
        from_ns = from_ns.max(span.to_ns.saturating_add(1));
    }
    if from_ns <= body.to_ns {
        let to_ns = body.to_ns;
        parts.push((None, Span { from_ns, to_ns }));
    }
    parts
}

fn named(phase: Option<Phase>, mut check: CheckResult) -> CheckResult {
    if let Some(phase) = phase {
        check.detail = format!("{}, in {phase}", check.detail);
    }
    check
}

/// Puts `failure` in the place of what was said of its check.
fn put(judged: &mut AssertResult, failure: CheckResult) {
    judged
        .not_checked
        .retain(|not_checked| not_checked.check != failure.check);
    let same = |check: &&mut CheckResult| check.check == failure.check;
    match judged.checks.iter_mut().find(same) {
        Some(check) => *check = failure,
        None => judged.checks.push(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(from_ns: u64, to_ns: u64) -> Span {
        Span { from_ns, to_ns }
    }

    fn phase(k: u32, from_ns: u64, to_ns: u64) -> PhaseSpan {
        PhaseSpan {
            phase: Phase::step(k),
            span: span(from_ns, to_ns),
        }
    }

    #[test]
    fn the_parts_are_all_of_the_body() {
        let step = |k| Some(Phase::step(k));
        assert_eq!(
            parts(span(10, 100), &[phase(0, 20, 40), phase(1, 60, 90)]),
            [
                (None, span(10, 19)),
                (step(0), span(20, 40)),
                (None, span(41, 59)),
                (step(1), span(60, 90)),
                (None, span(91, 100)),
            ]
        );
        assert_eq!(parts(span(10, 100), &[]), [(None, span(10, 100))]);
        assert_eq!(
            parts(span(10, 100), &[phase(0, 10, 100)]),
            [(step(0), span(10, 100))]
        );
    }
}
