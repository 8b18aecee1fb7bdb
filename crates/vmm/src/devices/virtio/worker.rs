//! Moves bytes between the console's queues and the host.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use vm_memory::GuestMemoryMmap;

use super::pci::VirtioPci;
use crate::devices::lock;

/// How long the host may take, after the machine has ended, to read what the guest had sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What serves the console.
#[derive(Debug)]
pub(crate) struct Worker {
    device: Arc<Mutex<VirtioPci>>,
    memory: GuestMemoryMmap,
    wake: Arc<EventFd>,
}

impl Worker {
    /// `wake` is the event that the device writes to.
    pub(crate) fn new(
        device: Arc<Mutex<VirtioPci>>,
        memory: GuestMemoryMmap,
        wake: Arc<EventFd>,
    ) -> Self {
        Self {
            device,
            memory,
            wake,
        }
    }

    /// The event that ends a wait.
    pub(crate) fn wake(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// Moves bytes until `ended`. Who makes that true writes to the event.
    pub(crate) fn run(&self, ended: impl Fn() -> bool) {
        while !ended() {
            let more = lock(&self.device).process(&self.memory);
            if self.wait(if more { 0 } else { 1000 }).is_err() {
                return;
            }
        }
    }

    /// Moves what the guest had sent. Called when no CPU of the guest runs any more.
    pub(crate) fn finish(&self) {
        let until = Instant::now() + LAST_WORDS;
        loop {
            let more = lock(&self.device).process(&self.memory);
            let blocked = lock(&self.device).console().is_blocked();
            if !(more || blocked) || Instant::now() >= until {
                return;
            }
            if self.wait(if more { 0 } else { 20 }).is_err() {
                return;
            }
        }
    }

    /// Waits for the device, a port's host end, or the time.
    fn wait(&self, timeout_ms: u16) -> nix::Result<()> {
        let streams = self.streams();
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            streams
                .iter()
                .map(|(stream, flags)| PollFd::new(stream.as_fd(), *flags)),
        );
        match poll(&mut fds, PollTimeout::from(timeout_ms)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error),
        }
        if fds[0].any().unwrap_or(false) {
            self.wake.read()?;
        }
        Ok(())
    }

    /// The streams to wait for, and for what.
    fn streams(&self) -> Vec<(Arc<UnixStream>, PollFlags)> {
        let mut device = lock(&self.device);
        let waits = device.console().waits().map(|(stream, read, write)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, read);
            flags.set(PollFlags::POLLOUT, write);
            (stream, flags)
        });
        // A stream waited for in vain would report a hang-up again and again.
        waits.filter(|(_, flags)| !flags.is_empty()).collect()
    }
}
