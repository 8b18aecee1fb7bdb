//! `cargo xtask demo`: the example tests of a scheduler developer, each in its own virtual machine.

use std::io::{IsTerminal, stderr};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::process::{cargo, root, run};
use crate::setup;
use crate::steps::seconds;

/// Folder of the example crate.
const EXAMPLE: &str = "examples/first-tests";

/// Whether every example test passed.
pub(crate) fn demo() -> Result<bool> {
    let started = Instant::now();
    setup::setup(&setup::FOR_DEMO)?;

    eprintln!("demo: building the command and the example tests");
    build(&mut cargo(["build", "--package", "cargo-ktstr"]))?;
    build(cargo(["test", "--no-run"]).current_dir(root().join(EXAMPLE)))?;

    let built = started.elapsed();
    eprintln!(
        "demo: ready after {}; running the tests in {EXAMPLE}",
        seconds(built)
    );
    let mut test = cargo([
        "run",
        "--quiet",
        "--package",
        "cargo-ktstr",
        "--",
        "ktstr",
        "test",
    ]);
    let status = run(test.current_dir(root().join(EXAMPLE)))?;
    let verdict = if status.success() {
        "every example test passed".to_owned()
    } else {
        format!("`cargo ktstr test` ended with {status}")
    };
    eprintln!("demo: {verdict}; {} in all", seconds(started.elapsed()));
    Ok(status.success())
}

fn build(command: &mut Command) -> Result<()> {
    // Cargo's progress bar is for a person; its list of crates is of no use in a log.
    if !stderr().is_terminal() {
        command.arg("--quiet");
    }
    let status = run(command)?;
    if !status.success() {
        bail!("the build ended with {status}");
    }
    Ok(())
}
