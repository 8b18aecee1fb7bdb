//! The nightly compiler, which alone has the sanitizer and the coverage that libFuzzer needs.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::{display, run, run_silently};

const TOOLCHAIN: &str = "nightly";

/// rustup looks at files only.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Installs it if it is missing and rustup is there, and says so before.
pub(super) fn ensure() -> Result<()> {
    let rustup = |args: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(args);
        command
    };
    match run_silently(
        &mut rustup(&["run", TOOLCHAIN, "rustc", "--version"]),
        ANSWER_WITHIN,
    ) {
        Ok(Some(status)) if status.success() => return Ok(()),
        Ok(_) => {}
        Err(_) => bail!(
            "fuzzing needs a nightly compiler, and rustup, which could install it, is missing. Install rustup \
             (https://rustup.rs), then run this again"
        ),
    }
    let mut install = rustup(&["toolchain", "install", TOOLCHAIN, "--profile", "minimal"]);
    let text = display(&install);
    eprintln!(
        "setup: the {TOOLCHAIN} compiler is missing (sanitizer and coverage for fuzzing); installing: {text}"
    );
    let status = run(&mut install)?;
    if !status.success() {
        bail!("`{text}` ended with {status}; without a {TOOLCHAIN} compiler nothing can be fuzzed");
    }
    Ok(())
}

/// Its cargo, free of what the cargo that runs this program has set.
pub(super) fn cargo() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, "cargo"]);
    command.env_remove("CARGO").env_remove("RUSTC");
    command
}
