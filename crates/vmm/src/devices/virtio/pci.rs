//! The PCI transport of the console (Virtio 1.2, section 4.1).

use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::console::{Console, FEATURES, QUEUE_COUNT, QUEUES};
use super::identity::{
    self, BAR_AT, BAR_BYTES, COMMAND_AT, COMMAND_MEMORY, COMMON, DEVICE, MSIX_AT, MSIX_ENABLE,
    MSIX_MASK_ALL, MSIX_PENDING, MSIX_TABLE, NOTIFY, PART_BYTES,
};
use super::msix::Msix;
use crate::devices::pci::ConfigSpace;
use crate::interrupt::MsiSink;

/// Vectors: one for changes of configuration, one for each queue.
pub(super) const VECTORS: u16 = QUEUE_COUNT + 1;
/// No vector (Virtio 1.2, section 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
/// Most descriptors of a queue.
const QUEUE_SIZE: u16 = 256;

/// Device status bits (Virtio 1.2, section 2.1).
const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_NEEDS_RESET: u8 = 64;

/// The device as the guest sees it.
#[derive(Debug)]
pub(crate) struct VirtioPci {
    config: ConfigSpace,
    msix: Msix,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    queue_select: u16,
    vectors: [u16; QUEUES],
    queues: [Queue; QUEUES],
    console: Console,
    wake: Arc<EventFd>,
}

impl VirtioPci {
    /// Writes to `wake` when a queue wants to be looked at.
    pub(crate) fn new(console: Console, sink: Arc<dyn MsiSink>, wake: Arc<EventFd>) -> Self {
        Self {
            config: identity::CONFIG_SPACE,
            msix: Msix::new(usize::from(VECTORS), sink),
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            vectors: [NO_VECTOR; QUEUES],
            queues: new_queues(),
            console,
            wake,
        }
    }

    pub(crate) fn config_read(&self, at: usize, data: &mut [u8]) {
        self.config.read(at, data);
    }

    pub(crate) fn config_write(&mut self, at: usize, data: &[u8]) {
        self.config.write(at, data);
        let control = self.config.u32_at(MSIX_AT);
        self.msix
            .control(control & MSIX_ENABLE != 0, control & MSIX_MASK_ALL != 0);
    }

