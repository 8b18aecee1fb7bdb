//! A driver that has lost its mind: it writes garbage to every register of the virtio console and to its
//! configuration space, and gives it queues that no driver would.
#![expect(
    unsafe_code,
    reason = "the device's registers, and memory that it reads"
)]

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write as _;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ktstr::prelude::*;
use ktstr_wire::{Encoder, FRAME_PORT_NAME, Message, TestEnd};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};

/// Rounds of hostile queues, each from a reset on.
const ROUNDS: u32 = 40;
/// Queues of the console, and one that it does not have.
const QUEUES: u16 = 7;
const PAGE_BYTES: usize = 4096;
const DRIVER: &str = "/sys/bus/pci/drivers/virtio-pci";

/// The structures of BAR 0, as the device's capabilities tell: common configuration and notification.
const COMMON: usize = 0;
const NOTIFY: usize = 0x3000;
const MSIX_TABLE: usize = 0x4000;

/// Offsets in the common configuration (Virtio 1.2, section 4.1.4.3).
const FEATURE_SELECT: usize = 8;
const FEATURES: usize = 12;
const STATUS: usize = 20;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_VECTOR: usize = 26;
const QUEUE_ENABLE: usize = 28;
const QUEUE_ADDRESSES: [usize; 3] = [32, 40, 48];

/// What an access to a device sees where nothing is.
const NOTHING: u64 = u64::MAX;

/// The result can't travel on the channel that this test destroys: it goes by hand on the one that the
/// real driver sets up afterwards. If that comes out, the device still works.
#[ktstr_test(timeout_s = 60)]
#[ignore = "goes wrong on purpose"]
fn driver_writes_garbage(_: &Ctx) -> Result<AssertResult> {
    let Err(error) = write_garbage();
    // The way that is left to say so.
    fs::write("/dev/kmsg", format!("<2>driver_writes_garbage: {error:#}"))?;
    Err(error)
}

fn write_garbage() -> Result<Infallible> {
    let device = console()?;
    let name = device.file_name().context("a device")?.to_owned();
    let config = fs::read(device.join("config"))?;
    // The device is not to be given pages that move.
    fs::write("/proc/sys/vm/compact_unevictable_allowed", "0")?;
    let rings = Rings::new()?;
    fs::write(Path::new(DRIVER).join("unbind"), name.as_encoded_bytes())?;

    let mut garbage = Garbage {
        state: 0x9e37_79b9_7f4a_7c15,
        bar: Bar::map(&device)?,
        config: File::options().write(true).open(device.join("config"))?,
        saved: config,
        writes: 0,
    };
    garbage.restore_config()?;
    garbage.registers();
    garbage.config_space()?;
    let mut live_rounds = 0;
    for _ in 0..ROUNDS {
        live_rounds += u32::from(garbage.queues(&rings)?);
    }
    garbage.write(COMMON + STATUS, 1, 0);
    garbage.restore_config()?;
    fs::write(Path::new(DRIVER).join("bind"), name.as_encoded_bytes())?;

    let mut result = AssertResult::default();
    let (writes, live) = (f64::from(garbage.writes), f64::from(live_rounds));
    result.push(CheckResult::at_least("garbage", writes, 5000.0, "writes"));
    let rounds = f64::from(ROUNDS);
    result.push(CheckResult::at_least("live queues", live, rounds, "rounds"));
    send_by_hand(&result)?;
    // Returning would send on a channel that is no more.
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

/// The PCI function of the console.
fn console() -> Result<PathBuf> {
    let devices = fs::read_dir("/sys/bus/pci/devices")?.flatten();
    let is_console = |device: &PathBuf| {
        fs::read_to_string(device.join("device")).is_ok_and(|id| id.trim() == "0x1043")
    };
    let mut paths = devices.map(|entry| entry.path());
    paths.find(is_console).context("no console")
}

fn send_by_hand(result: &AssertResult) -> Result<()> {
    let mut port = frame_port()?;
    let mut encoder = Encoder::default();
    let end = TestEnd {
        result: result.clone(),
        error: None,
    };
    for message in [Message::Result(end), Message::Bye] {
        port.write_all(&encoder.encode(&message)?)?;
    }
    Ok(())
}

fn frame_port() -> Result<File> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        for port in fs::read_dir("/sys/class/virtio-ports")?.flatten() {
            let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
            if name.trim_end() == FRAME_PORT_NAME
                && let Ok(port) = File::options()
                    .write(true)
                    .open(Path::new("/dev").join(port.file_name()))
            {
                return Ok(port);
            }
        }
        ensure!(Instant::now() < until, "the console does not come back");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The device's registers.
struct Bar {
    start: *mut u8,
    len: usize,
}

impl Bar {
    fn map(device: &Path) -> Result<Self> {
        let resource = File::options()
            .read(true)
            .write(true)
            .open(device.join("resource0"))?;
        let len = usize::try_from(resource.metadata()?.len())?;
        let bytes = NonZero::new(len).context("a BAR of no size")?;
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which stays for as long as the process lives.
        let start = unsafe { mmap(None, bytes, flags, MapFlags::MAP_SHARED, &resource, 0)? };
        Ok(Self {
            start: start.as_ptr().cast(),
            len,
        })
    }

    /// Writes the low `width` bytes of `value`: 1, 2, 4 or 8 at a multiple of that.
    fn write(&self, at: usize, width: usize, value: u64) {
        assert!(at.is_multiple_of(width) && at + width <= self.len);
        let [a, b, c, d, ..] = value.to_le_bytes();
        // SAFETY: aligned and within the mapping, as asserted; nothing in this process lives there.
        unsafe {
            let register = self.start.add(at);
            match width {
                1 => register.write_volatile(a),
                2 => register
                    .cast::<u16>()
                    .write_volatile(u16::from_le_bytes([a, b])),
                4 => register
                    .cast::<u32>()
                    .write_volatile(u32::from_le_bytes([a, b, c, d])),
                _ => register.cast::<u64>().write_volatile(value),
            }
        }
    }

    fn read_byte(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: within the mapping.
        unsafe { self.start.add(at).read_volatile() }
    }
}

/// Memory that the device is told about, with its physical addresses.
struct Rings {
    start: *mut u64,
    gpas: [u64; Self::PAGES],
}

impl Rings {
    /// Descriptors, available ring, used ring, data.
    const PAGES: usize = 4;
    const WORDS_PER_PAGE: usize = PAGE_BYTES / size_of::<u64>();

    fn new() -> Result<Self> {
        let bytes = NonZero::new(Self::PAGES * PAGE_BYTES).context("no pages")?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE | MapFlags::MAP_LOCKED;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which stays for as long as the process lives.
        let start = unsafe { mmap_anonymous(None, bytes, access, flags)? };
        let pagemap = File::open("/proc/self/pagemap")?;
        let mut gpas = [0; Self::PAGES];
        for (page, gpa) in (0_u64..).zip(&mut gpas) {
            let number = u64::try_from(start.as_ptr().addr() / PAGE_BYTES)? + page;
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, number * 8)?;
            // Bits 0-54 are the frame's number (Documentation/admin-guide/mm/pagemap.rst).
            let frame = u64::from_le_bytes(entry) & ((1 << 55) - 1);
            ensure!(frame != 0, "the kernel tells no physical addresses");
            *gpa = frame << 12;
        }
        Ok(Self {
            start: start.as_ptr().cast(),
            gpas,
        })
    }

    fn put(&self, page: usize, word: usize, value: u64) {
        assert!(page < Self::PAGES && word < Self::WORDS_PER_PAGE);
        // SAFETY: within the mapping. The device may read it at any time, hence volatile.
        unsafe {
            self.start
                .add(page * Self::WORDS_PER_PAGE + word)
                .write_volatile(value);
        }
    }
}

