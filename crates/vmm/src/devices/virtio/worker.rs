//! Works off the queues of the virtio devices.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use vm_memory::GuestMemoryMmap;

use super::device::Wait;
use super::pci::VirtioPci;
use crate::lock::lock;

/// How long the host may take, after the machine has ended, to read what the guest had sent.
const READ_OUT_TIMEOUT: Duration = Duration::from_secs(2);

/// What serves the virtio devices.
#[derive(Debug)]
pub(crate) struct Worker {
    devices: Vec<Arc<Mutex<VirtioPci>>>,
    memory: GuestMemoryMmap,
    wake: Arc<EventFd>,
}

impl Worker {
    /// `wake` is the event that the devices write to.
    pub(crate) fn new(
        devices: Vec<Arc<Mutex<VirtioPci>>>,
        memory: GuestMemoryMmap,
        wake: Arc<EventFd>,
    ) -> Self {
        Self {
            devices,
            memory,
            wake,
        }
    }

    /// The event that ends a wait.
    pub(crate) fn wake(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// Works the queues off until `ended`. Who makes that true writes to the event.
    pub(crate) fn run(&self, ended: impl Fn() -> bool) {
        while !ended() {
            let more = self.process();
            if self.wait(if more { 0 } else { 1000 }).is_err() {
                return;
            }
        }
    }

    /// Works off what the guest had sent. Called when no CPU of the guest runs any more.
    pub(crate) fn finish(&self) {
        let until = Instant::now() + READ_OUT_TIMEOUT;
        loop {
            let more = self.process();
            let blocked = self
                .devices
                .iter()
                .any(|device| lock(device).device().is_blocked());
            if !(more || blocked) || Instant::now() >= until {
                return;
            }
            if self.wait(if more { 0 } else { 20 }).is_err() {
                return;
            }
        }
    }

    /// One look at all queues. `true` if there is more to do at once.
    fn process(&self) -> bool {
        let mut more = false;
        for device in &self.devices {
            more |= lock(device).process(&self.memory);
        }
        more
    }

    /// Waits for a device, what it waits for on the host, or the time.
    fn wait(&self, timeout_ms: u16) -> nix::Result<()> {
        let waits = self.waits();
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            waits
                .iter()
                .map(|(awaited, flags)| PollFd::new(awaited.as_fd(), *flags)),
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

    fn waits(&self) -> Vec<Wait> {
        let devices = self.devices.iter();
        devices
            .flat_map(|device| lock(device).device().waits())
            .collect()
    }
}
