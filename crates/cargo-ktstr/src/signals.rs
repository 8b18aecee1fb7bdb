//! Signals, where their default would leave something behind.

#![expect(
    unsafe_code,
    reason = "a signal handler is installed with sigaction(2); the handlers call async-signal-safe functions only"
)]

use std::process::Child;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::termios::Termios;

/// What ends a process from outside, unless it is prepared.
const ENDINGS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// The child that [`pass_on`] forwards to; 0 for none.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// The last signal that [`pass_on`] took; 0 for none.
static TAKEN: AtomicI32 = AtomicI32::new(0);

/// The settings that [`restore_terminal`] gives back to the terminal.
static TERMINAL: OnceLock<libc::termios> = OnceLock::new();

fn handle(signals: &[Signal], handler: extern "C" fn(libc::c_int)) -> Result<(), Errno> {
    let action = SigAction::new(
        SigHandler::Handler(handler),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for &signal in signals {
        // SAFETY: both handlers of this file are async-signal-safe, see there.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// From now on a signal doesn't end this process. It is handed to the child that [`set_child`] names, unless it
/// is one that a terminal sends: ^C and ^\ reach the child without help, being in the same process group.
pub(crate) fn stay_for_child() -> Result<(), Errno> {
    handle(&ENDINGS, pass_on)
}

/// Names the child, or says that it is gone: its number may be another process's soon.
pub(crate) fn set_child(child: Option<&Child>) {
    let pid = child.and_then(|child| i32::try_from(child.id()).ok());
    CHILD.store(pid.unwrap_or(0), Ordering::Relaxed);
}

/// The signal that would have ended this process since [`stay_for_child`].
pub(crate) fn taken() -> Option<Signal> {
    Signal::try_from(TAKEN.load(Ordering::Relaxed)).ok()
}

extern "C" fn pass_on(signal: libc::c_int) {
    TAKEN.store(signal, Ordering::Relaxed);
    let child = CHILD.load(Ordering::Relaxed);
    let from_terminal = signal == libc::SIGINT || signal == libc::SIGQUIT;
    if child > 0 && !from_terminal {
        // SAFETY: kill(2) is async-signal-safe and touches no memory.
        unsafe { libc::kill(child, signal) };
    }
}

/// From now on a signal that ends this process gives the terminal on standard input these settings back first.
pub(crate) fn restore_terminal_on_end(settings: &Termios) -> Result<(), Errno> {
    // Whoever asks again asks for the same terminal.
    let _ = TERMINAL.set(settings.clone().into());
    handle(&ENDINGS, restore_and_end)
}

/// Gives the terminal back the settings of [`restore_terminal_on_end`]; nothing without those. May be called at
/// any time, in a signal handler too.
pub(crate) fn restore_terminal() {
    if let Some(settings) = TERMINAL.get() {
        // SAFETY: tcsetattr(3) is async-signal-safe; the settings are initialised and never change again.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, settings) };
    }
}

extern "C" fn restore_and_end(signal: libc::c_int) {
    restore_terminal();
    // SAFETY: signal(2) and raise(3) are async-signal-safe. The signal is blocked until this handler
    // returns, and then ends the process as it would have without a handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
