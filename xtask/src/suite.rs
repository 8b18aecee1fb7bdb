//! `cargo xtask test`: everything that must hold before a change is done.

use std::env;

use anyhow::Result;
use clap::Args;

use crate::deny;
use crate::fuzz;
use crate::process::cargo;
use crate::setup;
use crate::steps::Steps;

/// Tests that need no virtual machine; .config/nextest.toml says which do.
const WITHOUT_VMS: &str = "not group(virtual-machines)";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out the tests that boot virtual machines
    #[arg(long)]
    without_vms: bool,
}

/// Runs all steps, whatever becomes of the ones before, and says whether none failed.
pub(crate) fn test(options: &Options) -> Result<bool> {
    let needed = if options.without_vms {
        setup::WITHOUT_VMS.to_vec()
    } else {
        setup::FOR_TESTS.to_vec()
    };
    setup::setup(&needed)?;

    let mut steps = Steps::default();
    steps.command("format", cargo(["fmt", "--all", "--check"]));
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    steps.command("clippy", cargo(clippy));
    steps.command("fuzz doors", cargo(fuzz::clippy_args()));
    deny::add_steps(&mut steps);
    let mut doc = cargo(["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    steps.command("documentation", doc);
    steps.command("doc tests", cargo(["test", "--workspace", "--doc"]));
    let in_ci = env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    steps.command("tests", cargo(nextest_args(options, in_ci)));

    eprintln!("\n{}", steps.table());
    Ok(steps.all_passed())
}

fn nextest_args(options: &Options, in_ci: bool) -> Vec<&'static str> {
    let mut args = vec!["nextest", "run", "--workspace", "--no-fail-fast"];
    if in_ci {
        args.extend(["--profile", "ci"]);
    }
    if options.without_vms {
        args.extend(["-E", WITHOUT_VMS]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tests_run_unless_told_otherwise() {
        let all = Options { without_vms: false };
        let some = Options { without_vms: true };
        let base = ["nextest", "run", "--workspace", "--no-fail-fast"];
        assert_eq!(nextest_args(&all, false), base);
        assert_eq!(nextest_args(&all, true)[4..], ["--profile", "ci"]);
        assert_eq!(nextest_args(&some, false)[4..], ["-E", WITHOUT_VMS]);
    }
}
