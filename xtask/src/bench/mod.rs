//! Measurements. Two things are compared only within one run, by turns: what disturbs the machine then
//! disturbs both.

mod monitor;
mod nested;
mod paired;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::process::{cargo, display, run};
use crate::setup::{self, Tool};
use paired::{Pairs, measure};

#[derive(Debug, Subcommand)]
pub(crate) enum Benchmark {
    /// Compare an empty test with a plain QEMU that boots the same kernel
    Boot(Boot),
    /// Measure what the monitor costs: a sample, the host's CPU time, the guest's work
    Monitor(Pairs),
    /// Compare the wall time of two shell commands
    Commands(Commands),
}

#[derive(Debug, Args)]
pub(crate) struct Boot {
    /// What boots: `tcg`, or `nested` for our microVM beside QEMU's in an emulated machine with a KVM
    #[arg(long, default_value = "tcg")]
    engine: BootEngine,
    #[command(flatten)]
    pairs: Pairs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BootEngine {
    Tcg,
    Nested,
}

#[derive(Debug, Args)]
pub(crate) struct Commands {
    /// The command to compare with
    #[arg(long, value_name = "COMMAND")]
    base: String,
    /// The command that is compared
    #[arg(long, value_name = "COMMAND")]
    subject: String,
    #[command(flatten)]
    pairs: Pairs,
}

pub(crate) fn bench(benchmark: &Benchmark) -> Result<()> {
    match benchmark {
        Benchmark::Boot(Boot { engine, pairs }) => match engine {
            BootEngine::Tcg => bench_boot(pairs),
            BootEngine::Nested => nested::bench_boot(pairs),
        },
        Benchmark::Monitor(pairs) => monitor::bench_monitor(pairs),
        Benchmark::Commands(Commands {
            base,
            subject,
            pairs,
        }) => {
            let shell = |command: &str| wall_time(Command::new("sh").args(["-c", command]));
            let paired = measure(pairs, (base, || shell(base)), (subject, || shell(subject)))?;
            println!("{paired}");
            Ok(())
        }
    }
}

/// An empty test against a plain QEMU, and against the engine's own machine with nothing in it: the first
/// says what a user waits for, the second what of it is ours.
fn bench_boot(pairs: &Pairs) -> Result<()> {
    setup::setup(&[Tool::Qemu])?;
    let program = built("boot-bench", Profile::Dev)?;
    let runs = tempfile::tempdir().context("can't make a folder for the results")?;
    let boot = |what: &'static str| {
        let (program, runs) = (&program, runs.path());
        move || wall_time(Command::new(program).arg(what).env("KTSTR_RUNS_DIR", runs))
    };
    for (name, base) in [("plain QEMU", "plain"), ("the engine's machine", "tuned")] {
        println!(
            "{}\n",
            measure(pairs, (name, boot(base)), ("empty test", boot("test")))?
        );
    }
    match engine_memory_mib(runs.path())? {
        Some(mib) => println!("host memory beyond guest RAM: {mib:.0} MiB"),
        None => println!("host memory beyond guest RAM: not known"),
    }
    Ok(())
}

/// Median over all results in the folder, in MiB.
fn engine_memory_mib(runs: &Path) -> Result<Option<f64>> {
    let mut seen = Vec::new();
    for run in fs::read_dir(runs)?.flatten() {
        for file in fs::read_dir(run.path())?.flatten() {
            let sidecar: serde_json::Value = serde_json::from_slice(&fs::read(file.path())?)?;
            seen.extend(sidecar["engine_memory_bytes"].as_f64());
        }
    }
    seen.sort_by(f64::total_cmp);
    let middle = seen.get(seen.len() / 2);
    Ok(middle.map(|bytes| bytes / f64::from(1 << 20)))
}

/// Builds the program of a benchmark, so that cargo has no part in what is timed.
fn built(package: &str, profile: Profile) -> Result<PathBuf> {
    let mut build = cargo(["build", "--package", package]);
    // Cargo puts all programs of a profile into one folder, this one too.
    let this = env::current_exe().context("can't find this program's own file")?;
    let mut program = this.with_file_name(package);
    if profile == Profile::Release {
        build.arg("--release");
        let folders = this.parent().and_then(Path::parent);
        let folders = folders.context("this program is not in a target folder")?;
        program = folders.join("release").join(package);
    }
    let status = run(&mut build)?;
    if !status.success() {
        bail!("the build of {package} ended with {status}");
    }
    Ok(program)
}

/// Of cargo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Dev,
    Release,
}

/// Wall time of a command that succeeds.
fn wall_time(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    output(command)?;
    Ok(started.elapsed())
}

/// What a command prints that succeeds.
fn output(command: &mut Command) -> Result<String> {
    let text = display(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run `{text}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{text}` ended with {}: {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_is_no_measurement() {
        let error = wall_time(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]))
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("no such thing"),
            "{text}"
        );
        assert!(wall_time(&mut Command::new("true")).is_ok());
    }
}
