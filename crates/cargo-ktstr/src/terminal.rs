//! The user's terminal, joined to that of a machine.

use std::io::{self, IsTerminal as _, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;
use rustix::termios::{OptionalActions, tcgetattr, tcgetwinsize, tcsetattr};

use crate::signals;

/// Ctrl-], which ends the machine. No program in the guest gets it.
const ESCAPE: u8 = 0x1d;

const CHUNK_BYTES: usize = 4096;

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowSize {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// Whether the user can type here and see the output.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The size of the terminal that `stream` is, if it says.
pub(crate) fn window_size(stream: impl AsFd) -> Option<WindowSize> {
    let size = tcgetwinsize(stream).ok()?;
    let (rows, columns) = (size.ws_row, size.ws_col);
    (rows > 0 && columns > 0).then_some(WindowSize { rows, columns })
}

/// The terminal on standard input in raw mode: every key is passed on as it is. Dropping it restores the
/// terminal; a panic and a signal that ends the process do so too.
#[derive(Debug)]
struct RawMode;

impl RawMode {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        signals::restore_terminal_on_end(&before)?;
        let previous = panic::take_hook();
        // The message of a panic is written before anything is dropped.
        panic::set_hook(Box::new(move |info| {
            signals::restore_terminal();
            previous(info);
        }));
        let mut raw = before;
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        signals::restore_terminal();
    }
}

/// Carries keys to the machine and what it prints to the screen, until it is dropped or the machine is gone.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// Closing it ends the thread that reads keys.
    running: Option<io::PipeWriter>,
    keys: Option<JoinHandle<()>>,
    screen: Option<JoinHandle<()>>,
    // Dropped last: until then the terminal is raw.
    _raw: RawMode,
}

impl Bridge {
    /// Puts the terminal into raw mode and joins it to `machine`. `on_escape` is called when the user presses
    /// [`ESCAPE`].
    pub(crate) fn start(
        machine: UnixStream,
        on_escape: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let to_machine = machine.try_clone()?;
        let (ended, running) = io::pipe()?;
        let raw = RawMode::enter()?;
        let screen = thread::Builder::new()
            .name("shell-screen".to_owned())
            .spawn(move || show(machine))?;
        let keys = thread::Builder::new()
            .name("shell-keys".to_owned())
            .spawn(move || send_keys(io::stdin().as_fd(), to_machine, &ended, on_escape))?;
        Ok(Self {
            running: Some(running),
            keys: Some(keys),
            screen: Some(screen),
            _raw: raw,
        })
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.running = None;
        for thread in [self.keys.take(), self.screen.take()].into_iter().flatten() {
            // The hook has reported a panic in it.
            let _ = thread.join();
        }
    }
}

/// Shows what the machine prints, until it is gone.
fn show(mut machine: UnixStream) {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match machine.read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => {
                let mut stdout = io::stdout().lock();
                if stdout
                    .write_all(&chunk[..count])
                    .and_then(|()| stdout.flush())
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// What became of the keys that were read at once.
#[derive(Debug, PartialEq, Eq)]
enum Keys<'a> {
    /// For the machine.
    Typed(&'a [u8]),
    /// For the machine, and then its end.
    Escaped(&'a [u8]),
}

fn sort_keys(typed: &[u8]) -> Keys<'_> {
    match typed.iter().position(|&key| key == ESCAPE) {
        Some(at) => Keys::Escaped(&typed[..at]),
        None => Keys::Typed(typed),
    }
}

/// Sends what is typed on `terminal`, until the other end of `ended` is closed.
fn send_keys(
    terminal: BorrowedFd<'_>,
    mut machine: UnixStream,
    ended: &io::PipeReader,
    on_escape: impl FnOnce(),
) {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let mut polled = [
            PollFd::new(terminal, PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => break,
            Ok(_) => {}
        }
        if polled[1].any().unwrap_or(true) {
            return;
        }
        // Not through the buffer of `Stdin`: keys must not be left in it when poll is asked again.
        let count = match unistd::read(terminal, &mut chunk) {
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            // The terminal is gone.
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        match sort_keys(&chunk[..count]) {
            Keys::Typed(keys) if machine.write_all(keys).is_ok() => {}
            Keys::Typed(_) => return,
            Keys::Escaped(keys) => {
                let _ = machine.write_all(keys);
                return on_escape();
            }
        }
    }
    // Nobody will type any more.
    let _ = machine.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `typed` and gives what the machine got, and whether the user escaped. With `closed`, the terminal
    /// goes away after that; else the bridge is taken down once the machine has it all.
    fn type_keys(typed: &[u8], closed: bool) -> (Vec<u8>, bool) {
        let (terminal, mut keyboard) = io::pipe().unwrap();
        let (ended, running) = io::pipe().unwrap();
        let (ours, mut machine) = UnixStream::pair().unwrap();
        let mut escaped = false;
        let mut got = Vec::new();
        thread::scope(|scope| {
            let on_escape = || escaped = true;
            scope.spawn(|| send_keys(terminal.as_fd(), ours, &ended, on_escape));
            keyboard.write_all(typed).unwrap();
            if closed {
                drop(keyboard);
                machine.read_to_end(&mut got).unwrap();
            } else {
                got.resize(typed.len(), 0);
                machine.read_exact(&mut got).unwrap();
            }
            drop(running);
        });
        (got, escaped)
    }

    #[test]
    fn keys_reach_the_machine_as_they_are() {
        let keys = b"ls\r\x03\x1a\x1b[A\x00";
        assert_eq!(type_keys(keys, true), (keys.to_vec(), false));
    }

    #[test]
    fn taking_the_bridge_down_does_not_wait_for_a_key() {
        assert_eq!(type_keys(b"exit\r", false), (b"exit\r".to_vec(), false));
    }

    #[test]
    fn the_escape_key_ends_what_is_sent() {
        assert_eq!(type_keys(b"ls\x1dmore", true), (b"ls".to_vec(), true));
    }

    #[test]
    fn the_escape_key_is_found_wherever_it_is() {
        assert_eq!(sort_keys(b"ls\r"), Keys::Typed(b"ls\r"));
        assert_eq!(sort_keys(b"\x1d"), Keys::Escaped(b""));
        assert_eq!(sort_keys(b"ls\x1dmore"), Keys::Escaped(b"ls"));
    }
}
