//! The pipes by which a guest holds its machine still.
//!
//! QEMU's debug console (`hw/char/debugcon.c`) writes each byte that the guest puts out at its port to a stream, and holds
//! the lock of all devices until it is written. The guest has two of them. It puts out a byte at the first one, which
//! tells us, and with the next instruction one at the second, whose pipe is full: QEMU tries again and again to write
//! it, until we have read. The two instructions are in one translation block, which nothing interrupts, so that from
//! the first byte on no other instruction of the guest runs: with one emulation thread, of no vCPU.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};

/// The least that a pipe can have: one page, which is one packet (pipe(7), `O_DIRECT`).
const HOLD_PIPE_BYTES: i32 = 4096;

/// Our ends.
#[derive(Debug)]
pub(crate) struct PausePipe {
    /// Has a byte for each pause.
    notices: OwnedFd,
    /// Has one packet, except between a release and the byte that QEMU waits to write.
    hold: OwnedFd,
    is_held: AtomicBool,
}

/// QEMU's ends.
#[derive(Debug)]
pub(crate) struct ChildPausePipe {
    /// To be opened by its number.
    pub(crate) notices: OwnedFd,
    /// To be QEMU's standard output: one that QEMU opens again has no packets.
    pub(crate) hold: OwnedFd,
}

impl PausePipe {
    pub(crate) fn new() -> io::Result<(Self, ChildPausePipe)> {
        let (notices, child_notices) = pipe2(OFlag::O_CLOEXEC)?;
        let (hold, child_hold) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
        fcntl(&child_hold, FcntlArg::F_SETPIPE_SZ(HOLD_PIPE_BYTES))?;
        write(&child_hold, b"x")?;
        for ours in [&notices, &hold] {
            fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let ours = Self {
            notices,
            hold,
            is_held: AtomicBool::new(false),
        };
        let child = ChildPausePipe {
            notices: child_notices,
            hold: child_hold,
        };
        Ok((ours, child))
    }

    /// What becomes readable when the guest holds its machine.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }

    /// Whether the guest has come to hold its machine since this was last asked.
    pub(crate) fn take_notice(&self) -> io::Result<bool> {
        let is_held = read_some(&self.notices)? > 0;
        if is_held {
            self.is_held.store(true, Ordering::Release);
        }
        Ok(is_held)
    }

    /// Whether the guest holds its machine.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// Lets the guest run on.
    pub(crate) fn release(&self) -> io::Result<()> {
        // The next hold may come as soon as there is room in the pipe.
        self.is_held.store(false, Ordering::Release);
        read_some(&self.hold).map(drop)
    }
}

/// Bytes that were read; 0 if there are none.
fn read_some(pipe: &OwnedFd) -> io::Result<usize> {
    match read(pipe, &mut [0; 512]) {
        Ok(len) => Ok(len),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::readiness::wait_readable;

    #[test]
    fn a_guest_is_held_with_its_second_byte_until_it_is_released() {
        let (pipe, qemu) = PausePipe::new().unwrap();
        assert!(!pipe.take_notice().unwrap());
        let guest = thread::spawn(move || {
            for _ in 0..10 {
                write(&qemu.notices, b"x").unwrap();
                write(&qemu.hold, b"x").unwrap();
            }
        });
        for _ in 0..10 {
            let until = Instant::now() + Duration::from_secs(60);
            let ready = wait_readable([Some(pipe.fd())], Some(until)).unwrap();
            assert_eq!(ready, [true]);
            assert!(pipe.take_notice().unwrap());
            assert!(pipe.is_held());
            assert!(!pipe.take_notice().unwrap(), "told once");
            assert!(!guest.is_finished());
            pipe.release().unwrap();
        }
        guest.join().unwrap();
        assert!(!pipe.is_held());
    }

    #[test]
    fn a_guest_that_is_not_held_can_be_released() {
        let (pipe, qemu) = PausePipe::new().unwrap();
        pipe.release().unwrap();
        pipe.release().unwrap();
        write(&qemu.hold, b"x").unwrap();
    }
}
