//! The I/O APIC of a machine whose CPUs have ids that the one in KVM can't address (82093AA I/O Advanced
//! Programmable Interrupt Controller, datasheet).
//!
//! It holds the redirection table that the guest writes, and has KVM send the message that each entry stands for.
//! All lines of the machine are edges: an entry that says otherwise is served as one.

use std::fmt;

/// Lines, as many as KVM's own has (`KVM_IOAPIC_NUM_PINS`).
pub(crate) const PINS: u32 = 24;

/// Registers by their distance from the address: which one is meant, and what it holds.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// What can be selected.
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const TABLE: u8 = 0x10;

/// Version 1.1 without an EOI register, and the number of the last line.
const VERSION_VALUE: u32 = (PINS - 1) << 16 | 0x11;
const ID_MASK: u32 = 0xf << 24;

/// Bits of an entry.
const VECTOR_AND_MODE: u64 = 0x7ff;
const LOGICAL: u64 = 1 << 11;
const PENDING: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const MASKED: u64 = 1 << 16;
const READ_ONLY: u64 = PENDING | REMOTE_IRR;

/// A message that raises an interrupt: a write of `data` to `address` (Intel SDM volume 3, "Message Signalled
/// Interrupts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
}

/// Where lines are connected.
pub(crate) trait Lines: Send + fmt::Debug {
    /// Has each line send its message from now on; one that is not among them sends nothing.
    fn connect(&self, messages: &[(u32, Message)]);
}

#[derive(Debug)]
pub(crate) struct IoApic {
    selected: u8,
    id: u32,
    table: [u64; PINS as usize],
    connected: Vec<(u32, Message)>,
    lines: Box<dyn Lines>,
}

impl IoApic {
    pub(crate) fn new(lines: Box<dyn Lines>) -> Self {
        Self {
            selected: 0,
            id: 0,
            table: [MASKED; PINS as usize],
            connected: Vec::new(),
            lines,
        }
    }

    /// A read `into` bytes behind its address. Registers are 32 bits wide, and so must accesses be.
    pub(crate) fn read(&self, into: u64, data: &mut [u8]) {
        let Ok(data) = <&mut [u8; 4]>::try_from(data) else {
            return;
        };
        *data = match into {
            SELECT => u32::from(self.selected),
            WINDOW => self.register(),
            _ => 0,
        }
        .to_le_bytes();
    }

    /// A write.
    pub(crate) fn write(&mut self, into: u64, data: &[u8]) {
        let Ok(data) = <[u8; 4]>::try_from(data) else {
            return;
        };
        match into {
            SELECT => self.selected = data[0],
            WINDOW => self.set_register(u32::from_le_bytes(data)),
            _ => {}
        }
    }

    fn register(&self) -> u32 {
        match self.selected {
            ID => self.id,
            VERSION => VERSION_VALUE,
            _ => match self.selected_half() {
                Some((pin, shift)) => (self.table[pin] >> shift & 0xffff_ffff) as u32,
                None => 0,
            },
        }
    }

    fn set_register(&mut self, value: u32) {
        if self.selected == ID {
            self.id = value & ID_MASK;
        } else if let Some((pin, shift)) = self.selected_half() {
            let half = 0xffff_ffff << shift & !READ_ONLY;
            let entry = &mut self.table[pin];
            *entry = *entry & !half | u64::from(value) << shift & half;
            self.connect();
        }
    }

    /// The entry that is selected, and how far into it its half begins.
    fn selected_half(&self) -> Option<(usize, u32)> {
        let half = self.selected.checked_sub(TABLE)?;
        let pin = usize::from(half / 2);
        (pin < self.table.len()).then_some((pin, u32::from(half % 2) * 32))
    }

    fn connect(&mut self) {
        let pins = (0..).zip(&self.table);
        let messages: Vec<_> = pins
            .filter(|(_, entry)| *entry & MASKED == 0)
            .map(|(pin, entry)| (pin, message(*entry)))
            .collect();
        if messages != self.connected {
            self.lines.connect(&messages);
            self.connected = messages;
        }
    }
}

/// What an entry has sent. The destination is in bits 63:56, and its bits 14:8 are in 55:49, as those of an
/// address are in 11:5 (`struct IO_APIC_route_entry`, arch/x86/include/asm/io_apic.h; `struct
/// x86_msi_addr_lo`, arch/x86/include/asm/msi.h).
fn message(entry: u64) -> Message {
    let destination = entry >> 56;
    let high_destination = entry >> 49 & 0x7f;
    let logical = entry & LOGICAL;
    Message {
        address: 0xfee0_0000 | destination << 12 | high_destination << 5 | logical >> 9,
        data: (entry & VECTOR_AND_MODE) as u32,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    type Messages = Vec<(u32, Message)>;

    #[derive(Clone, Debug, Default)]
    struct Connected(Arc<Mutex<Vec<Messages>>>);

    impl Lines for Connected {
        fn connect(&self, messages: &[(u32, Message)]) {
            self.0.lock().unwrap().push(messages.to_vec());
        }
    }

    fn io_apic() -> (IoApic, Connected) {
        let lines = Connected::default();
        (IoApic::new(Box::new(lines.clone())), lines)
    }

    fn set(io_apic: &mut IoApic, register: u8, value: u32) {
        io_apic.write(SELECT, &[register, 0, 0, 0]);
        io_apic.write(WINDOW, &value.to_le_bytes());
    }

    fn get(io_apic: &mut IoApic, register: u8) -> u32 {
        let mut data = [0xaa; 4];
        io_apic.write(SELECT, &[register, 0, 0, 0]);
        io_apic.read(WINDOW, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn an_entry_that_is_let_through_sends_its_message() {
        let (mut io_apic, lines) = io_apic();
        assert_eq!(get(&mut io_apic, VERSION) >> 16 & 0xff, 23);
        // Line 4, to the CPU with id 0x234, of which the high bits are in the middle of the upper half.
        set(&mut io_apic, 0x19, 0x34 << 24 | 0x02 << 17);
        assert!(lines.0.lock().unwrap().is_empty());
        // Vector 0x31, fixed, physical; the bits that only the hardware sets stay clear.
        set(&mut io_apic, 0x18, 0x5031);
        assert_eq!(get(&mut io_apic, 0x18), 0x31);
        let message = Message {
            address: 0xfee3_4040,
            data: 0x31,
        };
        assert_eq!(lines.0.lock().unwrap().last(), Some(&vec![(4, message)]));
        set(&mut io_apic, 0x18, 0x1_0031);
        assert_eq!(lines.0.lock().unwrap().last(), Some(&vec![]));
        // The same value changes nothing.
        set(&mut io_apic, 0x18, 0x1_0031);
        assert_eq!(lines.0.lock().unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn any_access_does_no_harm(
            accesses in prop::collection::vec((0..0x50_u64, prop::collection::vec(any::<u8>(), 0..9)), 0..40),
        ) {
            let (mut io_apic, lines) = io_apic();
            for (into, data) in accesses {
                io_apic.write(into, &data);
                let mut read = data.clone();
                io_apic.read(into, &mut read);
            }
            for messages in lines.0.lock().unwrap().iter() {
                prop_assert!(messages.is_sorted_by(|one, next| one.0 < next.0));
                for (pin, message) in messages {
                    prop_assert!(*pin < PINS);
                    prop_assert_eq!(message.address >> 20, 0xfee);
                    prop_assert_eq!(message.data & !0x7ff, 0);
                }
            }
        }
    }
}
