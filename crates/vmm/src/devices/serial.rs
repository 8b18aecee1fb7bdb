//! A 16550 serial port whose output goes to a stream.

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};
use vmm_sys_util::eventfd::EventFd;

/// How long the guest of a machine waits for a host that does not read, before its output is dropped.
pub(crate) const HOST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// One port. The guest's CPU stands still while the host's end is full, for a while; from then on
/// output is dropped until the host reads again.
pub(crate) struct SerialPort {
    uart: Serial<Interrupt, NoEvents, Sink>,
}

struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

struct Sink {
    stream: UnixStream,
    read_timeout: Duration,
    stuck: bool,
}

impl SerialPort {
    /// Raises `interrupt` as the UART would its line. Sets `stream` to non-blocking, and waits for a host that
    /// does not read as long as `read_timeout`.
    pub(crate) fn new(
        interrupt: EventFd,
        stream: UnixStream,
        read_timeout: Duration,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let sink = Sink {
            stream,
            read_timeout,
            stuck: false,
        };
        Ok(Self {
            uart: Serial::new(Interrupt(interrupt), sink),
        })
    }

    /// Reads of more than one byte are string instructions: the same register again and again.
    pub(super) fn read(&mut self, register: u16, data: &mut [u8]) {
        let Ok(register) = u8::try_from(register) else {
            return;
        };
        for byte in data {
            *byte = self.uart.read(register);
        }
    }

    /// See [`Self::read`].
    pub(super) fn write(&mut self, register: u16, data: &[u8]) {
        let Ok(register) = u8::try_from(register) else {
            return;
        };
        for &byte in data {
            // Lost output is the host's doing, a full input buffer in loopback the guest's. Neither is the
            // end of a UART.
            let _ = self.uart.write(register, byte);
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.stuck => {
                    self.stuck = !self.writable_soon()?;
                }
                Ok(count) => {
                    self.stuck = false;
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// Waits until the host's end takes bytes; `false` if it doesn't. A pause or kill of the machine, which
    /// interrupts the wait, takes that much longer.
    fn writable_soon(&self) -> io::Result<bool> {
        let until = Instant::now() + self.read_timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, timeout) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn port() -> (SerialPort, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = SerialPort::new(EventFd::new(0).unwrap(), ours, HOST_READ_TIMEOUT).unwrap();
        (port, theirs)
    }

    proptest! {
        #[test]
        fn any_access_is_survived(
            accesses in prop::collection::vec((any::<bool>(), 0_u16..9, any::<u8>(), 0_usize..5), 0..300),
        ) {
            let (mut port, _theirs) = port();
            for (write, register, value, len) in accesses {
                if write {
                    port.write(register, &vec![value; len]);
                } else {
                    port.read(register, &mut vec![0; len]);
                }
            }
        }
    }

    #[test]
    fn output_comes_out_also_of_string_instructions() {
        let (mut port, mut theirs) = port();
        port.write(0, b"h");
        port.write(0, b"ello");
        let mut said = [0; 5];
        theirs.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }

    #[test]
    fn a_host_that_does_not_read_holds_the_guest_up_only_once() {
        let (mut port, _theirs) = port();
        let start = Instant::now();
        for _ in 0..100_000 {
            port.write(0, b"x");
        }
        assert!(start.elapsed() < Duration::from_secs(8));
    }
}
