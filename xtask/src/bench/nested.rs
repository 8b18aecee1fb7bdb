//! Our microVM beside QEMU's, on the KVM of one emulated machine, and what our set-up takes there.

use std::collections::BTreeMap;
use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;

use super::paired::{Paired, Pairs, median};
use super::{Profile, built};
use crate::setup::{self, Tool};

/// The most that ours may take of QEMU's time.
const MAX_RATIO_TO_QEMU: f64 = 0.8;
/// The most CPU time of a set-up.
const MAX_SETUP_MS: f64 = 10.0;
/// The most memory beyond guest RAM, at four CPUs.
const MAX_MEMORY_MIB: f64 = 20.0;

/// Name of our boots.
const OURS: &str = "microVM, vmlinux";

/// A line of the benchmark's program.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Line {
    Boot {
        boot: String,
        ns: u64,
    },
    Memory {
        memory_cpus: u32,
        bytes: u64,
    },
    Figure {
        figure: String,
        wall_ns: u64,
        cpu_ns: Option<u64>,
    },
}

/// All that was measured.
#[derive(Debug, Default)]
struct Report {
    /// By name, in the order of the first of each.
    boots: Vec<(String, Vec<Duration>)>,
    /// Wall and CPU time of the steps of our set-up, in ms.
    steps: Vec<(String, Vec<f64>, Vec<f64>)>,
    /// CPUs and bytes beyond guest RAM.
    memory: Option<(u32, u64)>,
}

