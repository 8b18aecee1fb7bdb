//! `cargo ktstr`: runs tests, manages kernels, opens shells, and says what this machine lacks.
//!
//! The same binary is `/init` of the machine that `shell` boots, so the guest side comes first in `main`.

mod args;
mod doctor;
mod edge;
mod environment;
mod files;
mod format;
mod kernel;
mod metadata;
mod nextest_args;
mod output;
mod packages;
mod pass_on;
mod progress;
mod queue;
mod record;
mod running_tests;
mod runs;
mod session;
mod setup;
mod shell;
mod shell_plan;
mod signals;
mod status_area;
mod terminal;
mod test;
mod verdict;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::edge::Refusal;

fn main() -> ExitCode {
    ktstr::enter_guest_if_pid1();
    let cli = match Cli::try_parse_from(args::of_this_process()) {
        Ok(cli) => cli,
        Err(error) => return edge::refuse_arguments(&error),
    };
    run(cli.command).unwrap_or_else(|refusal| refusal.report())
}

fn run(command: Command) -> Result<ExitCode, Refusal> {
    match command {
        Command::Test(args) => test::run(&args),
        Command::Kernel(args) => kernel::run(&args),
        Command::Runs(args) => runs::run(&args.command),
        Command::Shell(args) => shell::run(&args),
        Command::Queue { json } => queue::run(json),
        Command::Doctor(args) => doctor::run(&args),
        Command::Setup { dry_run } => setup::run(dry_run),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), args::BINARY, &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
