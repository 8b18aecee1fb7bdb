//! Paired measurement: A, B, B, A, A, B, …

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

/// How often to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Pairs {
    /// Pairs to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pairs: u32,
    /// Pairs to run before, unmeasured: caches fill
    #[arg(long, default_value_t = 1)]
    pub(crate) warm_up: u32,
}

/// Two rows of times, the n-th of each taken next to each other.
#[derive(Clone, Debug)]
pub(crate) struct Paired {
    base: Series,
    subject: Series,
}

#[derive(Clone, Debug)]
struct Series {
    name: String,
    times: Vec<Duration>,
}

/// Measures both by turns. Which of a pair goes first changes with every pair, so that neither always
/// finds the machine as the other left it.
pub(crate) fn measure(
    pairs: &Pairs,
    (base_name, mut base): (&str, impl FnMut() -> Result<Duration>),
    (subject_name, mut subject): (&str, impl FnMut() -> Result<Duration>),
) -> Result<Paired> {
    let mut pair = |base_first: bool| -> Result<(Duration, Duration)> {
        let mut base = || base().with_context(|| format!("measuring `{base_name}`"));
        let mut subject = || subject().with_context(|| format!("measuring `{subject_name}`"));
        if base_first {
            Ok((base()?, subject()?))
        } else {
            let subject = subject()?;
            Ok((base()?, subject))
        }
    };
    for _ in 0..pairs.warm_up {
        pair(true)?;
    }
    let times: Result<Vec<_>> = (0..pairs.pairs).map(|n| pair(n % 2 == 0)).collect();
    let (base_times, subject_times) = times?.into_iter().unzip();
    Ok(Paired {
        base: Series::new(base_name, base_times),
        subject: Series::new(subject_name, subject_times),
    })
}

impl Paired {
    /// Of times that were taken elsewhere, by turns as well. What one has more than the other is left out.
    pub(crate) fn new(
        (base_name, base): (&str, &[Duration]),
        (subject_name, subject): (&str, &[Duration]),
    ) -> Self {
        let pairs = base.len().min(subject.len());
        Self {
            base: Series::new(base_name, base[..pairs].to_vec()),
            subject: Series::new(subject_name, subject[..pairs].to_vec()),
        }
    }

    /// Median of the pairs' ratios, subject to base: what disturbs both of a pair cancels out.
    pub(crate) fn ratio(&self) -> f64 {
        median(self.ratios())
    }

    /// The least and the greatest of the pairs' ratios.
    pub(crate) fn ratio_range(&self) -> (f64, f64) {
        range(&self.ratios())
    }

    fn ratios(&self) -> Vec<f64> {
        let pairs = self.base.times.iter().zip(&self.subject.times);
        pairs
            .map(|(base, subject)| subject.as_secs_f64() / base.as_secs_f64())
            .collect()
    }
}

impl Series {
    fn new(name: &str, times: Vec<Duration>) -> Self {
        Self {
            name: name.to_owned(),
            times,
        }
    }

    fn row(&self) -> [String; 4] {
        let ms: Vec<f64> = self
            .times
            .iter()
            .map(|time| time.as_secs_f64() * 1e3)
            .collect();
        let (least, most) = range(&ms);
        [
            self.name.clone(),
            format!("{:.1}", median(ms)),
            format!("{least:.1}"),
            format!("{most:.1}"),
        ]
    }
}

/// A table that is Markdown as well.
impl fmt::Display for Paired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_header(["", "median ms", "min ms", "max ms"])
            .add_row(self.base.row())
            .add_row(self.subject.row());
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let (least, most) = self.ratio_range();
        write!(
            f,
            "{table}\n\nratio {:.3} ({least:.3} to {most:.3}) over {} pairs",
            self.ratio(),
            self.base.times.len(),
        )
    }
}

/// Mean of the two middle values for an even number; 0 for none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => 0.0,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(values[middle - 1], *upper),
    }
}

fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (least, most)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    fn paired(base_ms: &[u64], subject_ms: &[u64]) -> Paired {
        let times = |ms: &[u64]| ms.iter().copied().map(Duration::from_millis).collect();
        Paired {
            base: Series::new("plain boot", times(base_ms)),
            subject: Series::new("empty test", times(subject_ms)),
        }
    }

    #[test]
    fn the_table_says_median_range_and_ratio() {
        let paired = paired(&[1000, 2000, 1100, 1200], &[1200, 2500, 1320, 1500]);
        insta::assert_snapshot!(paired, @r"
        |            | median ms | min ms | max ms |
        |------------|-----------|--------|--------|
        | plain boot |    1150.0 | 1000.0 | 2000.0 |
        | empty test |    1410.0 | 1200.0 | 2500.0 |

        ratio 1.225 (1.200 to 1.250) over 4 pairs
        ");
    }

    #[test]
    fn the_ratio_goes_by_pairs_so_a_slow_spell_of_the_machine_cancels_out() {
        let steady = paired(&[100, 100, 100], &[120, 120, 120]);
        let slow_spell = paired(&[100, 300, 100], &[120, 360, 120]);
        assert!((steady.ratio() - 1.2).abs() < 1e-9);
        assert!((slow_spell.ratio() - 1.2).abs() < 1e-9);
    }

    #[test]
    fn turns_alternate_and_the_warm_up_is_not_counted() {
        let turns = RefCell::new(String::new());
        let turn = |who: char, ms: u64| {
            turns.borrow_mut().push(who);
            Ok(Duration::from_millis(ms))
        };
        let pairs = Pairs {
            pairs: 3,
            warm_up: 1,
        };
        let paired = measure(&pairs, ("a", || turn('a', 10)), ("b", || turn('b', 30))).unwrap();
        assert_eq!(turns.into_inner(), "ababbaab");
        assert_eq!(paired.base.times, [Duration::from_millis(10); 3]);
        assert_eq!(paired.subject.times, [Duration::from_millis(30); 3]);
    }

    #[test]
    fn a_failed_measurement_ends_it_and_names_whose_it_was() {
        let pairs = Pairs {
            pairs: 3,
            warm_up: 0,
        };
        let good = || Ok(Duration::from_millis(1));
        let error = measure(&pairs, ("a", good), ("b", || bail!("no kernel"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "measuring `b`: no kernel");
    }

    #[test]
    fn medians() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(vec![]).abs() < 1e-9);
    }
}
