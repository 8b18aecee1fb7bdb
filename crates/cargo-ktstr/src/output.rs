//! Standard output and error of the command.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use ktstr_report::ExitCode;

use crate::edge::{OrExit as _, Refusal};
use crate::{environment, terminal};

/// Prints what the user asked for. Colours are left out where they would not be seen.
pub(crate) fn print(text: &str) -> Result<(), Refusal> {
    let mut stdout = anstream::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written
            .context("can't write to standard output")
            .or_exit(ExitCode::HostUnfit),
    }
}

/// Tells the user what happens. A closed standard error is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// How many columns the terminal on standard output has: what `COLUMNS` says, else what the terminal does. Nothing where the output goes to a file or a program, which gets lines of any length.
pub(crate) fn columns() -> Option<usize> {
    let said = terminal::window_size(io::stdout())?.columns.into();
    Some(environment::columns().unwrap_or(said))
}

/// Whether standard error is a terminal.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}