    pub(crate) fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        let Some((part, at)) = self.decode(gpa) else {
            return;
        };
        data.fill(0);
        match part {
            COMMON => copy(&self.common(), at, data),
            DEVICE => copy(&Console::config(), at, data),
            MSIX_TABLE => self.msix.read(at, data),
            MSIX_PENDING => self.msix.pending_read(at, data),
            // The ISR stays 0: with MSI-X it is not used.
            _ => {}
        }
    }

    pub(crate) fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        match self.decode(gpa) {
            Some((COMMON, at)) => self.write_common(at, data),
            Some((MSIX_TABLE, at)) => self.msix.write(at, data),
            Some((NOTIFY, _)) => self.wake(),
            _ => {}
        }
    }

    /// Moves what can be moved between the queues and the ports. `true` if there is more to do at once.
    pub(crate) fn process(&mut self, memory: &GuestMemoryMmap) -> bool {
        if self.status & STATUS_DRIVER_OK == 0 || self.status & STATUS_NEEDS_RESET != 0 {
            return false;
        }
        let done = self.console.process(&mut self.queues, memory);
        for (used, vector) in done.used.iter().zip(self.vectors) {
            if *used {
                self.msix.raise(vector);
            }
        }
        if done.broken {
            self.status |= STATUS_NEEDS_RESET;
            self.msix.raise(self.config_vector);
        }
        done.more
    }

    pub(crate) fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    fn wake(&self) {
        // Fails only when 2^64 wakes are waiting; then the worker is awake.
        let _ = self.wake.write(1);
    }

    /// Which part of the BAR `gpa` is in, and where in it.
    fn decode(&self, gpa: u64) -> Option<(u32, usize)> {
        if self.config.u32_at(COMMAND_AT) & COMMAND_MEMORY == 0 {
            return None;
        }
        let bar = u64::from(self.config.u32_at(BAR_AT) & !0xf);
        let into = u32::try_from(gpa.checked_sub(bar)?).ok()?;
        let at = usize::try_from(into % PART_BYTES).ok()?;
        (into < BAR_BYTES).then_some((into / PART_BYTES * PART_BYTES, at))
    }

    fn queue(&self) -> Option<(&Queue, u16)> {
        let at = usize::from(self.queue_select);
        Some((self.queues.get(at)?, *self.vectors.get(at)?))
    }

    /// `struct virtio_pci_common_cfg` (Virtio 1.2, section 4.1.4.3).
    fn common(&self) -> [u8; 56] {
        let mut bytes = [0; 56];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.device_feature_select.to_le_bytes());
        put(4, &half(FEATURES, self.device_feature_select).to_le_bytes());
        put(8, &self.driver_feature_select.to_le_bytes());
        put(
            12,
            &half(self.driver_features, self.driver_feature_select).to_le_bytes(),
        );
        put(16, &self.config_vector.to_le_bytes());
        put(18, &QUEUE_COUNT.to_le_bytes());
        put(20, &[self.status]);
        put(22, &self.queue_select.to_le_bytes());
        if let Some((queue, vector)) = self.queue() {
            put(24, &queue.size().to_le_bytes());
            put(26, &vector.to_le_bytes());
            put(28, &u16::from(queue.ready()).to_le_bytes());
            put(30, &self.queue_select.to_le_bytes());
            put(32, &queue.desc_table().to_le_bytes());
            put(40, &queue.avail_ring().to_le_bytes());
            put(48, &queue.used_ring().to_le_bytes());
        }
        bytes
    }

    fn write_common(&mut self, at: usize, data: &[u8]) {
        // A 64-bit field may be written at once.
        if let (32 | 40 | 48, 8) = (at, data.len()) {
            self.write_common(at, &data[..4]);
            self.write_common(at + 4, &data[4..]);
            return;
        }
        let mut word = [0; 4];
        let len = data.len().min(word.len());
        word[..len].copy_from_slice(&data[..len]);
        let long = u32::from_le_bytes(word);
        let [low, high, ..] = word;
        let short = u16::from_le_bytes([low, high]);
        match (at, data.len()) {
            (0, 4) => self.device_feature_select = long,
            (8, 4) => self.driver_feature_select = long,
            (12, 4) => self.accept_features(long),
            (16, 2) => self.config_vector = valid_vector(short),
            (20, 1) => self.set_status(low),
            (22, 2) => self.queue_select = short,
            (26, 2) => {
                if let Some(vector) = self.vectors.get_mut(usize::from(self.queue_select)) {
                    *vector = valid_vector(short);
                }
            }
            _ => self.write_queue(at, data.len(), short, long),
        }
    }

    fn write_queue(&mut self, at: usize, len: usize, short: u16, long: u32) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        // A queue in use is not moved (Virtio 1.2, section 4.1.4.3.2).
        if queue.ready() {
            return;
        }
        match (at, len) {
            (24, 2) => queue.set_size(short),
            (28, 2) => queue.set_ready(short == 1),
            (32, 4) => queue.set_desc_table_address(Some(long), None),
            (36, 4) => queue.set_desc_table_address(None, Some(long)),
            (40, 4) => queue.set_avail_ring_address(Some(long), None),
            (44, 4) => queue.set_avail_ring_address(None, Some(long)),
            (48, 4) => queue.set_used_ring_address(Some(long), None),
            (52, 4) => queue.set_used_ring_address(None, Some(long)),
            _ => {}
        }
    }

    fn accept_features(&mut self, word: u32) {
        let word = u64::from(word);
        match self.driver_feature_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | word,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | word << 32,
            _ => {}
        }
    }

    fn set_status(&mut self, status: u8) {
        if status == 0 {
            self.reset();
            return;
        }
        self.status = status | self.status & STATUS_NEEDS_RESET;
        // All that is offered is needed: without the ports the device can't speak.
        if self.driver_features != FEATURES {
            self.status &= !(STATUS_FEATURES_OK | STATUS_DRIVER_OK);
        }
        if self.status & STATUS_DRIVER_OK != 0 {
            self.wake();
        }
    }

    fn reset(&mut self) {
        self.status = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.config_vector = NO_VECTOR;
        self.queue_select = 0;
        self.vectors = [NO_VECTOR; QUEUES];
        self.queues = new_queues();
        self.console.reset();
    }
}

fn new_queues() -> [Queue; QUEUES] {
    std::array::from_fn(|_| {
        // The size is a power of two within the limits of the specification: this can't fail.
        Queue::new(QUEUE_SIZE)
            .unwrap_or_else(|_| unreachable!("{QUEUE_SIZE} is a valid queue size"))
    })
}

/// The 32 bits of `features` that `select` means.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => (features & 0xffff_ffff) as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn valid_vector(vector: u16) -> u16 {
    if vector < VECTORS { vector } else { NO_VECTOR }
}

fn copy(from: &[u8], at: usize, into: &mut [u8]) {
    for (byte, held) in into.iter_mut().zip(from.iter().skip(at)) {
        *byte = *held;
    }
}
