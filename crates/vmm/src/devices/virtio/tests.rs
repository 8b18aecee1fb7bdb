use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::driver::{ConsoleDriver, Driver, PAGE, PORT_NAME, QUEUES_AT, queue_at};
use crate::arch::layout::{PCI_ECAM, PCI_WINDOW};
use crate::lock::lock;

/// Queues of a console with two ports.
const QUEUES: u16 = 6;

#[test]
fn the_bus_has_a_bridge_and_the_console() {
    let driver = ConsoleDriver::new();
    assert_eq!(driver.config(0, 8) >> 16, 0x0600);
    assert_eq!(driver.config(1, 0), 0x1043_1af4);
    assert_eq!(driver.config(2, 0), u32::MAX);
    let ecam = |device: u64, at: u64| {
        let mut word = [0; 4];
        let gpa = PCI_ECAM + device * 0x8000 + at;
        driver.devices.mmio_read(gpa, &mut word);
        u32::from_le_bytes(word)
    };
    assert_eq!(ecam(0, 0), driver.config(0, 0));
    assert_eq!(ecam(1, 0), driver.config(1, 0));
    assert_eq!((ecam(1, 0x100), ecam(2, 0)), (0, u32::MAX));
    driver.devices.mmio_write(PCI_ECAM + 0x8000 + 0x3c, &[7]);
    assert_eq!(driver.config(1, 0x3c), 7);
    // Every capability is reached from the first on, and the last ends the list.
    let mut at = driver.config(1, 0x34) & 0xff;
    let mut kinds = Vec::new();
    while at != 0 && kinds.len() < 16 {
        let word = driver.config(1, at);
        kinds.push((word & 0xff, if word & 0xff == 9 { word >> 24 } else { 0 }));
        at = word >> 8 & 0xff;
    }
    assert_eq!(kinds, [(0x11, 0), (9, 1), (9, 2), (9, 3), (9, 4)]);
}

#[test]
fn the_bar_has_a_size_and_moves() {
    let driver = ConsoleDriver::new();
    driver.set_config(1, 0x10, u32::MAX);
    assert_eq!(driver.config(1, 0x10), 0xffff_8000);
    driver.set_config(1, 0x10, 0xd000_0000);
    let mut count = [0; 2];
    driver.devices.mmio_read(0xd000_0012, &mut count);
    assert_eq!(u16::from_le_bytes(count), QUEUES);
    driver.devices.mmio_read(PCI_WINDOW + 0x12, &mut count);
    assert_eq!(count, [0xff; 2]);
}

#[test]
fn ports_are_announced_named_and_open() {
    let mut driver = ConsoleDriver::new();
    driver.bring_up();
    for _ in 0..6 {
        driver.offer(2, 64, true);
    }
    driver.control(u32::MAX, 0, 1);
    driver.control(1, 3, 1);
    driver.control(0, 3, 1);
    driver.control(7, 3, 1);
    let named = [&[1, 0, 0, 0, 7, 0, 1, 0], PORT_NAME.as_bytes()].concat();
    assert_eq!(
        driver.received(2, 0),
        [
            vec![0, 0, 0, 0, 1, 0, 1, 0],
            vec![1, 0, 0, 0, 1, 0, 1, 0],
            named,
            vec![1, 0, 0, 0, 6, 0, 1, 0],
            vec![0, 0, 0, 0, 4, 0, 1, 0],
            vec![0, 0, 0, 0, 6, 0, 1, 0],
        ]
    );
    let interrupts = lock(&driver.interrupts);
    assert!(interrupts.contains(&3) && interrupts.contains(&4));
}

#[test]
fn bytes_go_both_ways_and_to_the_right_port() {
    let mut driver = ConsoleDriver::new();
    driver.bring_up();
    driver.send(5, b"frame");
    driver.send(1, b"shell");
    let mut said = [0; 16];
    assert_eq!(driver.frames.read(&mut said).unwrap(), 5);
    assert_eq!(&said[..5], b"frame");
    assert_eq!(driver.shell.read(&mut said).unwrap(), 5);
    assert_eq!(&said[..5], b"shell");
    driver.offer(4, 4, true);
    driver.offer(4, 4, true);
    driver.frames.write_all(b"answer").unwrap();
    driver.process();
    assert_eq!(driver.received(4, 0), [b"answ".to_vec(), b"er".to_vec()]);
}

