//! The PCI transport of a virtio device (Virtio 1.2, section 4.1).

use std::sync::Arc;

use nix::sys::eventfd::EventFd;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::device::{MAX_QUEUES, VirtioDevice};
use super::identity::{
    self, BAR_AT, BAR_BYTES, COMMAND_AT, COMMAND_MEMORY, COMMON, DEVICE, Identity, MSIX_AT,
    MSIX_ENABLE, MSIX_MASK_ALL, MSIX_PENDING, MSIX_TABLE, NOTIFY, PART_BYTES,
};
use super::msix::Msix;
use super::queue::GuestQueue;
use crate::arch::layout::PCI_WINDOW;
use crate::devices::config_space::ConfigSpace;
use crate::devices::pci::PciFunction;
use crate::interrupt::MsiSink;

/// No vector (Virtio 1.2, section 4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;
/// `VIRTIO_F_VERSION_1`, without which a driver speaks an older protocol.
const VERSION_1: u64 = 1 << 32;
/// Most descriptors of a queue.
const QUEUE_SIZE: u16 = 256;

/// Device status bits (Virtio 1.2, section 2.1).
const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_NEEDS_RESET: u8 = 64;

/// A queue, and the vector of its interrupt.
#[derive(Debug)]
struct QueueSlot {
    queue: Queue,
    vector: u16,
}

impl QueueSlot {
    fn new() -> Self {
        Self {
            // The size is a power of two within the limits of the specification: this can't fail.
            queue: Queue::new(QUEUE_SIZE)
                .unwrap_or_else(|_| unreachable!("{QUEUE_SIZE} is a valid queue size")),
            vector: NO_VECTOR,
        }
    }
}

/// A device as the guest sees it.
#[derive(Debug)]
pub(crate) struct VirtioPci {
    space: ConfigSpace,
    msix: Msix,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    queue_select: u16,
    queues: Vec<QueueSlot>,
    device: Box<dyn VirtioDevice>,
    wake: Arc<EventFd>,
}

impl VirtioPci {
    /// As function `index` of those on the bus, the bridge not counted. Writes to `wake` when a queue wants to be
    /// looked at.
    pub(crate) fn new(
        device: Box<dyn VirtioDevice>,
        index: u32,
        sink: Arc<dyn MsiSink>,
        wake: Arc<EventFd>,
    ) -> Self {
        /// The window lies below 4 GiB.
        #[expect(clippy::cast_possible_truncation, reason = "see above")]
        const WINDOW: u32 = PCI_WINDOW as u32;
        let queues = device.queue_count().min(MAX_QUEUES);
        let identity = Identity {
            id: device.id(),
            class: device.pci_class(),
            queues,
            config_bytes: u32::try_from(device.config().len()).unwrap_or(0),
            bar: WINDOW + index * BAR_BYTES,
        };
        Self {
            space: identity::config_space(identity),
            msix: Msix::new(usize::from(identity::vectors(queues)), sink),
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            queues: (0..queues).map(|_| QueueSlot::new()).collect(),
            device,
            wake,
        }
    }

    fn process_queue(&mut self, index: usize, memory: &GuestMemoryMmap) -> bool {
        let Some(QueueSlot { queue, vector }) = self.queues.get_mut(index) else {
            return false;
        };
        if !queue.ready() || self.status & STATUS_NEEDS_RESET != 0 {
            return false;
        }
        let looked = GuestQueue::new(queue, memory).and_then(|mut queue| {
            let more = self.device.process_queue(index, &mut queue)?;
            Ok((queue.was_used(), more))
        });
        let Ok((used, more)) = looked else {
            self.status |= STATUS_NEEDS_RESET;
            self.msix.raise(self.config_vector);
            return false;
        };
        if used {
            self.msix.raise(*vector);
        }
        more
    }

    /// What is offered to the driver.
    fn features(&self) -> u64 {
        self.device.features() | VERSION_1
    }

    /// Works off what the queues hold. `true` if there is more to do at once.
    pub(crate) fn process(&mut self, memory: &GuestMemoryMmap) -> bool {
        if self.status & STATUS_DRIVER_OK == 0 {
            return false;
        }
        let mut more = false;
        for index in 0..self.queues.len() {
            more |= self.process_queue(index, memory);
        }
        if let Some(index) = self.device.again() {
            more |= self.process_queue(index, memory);
        }
        more
    }

