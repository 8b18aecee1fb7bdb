//! What single samples say, and what they say in a row.

/// What one sample, or one stretch between samples, says of one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Evidence {
    pub(super) at_ns: u64,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Beyond the bound, with this value.
    Violates(f64),
    /// Within the bound, with this value.
    Holds(f64),
    /// The bound does not apply here: a row of violations ends.
    Exempt,
    /// It could not be read: a violation may hide here.
    Missing,
}

/// Violations in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Run {
    pub(super) samples: u32,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// The worst value in it.
    pub(super) peak: f64,
}

/// Samples that may be violations, in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) violations: u32,
    pub(super) missing: u32,
}

impl Doubt {
    pub(super) fn samples(self) -> u32 {
        self.violations.saturating_add(self.missing)
    }
}

/// All evidence about one subject.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// The longest row of violations without anything between.
    pub(super) longest: Option<Run>,
    /// The longest row of what is or may be a violation.
    pub(super) doubt: Doubt,
    /// Samples that said something.
    pub(super) judged: u32,
    /// The worst value of those.
    pub(super) worst: Option<f64>,
}

impl Tally {
    pub(super) fn of(evidence: impl IntoIterator<Item = Evidence>) -> Self {
        let mut tally = Self::default();
        let mut run: Option<Run> = None;
        let mut doubt = Doubt::default();
        for Evidence { at_ns, kind } in evidence {
            match kind {
                Kind::Violates(value) => {
                    tally.see(value);
                    doubt.violations = doubt.violations.saturating_add(1);
                    run = Some(extend(run, at_ns, value));
                }
                Kind::Holds(value) => {
                    tally.see(value);
                    (run, doubt) = (None, Doubt::default());
                }
                Kind::Exempt => (run, doubt) = (None, Doubt::default()),
                Kind::Missing => {
                    run = None;
                    doubt.missing = doubt.missing.saturating_add(1);
                }
            }
            tally.keep_longest(run, doubt);
        }
        tally
    }

    fn see(&mut self, value: f64) {
        self.judged = self.judged.saturating_add(1);
        self.worst = Some(self.worst.map_or(value, |worst| worst.max(value)));
    }

    fn keep_longest(&mut self, run: Option<Run>, doubt: Doubt) {
        let length = |run: Option<Run>| run.map_or(0, |run| run.samples);
        if length(run) > length(self.longest) {
            self.longest = run;
        }
        if doubt.samples() > self.doubt.samples() {
            self.doubt = doubt;
        }
    }
}

fn extend(run: Option<Run>, at_ns: u64, value: f64) -> Run {
    match run {
        None => Run {
            samples: 1,
            from_ns: at_ns,
            to_ns: at_ns,
            peak: value,
        },
        Some(run) => Run {
            samples: run.samples.saturating_add(1),
            to_ns: at_ns,
            peak: run.peak.max(value),
            ..run
        },
    }
}
