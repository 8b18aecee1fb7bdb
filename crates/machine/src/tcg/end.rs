//! What QEMU's end means.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use crate::machine::{End, StopReason};

/// What is known about a QEMU that has ended. Its exit status alone proves nothing: it is 0 after a guest
/// panic too.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// QEMU had set up the machine and ran its main loop.
    pub(crate) started: bool,
    /// QEMU said that the guest was ending.
    pub(crate) shutdown: Option<Shutdown>,
    /// We were asked to end it.
    pub(crate) stop: Option<StopReason>,
    /// Something between us and QEMU failed.
    pub(crate) trouble: Option<String>,
    /// The start of QEMU's standard error.
    pub(crate) stderr: Vec<u8>,
}

/// QEMU's `ShutdownCause` (qapi/run-state.json), as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    PowerOff,
    Reset,
    Panic,
    /// A signal that QEMU catches, such as SIGTERM.
    HostSignal,
    Other(String),
}

impl Shutdown {
    pub(crate) fn from_reason(reason: Option<&str>) -> Self {
        match reason {
            Some("guest-shutdown") => Self::PowerOff,
            Some("guest-reset") => Self::Reset,
            Some("guest-panic") => Self::Panic,
            Some("host-signal") => Self::HostSignal,
            other => Self::Other(other.unwrap_or("no reason").to_owned()),
        }
    }
}

impl Evidence {
    /// The machine's end, given QEMU's exit status and what COM1 said of a panic.
    pub(crate) fn judge(&self, status: io::Result<ExitStatus>, panic: Option<String>) -> End {
        // What the guest said comes first: whatever ended QEMU came later.
        if let Some(text) = panic {
            return End::Panicked { text };
        }
        match &self.shutdown {
            Some(Shutdown::PowerOff) => return End::PoweredOff,
            Some(Shutdown::Reset) => return End::Reset,
            Some(Shutdown::Panic) => {
                return End::Panicked {
                    text: "reported by the guest's panic device, nothing on COM1".to_owned(),
                };
            }
            Some(Shutdown::HostSignal) => {
                let signal = self.signal_in_stderr().unwrap_or(libc::SIGTERM);
                return End::Killed { signal };
            }
            Some(Shutdown::Other(reason)) => {
                return End::Broken {
                    message: self.explain(&format!("QEMU shut the guest down ({reason})")),
                };
            }
            None => {}
        }
        if let Some(reason) = self.stop {
            return End::Stopped(reason);
        }
        if let Some(trouble) = &self.trouble {
            return End::Broken {
                message: self.explain(trouble),
            };
        }
        match status {
            Ok(status) => self.judge_status(status),
            Err(error) => End::Broken {
                message: self.explain(&format!("QEMU's end can't be waited for: {error}")),
            },
        }
    }

    fn judge_status(&self, status: ExitStatus) -> End {
        match status.signal() {
            Some(signal) if is_crash(signal) => End::Broken {
                message: self.explain(&format!("QEMU crashed ({status})")),
            },
            Some(signal) => End::Killed { signal },
            None if self.started => End::Broken {
                message: self.explain(&format!("QEMU ended by itself ({status})")),
            },
            None => End::FailedToStart {
                message: self.explain(&format!("QEMU refused to start ({status})")),
            },
        }
    }

    /// `what`, and QEMU's own words if it had any.
    fn explain(&self, what: &str) -> String {
        let words = String::from_utf8_lossy(&self.stderr);
        match words.trim() {
            "" => what.to_owned(),
            words => format!("{what}: {words}"),
        }
    }

    /// QEMU names the signal: `qemu-system-x86_64: terminating on signal 15 from pid 1 (init)`.
    fn signal_in_stderr(&self) -> Option<i32> {
        let words = String::from_utf8_lossy(&self.stderr);
        let (_, rest) = words.rsplit_once("terminating on signal ")?;
        rest.split_whitespace().next()?.parse().ok()
    }
}

/// Signals by which a process fails on its own.
fn is_crash(signal: i32) -> bool {
    let crashes = [
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGTRAP,
    ];
    crashes.into_iter().any(|crash| crash as i32 == signal)
}