    pub(crate) fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    fn wake(&self) {
        // Fails only when 2^64 wakes are waiting; then the worker is awake.
        let _ = self.wake.write(1);
    }

    fn selected(&self) -> Option<&QueueSlot> {
        self.queues.get(usize::from(self.queue_select))
    }

    fn valid_vector(&self, vector: u16) -> u16 {
        if usize::from(vector) <= self.queues.len() {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// `struct virtio_pci_common_cfg` (Virtio 1.2, section 4.1.4.3).
    fn common(&self) -> [u8; 56] {
        let mut bytes = [0; 56];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.device_feature_select.to_le_bytes());
        put(
            4,
            &half(self.features(), self.device_feature_select).to_le_bytes(),
        );
        put(8, &self.driver_feature_select.to_le_bytes());
        put(
            12,
            &half(self.driver_features, self.driver_feature_select).to_le_bytes(),
        );
        put(16, &self.config_vector.to_le_bytes());
        put(
            18,
            &u16::try_from(self.queues.len()).unwrap_or(0).to_le_bytes(),
        );
        put(20, &[self.status]);
        put(22, &self.queue_select.to_le_bytes());
        if let Some(QueueSlot { queue, vector }) = self.selected() {
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
            (16, 2) => self.config_vector = self.valid_vector(short),
            (20, 1) => self.set_status(low),
            (22, 2) => self.queue_select = short,
            (26, 2) => {
                let vector = self.valid_vector(short);
                if let Some(slot) = self.queues.get_mut(usize::from(self.queue_select)) {
                    slot.vector = vector;
                }
            }
            _ => self.write_queue(at, data.len(), short, long),
        }
    }

    fn write_queue(&mut self, at: usize, len: usize, short: u16, long: u32) {
        let Some(QueueSlot { queue, .. }) = self.queues.get_mut(usize::from(self.queue_select))
        else {
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
        let not_offered = self.driver_features & !self.features();
        let missing = (self.device.needed_features() | VERSION_1) & !self.driver_features;
        if not_offered | missing != 0 {
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
        self.queues.fill_with(QueueSlot::new);
        self.device.reset();
    }
}

impl PciFunction for VirtioPci {
    fn config_read(&self, at: usize, data: &mut [u8]) {
        self.space.read(at, data);
    }

    fn config_write(&mut self, at: usize, data: &[u8]) {
        self.space.write(at, data);
        let control = self.space.u32_at(MSIX_AT);
        self.msix
            .control(control & MSIX_ENABLE != 0, control & MSIX_MASK_ALL != 0);
    }

    fn bar(&self) -> Option<u64> {
        let enabled = self.space.u32_at(COMMAND_AT) & COMMAND_MEMORY != 0;
        enabled.then(|| u64::from(self.space.u32_at(BAR_AT) & !0xf))
    }

    fn bar_bytes(&self) -> u64 {
        u64::from(BAR_BYTES)
    }

    fn bar_read(&self, at: u64, data: &mut [u8]) {
        let Some((part, at)) = part(at) else {
            return;
        };
        data.fill(0);
        match part {
            COMMON => copy(&self.common(), at, data),
            DEVICE => copy(self.device.config(), at, data),
            MSIX_TABLE => self.msix.read(at, data),
            MSIX_PENDING => self.msix.pending_read(at, data),
            // The ISR stays 0: with MSI-X it is not used.
            _ => {}
        }
    }

    fn bar_write(&mut self, at: u64, data: &[u8]) {
        match part(at) {
            Some((COMMON, at)) => self.write_common(at, data),
            Some((MSIX_TABLE, at)) => self.msix.write(at, data),
            Some((NOTIFY, _)) => self.wake(),
            _ => {}
        }
    }
}

/// Which part of the BAR byte `at` is in, and where in it.
fn part(at: u64) -> Option<(u32, usize)> {
    let at = u32::try_from(at).ok()?;
    let into = usize::try_from(at % PART_BYTES).ok()?;
    Some((at / PART_BYTES * PART_BYTES, into))
}

/// The 32 bits of `features` that `select` means.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => (features & 0xffff_ffff) as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn copy(from: &[u8], at: usize, into: &mut [u8]) {
    for (byte, held) in into.iter_mut().zip(from.iter().skip(at)) {
        *byte = *held;
    }
}
