//! A body judged phase by phase.

use ktstr_report::{Assert, AssertResult, CheckResult, Phase};

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

/// Judges the samples of `body`. Where it has more than one phase, each is judged alone, and so is what lies between
/// them: no bound is held against samples of two phases together. The worst that was seen stands, and says in which phase.
pub fn judge_phases(
    recording: &Recording,
    body: Span,
    phases: &[PhaseSpan],
    assert: &Assert,
) -> AssertResult {
    let parts = parts(body, phases);
    let has_sample = |span: Span| recording.samples.iter().any(|sample| span.holds(sample));
    let mut judged = parts
        .into_iter()
        .filter(|(_, span)| phases.len() > 1 && has_sample(*span))
        .map(|(phase, span)| (phase, judge(recording, span, assert)));
    let Some((phase, first)) = judged.next() else {
        return judge(recording, body, assert);
    };
    let first = named(phase, first);
    judged.fold(first, |all, (phase, part)| worst(all, named(phase, part)))
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

fn named(phase: Option<Phase>, mut result: AssertResult) -> AssertResult {
    if let Some(phase) = phase {
        for check in &mut result.checks {
            check.detail = format!("{}, in {phase}", check.detail);
        }
    }
    result
}

/// Of each check the worse one. One that was judged anywhere is not among those that were not.
fn worst(mut all: AssertResult, part: AssertResult) -> AssertResult {
    for check in part.checks {
        let same = |other: &&mut CheckResult| other.check == check.check;
        match all.checks.iter_mut().find(same) {
            Some(other) if check.outcome > other.outcome => *other = check,
            Some(_) => {}
            None => all.checks.push(check),
        }
    }
    for not_checked in part.not_checked {
        let is_known = all
            .not_checked
            .iter()
            .any(|other| other.check == not_checked.check);
        if !is_known {
            all.not_checked.push(not_checked);
        }
    }
    let checks = &all.checks;
    all.not_checked
        .retain(|not_checked| checks.iter().all(|check| check.check != not_checked.check));
    all.notes.extend(part.notes);
    all
}

#[cfg(test)]
mod tests {
    use ktstr_report::Outcome;

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

    #[test]
    fn the_worst_phase_stands_and_is_named() {
        let part = |value: f64| {
            let mut part = AssertResult::default();
            part.push(CheckResult::at_most("x", value, 1.0, "s"));
            part.push_not_checked("y", "nothing was set");
            part
        };
        let good = named(Some(Phase::step(0)), part(0.0));
        let bad = named(Some(Phase::step(1)), part(2.0));
        for all in [worst(good.clone(), bad.clone()), worst(bad, good)] {
            assert_eq!((all.checks.len(), all.not_checked.len()), (1, 1));
            assert_eq!(all.checks[0].outcome, Outcome::Fail);
            assert!(all.checks[0].detail.ends_with(", in step 1"));
        }
    }
}
