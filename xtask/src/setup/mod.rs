//! Making a machine ready. What is missing is decided first, then said, then installed.

mod facts;
mod plan;
mod schedulers;

use std::env;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, display, run, run_silently};
use facts::{Facts, is_program};
use plan::{Install, plan};
pub(crate) use schedulers::schedulers;

/// A program that the project needs beside Rust itself. (A C compiler is one too, as Rust's linker, but
/// without it this program could not have been built.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Boots the virtual machines.
    Qemu,
    /// The shell of `cargo ktstr shell`.
    Busybox,
    /// Compiles the BPF part of schedulers/scx-ktstr, with what libbpf needs beside it.
    BpfToolchain,
    /// Judges ACPI tables, in tests of the microVM.
    Iasl,
    /// Runs the tests.
    Nextest,
    /// Checks the dependencies.
    CargoDeny,
    /// Builds the fuzz targets.
    CargoFuzz,
    /// Compiles libFuzzer.
    CxxCompiler,
}

/// What the demo needs.
pub(crate) const FOR_DEMO: [Tool; 3] = [Tool::Qemu, Tool::Busybox, Tool::Nextest];

/// What the project's tests need.
pub(crate) const FOR_TESTS: [Tool; 6] = [
    Tool::Qemu,
    Tool::Busybox,
    Tool::BpfToolchain,
    Tool::Iasl,
    Tool::Nextest,
    Tool::CargoDeny,
];

/// What is needed to build all of the workspace and run the tests that boot nothing.
pub(crate) const WITHOUT_VMS: [Tool; 3] = [Tool::BpfToolchain, Tool::Nextest, Tool::CargoDeny];

/// What fuzzing needs.
pub(crate) const FOR_FUZZING: [Tool; 2] = [Tool::CxxCompiler, Tool::CargoFuzz];

/// What all commands need.
pub(crate) const EVERYTHING: [Tool; 8] = [
    Tool::Qemu,
    Tool::Busybox,
    Tool::BpfToolchain,
    Tool::Iasl,
    Tool::CxxCompiler,
    Tool::Nextest,
    Tool::CargoDeny,
    Tool::CargoFuzz,
];

/// apt's own question whether it could install takes a moment, not minutes.
const SIMULATION_WITHIN: Duration = Duration::from_secs(60);

/// Installs those of `tools` that are missing; without any it says nothing.
pub(crate) fn setup(tools: &[Tool]) -> Result<()> {
    let facts = Facts::gather(tools);
    for install in plan(&facts)? {
        eprintln!("setup: {install}");
        match install {
            Install::Apt { packages, .. } => apt_install(&packages)?,
            Install::Cargo { krate, version, .. } => cargo_install(krate, version)?,
        }
    }
    let still_missing = Facts::gather(tools).missing;
    if !still_missing.is_empty() {
        bail!("installed, but still not found: {still_missing:?}");
    }
    Ok(())
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // Another apt, such as the automatic one after boot, may hold the lock for a while.
    command
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Package lists are fetched only if apt does not know the packages, or what it knows is gone from the mirror.
fn apt_install(packages: &[&str]) -> Result<()> {
    let install = |simulate: &[&'static str]| {
        let mut command = apt_get(&["install", "-y", "--no-install-recommends"]);
        command.args(simulate).args(packages);
        command
    };
    let known = run_silently(&mut install(&["--simulate"]), SIMULATION_WITHIN)?;
    if known.is_some_and(|status| status.success()) && run(&mut install(&[]))?.success() {
        return Ok(());
    }
    eprintln!("setup: the package lists are missing or out of date; fetching them: apt-get update");
    succeed(&mut apt_get(&["update"]))?;
    succeed(&mut install(&[]))
}

fn cargo_install(krate: &str, version: &str) -> Result<()> {
    let mut command = cargo(plan::cargo_install_args(krate, version));
    // Cargo's progress bar is for a person; its list of crates is of no use in a log.
    if !stderr().is_terminal() {
        command.arg("--quiet");
    }
    succeed(&mut command)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = run(command)?;
    if !status.success() {
        bail!("`{}` ended with {status}", display(command));
    }
    Ok(())
}

/// The user's cargo folder, where cargo finds its subcommands even when PATH does not name it.
fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(Into::into)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}