/// A stream of garbage, the same in every run.
struct Garbage {
    state: u64,
    bar: Bar,
    config: File,
    saved: Vec<u8>,
    writes: u32,
}

impl Garbage {
    /// xorshift64.
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).unwrap_or(u64::MAX);
        choices[usize::try_from(self.below(count)).unwrap_or(0)]
    }

    fn write(&mut self, at: usize, width: usize, value: u64) {
        self.bar.write(at, width, value);
        self.writes += 1;
    }

    /// Every register of the BAR in every width, with the rest of each page looked into.
    fn registers(&mut self) {
        for page in (0..self.bar.len).step_by(PAGE_BYTES) {
            for at in (page..page + 128).step_by(8).chain([page + PAGE_BYTES - 8]) {
                for width in [1, 2, 4, 8] {
                    for value in [0, u64::MAX, self.next()] {
                        let into = usize::try_from(self.below(8)).unwrap_or(0) / width * width;
                        self.write(at + into, width, value);
                    }
                }
                self.bar.read_byte(at);
            }
        }
    }

    /// Configuration space, the BAR's place and the switch of MSI-X included.
    fn config_space(&mut self) -> Result<()> {
        for at in 0..self.saved.len().min(256) {
            let garbage = self.next().to_le_bytes();
            let widest = [4, 1, 2, 1][at % 4];
            self.config
                .write_all_at(&garbage[..widest], u64::try_from(at)?)?;
            self.writes += 1;
            // Wherever the BAR is now.
            self.write(COMMON + QUEUE_SELECT, 2, u64::MAX);
            self.bar.read_byte(at);
            if at % 16 == 15 {
                self.restore_config()?;
            }
        }
        self.restore_config()
    }

    /// Memory on, and the BAR where the kernel has mapped it.
    fn restore_config(&self) -> Result<()> {
        self.config.write_all_at(&self.saved[0x10..0x14], 0x10)?;
        self.config.write_all_at(&[0b110, 0b100], 4)?;
        // MSI-X off: what the device has to say interrupts nobody.
        self.config.write_all_at(&[0], 0x43)?;
        Ok(())
    }

    /// One round: a proper handshake, then queues that make no sense. Whether the device was live.
    fn queues(&mut self, rings: &Rings) -> Result<bool> {
        const ACKNOWLEDGE_AND_DRIVER: u64 = 3;
        const FEATURES_OK: u64 = 8;
        const DRIVER_OK: u64 = 4;
        self.write(COMMON + STATUS, 1, 0);
        ensure!(self.bar.read_byte(COMMON + STATUS) == 0, "no reset");
        self.write(COMMON + STATUS, 1, ACKNOWLEDGE_AND_DRIVER);
        // Multiport, and version 1.
        for (select, features) in [(0, 1 << 1), (1, 1)] {
            self.write(COMMON + FEATURE_SELECT, 4, select);
            self.write(COMMON + FEATURES, 4, features);
        }
        self.write(COMMON + STATUS, 1, ACKNOWLEDGE_AND_DRIVER | FEATURES_OK);
        self.vectors()?;
        self.fill(rings);
        for queue in 0..QUEUES {
            self.queue(rings, queue);
        }
        self.write(
            COMMON + STATUS,
            1,
            ACKNOWLEDGE_AND_DRIVER | FEATURES_OK | DRIVER_OK,
        );
        let live = self.bar.read_byte(COMMON + STATUS) & 4 != 0;
        for _ in 0..40 {
            let queue = self.below(u64::from(QUEUES) + 1);
            self.write(NOTIFY + usize::try_from(queue)? * 4, 4, queue);
            // While the device may be at it.
            self.descriptor(rings);
            self.available(rings);
        }
        self.restore_config()?;
        Ok(live)
    }

    /// Messages to a CPU that there is none of: one that arrived could be an NMI or INIT.
    fn vectors(&mut self) -> Result<()> {
        const NOBODY: u64 = 0xfe << 12;
        for vector in 0..QUEUES.into() {
            let address = self.next() & !0xf_f00c | NOBODY;
            let data = self.next();
            self.write(MSIX_TABLE + vector * 16, 8, address);
            self.write(MSIX_TABLE + vector * 16 + 8, 4, data);
            self.write(MSIX_TABLE + vector * 16 + 12, 4, 0);
        }
        Ok(self.config.write_all_at(&[0x80], 0x43)?)
    }

    fn queue(&mut self, rings: &Rings, queue: u16) {
        self.write(COMMON + QUEUE_SELECT, 2, queue.into());
        let size = self.one_of(&[256, 256, 256, 16, 0, 3, 0xffff]);
        self.write(COMMON + QUEUE_SIZE, 2, size);
        let vector = self.one_of(&[0, 1, 6, 7, 0xffff]);
        self.write(COMMON + QUEUE_VECTOR, 2, vector);
        for (at, gpa) in QUEUE_ADDRESSES.into_iter().zip(rings.gpas) {
            let address = self.address(gpa);
            self.write(COMMON + at, 4, address & 0xffff_ffff);
            self.write(COMMON + at + 4, 4, address >> 32);
        }
        self.write(COMMON + QUEUE_ENABLE, 2, 1);
    }

    /// Mostly `gpa`; else off by one, no memory, or the device itself. Never memory of others, which the
    /// device would write to.
    fn address(&mut self, gpa: u64) -> u64 {
        let bar = u64::from(u32::from_le_bytes([
            0,
            self.saved[0x11],
            self.saved[0x12],
            self.saved[0x13],
        ]));
        self.one_of(&[
            gpa,
            gpa,
            gpa,
            gpa,
            gpa,
            gpa,
            gpa + 1,
            bar,
            1 << 40,
            NOTHING - 15,
            0xfee0_0000,
        ])
    }

    fn fill(&mut self, rings: &Rings) {
        for _ in 0..256 {
            self.descriptor(rings);
        }
        for word in 0..Rings::WORDS_PER_PAGE {
            let heads = self.next() & 0x00ff_00ff_00ff_00ff;
            rings.put(1, word, heads);
        }
        self.available(rings);
    }

    /// Flags and index, of which the device is to believe neither; the first two heads.
    fn available(&mut self, rings: &Rings) {
        let index = self.one_of(&[1, 2, 17, 255, 256, 257, 0x7fff, 0xffff]);
        let flags = self.one_of(&[0, 1, 0xffff]);
        let heads = self.next() & 0x01ff_00ff_0000_0000;
        rings.put(1, 0, flags | index << 16 | heads);
    }

    /// One descriptor: address, length, flags (next, write, indirect, garbage) and the next.
    fn descriptor(&mut self, rings: &Rings) {
        let at = usize::try_from(self.below(256)).unwrap_or(0);
        let data = rings.gpas[3];
        let address = self.address(data);
        let length = self.one_of(&[0, 1, 8, 16, 4096, 0x7fff_ffff, 0xffff_ffff]);
        let flags = self.one_of(&[0, 0, 1, 1, 1, 2, 3, 4, 5, 7, 0xffff]);
        let own = u64::try_from(at).unwrap_or(0);
        let next = self.one_of(&[own, own + 1, 0, 255, 256, 0xffff]);
        rings.put(0, at * 2, address);
        rings.put(0, at * 2 + 1, length | flags << 32 | next << 48);
    }
}
