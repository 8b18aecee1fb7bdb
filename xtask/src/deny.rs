//! Licences, sources, duplicate versions and known vulnerabilities of the dependencies.

use std::time::Duration;

use anyhow::Result;

use crate::process::{cargo, run, run_silently};
use crate::setup::{self, Tool};
use crate::steps::{End, Steps};

/// The advisory database is a shallow clone of a small repository.
const FETCH_WITHIN: Duration = Duration::from_secs(90);

/// `cargo xtask deny`.
pub(crate) fn deny() -> Result<bool> {
    setup::setup(&[Tool::CargoDeny])?;
    let mut steps = Steps::default();
    add_steps(&mut steps);
    eprintln!("\n{}", steps.table());
    Ok(steps.all_passed())
}

/// The checks as steps.
pub(crate) fn add_steps(steps: &mut Steps) {
    let check = [
        "deny",
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ];
    steps.command("deny", cargo(check));
    steps.step("advisories", "cargo deny check advisories", advisories);
}

/// The database of advisories comes over the network. Without it there is nothing to hold against the
/// project, but nobody may take it for checked.
fn advisories() -> Result<End> {
    let fetched = run_silently(&mut cargo(["deny", "fetch", "db"]), FETCH_WITHIN)?;
    if !fetched.is_some_and(|status| status.success()) {
        return Ok(End::NotChecked("database unreachable".to_owned()));
    }
    let status = run(&mut cargo([
        "deny",
        "check",
        "--disable-fetch",
        "advisories",
    ]))?;
    Ok(if status.success() {
        End::Passed
    } else {
        End::Failed("a dependency has a known vulnerability or was withdrawn".to_owned())
    })
}
