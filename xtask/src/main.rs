//! The project's own chores: `cargo xtask --help`.

mod bench;
mod demo;
mod deny;
mod fuzz;
mod process;
mod setup;
mod steps;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what the other commands need and this machine lacks; says what and how before it does
    Setup {
        /// Build schedulers of others too, from the crate registry, to run tests under; it takes minutes
        #[arg(long)]
        schedulers: bool,
    },
    /// Set up, then run the example tests, each in its own virtual machine
    Demo,
    /// Set up, then run every check and every test of the project
    Test(suite::Options),
    /// Check licences, sources, duplicate versions and known vulnerabilities of the dependencies
    Deny,
    /// Run the fuzz targets, each for some time, and say what they found
    Fuzz(fuzz::Options),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Benchmark),
}

fn set_up(schedulers: bool) -> anyhow::Result<()> {
    setup::setup(&setup::EVERYTHING)?;
    if schedulers {
        setup::schedulers()?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().chore {
        Chore::Setup { schedulers } => set_up(schedulers).map(|()| true),
        Chore::Demo => demo::demo(),
        Chore::Test(options) => suite::test(&options),
        Chore::Deny => deny::deny(),
        Chore::Fuzz(options) => fuzz::fuzz(&options),
        Chore::Bench(benchmark) => bench::bench(&benchmark).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