#[test]
fn a_slow_host_holds_the_guest_up_and_loses_nothing() {
    let mut driver = ConsoleDriver::new();
    driver.bring_up();
    let mut expected = Vec::new();
    let mut got = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    // Each is more than a stream holds at once, and lies over many pages of which no other is in use.
    for round in 0..5_u16 {
        let bytes: Vec<u8> = (0..300_000_u32)
            .map(|at| ((at / 7 + u32::from(round)) & 0xff) as u8)
            .collect();
        driver.send(5, &bytes);
        expected.extend(bytes);
        assert_eq!(driver.received(5, 0).len(), usize::from(round));
        while driver.received(5, 0).len() == usize::from(round) || got.len() < expected.len() {
            assert!(Instant::now() < deadline);
            let mut buffer = [0; 30_000];
            if let Ok(count) = driver.frames.read(&mut buffer) {
                got.extend_from_slice(&buffer[..count]);
            }
            driver.process();
        }
    }
    assert!(got == expected);
}

#[test]
fn a_host_that_went_away_does_not_hold_the_guest_up() {
    let mut driver = ConsoleDriver::new();
    driver.bring_up();
    driver.frames = UnixStream::pair().unwrap().0;
    for _ in 0..20 {
        driver.send(5, b"into the void");
    }
    assert_eq!(driver.received(5, 0).len(), 20);
}

#[test]
fn a_masked_vector_is_kept_until_it_is_unmasked() {
    let mut driver = ConsoleDriver::new();
    driver.bring_up();
    driver.put(0x4000 + 6 * 16 + 12, &1_u32.to_le_bytes());
    driver.send(5, b"x");
    assert!(!lock(&driver.interrupts).contains(&6));
    assert_eq!(driver.get(0x5000), 1 << 6);
    driver.put(0x4000 + 6 * 16 + 12, &0_u32.to_le_bytes());
    assert!(lock(&driver.interrupts).contains(&6));
}

#[derive(Clone, Debug)]
enum Step {
    Mmio(u64, Vec<u8>),
    Read(u64, usize),
    Port(u16, Vec<u8>),
    Ram(u64, Vec<u8>),
    Process,
    Reset,
    Host(Vec<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..9);
    let registers = prop_oneof![0_u64..64, 0x4000_u64..0x4080, 0_u64..0x9000];
    let rings = (0..u64::from(QUEUES) * 3, prop_oneof![0_u64..40, 0..PAGE]);
    prop_oneof![
        4 => (registers.clone(), bytes()).prop_map(|(at, bytes)| Step::Mmio(at, bytes)),
        1 => (registers, 0_usize..9).prop_map(|(at, len)| Step::Read(at, len)),
        1 => (0xcf8_u16..0xd00, bytes()).prop_map(|(port, bytes)| Step::Port(port, bytes)),
        6 => (rings, bytes())
            .prop_map(|((page, at), bytes)| Step::Ram(QUEUES_AT + page * PAGE + at, bytes)),
        4 => Just(Step::Process),
        1 => Just(Step::Reset),
        1 => bytes().prop_map(Step::Host),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_misbehaving_driver_is_survived(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut driver = ConsoleDriver::new();
        driver.bring_up();
        let start = Instant::now();
        for step in steps {
            match step {
                Step::Mmio(at, bytes) => driver.put(at, &bytes),
                Step::Read(at, len) => {
                    driver.devices.mmio_read(PCI_WINDOW + at, &mut vec![0; len]);
                }
                Step::Port(port, bytes) => {
                    driver.devices.port_write(port, &bytes);
                    driver.devices.port_read(port, &mut bytes.clone());
                }
                Step::Ram(at, bytes) => driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap(),
                Step::Process => driver.process(),
                Step::Reset => {
                    driver.put(20, &[0]);
                }
                Step::Host(bytes) => {
                    // The host's end may be full: then nothing is added.
                    let _ = driver.frames.write(&bytes);
                    let _ = driver.shell.read(&mut [0; 4096]);
                }
            }
        }
        prop_assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn fault_d6_a_table_of_indirect_descriptors_that_was_not_offered_is_not_followed() {
    const NEEDS_RESET: u8 = 64;
    const INDIRECT: u16 = 4;
    const FRAMES_OUT: usize = 5;
    const TABLE: u64 = 0x30_0000;
    let mut driver = ConsoleDriver::new();
    driver.bring_up();
    let write = |driver: &Driver, bytes: &[u8], at| {
        driver.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    };
    let descriptor = |at: u64, len: u32, flags: u16| {
        let mut bytes = at.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend([0; 2]);
        bytes
    };
    let queue = queue_at(FRAMES_OUT);
    write(&driver, b"behind the table", TABLE + PAGE);
    write(&driver, &descriptor(TABLE + PAGE, 16, 0), TABLE);
    write(&driver, &descriptor(TABLE, 16, INDIRECT), queue);
    write(&driver, &1_u16.to_le_bytes(), queue + PAGE + 2);
    driver.process();
    assert_ne!(driver.get(20) & NEEDS_RESET, 0);
    let heard = driver.frames.read(&mut [0; 64]).unwrap_err();
    assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
    driver.bring_up();
    driver.send(FRAMES_OUT, b"after a reset");
    let mut bytes = [0; 64];
    let count = driver.frames.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"after a reset");
}
