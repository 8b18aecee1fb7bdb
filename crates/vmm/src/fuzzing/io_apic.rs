//! Our I/O APIC, beside a plain model of what a guest may expect of its registers and lines.

use std::sync::{Arc, Mutex};

use arbitrary::{Result, Unstructured};

use crate::arch::io_apic::{IoApic, Lines, Message, PINS};
use crate::lock::lock;

/// Registers by their distance from the address.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

/// What can be selected (82093AA datasheet, section 3.2).
const ID: u8 = 0;
const VERSION: u8 = 1;
const FIRST_ENTRY: u8 = 0x10;

/// Bits of an entry (section 3.2.4): those that only the hardware sets, and those that decide what is sent.
const READ_ONLY: u64 = 1 << 12 | 1 << 14;
const MASKED: u64 = 1 << 16;
const LOGICAL: u64 = 1 << 11;

type Messages = Vec<(u32, Message)>;

#[derive(Clone, Debug, Default)]
struct Connected(Arc<Mutex<Messages>>);

impl Lines for Connected {
    fn connect(&self, messages: &[(u32, Message)]) {
        *lock(&self.0) = messages.to_vec();
    }
}

/// Accesses of any width to any register. What was written reads back but for what only the hardware sets, and each line
/// sends what its entry says, and nothing while it is masked.
pub fn io_apic(input: &[u8]) {
    let connected = Connected::default();
    let mut guest = Guest {
        io_apic: IoApic::new(Box::new(connected.clone())),
        connected,
        selected: 0,
        id: 0,
        table: [MASKED; PINS as usize],
    };
    // Ends early where the input ends within an operation.
    let _ = guest.run(&mut Unstructured::new(input));
    guest.check();
}

struct Guest {
    io_apic: IoApic,
    connected: Connected,
    selected: u8,
    id: u32,
    table: [u64; PINS as usize],
}

impl Guest {
    fn run(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            let [operation, at]: [u8; 2] = input.arbitrary()?;
            match operation % 8 {
                0..3 => self.set(at % 0x48, input.arbitrary()?),
                3 => {
                    // A whole entry, as a kernel writes it: the half with the mask last.
                    let entry: u64 = input.arbitrary()?;
                    let first = FIRST_ENTRY + at % 24 * 2;
                    self.set(first + 1, (entry >> 32) as u32);
                    self.set(first, (entry & 0xffff_ffff) as u32);
                }
                4 => self.set(at, input.arbitrary()?),
                // No register is as wide, or none is there: nothing happens.
                5 => {
                    let bytes = input.bytes(usize::from(operation >> 3) % 9)?;
                    if bytes.len() != 4 {
                        self.io_apic.write(u64::from(at), bytes);
                    }
                }
                6 => {
                    let mut data = vec![0x5a; usize::from(operation >> 3) % 9];
                    self.io_apic.read(u64::from(at), &mut data);
                    let untouched = data.iter().all(|byte| *byte == 0x5a);
                    assert!(untouched || data.len() == 4, "{data:x?}");
                }
                _ => self.check(),
            }
        }
        Ok(())
    }

    fn set(&mut self, register: u8, value: u32) {
        self.selected = register;
        self.io_apic.write(SELECT, &[register, 0, 0, 0]);
        self.io_apic.write(WINDOW, &value.to_le_bytes());
        match register.checked_sub(FIRST_ENTRY) {
            None if register == ID => self.id = value & 0x0f00_0000,
            Some(half) if usize::from(half / 2) < self.table.len() => {
                let entry = &mut self.table[usize::from(half / 2)];
                let shift = 32 * (half % 2);
                let kept = *entry & !(0xffff_ffff << shift);
                *entry = kept | u64::from(value) << shift & !READ_ONLY;
            }
            _ => {}
        }
    }

    fn get(&mut self, register: u8) -> u32 {
        let mut data = [0x5a; 4];
        self.io_apic.write(SELECT, &[register, 0, 0, 0]);
        self.io_apic.read(WINDOW, &mut data);
        u32::from_le_bytes(data)
    }

    fn check(&mut self) {
        let selected = self.selected;
        let mut data = [0x5a; 4];
        self.io_apic.read(SELECT, &mut data);
        assert_eq!(u32::from_le_bytes(data), u32::from(selected));
        assert_eq!(self.get(ID), self.id);
        assert_eq!(self.get(VERSION) >> 16 & 0xff, PINS - 1);
        for (pin, entry) in (0..).zip(self.table) {
            let first = FIRST_ENTRY + pin * 2;
            let halves = [self.get(first), self.get(first + 1)].map(u64::from);
            assert_eq!(halves[1] << 32 | halves[0], entry, "entry {pin}");
        }
        let open = (0..)
            .zip(self.table)
            .filter(|(_, entry)| entry & MASKED == 0);
        let expected: Messages = open.map(|(pin, entry)| (pin, sent(entry))).collect();
        assert_eq!(*lock(&self.connected.0), expected);
        self.io_apic.write(SELECT, &[selected, 0, 0, 0]);
    }
}

/// The message of an entry: destination, its high bits as `KVM_FEATURE_MSI_EXT_DEST_ID` has them, and mode in the
/// address; vector and delivery mode in the data.
fn sent(entry: u64) -> Message {
    let mut address = 0xfee0_0000 | (entry >> 56 & 0xff) << 12 | (entry >> 49 & 0x7f) << 5;
    if entry & LOGICAL != 0 {
        address |= 1 << 2;
    }
    Message {
        address,
        data: (entry & 0x7ff) as u32,
    }
}
