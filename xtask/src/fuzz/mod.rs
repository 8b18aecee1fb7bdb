//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, each for some time.
//!
//! What a target does is a function in the crate that it tests; `fuzz/` only puts libFuzzer around it. Seeds
//! and kept findings run in the ordinary tests of those crates, on the project's own toolchain.

mod log;
mod nightly;
mod targets;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{Table, presets};

use crate::process::{cache, display, root, run, run_within};
use crate::setup;
use crate::steps::seconds;
use log::Log;
use targets::{NAMES, TARGETS, Target};

/// The crates that have a door for fuzz targets, by the feature that opens it.
const DOORS: [&str; 7] = [
    "ktstr-vmm",
    "ktstr-machine",
    "ktstr-kernels",
    "ktstr-wire",
    "ktstr-introspect",
    "ktstr-monitor",
    "ktstr-host",
];

/// Memory of a target's process; no input needs half of it.
const MEMORY_MIB: u32 = 2048;
/// Most that a target takes at once: a kernel image may have xz decode with a dictionary of 256 MiB.
const ALLOCATION_MIB: u32 = 512;
/// One input that takes longer is a finding.
const INPUT_S: u64 = 20;
/// libFuzzer ends by itself. This is for one that doesn't.
const GRACE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these targets
    #[arg(value_name = "TARGET", value_parser = NAMES)]
    targets: Vec<String>,
}

/// How a target fared.
struct Run {
    target: String,
    log: Log,
    elapsed: Duration,
    /// What it found, or why it did not run to its end.
    fault: Option<String>,
}

/// Whether nothing was found.
pub(crate) fn fuzz(options: &Options) -> Result<bool> {
    setup::setup(&setup::FOR_FUZZING)?;
    nightly::ensure()?;
    build()?;
    let named = |target: &&Target| options.targets.iter().any(|named| named == target.name);
    let runs: Vec<Run> = TARGETS
        .iter()
        .filter(|target| options.targets.is_empty() || named(target))
        .map(|target| fuzz_one(*target, options.seconds))
        .collect::<Result<_>>()?;
    eprintln!("\n{}", table(&runs));
    for run in &runs {
        if let Some(fault) = &run.fault {
            eprintln!("\n{}: {fault}", run.target);
        }
    }
    Ok(runs.iter().all(|run| run.fault.is_none()))
}

/// What sees to it that the doors build as `fuzz/` builds them, and not only as the tests do.
pub(crate) fn clippy_args() -> Vec<&'static str> {
    let mut args = vec!["clippy"];
    for package in DOORS {
        args.extend(["--package", package]);
    }
    args.extend([
        "--features",
        "ktstr-vmm/fuzzing,ktstr-machine/fuzzing,ktstr-kernels/fuzzing,ktstr-wire/fuzzing,ktstr-introspect/fuzzing,\
         ktstr-host/fuzzing",
    ]);
    args.extend(["--", "-D", "warnings"]);
    args
}

/// Programs of this build stay apart from those of the project's own toolchain.
fn target_dir() -> PathBuf {
    root().join("target/fuzz")
}

fn build() -> Result<()> {
    eprintln!("fuzz: building the targets with the address sanitizer");
    let mut command = nightly::cargo();
    command
        .args(["fuzz", "build", "--target-dir"])
        .arg(target_dir());
    let status = run(command.current_dir(root().join("fuzz")))?;
    if !status.success() {
        bail!("`{}` ended with {status}", display(&command));
    }
    Ok(())
}

