//! A queue as a device sees it.

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::Chain;

/// The driver gave the device a queue that does not lie in RAM, or that holds what was not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver's queue can't be used")]
pub struct BadQueue;

/// A queue that the guest has set up, and the memory that it lies in.
#[derive(Debug)]
pub struct GuestQueue<'m> {
    queue: &'m mut Queue,
    memory: &'m GuestMemoryMmap,
    used: bool,
}

impl<'m> GuestQueue<'m> {
    /// The rings of `queue`, which must lie in `memory`.
    pub fn new(queue: &'m mut Queue, memory: &'m GuestMemoryMmap) -> Result<Self, BadQueue> {
        if !queue.is_valid(memory) {
            return Err(BadQueue);
        }
        Ok(Self {
            queue,
            memory,
            used: false,
        })
    }

    /// The next chain that the driver made available; `None` when there is none. A chain that does not lie in RAM
    /// has no buffers.
    pub fn pop(&mut self) -> Result<Option<Chain<'m>>, BadQueue> {
        Chain::pop(self.queue, self.memory).map_err(|_| BadQueue)
    }

    /// Gives a chain back to the driver, with the number of bytes that were written to it.
    pub fn give_back(&mut self, chain: &Chain<'_>, written_bytes: usize) -> Result<(), BadQueue> {
        // A chain has less than 4 GiB.
        let written = u32::try_from(written_bytes).unwrap_or(u32::MAX);
        self.queue
            .add_used(self.memory, chain.head(), written)
            .map_err(|_| BadQueue)?;
        self.used = true;
        Ok(())
    }

    /// Leaves the chain that was popped last for the next look.
    pub fn put_back(&mut self, _last: Chain<'_>) {
        let next = self.queue.next_avail().wrapping_sub(1);
        self.queue.set_next_avail(next);
    }

    /// Whether a chain was given back.
    pub(super) fn was_used(&self) -> bool {
        self.used
    }
}
