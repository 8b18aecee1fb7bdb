//! Signals, where their default would leave something behind.

use std::io;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{OptionalActions, Termios, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// What ends a process from outside, unless it is prepared.
const ENDINGS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The child that gets the signals of this process.
static CHILD: Mutex<Option<Pid>> = Mutex::new(None);

/// The last signal since [`stay_for_child`]; 0 for none.
static TAKEN: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The settings that [`restore_terminal`] gives back to the terminal.
static TERMINAL: OnceLock<Termios> = OnceLock::new();

/// From now on a signal doesn't end this process. It is handed to the child that [`set_child`] names, unless it
/// is one that a terminal sends: ^C and ^\ reach the child without help, being in the same process group.
pub(crate) fn stay_for_child() -> io::Result<()> {
    for signal in ENDINGS {
        // In the handler itself: whoever sees the child's end sees what ended it.
        flag::register_usize(
            signal,
            Arc::clone(&TAKEN),
            usize::try_from(signal).unwrap_or(0),
        )?;
    }
    on_signals(pass_on)
}

/// Names the child, or says that it is gone: its number may be another process's soon.
pub(crate) fn set_child(child: Option<&Child>) {
    let pid = child.and_then(|child| i32::try_from(child.id()).ok());
    *CHILD.lock().unwrap_or_else(PoisonError::into_inner) = pid.map(Pid::from_raw);
}

/// The signal that would have ended this process since [`stay_for_child`].
pub(crate) fn taken() -> Option<Signal> {
    let signal = i32::try_from(TAKEN.load(Ordering::Relaxed)).ok()?;
    Signal::try_from(signal).ok()
}

fn pass_on(signal: i32) {
    let child = CHILD.lock().unwrap_or_else(PoisonError::into_inner);
    let from_terminal = signal == SIGINT || signal == SIGQUIT;
    if let (Some(child), false, Ok(signal)) = (*child, from_terminal, Signal::try_from(signal)) {
        // It may have ended, and not been waited for.
        let _ = kill(child, signal);
    }
}

/// From now on a signal that ends this process gives the terminal on standard input these settings back first.
pub(crate) fn restore_terminal_on_end(settings: &Termios) -> io::Result<()> {
    // Whoever asks again asks for the same terminal.
    let _ = TERMINAL.set(settings.clone());
    on_signals(|signal| {
        restore_terminal();
        // Ends the process as it would have without a handler.
        let _ = low_level::emulate_default_handler(signal);
    })
}

/// Gives the terminal back the settings of [`restore_terminal_on_end`]; nothing without those.
pub(crate) fn restore_terminal() {
    if let Some(settings) = TERMINAL.get() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, settings);
    }
}

/// Calls `act` for each of [`ENDINGS`], on a thread of its own.
fn on_signals(act: fn(i32)) -> io::Result<()> {
    let mut signals = Signals::new(ENDINGS)?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(act))?;
    Ok(())
}