fn fuzz_one(target: Target, run_s: u64) -> Result<Run> {
    let Target {
        name: target,
        max_len_bytes,
    } = target;
    let kept = cache()?.join("fuzz").join(target);
    let folder = |name: &str| {
        let path = kept.join(name);
        fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    let (corpus, findings) = (folder("corpus")?, folder("findings")?);
    let log_path = kept.join("log");
    let log =
        File::create(&log_path).with_context(|| format!("can't write {}", log_path.display()))?;
    eprintln!(
        "fuzz: {target} for {run_s} s; its output: {}",
        log_path.display()
    );

    let program = target_dir()
        .join("x86_64-unknown-linux-gnu/release")
        .join(target);
    let mut command = Command::new(program);
    command
        .arg(corpus)
        .args(inputs(target))
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(format!("-max_len={max_len_bytes}"))
        .arg(format!("-max_total_time={run_s}"))
        .arg(format!("-timeout={INPUT_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-malloc_limit_mb={ALLOCATION_MIB}"))
        .arg("-print_final_stats=1")
        .stdout(log.try_clone()?)
        .stderr(log);
    let started = std::time::Instant::now();
    let status = run_within(&mut command, Duration::from_secs(run_s) + GRACE)?;
    let elapsed = started.elapsed();

    let log = Log::read(&String::from_utf8_lossy(&fs::read(&log_path)?));
    let fault = match (status, &log.finding) {
        (Some(status), _) if status.success() => None,
        (_, Some(file)) => Some(finding(target, file)),
        (Some(status), None) => Some(format!(
            "it ended with {status}; see {}",
            log_path.display()
        )),
        (None, None) => Some(format!("it did not end; see {}", log_path.display())),
    };
    Ok(Run {
        target: target.to_owned(),
        log,
        elapsed,
        fault,
    })
}

/// Folders of inputs in the repository.
fn inputs(target: &str) -> Vec<PathBuf> {
    let kept = ["seeds", "regressions"].map(|kept| root().join("fuzz").join(kept).join(target));
    kept.into_iter().filter(|folder| folder.is_dir()).collect()
}

/// What to do with a finding.
fn finding(target: &str, file: &Path) -> String {
    let file = file.display();
    format!(
        "a finding: {file}\n  again:   (cd fuzz && cargo +nightly fuzz run --target-dir ../target/fuzz {target} {file})\n  \
         keep it: cp {file} fuzz/regressions/{target}/NAME"
    )
}

fn table(runs: &[Run]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "target",
        "executions",
        "per second",
        "coverage",
        "peak",
        "time",
        "result",
    ]);
    for run in runs {
        let shown = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let peak = run.log.peak_rss_mib;
        table.add_row([
            run.target.clone(),
            shown(run.log.executions),
            shown(
                run.log
                    .executions
                    .and_then(|all| all.checked_div(run.elapsed.as_secs())),
            ),
            shown(run.log.coverage),
            peak.map_or_else(|| "?".to_owned(), |mib| format!("{mib} MiB")),
            seconds(run.elapsed),
            match run.fault {
                None => "nothing found".to_owned(),
                Some(_) => "FAILED".to_owned(),
            },
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_is_listed_and_has_seeds() {
        let files = fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap();
        let there: BTreeSet<String> = files
            .map(|file| file.unwrap().path())
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(there, NAMES.map(str::to_owned).into());
        let kept = ["seeds", "regressions"].map(|kept| root().join("fuzz").join(kept));
        assert!(NAMES.iter().all(|target| kept[0].join(target).is_dir()));
        let folders = kept
            .iter()
            .flat_map(|kept| fs::read_dir(kept).unwrap().flatten());
        for folder in folders.filter(|entry| entry.path().is_dir()) {
            let name = folder.file_name().to_string_lossy().into_owned();
            let target = TARGETS.iter().find(|target| target.name == name);
            let target = target.unwrap_or_else(|| panic!("{name} is not a target"));
            for input in fs::read_dir(folder.path()).unwrap() {
                let input = input.unwrap();
                let len = input.metadata().unwrap().len();
                assert!(
                    len <= u64::from(target.max_len_bytes),
                    "{input:?} is longer than inputs can be"
                );
            }
        }
    }

    #[test]
    fn the_table_says_what_was_done() {
        let ran = |target: &str, log: &str, fault: Option<&str>| Run {
            target: target.to_owned(),
            log: Log::read(log),
            elapsed: Duration::from_secs(60),
            fault: fault.map(str::to_owned),
        };
        let stats = "#9\tDONE   cov: 512 ft: 900 corp: 3/9b\nstat::number_of_executed_units: 120000\n\
                     stat::peak_rss_mb:             88\n";
        let runs = [ran("serial", stats, None), ran("boot", "", Some("killed"))];
        insta::assert_snapshot!(table(&runs), @"
        target  executions  per second  coverage  peak    time        result
        serial  120000      2000        512       88 MiB  1 min 00 s  nothing found
        boot    ?           ?           ?         ?       1 min 00 s  FAILED
        ");
    }

    #[test]
    fn a_finding_comes_with_its_command() {
        insta::assert_snapshot!(finding("boot", Path::new("/c/crash-1")), @"
        a finding: /c/crash-1
          again:   (cd fuzz && cargo +nightly fuzz run --target-dir ../target/fuzz boot /c/crash-1)
          keep it: cp /c/crash-1 fuzz/regressions/boot/NAME
        ");
    }
}
