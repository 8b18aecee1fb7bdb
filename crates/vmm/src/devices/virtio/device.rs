//! What a virtio device is to the transport that carries it (Virtio 1.2, section 2).

use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::PollFlags;

use super::queue::{BadQueue, GuestQueue};

/// Queues that a device may have at most.
pub(crate) const MAX_QUEUES: u16 = 63;

/// A virtio device. To add one to machines, implement this, and give it to
/// [`VmConfig::device`](crate::VmConfig::device).
///
/// Every call is bounded in time and memory, whatever the guest put into its queues. The devices of a machine share
/// a thread.
pub trait VirtioDevice: Send + fmt::Debug {
    /// Its number (Virtio 1.2, section 5).
    fn id(&self) -> u16;

    /// Its class as a PCI function: programming interface, sub-class, base class (PCI Code and ID Assignment).
    fn pci_class(&self) -> [u8; 3];

    /// The features of its kind that it offers: bits 0 to 23. The transport adds those that all devices have.
    fn features(&self) -> u64;

    /// Those without which a driver can't use it.
    fn needed_features(&self) -> u64 {
        0
    }

    /// How many queues it has: 63 at most.
    fn queue_count(&self) -> u16;

    /// Its configuration structure (section 2.5), which the guest reads.
    fn config(&self) -> &[u8];

    /// Works off what a queue holds. `true` if there is more to do at once; what has to wait for the host is in
    /// [`Self::waits`]. After an error the guest must reset the device.
    fn process_queue(&mut self, index: usize, queue: &mut GuestQueue<'_>)
    -> Result<bool, BadQueue>;

    /// The guest has reset it.
    fn reset(&mut self) {}

    /// A queue that wants another look after each has had one.
    fn again(&self) -> Option<usize> {
        None
    }

    /// What to wait for on the host, beside the guest's own notifications. What would not be used is left out.
    fn waits(&self) -> Vec<Wait> {
        Vec::new()
    }

    /// Whether something that the guest has sent waits for the host.
    fn is_blocked(&self) -> bool {
        false
    }
}

/// A descriptor of the host, and what to wait for on it.
pub type Wait = (Arc<dyn AsFd + Send + Sync>, PollFlags);
