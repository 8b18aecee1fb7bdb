//! Making a machine ready. What is missing is decided first, then said, then installed.

mod apt;
mod facts;
mod plan;
mod schedulers;
mod tool;

use std::env;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use ktstr_kernels::tools;
use ktstr_kernels::{Cache, Lines};

use crate::process::{cargo, display, run};
use facts::{Facts, is_program};
use plan::{Install, plan};
pub(crate) use schedulers::schedulers;
pub(crate) use tool::Tool;

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

/// Installs those of `needed` that are missing; without any it says nothing.
pub(crate) fn setup(needed: &[Tool]) -> Result<()> {
    let cache = Cache::open_default(env::var_os)?;
    let mut facts = Facts::gather(needed, &cache);
    if facts.is_root && facts.has_apt {
        facts.effects = apt::effects(&facts.missing)?;
    }
    for install in plan(&facts)? {
        eprintln!("setup: {install}");
        match install {
            Install::Apt { packages, .. } => apt::install(&packages)?,
            Install::Fetch { tool, .. } => {
                let fetched = tools::fetch(&cache, tool, Path::new("/"), &Lines::default())?;
                eprintln!(
                    "setup: {} is from {}, in {}",
                    tool.program(),
                    fetched.source(),
                    fetched.dir().display()
                );
            }
            Install::Cargo { krate, version, .. } => cargo_install(krate, version)?,
        }
    }
    let still_missing = Facts::gather(needed, &cache).missing;
    if !still_missing.is_empty() {
        bail!("installed, but still not found: {still_missing:?}");
    }
    Ok(())
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
