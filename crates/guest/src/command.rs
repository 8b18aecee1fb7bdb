//! Running a command, or a shell for a person.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use ktstr_wire::{GuestStage, Message, SHELL_PORT};

use crate::link::Link;
use crate::output::OutputPump;

/// Exit status of a command that could not be started, as sh(1) has it.
const NOT_STARTED: u8 = 127;

/// Runs `argv` and sends its exit status.
pub(crate) fn run(argv: &[String], interactive: bool, link: Link) -> anyhow::Result<()> {
    let link = Arc::new(link);
    link.send(&Message::Stage(GuestStage::Command))?;
    let ended = if interactive {
        on_terminal(argv)
    } else {
        let pump = OutputPump::start(Arc::clone(&link)).context("redirecting the output")?;
        let ended = with_piped_output(argv);
        pump.finish()?;
        ended
    };
    let status = match ended {
        Ok(status) => exit_status(status),
        Err(error) => {
            link.send(&Message::Remark(format!(
                "{} can't be started: {error}",
                argv.join(" ")
            )))?;
            NOT_STARTED
        }
    };
    link.send(&Message::Exit(status))?;
    Ok(link.send(&Message::Bye)?)
}

fn with_piped_output(argv: &[String]) -> io::Result<ExitStatus> {
    command(argv)?.stdin(Stdio::null()).status()
}

fn on_terminal(argv: &[String]) -> io::Result<ExitStatus> {
    let terminal = File::options().read(true).write(true).open(SHELL_PORT)?;
    let mut command = command(argv)?;
    command
        .stdin(terminal.try_clone()?)
        .stdout(terminal.try_clone()?)
        .stderr(terminal);
    ktstr_sys::give_session_and_terminal(&mut command);
    command.status()
}

fn command(argv: &[String]) -> io::Result<Command> {
    let (program, args) = argv
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
    let mut command = Command::new(program);
    command.args(args);
    Ok(command)
}

/// The status that a shell would show: 128 + signal for a process that a signal ended.
fn exit_status(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}
