//! The two serial ports of a machine: what the guest says on them is kept, and a kernel panic on the first is seen.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::read;

use crate::console::ConsoleLog;
use crate::panic_latch::PanicLatch;

/// How long a panicking kernel may take to print its report and reset, before we end it.
const PANIC_GRACE: Duration = Duration::from_secs(2);

/// Read from one stream before the others get their turn.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// What the ports said, for who holds the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct SerialLogs {
    pub(crate) com1: ConsoleLog,
    pub(crate) com2: ConsoleLog,
}

/// Reads both ports, for the machine's thread.
#[derive(Debug)]
pub(crate) struct SerialWatch {
    /// COM1 and COM2, until they end.
    ports: [Option<OwnedFd>; 2],
    logs: SerialLogs,
    panic: PanicLatch,
    panic_deadline: Option<Instant>,
    buffer: Vec<u8>,
}

impl SerialWatch {
    /// Takes over our ends of COM1 and COM2; `None` is one that says nothing.
    pub(crate) fn new(ports: [Option<OwnedFd>; 2], logs: SerialLogs) -> io::Result<Self> {
        for port in ports.iter().flatten() {
            fcntl(port, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            ports,
            logs,
            panic: PanicLatch::default(),
            panic_deadline: None,
            buffer: vec![0; CHUNK_BYTES],
        })
    }

    /// The ports that have not ended.
    pub(crate) fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        self.ports
            .each_ref()
            .map(|port| Some(port.as_ref()?.as_fd()))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ports.iter().all(Option::is_none)
    }

    /// Reads what is there on the ports that are ready, at most [`CHUNK_BYTES`] each.
    pub(crate) fn read(&mut self, ready: [bool; 2]) -> io::Result<()> {
        for (port, _) in ready.into_iter().enumerate().filter(|(_, ready)| *ready) {
            self.read_once(port)?;
        }
        if self.panic.is_set() && self.panic_deadline.is_none() {
            self.panic_deadline = Some(Instant::now() + PANIC_GRACE);
        }
        Ok(())
    }

    /// Reads what the ports still hold once nobody writes to them.
    pub(crate) fn drain(&mut self) {
        for port in 0..self.ports.len() {
            while let Ok(1..) = self.read_once(port) {}
        }
    }

    /// Whether the kernel has begun to panic.
    pub(crate) fn is_panicking(&self) -> bool {
        self.panic.is_set()
    }

    /// When a kernel that panics has had its time.
    pub(crate) const fn panic_deadline(&self) -> Option<Instant> {
        self.panic_deadline
    }

    /// Whether a kernel that panics has had its time. If it is not ended, it gets as much again.
    pub(crate) fn has_panicked_for_long(&mut self) -> bool {
        let now = Instant::now();
        let is_over = self.panic_deadline.is_some_and(|deadline| now >= deadline);
        if is_over {
            self.panic_deadline = Some(now + PANIC_GRACE);
        }
        is_over
    }

    /// The report of the panic, if there was one. To be called when all is read.
    pub(crate) fn into_panic_text(mut self) -> Option<String> {
        self.panic.finish();
        self.panic.text()
    }

    /// Bytes that were read; 0 for nothing now, or ever again.
    fn read_once(&mut self, port: usize) -> io::Result<usize> {
        let Some(fd) = &self.ports[port] else {
            return Ok(0);
        };
        let len = match read(fd, &mut self.buffer) {
            Ok(0) | Err(Errno::ECONNRESET) => {
                self.ports[port] = None;
                return Ok(0);
            }
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        };
        let bytes = &self.buffer[..len];
        if port == 0 {
            self.logs.com1.push(bytes);
            self.panic.feed(bytes);
        } else {
            self.logs.com2.push(bytes);
        }
        Ok(len)
    }
}
