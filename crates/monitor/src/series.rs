//! One value over time, and what can be asserted of it.

use std::fmt::Display;
use std::ops::RangeInclusive;

use ktstr_report::{CheckName, CheckResult};
use serde::{Deserialize, Serialize};

use crate::recording::{Recording, float};
use crate::sample::Sample;
use crate::verdict::Span;

const NS_PER_S: f64 = 1e9;

/// Points that must lie at the target for a series to have converged.
const CONVERGED_POINTS: usize = 3;

/// A value at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When, from the start of the recording.
    pub at_ns: u64,
    /// What the test calls this moment; empty for a plain sample.
    pub label: String,
    /// The value; `None` if it could not be read.
    pub value: Option<f64>,
}

/// One value over time.
///
/// Each assertion gives a [`CheckResult`] to add to a test's result. A point without a value is evidence of
/// nothing: what the known points break is broken, but they alone prove nothing kept. Fewer points than an
/// assertion needs is inconclusive too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What the value is.
    pub name: String,
    /// Its unit; empty for a plain count.
    pub unit: String,
    /// Its points, oldest first.
    pub points: Vec<Point>,
}

#[derive(Clone, Copy)]
struct Known<'a> {
    at_ns: u64,
    label: &'a str,
    value: f64,
}

impl Series {
    /// A series without points.
    pub fn new(name: impl Into<String>, unit: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            unit: unit.into(),
            points: Vec::new(),
        }
    }

    /// What `value` reads off each sample of `span`.
    pub fn of_samples(
        recording: &Recording,
        span: Span,
        name: impl Into<String>,
        unit: impl Into<String>,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Self {
        let samples = recording.samples.iter().filter(|s| span.holds(s));
        let points = samples.map(|sample| Point {
            at_ns: sample.at_ns,
            label: String::new(),
            value: value(sample),
        });
        Self {
            points: points.collect(),
            ..Self::new(name, unit)
        }
    }

    /// Adds a point.
    pub fn push(&mut self, at_ns: u64, label: impl Into<String>, value: Option<f64>) {
        self.points.push(Point {
            at_ns,
            label: label.into(),
            value,
        });
    }

    /// No point is below the one before. Needs two points.
    pub fn nondecreasing(&self) -> CheckResult {
        let known = self.known();
        let falls = known.windows(2).find(|pair| pair[1].value < pair[0].value);
        self.conclude("nondecreasing", 2, None, |_| {
            falls.map(|pair| {
                let detail = format!("fell from {} to {}", self.say(pair[0]), self.say(pair[1]));
                (Some(pair[1].value), detail)
            })
        })
    }

    /// Between each two points, the value changes by a rate per second that is within `per_second`. Needs
    /// two points.
    pub fn rate_within(&self, per_second: RangeInclusive<f64>) -> CheckResult {
        let known = self.known();
        let outside = known.windows(2).find_map(|pair| {
            let span_ns = pair[1].at_ns.checked_sub(pair[0].at_ns)?;
            let rate = (pair[1].value - pair[0].value) / (float(span_ns) / NS_PER_S);
            let beyond = rate.is_finite() && !per_second.contains(&rate);
            beyond.then_some((pair, rate))
        });
        self.conclude("rate_within", 2, None, |_| {
            outside.map(|(pair, rate)| {
                let detail = format!(
                    "changed by {rate:.2} per second from {} to {}, expected {} to {}",
                    self.say(pair[0]),
                    self.say(pair[1]),
                    per_second.start(),
                    per_second.end()
                );
                (Some(rate), detail)
            })
        })
    }

    /// No point is farther from the mean of all than `tolerance_pct` percent of it. Needs three points.
    pub fn steady_within(&self, tolerance_pct: f64) -> CheckResult {
        let known = self.known();
        let count = float(u64::try_from(known.len()).unwrap_or(u64::MAX));
        let mean = known.iter().map(|point| point.value).sum::<f64>() / count;
        let off_pct = |point: &Known<'_>| match (point.value - mean).abs() {
            0.0 => 0.0,
            off => off * 100.0 / mean.abs(),
        };
        let farthest = known
            .iter()
            .max_by(|a, b| off_pct(a).total_cmp(&off_pct(b)));
        self.conclude("steady_within", 3, Some(tolerance_pct), |complete| {
            // The mean of some points is not the mean of all.
            let point = farthest.filter(|point| complete && off_pct(point) > tolerance_pct)?;
            let off = off_pct(point);
            let detail = format!(
                "{} is {off:.1} % from the mean {mean:.2}, expected within {tolerance_pct} %",
                self.say(*point)
            );
            Some((Some(off), detail))
        })
    }

    /// The last three points are within `tolerance` of `target`. Needs three points.
    pub fn converges_to(&self, target: f64, tolerance: f64) -> CheckResult {
        let tail = Self {
            points: self.points[self.points.len().saturating_sub(CONVERGED_POINTS)..].to_vec(),
            ..self.clone()
        };
        let known = tail.known();
        let astray = known
            .iter()
            .rev()
            .find(|point| (point.value - target).abs() > tolerance);
        tail.conclude("converges_to", CONVERGED_POINTS, None, |_| {
            let point = astray?;
            let detail = format!(
                "{} is not within {tolerance} of {target}, as the last {CONVERGED_POINTS} points must be",
                self.say(*point)
            );
            Some((Some(point.value), detail))
        })
    }

    /// `holds` is true of every point; `what` says what it asks for: `above 0`. Needs one point.
    pub fn always(&self, what: impl Display, holds: impl Fn(f64) -> bool) -> CheckResult {
        let known = self.known();
        let broken = known.iter().find(|point| !holds(point.value));
        self.conclude("always", 1, None, |_| {
            let point = broken?;
            let detail = format!("{} is not {what}", self.say(*point));
            Some((Some(point.value), detail))
        })
    }

    /// Points with a value that is a number.
    fn known(&self) -> Vec<Known<'_>> {
        let known = self.points.iter().filter_map(|point| {
            Some(Known {
                at_ns: point.at_ns,
                label: &point.label,
                value: point.value.filter(|value| value.is_finite())?,
            })
        });
        known.collect()
    }

    /// `broken` gets whether all points are known, and says what is broken, with the value that shows it.
    fn conclude(
        &self,
        pattern: &str,
        needs: usize,
        bound: Option<f64>,
        broken: impl FnOnce(bool) -> Option<(Option<f64>, String)>,
    ) -> CheckResult {
        let known = self.known().len();
        let unknown = self.points.len() - known;
        let check = CheckName::new(format!("{}: {pattern}", self.name), &self.unit);
        let (result, value) = if self.points.len() < needs {
            let detail = format!("{} points, where {needs} are needed", self.points.len());
            (CheckResult::inconclusive(check, detail), None)
        } else if let Some((value, detail)) = broken(unknown == 0) {
            (CheckResult::fail(check, detail), value)
        } else if unknown > 0 {
            let detail = format!("{unknown} of {} points have no value", self.points.len());
            (CheckResult::inconclusive(check, detail), None)
        } else {
            let detail = format!("over {} points", self.points.len());
            (CheckResult::pass(check, detail), None)
        };
        result.with_value(value).with_bound(bound)
    }

    /// `12 tasks at 3.20 s (before the move)`.
    fn say(&self, point: Known<'_>) -> String {
        let space = if self.unit.is_empty() { "" } else { " " };
        let label = match point.label {
            "" => String::new(),
            label => format!(" ({label})"),
        };
        format!(
            "{}{space}{} at {:.2} s{label}",
            point.value,
            self.unit,
            float(point.at_ns) / NS_PER_S
        )
    }
}
