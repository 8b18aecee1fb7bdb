//! Measurements. Two things are compared only within one run, by turns: what disturbs the machine then
//! disturbs both.

mod paired;

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::process::{cargo, display, run};
use crate::setup::{self, Tool};
use paired::{Pairs, measure};

#[derive(Debug, Subcommand)]
pub(crate) enum Benchmark {
    /// Compare an empty test with a plain QEMU that boots the same kernel
    Boot(Pairs),
    /// Compare the wall time of two shell commands
    Commands(Commands),
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
    let paired = match benchmark {
        Benchmark::Boot(pairs) => {
            setup::setup(&[Tool::Qemu])?;
            let program = boot_bench()?;
            let boot = |what: &'static str| {
                let program = &program;
                move || wall_time(Command::new(program).arg(what))
            };
            measure(
                pairs,
                ("plain QEMU", boot("plain")),
                ("empty test", boot("test")),
            )?
        }
        Benchmark::Commands(Commands {
            base,
            subject,
            pairs,
        }) => {
            let shell = |command: &str| wall_time(Command::new("sh").args(["-c", command]));
            measure(pairs, (base, || shell(base)), (subject, || shell(subject)))?
        }
    };
    println!("{paired}");
    Ok(())
}

/// Builds the program that boots once, so that cargo has no part in what is timed.
fn boot_bench() -> Result<PathBuf> {
    let status = run(&mut cargo(["build", "--package", "boot-bench"]))?;
    if !status.success() {
        bail!("the build of boot-bench ended with {status}");
    }
    // Cargo puts all programs of a profile into one folder, this one too.
    let this = env::current_exe().context("can't find this program's own file")?;
    Ok(this.with_file_name("boot-bench"))
}

/// Wall time of a command that succeeds.
fn wall_time(command: &mut Command) -> Result<Duration> {
    let text = display(command);
    let started = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run `{text}`"))?;
    let elapsed = started.elapsed();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{text}` ended with {}: {}", output.status, stderr.trim());
    }
    Ok(elapsed)
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
