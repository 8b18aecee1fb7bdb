//! What the monitor costs: a sample, the host's CPU time, and the work that the guest gets done.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::paired::{Paired, Pairs, measure};
use super::{Profile, built, output};
use crate::setup::{self, Tool};

/// The longest that a sample of 16 CPUs at rest may take.
const MAX_SAMPLE_US: f64 = 200.0;
/// The most of one host CPU, at the default rate.
const MAX_CPU_SHARE_PCT: f64 = 1.0;
/// How far a sample of four times as many CPUs may go beyond four times as long: noise.
const LINEAR_TOLERANCE: f64 = 1.25;

/// The machine that the bounds are for.
const JUDGED_CPUS: u32 = 16;

/// A machine at rest, as `monitor-bench` tells it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rest {
    cpus: u32,
    samples: u64,
    median_sample_ns: u64,
    longest_sample_ns: u64,
    monitor_cpu_ns: u64,
    span_ns: u64,
}

/// A machine at work.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    work_units: u64,
    wall_time_ns: u64,
    samples: u64,
}

#[derive(Debug)]
struct Report {
    at_rest: Vec<Rest>,
    at_work: Paired,
}

pub(super) fn bench_monitor(pairs: &Pairs) -> Result<()> {
    setup::setup(&[Tool::Qemu])?;
    let program = built("monitor-bench", Profile::Release)?;
    let runs = tempfile::tempdir().context("can't make a folder for the results")?;
    let bench = |what: &str| {
        let mut command = Command::new(&program);
        command.arg(what).env("KTSTR_RUNS_DIR", runs.path());
        command.env_remove("KTSTR_MONITOR");
        command
    };
    let at_rest = ["idle4", "idle16", "idle64"].map(|what| told::<Rest>(&mut bench(what)));
    let work = |monitor: Option<&'static str>| {
        move || {
            let mut spin = bench("spin");
            spin.envs(monitor.map(|rate| ("KTSTR_MONITOR", rate)));
            let work = told::<Work>(&mut spin)?;
            let is_off = monitor == Some("off");
            ensure!(is_off == (work.samples == 0), "{} samples", work.samples);
            Ok(work.time_of_a_billion())
        }
    };
    let off = ("no monitor", work(Some("off")));
    let report = Report {
        at_rest: at_rest.into_iter().collect::<Result<_>>()?,
        at_work: measure(pairs, off, ("monitor every 100 ms", work(None)))?,
    };
    println!("{report}");
    report.check()
}

/// The one line of JSON among what it prints.
fn told<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let printed = output(command)?;
    let line = printed.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("no result in:\n{printed}"))?;
    serde_json::from_str(line).with_context(|| format!("what is {line}?"))
}

impl Rest {
    fn sample_us(&self) -> f64 {
        us(self.median_sample_ns)
    }

    fn cpu_share_pct(&self) -> f64 {
        us(self.monitor_cpu_ns) / us(self.span_ns) * 100.0
    }
}

impl Work {
    /// What a billion units of work took.
    fn time_of_a_billion(self) -> Duration {
        let units = u128::from(self.work_units.max(1));
        let ns = u128::from(self.wall_time_ns) * 1_000_000_000 / units;
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

impl Report {
    /// Whether it is as it must be.
    fn check(&self) -> Result<()> {
        let judged = self.at_rest.iter().find(|rest| rest.cpus == JUDGED_CPUS);
        let judged = judged.with_context(|| format!("no machine had {JUDGED_CPUS} CPUs"))?;
        let sample_us = judged.sample_us();
        ensure!(
            sample_us <= MAX_SAMPLE_US,
            "a sample of {JUDGED_CPUS} CPUs takes {sample_us:.0} us, more than {MAX_SAMPLE_US}"
        );
        for pair in self.at_rest.windows(2) {
            let [fewer, more] = pair else { continue };
            let times_cpus = f64::from(more.cpus) / f64::from(fewer.cpus);
            let times_as_long = more.sample_us() / fewer.sample_us();
            ensure!(
                times_as_long <= times_cpus * LINEAR_TOLERANCE,
                "a sample of {} CPUs takes {times_as_long:.1} times as long as one of {}: not linear",
                more.cpus,
                fewer.cpus
            );
        }
        let share_pct = judged.cpu_share_pct();
        ensure!(
            share_pct <= MAX_CPU_SHARE_PCT,
            "the monitor takes {share_pct:.2} % of a CPU, more than {MAX_CPU_SHARE_PCT}"
        );
        let (least, most) = self.at_work.ratio_range();
        ensure!(
            least <= 1.0,
            "a guest that is watched was slower in every pair, by {:.1} to {:.1} %",
            (least - 1.0) * 100.0,
            (most - 1.0) * 100.0
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "CPUs, at rest",
            "samples",
            "median us",
            "longest us",
            "monitor's CPU %",
        ]);
        for rest in &self.at_rest {
            table.add_row([
                rest.cpus.to_string(),
                rest.samples.to_string(),
                format!("{:.0}", rest.sample_us()),
                format!("{:.0}", us(rest.longest_sample_ns)),
                format!("{:.3}", rest.cpu_share_pct()),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let at_work = &self.at_work;
        write!(
            f,
            "{table}\n\nA billion turns of spinning workers on 2 CPUs, by the guest's clock:\n\n{at_work}"
        )
    }
}

/// In microseconds.
fn us(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(cpus: u32, sample_us: u64) -> Rest {
        Rest {
            cpus,
            samples: 100,
            median_sample_ns: sample_us * 1000,
            longest_sample_ns: 1_000_000,
            monitor_cpu_ns: 14_000_000,
            span_ns: 10_000_000_000,
        }
    }

    fn report(sample_us: [u64; 3], watched_ms: [u64; 3]) -> Report {
        let ms = |times: [u64; 3]| times.map(Duration::from_millis);
        let [few, some, many] = sample_us;
        Report {
            at_rest: vec![rest(4, few), rest(16, some), rest(64, many)],
            at_work: Paired::new(
                ("no monitor", &ms([1000, 1100, 1050])),
                ("monitor every 100 ms", &ms(watched_ms)),
            ),
        }
    }

    #[test]
    fn the_report_has_the_samples_and_the_pairs() {
        let report = report([68, 90, 174], [1010, 1090, 1050]);
        insta::assert_snapshot!(report);
        report.check().unwrap();
    }

    #[test]
    fn what_is_too_much_is_named() {
        let even = [1000, 1100, 1050];
        let error = |report: Report| report.check().unwrap_err().to_string();
        assert!(error(report([68, 201, 300], even)).contains("takes 201 us, more than 200"));
        assert!(error(report([68, 90, 500], even)).contains("5.6 times as long as one of 16"));
        let slower = error(report([68, 90, 174], [1020, 1111, 1060]));
        assert!(
            slower.contains("slower in every pair, by 1.0 to 2.0 %"),
            "{slower}"
        );
        let mut busy = report([68, 90, 174], even);
        busy.at_rest[1].monitor_cpu_ns = 110_000_000;
        assert!(error(busy).contains("1.10 % of a CPU"));
        let mut without = report([68, 90, 174], even);
        without.at_rest.remove(1);
        assert!(error(without).contains("no machine had 16 CPUs"));
    }

    #[test]
    fn work_is_told_as_the_time_it_takes() {
        let work = Work {
            work_units: 2_500_000_000,
            wall_time_ns: 5_000_000_000,
            samples: 0,
        };
        assert_eq!(work.time_of_a_billion(), Duration::from_secs(2));
    }
}
