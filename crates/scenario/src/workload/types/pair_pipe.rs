//! Two workers that wake each other through a pipe in each direction.

use std::os::fd::{AsFd as _, OwnedFd};

use ktstr_report::CpuDemand;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use super::facts::Facts;
use crate::workload::WorkerControl;
use crate::workload::link::{Link, LinkKind};

/// Longest sleep in poll(2) before looking whether to stop.
const POLL_SLICE_MS: u16 = 50;

pub(super) const PIPE_IO: Facts = Facts {
    group_size: 2,
    link: LinkKind::PipePair,
    ..Facts::alone("PipeIo", CpuDemand::Sleeping)
};

/// A message is the time at which it was sent.
const MESSAGE_BYTES: usize = size_of::<u64>();

enum Received {
    Message { sent_ns: u64, slept: bool },
    Stop,
    PartnerGone,
}

pub(super) fn pipe_io(control: &mut WorkerControl<'_>) {
    let Link::Pipe { rx, tx } = std::mem::replace(&mut control.link, Link::None) else {
        return;
    };
    let serves = control.member == 0;
    let partner_there = !serves || send(control, &tx);
    if !partner_there || !exchange(control, &rx, &tx) {
        control.park();
    }
}

/// Passes the message to and fro until told to stop; false if the partner is gone.
fn exchange(control: &mut WorkerControl<'_>, rx: &OwnedFd, tx: &OwnedFd) -> bool {
    loop {
        match receive(control, rx) {
            Received::Message { sent_ns, slept } => {
                if slept {
                    control.woken(sent_ns);
                }
            }
            Received::Stop => return true,
            Received::PartnerGone => return false,
        }
        if !control.iteration(1) {
            return true;
        }
        if !send(control, tx) {
            return false;
        }
    }
}

/// There is never more than one message under way, so the pipe has room.
fn send(control: &WorkerControl<'_>, tx: &OwnedFd) -> bool {
    write(tx, &control.now_ns().to_ne_bytes()) == Ok(MESSAGE_BYTES)
}

fn receive(control: &WorkerControl<'_>, rx: &OwnedFd) -> Received {
    let mut slept = false;
    while !control.stopping() {
        let mut message = [0; MESSAGE_BYTES];
        match read(rx, &mut message) {
            // Writes up to PIPE_BUF are atomic (pipe(7)): a message comes whole.
            Ok(MESSAGE_BYTES) => {
                return Received::Message {
                    sent_ns: u64::from_ne_bytes(message),
                    slept,
                };
            }
            Err(Errno::EAGAIN) => {
                slept = true;
                let mut fds = [PollFd::new(rx.as_fd(), PollFlags::POLLIN)];
                // Woken, timed out or interrupted: the pipe is read again.
                let _ = poll(&mut fds, PollTimeout::from(POLL_SLICE_MS));
            }
            Err(Errno::EINTR) => {}
            Ok(_) | Err(_) => return Received::PartnerGone,
        }
    }
    Received::Stop
}
