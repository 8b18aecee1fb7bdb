//! The configuration space of a virtio device: identity, BAR, capabilities (Virtio 1.2, section 4.1).

use super::device::MAX_QUEUES;
use super::msix::ENTRY_BYTES;
use crate::devices::config_space::ConfigSpace;

/// What lies where in BAR 0, each on a page of its own.
pub(super) const COMMON: u32 = 0x0000;
const ISR: u32 = 0x1000;
pub(super) const DEVICE: u32 = 0x2000;
pub(super) const NOTIFY: u32 = 0x3000;
pub(super) const MSIX_TABLE: u32 = 0x4000;
pub(super) const MSIX_PENDING: u32 = 0x5000;
/// Size of the BAR: a power of two.
pub(super) const BAR_BYTES: u32 = 0x8000;
pub(super) const PART_BYTES: u32 = 0x1000;

/// Offsets in configuration space (PCI Local Bus 3.0, section 6.1).
pub(super) const COMMAND_AT: usize = 0x04;
pub(super) const BAR_AT: usize = 0x10;
pub(super) const MSIX_AT: usize = 0x40;
pub(super) const COMMAND_MEMORY: u32 = 1 << 1;
/// Memory, bus master, no INTx.
const COMMAND_WRITABLE: [u8; 2] = [0b110, 0b100];
/// Upper byte of the MSI-X message control word.
pub(super) const MSIX_ENABLE: u32 = 1 << 31;
pub(super) const MSIX_MASK_ALL: u32 = 1 << 30;

/// Bytes between two queues' notify addresses.
const NOTIFY_STEP: u32 = 4;

/// [`MSIX_AT`] as a link.
const FIRST_CAPABILITY: u8 = 0x40;

const _: () = assert!(FIRST_CAPABILITY as usize == MSIX_AT);
const _: () = assert!(vectors(MAX_QUEUES) as usize * ENTRY_BYTES <= PART_BYTES as usize);

/// Vectors: one for changes of configuration, one for each queue.
pub(super) const fn vectors(queues: u16) -> u16 {
    queues + 1
}

/// What differs between devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// Number of the device (Virtio 1.2, section 5).
    pub(super) id: u16,
    pub(super) class: [u8; 3],
    pub(super) queues: u16,
    /// Size of its configuration structure.
    pub(super) config_bytes: u32,
    /// Where the BAR is before the guest moves it.
    pub(super) bar: u32,
}

/// Identity, BAR and capabilities.
pub(super) fn config_space(identity: Identity) -> ConfigSpace {
    /// Virtio's vendor id.
    const VENDOR: [u8; 2] = [0xf4, 0x1a];
    /// What is added to the number of a device (Virtio 1.2, section 4.1.2).
    const FIRST_DEVICE: u16 = 0x1040;
    const REVISION: u8 = 1;
    const SUBSYSTEM: [u8; 4] = [0xf4, 0x1a, 0x40, 0x11];
    const STATUS_CAPABILITIES: u8 = 1 << 4;

    let mut space = ConfigSpace::new();
    space.set(0x00, &VENDOR);
    space.set(0x02, &(FIRST_DEVICE + identity.id).to_le_bytes());
    space.set(COMMAND_AT, &COMMAND_MEMORY.to_le_bytes());
    space.allow(COMMAND_AT, &COMMAND_WRITABLE);
    space.set(0x06, &[STATUS_CAPABILITIES]);
    space.set(0x08, &[REVISION]);
    space.set(0x09, &identity.class);
    space.set(BAR_AT, &identity.bar.to_le_bytes());
    space.allow(BAR_AT, &(!(BAR_BYTES - 1)).to_le_bytes());
    space.set(0x2c, &SUBSYSTEM);
    space.allow(0x3c, &[0xff]);

    let [vectors, _] = (vectors(identity.queues) - 1).to_le_bytes();
    let [t0, t1, t2, t3] = MSIX_TABLE.to_le_bytes();
    let [p0, p1, p2, p3] = MSIX_PENDING.to_le_bytes();
    let msix = [0x11, 0, vectors, 0, t0, t1, t2, t3, p0, p1, p2, p3];
    let mut notify = [0; 20];
    let (capability, step) = notify.split_at_mut(16);
    capability.copy_from_slice(&virtio_capability(
        2,
        NOTIFY,
        u32::from(identity.queues) * NOTIFY_STEP,
    ));
    step.copy_from_slice(&NOTIFY_STEP.to_le_bytes());
    notify[2] = 20;
    let capabilities: [&[u8]; 5] = [
        &msix,
        &virtio_capability(1, COMMON, 56),
        &notify,
        &virtio_capability(3, ISR, 1),
        &virtio_capability(4, DEVICE, identity.config_bytes),
    ];
    let mut link_at = 0x34;
    let mut at = FIRST_CAPABILITY;
    for capability in capabilities {
        space.set(link_at, &[at]);
        space.set(usize::from(at), capability);
        link_at = usize::from(at) + 1;
        #[expect(clippy::cast_possible_truncation, reason = "16 or 20")]
        let len = capability.len() as u8;
        at += len;
    }
    space.allow(MSIX_AT + 3, &[0b1100_0000]);
    space
}

/// `struct virtio_pci_cap` (Virtio 1.2, section 4.1.4): `kind` is at `offset` in BAR 0.
fn virtio_capability(kind: u8, offset: u32, len_bytes: u32) -> [u8; 16] {
    const VENDOR_SPECIFIC: u8 = 0x09;
    let [o0, o1, o2, o3] = offset.to_le_bytes();
    let [l0, l1, l2, l3] = len_bytes.to_le_bytes();
    [
        VENDOR_SPECIFIC,
        0,
        16,
        kind,
        0,
        0,
        0,
        0,
        o0,
        o1,
        o2,
        o3,
        l0,
        l1,
        l2,
        l3,
    ]
}
