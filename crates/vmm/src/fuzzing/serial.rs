//! The two serial ports, at their ports of the machine.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use arbitrary::{Result, Unstructured};

use crate::arch::layout::{COM1_PORT, COM2_PORT};
use crate::devices::virtio::driver::{ConsoleDriver, Driver};

/// Registers of a 16550, and the bits that decide where data goes.
const DATA: u16 = 0;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const SCRATCH: u16 = 7;
const DIVISOR_LATCH: u8 = 1 << 7;
const LOOPBACK: u8 = 1 << 4;

/// Single bytes that a stream surely holds before its reader must take some.
const SURELY_HELD: usize = 64;

/// A stream of register accesses and of what the host does. Registers read back, what the guest sends comes
/// out in order, all of it if the host reads, and a port works again once the host reads again.
pub fn serial(input: &[u8]) {
    let mut driver = ConsoleDriver::new();
    let [com1, com2] = driver.coms.take().expect("the streams of the two ports");
    let mut ports = [
        Port::new(&driver, COM1_PORT, com1),
        Port::new(&driver, COM2_PORT, com2),
    ];
    // Ends early where the input ends within an operation.
    let _ = run(&mut Unstructured::new(input), &driver, &mut ports);
    for port in &mut ports {
        port.finish();
    }
}

fn run(input: &mut Unstructured<'_>, driver: &Driver, ports: &mut [Port<'_>; 2]) -> Result<()> {
    while !input.is_empty() {
        let [operation, at, len] = input.arbitrary()?;
        let port = &mut ports[usize::from(at >> 7)];
        let register = u16::from(at & 7);
        let len = usize::from(len);
        match operation % 8 {
            0 | 1 => port.write(register, input.bytes(len % 16)?),
            2 => port.write(register, &vec![at; 4 * len]),
            3 => port.read(register, len),
            4 => port.host_reads(64 * len),
            // The ports take no input.
            5 => _ = port.host.write(input.bytes(len % 32)?),
            6 if len == 0xff => port.host_goes_away(),
            6 => port.write(register, &[at]),
            // All other ports answer something, and end nothing but the machine.
            _ => {
                let port = input.arbitrary()?;
                let mut data = vec![at; len % 9];
                driver.devices.port_read(port, &mut data);
                if !(COM1_PORT..COM1_PORT + 8).contains(&port)
                    && !(COM2_PORT..COM2_PORT + 8).contains(&port)
                {
                    let _ = driver.devices.port_write(port, &data);
                }
            }
        }
    }
    Ok(())
}

/// One port, and what is known of it.
struct Port<'a> {
    driver: &'a Driver,
    first: u16,
    host: UnixStream,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// The host may have been too slow for some of it.
    lossy: bool,
    gone: bool,
}

impl<'a> Port<'a> {
    fn new(driver: &'a Driver, first: u16, host: UnixStream) -> Self {
        Self {
            driver,
            first,
            host,
            line_control: 0,
            modem_control: 0,
            scratch: 0,
            sent: Vec::new(),
            received: Vec::new(),
            lossy: false,
            gone: false,
        }
    }

    fn write(&mut self, register: u16, bytes: &[u8]) {
        let end = self.driver.devices.port_write(self.first + register, bytes);
        assert_eq!(end, None, "a serial port ended the machine");
        let Some(&last) = bytes.last() else { return };
        match register {
            DATA if self.line_control & DIVISOR_LATCH == 0
                && self.modem_control & LOOPBACK == 0 =>
            {
                self.sent.extend(bytes);
                self.lossy |= self.sent.len() - self.received.len() > SURELY_HELD;
            }
            LINE_CONTROL => self.line_control = last,
            MODEM_CONTROL => self.modem_control = last,
            SCRATCH => self.scratch = last,
            _ => {}
        }
    }

    fn read(&mut self, register: u16, len: usize) {
        let mut data = vec![0x5a; len];
        self.driver
            .devices
            .port_read(self.first + register, &mut data);
        let held = match register {
            LINE_CONTROL if self.line_control != 0 => self.line_control,
            SCRATCH if self.scratch != 0 => self.scratch,
            _ => return,
        };
        assert!(data.iter().all(|byte| *byte == held));
    }

    fn host_reads(&mut self, most: usize) {
        let mut buffer = vec![0; most];
        match self.host.read(&mut buffer) {
            Ok(count) => self.received.extend(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }

    fn host_reads_all(&mut self) {
        loop {
            let before = self.received.len();
            self.host_reads(1 << 16);
            if self.received.len() == before {
                return;
            }
        }
    }

    fn host_goes_away(&mut self) {
        self.host_reads_all();
        let (unconnected, _) = UnixStream::pair().expect("a pair of streams");
        self.host = unconnected;
        self.gone = true;
    }

    fn finish(&mut self) {
        if self.gone {
            self.write(DATA, b"nobody hears");
            return;
        }
        self.host_reads_all();
        self.write(LINE_CONTROL, &[0]);
        self.write(MODEM_CONTROL, &[0]);
        self.write(DATA, b"still here");
        self.host_reads_all();
        assert!(self.received.ends_with(b"still here"));
        if self.lossy {
            let mut sent = self.sent.iter();
            let in_order = self.received.iter().all(|byte| sent.any(|s| s == byte));
            assert!(in_order, "the host got what the guest never sent");
        } else {
            assert_eq!(self.received, self.sent);
        }
    }
}
