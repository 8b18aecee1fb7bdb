//! Assertions over values in time.

use ktstr_monitor::{Series, Span};
use ktstr_report::{CheckResult, Outcome};
use proptest::prelude::*;

use crate::guest::changed;

const NS_PER_S: u64 = 1_000_000_000;

/// A point a second.
fn series(values: &[f64]) -> Series {
    some(&values.iter().copied().map(Some).collect::<Vec<_>>())
}

fn some(values: &[Option<f64>]) -> Series {
    let mut series = Series::new("depth", "tasks");
    for (at, value) in (0..).zip(values) {
        series.push(at * NS_PER_S, "", *value);
    }
    series
}

fn fails(check: &CheckResult, detail: &str) {
    assert_eq!(
        (check.outcome, check.detail.as_str()),
        (Outcome::Fail, detail)
    );
}

#[test]
fn nondecreasing() {
    assert_eq!(
        series(&[1.0, 1.0, 2.0]).nondecreasing().outcome,
        Outcome::Pass
    );
    let check = series(&[1.0, 3.0, 2.0]).nondecreasing();
    assert_eq!(check.check, "depth: nondecreasing");
    fails(&check, "fell from 3 tasks at 1.00 s to 2 tasks at 2.00 s");
}

#[test]
fn rate_within() {
    let climbing = series(&[0.0, 10.0, 30.0]);
    assert_eq!(climbing.rate_within(10.0..=20.0).outcome, Outcome::Pass);
    fails(
        &climbing.rate_within(0.0..=15.0),
        "changed by 20.00 per second from 10 tasks at 1.00 s to 30 tasks at 2.00 s, expected 0 to 15",
    );
}

#[test]
fn steady_within() {
    assert_eq!(
        series(&[9.0, 10.0, 11.0]).steady_within(10.0).outcome,
        Outcome::Pass
    );
    fails(
        &series(&[8.0, 10.0, 12.0]).steady_within(10.0),
        "12 tasks at 2.00 s is 20.0 % from the mean 10.00, expected within 10 %",
    );
    assert_eq!(
        series(&[0.0, 0.0, 0.0]).steady_within(0.0).outcome,
        Outcome::Pass
    );
    assert_eq!(
        series(&[-1.0, 1.0, 0.0]).steady_within(50.0).outcome,
        Outcome::Fail
    );
}

#[test]
fn converges_to() {
    let check = |values: &[f64]| series(values).converges_to(5.0, 1.0);
    assert_eq!(check(&[90.0, 4.0, 6.0, 5.0]).outcome, Outcome::Pass);
    fails(
        &check(&[5.0, 5.0, 5.0, 7.0]),
        "7 tasks at 3.00 s is not within 1 of 5, as the last 3 points must be",
    );
}

#[test]
fn always() {
    let check = |values: &[f64]| series(values).always("above 0", |value| value > 0.0);
    assert_eq!(check(&[1.0]).outcome, Outcome::Pass);
    fails(&check(&[1.0, 0.0]), "0 tasks at 1.00 s is not above 0");
}

#[test]
fn a_point_is_named_by_its_label() {
    let mut series = Series::new("depth", "");
    series.push(0, "before", Some(2.0));
    series.push(NS_PER_S, "after", Some(1.0));
    fails(
        &series.nondecreasing(),
        "fell from 2 at 0.00 s (before) to 1 at 1.00 s (after)",
    );
}

#[test]
fn a_series_can_be_read_off_the_samples() {
    let recording = changed(4, |_, _| {});
    let clocks = Series::of_samples(&recording, Span::ALL, "clock", "ns", |sample| {
        let clock = sample.rq(0)?.clock_ns;
        u32::try_from(clock).ok().map(f64::from)
    });
    assert_eq!(clocks.points.len(), 4);
    assert_eq!(clocks.nondecreasing().outcome, Outcome::Pass);
}

fn patterns(series: &Series) -> [CheckResult; 5] {
    [
        series.nondecreasing(),
        series.rate_within(-2.0..=2.0),
        series.steady_within(50.0),
        series.converges_to(5.0, 2.0),
        series.always("below 9", |value| value < 9.0),
    ]
}

#[test]
fn too_few_points_are_inconclusive() {
    for (needs, pattern) in [2, 2, 3, 3, 1].into_iter().zip(0..) {
        let few = series(&vec![5.0; needs - 1]);
        assert_eq!(patterns(&few)[pattern].outcome, Outcome::Inconclusive);
        let enough = series(&vec![5.0; needs]);
        assert_eq!(patterns(&enough)[pattern].outcome, Outcome::Pass);
    }
}

fn values() -> impl Strategy<Value = Vec<Option<f64>>> {
    let value = prop_oneof![
        6 => (0_u8..10).prop_map(|value| Some(f64::from(value))),
        1 => any::<f64>().prop_map(Some),
        1 => Just(None),
    ];
    proptest::collection::vec(value, 0..8)
}

proptest! {
    #[test]
    fn an_unknown_value_proves_nothing(values in values(), at: prop::sample::Index) {
        let known = some(&values);
        if !known.points.is_empty() {
            let mut unknown = known.clone();
            let at = at.index(unknown.points.len());
            unknown.points[at].value = None;
            for (with, without) in patterns(&known).into_iter().zip(patterns(&unknown)) {
                // It may be outside of what the pattern looks at.
                let kept = with.outcome == without.outcome && with.check.ends_with("converges_to");
                prop_assert!(kept || without.outcome >= Outcome::Inconclusive, "{with:?} {without:?}");
            }
        }
    }
}
