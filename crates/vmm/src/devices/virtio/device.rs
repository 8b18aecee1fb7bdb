//! What a virtio device is to the transport that carries it (Virtio 1.2, section 2).

use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::PollFlags;
use virtio_queue::{Error, Queue};
use vm_memory::GuestMemoryMmap;

/// Queues that a device may have at most.
pub(crate) const MAX_QUEUES: u16 = 63;

/// `VIRTIO_F_VERSION_1`, which every device offers.
pub(crate) const VERSION_1: u64 = 1 << 32;

/// A virtio device: to add one, implement this, and give it to the machine's bus.
///
/// Every call is bounded in time and memory, whatever the guest put into its queues.
pub(crate) trait VirtioDevice: Send + fmt::Debug {
    /// Its number (Virtio 1.2, section 5).
    const ID: u16;

    /// Its class as a PCI function: programming interface, sub-class, base class (PCI Code and ID Assignment).
    const PCI_CLASS: [u8; 3];

    /// The features that it offers, [`VERSION_1`] among them. A driver must take those of
    /// [`Self::needed_features`].
    fn features(&self) -> u64;

    /// Those without which the driver can't use it.
    fn needed_features(&self) -> u64 {
        self.features()
    }

    /// How many queues it has, [`MAX_QUEUES`] at most.
    fn queue_count(&self) -> u16;

    /// Its configuration structure (section 2.5), which the guest reads.
    fn config(&self) -> &[u8];

    /// Works off what a queue holds, as far as it can for now. The error is a driver that does what it was not offered.
    /// Then the device needs a reset.
    fn process_queue(
        &mut self,
        index: usize,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
    ) -> Result<Progress, Error>;

    /// The guest has reset it.
    fn reset(&mut self) {}

    /// The queues that want another look after all have been looked at, by number.
    fn again(&self) -> Option<usize> {
        None
    }

    /// What to wait for on the host beside the guest's own notifications. What is waited for in vain is left out.
    fn waits(&self) -> Vec<Wait> {
        Vec::new()
    }

    /// Whether something that the guest has sent waits for the host.
    fn is_blocked(&self) -> bool {
        false
    }
}

/// A descriptor of the host, and what to wait for on it.
pub(crate) type Wait = (Arc<dyn AsFd + Send + Sync>, PollFlags);

/// What came of looking at a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The guest got a buffer back.
    pub(crate) used: bool,
    /// There is more to do at once.
    pub(crate) more: bool,
}
