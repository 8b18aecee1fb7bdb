//! What the console's PCI function says of itself: identity, BAR, capabilities (Virtio 1.2, section 4.1).

use super::console::{CONFIG_STRUCT_BYTES, QUEUE_COUNT};
use super::msix::ENTRY_BYTES;
use super::pci::VECTORS;
use crate::arch::layout::PCI_WINDOW;
use crate::devices::pci::ConfigSpace;

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

/// Where the BAR is before the guest moves it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the window lies below 4 GiB"
)]
const BAR: u32 = PCI_WINDOW as u32;

/// [`MSIX_AT`] as a link.
const FIRST_CAPABILITY: u8 = 0x40;

const _: () = assert!(FIRST_CAPABILITY as usize == MSIX_AT);
const _: () = assert!(VECTORS as usize * ENTRY_BYTES <= 0x1000);

/// Identity, BAR and capabilities.
pub(super) const CONFIG_SPACE: ConfigSpace = config_space();

const fn config_space() -> ConfigSpace {
    /// Virtio's vendor id, and 0x1040 plus 3 for a console (Virtio 1.2, section 4.1.2).
    const ID: [u8; 4] = [0xf4, 0x1a, 0x43, 0x10];
    /// Revision 1; class: simple communication controller, other.
    const CLASS: [u8; 4] = [1, 0x00, 0x80, 0x07];
    const SUBSYSTEM: [u8; 4] = [0xf4, 0x1a, 0x40, 0x11];
    const STATUS_CAPABILITIES: u8 = 1 << 4;

    let mut space = ConfigSpace::new();
    space.set(0x00, &ID);
    space.set(COMMAND_AT, &COMMAND_MEMORY.to_le_bytes());
    space.allow(COMMAND_AT, &COMMAND_WRITABLE);
    space.set(0x06, &[STATUS_CAPABILITIES]);
    space.set(0x08, &CLASS);
    space.set(BAR_AT, &BAR.to_le_bytes());
    space.allow(BAR_AT, &(!(BAR_BYTES - 1)).to_le_bytes());
    space.set(0x2c, &SUBSYSTEM);
    space.allow(0x3c, &[0xff]);

    let [vectors, _] = (VECTORS - 1).to_le_bytes();
    let [t0, t1, t2, t3] = MSIX_TABLE.to_le_bytes();
    let [p0, p1, p2, p3] = MSIX_PENDING.to_le_bytes();
    let msix = [0x11, 0, vectors, 0, t0, t1, t2, t3, p0, p1, p2, p3];
    let mut notify = [0; 20];
    let (capability, step) = notify.split_at_mut(16);
    capability.copy_from_slice(&virtio_capability(
        2,
        NOTIFY,
        QUEUE_COUNT as u32 * NOTIFY_STEP,
    ));
    step.copy_from_slice(&NOTIFY_STEP.to_le_bytes());
    notify[2] = 20;
    let capabilities: [&[u8]; 5] = [
        &msix,
        &virtio_capability(1, COMMON, 56),
        &notify,
        &virtio_capability(3, ISR, 1),
        &virtio_capability(4, DEVICE, CONFIG_STRUCT_BYTES),
    ];
    let mut link_at = 0x34;
    let mut at = FIRST_CAPABILITY;
    let mut index = 0;
    while index < capabilities.len() {
        space.set(link_at, &[at]);
        space.set(at as usize, capabilities[index]);
        link_at = at as usize + 1;
        #[expect(clippy::cast_possible_truncation, reason = "16 or 20")]
        let len = capabilities[index].len() as u8;
        at += len;
        index += 1;
    }
    space.allow(MSIX_AT + 3, &[0b1100_0000]);
    space
}

/// `struct virtio_pci_cap` (Virtio 1.2, section 4.1.4): `kind` is at `offset` in BAR 0.
const fn virtio_capability(kind: u8, offset: u32, len_bytes: u32) -> [u8; 16] {
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
