//! The machine's own apt: what it would do, and having it done.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use ktstr_kernels::tools::Simulation;

use super::facts::Effect;
use super::plan::APT_INSTALL;
use super::{Tool, succeed};
use crate::process::{run, run_within};

/// apt's own question whether it could install takes a moment, not minutes.
const SIMULATION_WITHIN: Duration = Duration::from_secs(60);

/// Asks apt what it would do for each tool that is had as packages. Package lists are fetched if it knows a package not
/// at all.
pub(super) fn effects(tools: &[Tool]) -> Result<Vec<(Tool, Effect)>> {
    let mut effects = Vec::new();
    let mut is_updated = false;
    for &tool in tools.iter().filter(|tool| !tool.packages().is_empty()) {
        let mut effect = simulate(tool.packages())?;
        if matches!(effect, Effect::Refuses(_)) && !is_updated {
            // Should that fail, apt still says itself what it can't install, and other ways than apt's are open.
            run(&mut update())?;
            is_updated = true;
            effect = simulate(tool.packages())?;
        }
        effects.push((tool, effect));
    }
    Ok(effects)
}

/// Installs packages, unless that would remove or replace others. What apt knows may be gone from the mirror: then its
/// package lists are fetched, and it is tried once more.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    refuse_changes(packages)?;
    let install = || {
        let mut command = apt_get(&APT_INSTALL);
        command.args(packages);
        command
    };
    if run(&mut install())?.success() {
        return Ok(());
    }
    succeed(&mut update())?;
    refuse_changes(packages)?;
    succeed(&mut install())
}

/// Each tool alone may do no harm, and all together still.
fn refuse_changes(packages: &[&str]) -> Result<()> {
    if let Effect::Changes(changes) = simulate(packages)? {
        bail!(
            "to install {} apt would {}: nothing was installed",
            packages.join(", "),
            changes.join(", ")
        );
    }
    Ok(())
}

fn simulate(packages: &[&str]) -> Result<Effect> {
    let mut command = apt_get(&["install", "-qq", "--simulate", "--no-install-recommends"]);
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command
        .args(packages)
        .env("LC_ALL", "C")
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let status = run_within(&mut command, SIMULATION_WITHIN)?;
    if status.is_none_or(|status| !status.success()) {
        let said = text(&mut stderr)?;
        let first = said.lines().find(|line| line.starts_with("E:"));
        let nothing = "apt-get --simulate did not succeed";
        return Ok(Effect::Refuses(first.unwrap_or(nothing).to_owned()));
    }
    let changes = Simulation::parse(&text(&mut stdout)?).changes();
    Ok(if changes.is_empty() {
        Effect::Adds
    } else {
        Effect::Changes(changes)
    })
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn update() -> Command {
    eprintln!("setup: the package lists are missing or out of date; fetching them: apt-get update");
    apt_get(&["update"])
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