pub(super) fn bench_boot(pairs: &Pairs) -> Result<()> {
    setup::setup(&[Tool::Qemu])?;
    let program = built("boot-bench", Profile::Release)?;
    let measured = Command::new(program)
        .args(["nested", &pairs.pairs.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("can't run boot-bench")?;
    let output = String::from_utf8_lossy(&measured.stdout);
    ensure!(
        measured.status.success(),
        "boot-bench ended with {}:\n{output}",
        measured.status
    );
    let report = Report::read(&output)?;
    println!("{report}");
    report.check()
}

impl Report {
    fn read(output: &str) -> Result<Self> {
        let mut report = Self::default();
        for line in output.lines().filter(|line| line.starts_with('{')) {
            let line = serde_json::from_str(line).with_context(|| format!("what is {line}?"))?;
            report.take(line);
        }
        Ok(report)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Boot { boot, ns } => {
                let time = Duration::from_nanos(ns);
                match self.boots.iter_mut().find(|(name, _)| *name == boot) {
                    Some((_, times)) => times.push(time),
                    None => self.boots.push((boot, vec![time])),
                }
            }
            Line::Memory { memory_cpus, bytes } => self.memory = Some((memory_cpus, bytes)),
            Line::Figure {
                figure,
                wall_ns,
                cpu_ns,
            } => {
                let ms = |ns| Duration::from_nanos(ns).as_secs_f64() * 1e3;
                let (wall, cpu) = (ms(wall_ns), cpu_ns.map(ms));
                match self.steps.iter_mut().find(|(name, ..)| *name == figure) {
                    Some((_, walls, cpus)) => {
                        walls.push(wall);
                        cpus.extend(cpu);
                    }
                    None => {
                        let cpus = cpu.into_iter().collect();
                        self.steps.push((figure, vec![wall], cpus));
                    }
                }
            }
        }
    }

    /// Ours paired with each of the others.
    fn pairs(&self) -> Vec<Paired> {
        let by_name: BTreeMap<_, _> = self
            .boots
            .iter()
            .map(|(name, times)| (name, times))
            .collect();
        let Some((ours, ours_times)) = by_name.iter().find(|(name, _)| **name == OURS) else {
            return Vec::new();
        };
        let others = self.boots.iter().filter(|(name, _)| name != OURS);
        others
            .map(|(name, times)| Paired::new((name, times), (ours, ours_times)))
            .collect()
    }

    /// Whether it is as it must be, against the faster of QEMU's two.
    fn check(&self) -> Result<()> {
        let ratios = self.pairs().iter().map(Paired::ratio).collect::<Vec<_>>();
        let worst = ratios.iter().copied().fold(f64::NAN, f64::max);
        ensure!(
            worst <= MAX_RATIO_TO_QEMU,
            "ours takes {worst:.3} of the faster QEMU's time, more than {MAX_RATIO_TO_QEMU}"
        );
        let set_up = self.steps.iter().find(|(name, ..)| name == "set-up");
        let set_up_ms = set_up.map_or(f64::NAN, |(_, _, cpus)| median(cpus.clone()));
        ensure!(
            set_up_ms <= MAX_SETUP_MS,
            "the set-up takes {set_up_ms:.3} ms of CPU time, more than {MAX_SETUP_MS}"
        );
        let mib = self.memory_mib().unwrap_or(f64::NAN);
        ensure!(
            mib <= MAX_MEMORY_MIB,
            "{mib:.1} MiB beyond guest RAM are more than {MAX_MEMORY_MIB}"
        );
        Ok(())
    }

    fn memory_mib(&self) -> Option<f64> {
        let (_, bytes) = self.memory?;
        let kib = u32::try_from(bytes >> 10).ok()?;
        Some(f64::from(kib) / 1024.0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for paired in self.pairs() {
            writeln!(f, "{paired}\n")?;
        }
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "step of our start",
            "CPU ms",
            "least CPU ms",
            "wall ms",
        ]);
        let ms = |ms: f64| format!("{ms:.3}");
        for (name, walls, cpus) in &self.steps {
            // What a busy host takes from the emulator counts as its guest's time: the least is nearest to none.
            let least = cpus.iter().copied().reduce(f64::min).map(ms);
            let cpu = least.is_some().then(|| ms(median(cpus.clone())));
            let wall = ms(median(walls.clone()));
            table.add_row([
                name.clone(),
                cpu.unwrap_or_default(),
                least.unwrap_or_default(),
                wall,
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(
            f,
            "Our set-up there, medians (`set-up` ends where the guest begins):\n\n{table}\n"
        )?;
        match (self.memory, self.memory_mib()) {
            (Some((cpus, _)), Some(mib)) => {
                write!(f, "host memory beyond guest RAM, {cpus} CPUs: {mib:.1} MiB")
            }
            _ => write!(f, "host memory beyond guest RAM: not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(ours_ns: u64) -> String {
        format!(
            r#"noise
{{"boot":"QEMU microvm, bzImage","ns":3000000000}}
{{"boot":"QEMU microvm, vmlinux","ns":2000000000}}
{{"boot":"microVM, vmlinux","ns":{ours_ns}}}
{{"figure":"probe","wall_ns":13000000}}
{{"figure":"set-up","wall_ns":8000000,"cpu_ns":1500000}}
{{"figure":"launch","wall_ns":9000000,"cpu_ns":1600000}}
{{"figure":"kernel load","wall_ns":400000,"cpu_ns":300000}}
{{"memory_cpus":4,"bytes":10485760}}
"#
        )
    }

    #[test]
    fn the_report_has_both_ratios_the_steps_and_the_memory() {
        let report = Report::read(&output(1_500_000_000)).unwrap();
        insta::assert_snapshot!(report);
        report.check().unwrap();
    }

    #[test]
    fn what_is_too_much_is_named() {
        let error = |output: &str| {
            Report::read(output)
                .unwrap()
                .check()
                .unwrap_err()
                .to_string()
        };
        let fine = output(1_500_000_000);
        assert!(error(&output(1_700_000_000)).contains("0.850 of the faster QEMU"));
        assert!(error(&fine.replace("1500000}", "10500000}")).contains("10.500 ms of CPU time"));
        assert!(error(&fine.replace("10485760", "31457280")).contains("30.0 MiB"));
        assert!(error("").contains("NaN"));
        assert!(Report::read("{}").is_err());
    }
}
