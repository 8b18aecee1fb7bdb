//! The guest's end of the framed channel.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_scenario::Host;
use ktstr_wire::frame::OversizeError;
use ktstr_wire::{Encoder, FRAME_PORT_NAME, Message, Request};

const PORTS: &str = "/sys/class/virtio-ports";

/// The kernel announces ports from a work item, after PID 1 may already run.
const PORT_DEADLINE: Duration = Duration::from_secs(20);

/// The link can't be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(
        "no virtio-console port named {FRAME_PORT_NAME} within {} s: the kernel lacks virtio_console or \
         virtio_pci, as built-in or as a module",
        PORT_DEADLINE.as_secs()
    )]
    NoPort,
    #[error("opening {path}")]
    Open { path: String, source: io::Error },
    #[error("writing to the host")]
    Write(#[source] io::Error),
    #[error("reading the host's answer")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Oversize(#[from] OversizeError),
}

impl Host for Link {
    fn capture_snapshot(&self, label: &str) -> io::Result<bool> {
        let request = Request::Snapshot(label.to_owned());
        self.ask(request).map_err(io::Error::other)
    }

    fn write_global(&self, path: &str, value: i128) -> io::Result<bool> {
        let path = path.to_owned();
        let request = Request::WriteGlobal { path, value };
        self.ask(request).map_err(io::Error::other)
    }
}

/// Sends messages to the host, from any thread, one frame at a time.
#[derive(Debug)]
pub(crate) struct Link {
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    port: File,
    encoder: Encoder,
}

impl Link {
    /// Opens the port, waiting for the kernel to find it.
    pub(crate) fn open() -> Result<Self, LinkError> {
        let path = wait_for_port()?;
        let port = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| LinkError::Open {
                path: path.display().to_string(),
                source,
            })?;
        let encoder = Encoder::default();
        Ok(Self {
            writer: Mutex::new(Writer { port, encoder }),
        })
    }

    /// Sends one message; returns when the host's side of the port has it all.
    pub(crate) fn send(&self, message: &Message) -> Result<(), LinkError> {
        let mut writer = self.lock();
        let frame = writer.encoder.encode(message)?;
        writer.port.write_all(&frame).map_err(LinkError::Write)
    }

    /// Asks the host for something, and returns when it has answered. Says whether it could.
    pub(crate) fn ask(&self, request: Request) -> Result<bool, LinkError> {
        // Nobody else may send meanwhile, so the next answer is to this.
        let mut writer = self.lock();
        let frame = writer.encoder.encode(&Message::Request(request))?;
        writer.port.write_all(&frame).map_err(LinkError::Write)?;
        let mut answer = [0];
        let read = writer.port.read_exact(&mut answer);
        read.map_err(LinkError::Read)?;
        Ok(answer[0] == Message::DONE)
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic ends the machine, so a poisoned lock is seen only on the way out.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait_for_port() -> Result<PathBuf, LinkError> {
    let deadline = Instant::now() + PORT_DEADLINE;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(path) = find_port() {
            return Ok(path);
        }
        if Instant::now() >= deadline {
            return Err(LinkError::NoPort);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn find_port() -> Option<PathBuf> {
    let device = fs::read_dir(PORTS).ok()?.flatten().find(|port| {
        fs::read_to_string(port.path().join("name"))
            .is_ok_and(|name| name.trim_end() == FRAME_PORT_NAME)
    })?;
    let node = PathBuf::from("/dev").join(device.file_name());
    node.exists().then_some(node)
}
