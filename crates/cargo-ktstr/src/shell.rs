//! `cargo ktstr shell`.

use std::io;
use std::process::ExitCode;

use ktstr_host::{RunEvent, RunObserver, ShellEnd, ShellError};
use ktstr_kernels::{Cache, CacheError};
use ktstr_report::{ExitCode as Code, Failure, FailureKind};

use crate::args::ShellArgs;
use crate::edge::{OrExit as _, Refusal};
use crate::pass_on::PassOn;
use crate::progress::{BootLine, Talk};
use crate::terminal::{self, Bridge};
use crate::{environment, output, session, shell_plan, signals};

/// What a shell says of a program that ^C ended.
const ESCAPED: i32 = 130;

/// Boots the machine and stays until the command or the shell has ended.
pub(crate) fn run(args: &ShellArgs) -> Result<ExitCode, Refusal> {
    let interactive = args.exec.is_none();
    if interactive && !terminal::is_there() {
        let message = "a shell needs a terminal to talk on, and standard input or output is none: run one command \
                       with `--exec CMD` instead";
        return Err(Refusal::message(Code::Usage, message));
    }
    let memory = args.memory().or_exit(Code::Usage)?;
    let includes = shell_plan::includes(&args.include).or_exit(Code::Usage)?;
    let mut settings = session::settings(&args.target)?;
    let cache = Cache::open(
        settings
            .cache
            .as_deref()
            .ok_or(CacheError::NoFolder)
            .or_exit(Code::HostUnfit)?,
    )
    .or_exit(Code::HostUnfit)?;
    let busybox =
        shell_plan::busybox(&cache, settings.search_path.as_deref()).or_exit(Code::HostUnfit)?;
    let window = if interactive {
        terminal::window_size(io::stdout())
    } else {
        None
    };
    let plan = shell_plan::plan(args, memory, includes, busybox, window);
    let terminal_kind = environment::terminal_kind().filter(|_| interactive);
    settings
        .environment
        .extend(shell_plan::environment(terminal_kind));
    let session = session::open(settings, Talk::Slow)?;

    if interactive {
        let kernel = session.kernel();
        output::say(&format!(
            "booting Linux {} with {}; `exit` or Ctrl-] ends the machine",
            kernel.release(),
            plan.topology
        ));
    }
    let mut screen = Screen::new(interactive);
    let ended = session.run_shell(&plan, &mut screen);
    let Screen {
        bridge, pass_on, ..
    } = screen;
    // The machine is gone, so the screen has shown all it will: give the terminal back before saying more.
    let joined = bridge.transpose().map(drop);
    if pass_on.lost_bytes > 0 {
        output::say(&format!(
            "note: {} bytes that the command printed were not written: nobody read them in time",
            pass_on.lost_bytes
        ));
    }
    let end = ended.map_err(|error| refusal(&error))?;
    joined
        .map_err(ShellError::Terminal)
        .or_exit(Code::HostUnfit)?;
    conclude(&end, interactive)
}

/// Shows what the machine does.
struct Screen {
    bridge: Option<io::Result<Bridge>>,
    pass_on: PassOn,
    boot: Option<BootLine>,
}

impl Screen {
    fn new(interactive: bool) -> Self {
        Self {
            bridge: None,
            pass_on: PassOn::default(),
            // An interactive shell shows the machine's own console.
            boot: (!interactive && output::is_watched()).then(BootLine::show),
        }
    }
}

impl RunObserver for Screen {
    fn event(&mut self, event: &RunEvent<'_>) {
        match event {
            RunEvent::Queued(waiting) if self.boot.is_none() && waiting.is_long() => {
                output::say(&waiting.to_string());
            }
            RunEvent::Queued(_) | RunEvent::Booting { .. } => {
                if let Some(boot) = &self.boot {
                    boot.event(event);
                }
            }
            RunEvent::Terminal(stream) => {
                let stream = stream.try_clone();
                self.bridge = Some(stream.and_then(|stream| Bridge::start(stream, end_at_once)));
            }
            RunEvent::Output {
                stream,
                bytes,
                until,
            } => {
                self.boot = None;
                self.pass_on.write(*stream, bytes, *until);
            }
            RunEvent::Booted { .. } | RunEvent::Ended(_) => self.boot = None,
            _ => {}
        }
    }
}

/// Ends this process, and with it the machine, whatever state either is in.
#[expect(
    clippy::exit,
    reason = "the machine has no other handle here; it dies with its process, as on SIGKILL"
)]
fn end_at_once() {
    signals::restore_terminal();
    output::say("\nthe machine was ended");
    std::process::exit(ESCAPED)
}

fn conclude(end: &ShellEnd, interactive: bool) -> Result<ExitCode, Refusal> {
    if interactive || output::is_watched() {
        for remark in &end.remarks {
            output::say(&format!("note: {remark}"));
        }
    }
    Ok(end.status.into())
}

fn refusal(error: &ShellError) -> Refusal {
    let code = match error {
        ShellError::SetUp(failure) | ShellError::Died { failure, .. } => exit_code(failure),
        ShellError::Terminal(_) => Code::HostUnfit,
        ShellError::TestsOnly(_) => Code::Usage,
    };
    // The error's text has all of its causes.
    Refusal::message(code, error.to_string())
}

fn exit_code(failure: &Failure) -> Code {
    match failure.kind {
        FailureKind::Test => Code::TestFailed,
        FailureKind::Guest => Code::GuestDied,
        FailureKind::Harness => Code::HarnessFailed,
        FailureKind::Host => Code::HostUnfit,
    }
}
