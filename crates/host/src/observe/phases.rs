//! When the phases of a body began and ended, by the host's clock.

use std::time::Instant;

use ktstr_monitor::{PhaseSpan, Sampler, Span};
use ktstr_report::Phase;

/// Most phases of one test. The rest of the body is judged without them.
const MAX_PHASES: usize = 1000;

/// The edges of phases, as the guest tells of them.
#[derive(Debug, Default)]
pub(super) struct PhaseEdges {
    phases: Vec<(Phase, Instant, Option<Instant>)>,
}

impl PhaseEdges {
    /// A phase begins or ends now. One that begins ends the one before.
    pub(super) fn edge(&mut self, phase: Phase, begins: bool) {
        let now = Instant::now();
        if let Some((last, _, end)) = self.phases.last_mut()
            && (begins || *last == phase)
        {
            end.get_or_insert(now);
        }
        if begins && self.phases.len() < MAX_PHASES {
            self.phases.push((phase, now, None));
        }
    }

    /// The phases on the clock of the samples, in order. One that goes on ends with the body.
    pub(super) fn spans(&self, sampler: &Sampler, body_ended: Instant) -> Vec<PhaseSpan> {
        let phases = self.phases.iter();
        phases
            .map(|&(phase, from, to)| PhaseSpan {
                phase,
                span: Span {
                    from_ns: sampler.at_ns(from),
                    to_ns: sampler.at_ns(to.unwrap_or(body_ended).min(body_ended)),
                },
            })
            .collect()
    }
}
