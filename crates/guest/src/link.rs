//! The guest's end of the framed channel.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_scenario::{Host, Phase};
use ktstr_wire::frame::OversizeError;
use ktstr_wire::{
    Decoder, Encoder, FRAME_PORT_NAME, FrameError, HostMessage, Job, Message, Request,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::end::power_off;

const PORTS: &str = "/sys/class/virtio-ports";

/// The kernel announces ports from a work item, after PID 1 may already run.
const PORT_DEADLINE: Duration = Duration::from_secs(20);

/// How long the host may take to send the job once it has been told that the guest is there.
const JOB_DEADLINE: Duration = Duration::from_secs(60);

/// Bytes that are read from the port at once: the most that the kernel hands out (port_fops_read() in
/// drivers/char/virtio_console.c reads from one buffer, which has a page).
const READ_BYTES: usize = 4 << 10;

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
    #[error("reading from the host")]
    Read(#[source] io::Error),
    #[error("the host closed its end of the link")]
    Closed,
    #[error("a frame from the host was damaged")]
    Damaged(#[source] FrameError),
    #[error("the host sent no {what} within {} s", within.as_secs())]
    Late {
        what: &'static str,
        within: Duration,
    },
    #[error("the host sent a message other than the {wanted} that was due")]
    Unexpected { wanted: &'static str },
    #[error(transparent)]
    Oversize(#[from] OversizeError),
}

impl Host for Link {
    fn phase(&self, phase: Phase, begins: bool) -> io::Result<()> {
        let sent = self.send(&Message::Phase { phase, begins });
        sent.map_err(io::Error::other)
    }

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

/// Sends messages to the host, from any thread, one frame at a time, and takes what it sends.
#[derive(Debug)]
pub(crate) struct Link {
    writer: Mutex<Writer>,
    reader: Mutex<Reader>,
}

#[derive(Debug)]
struct Writer {
    port: File,
    encoder: Encoder,
}

#[derive(Debug)]
struct Reader {
    port: File,
    decoder: Decoder<HostMessage>,
}

impl Link {
    /// Opens the port, waiting for the kernel to find it.
    pub(crate) fn open() -> Result<Self, LinkError> {
        let path = wait_for_port()?;
        let port = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .and_then(Self::over);
        port.map_err(|source| LinkError::Open {
            path: path.display().to_string(),
            source,
        })
    }

    fn over(port: File) -> io::Result<Self> {
        let reader = Reader {
            port: port.try_clone()?,
            decoder: Decoder::default(),
        };
        let writer = Writer {
            port,
            encoder: Encoder::default(),
        };
        Ok(Self {
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
        })
    }

    /// Sends one message; returns when the host's side of the port has it all.
    pub(crate) fn send(&self, message: &Message) -> Result<(), LinkError> {
        lock(&self.writer).send(message)
    }

    /// Waits for the job.
    pub(crate) fn receive_job(&self) -> Result<Job, LinkError> {
        let deadline = Instant::now() + JOB_DEADLINE;
        match lock(&self.reader).next(Some(deadline))? {
            Some(HostMessage::Job(job)) => Ok(*job),
            Some(_) => Err(LinkError::Unexpected { wanted: "job" }),
            None => Err(LinkError::Late {
                what: "job",
                within: JOB_DEADLINE,
            }),
        }
    }

    /// Asks the host for something, and returns when it has answered. Says whether it could. If the answer is damaged,
    /// this guest ends.
    pub(crate) fn ask(&self, request: Request) -> Result<bool, LinkError> {
        self.exchange(request).inspect_err(|error| {
            if let LinkError::Damaged(damage) = error {
                self.end_for(damage);
            }
        })
    }

    /// Tells that a frame from the host was damaged, and ends the machine: what it was meant to do is not known.
    pub(crate) fn end_for(&self, damage: &FrameError) {
        // If that does not get out either, the machine's end is all that the host sees.
        let _ = self.send(&Message::LinkDamaged(damage.to_string()));
        power_off()
    }

    fn exchange(&self, request: Request) -> Result<bool, LinkError> {
        // Nobody else may send until it is answered, so the next answer is to this.
        let mut writer = lock(&self.writer);
        let is_at_a_pause = request.is_at_a_pause();
        writer.send(&Message::Request(request))?;
        if is_at_a_pause {
            // In a kernel that locks ports (lockdown(7)) it fails, and the host pauses the machine a little later.
            #[cfg(target_arch = "x86_64")]
            let _ = crate::io_ports::pause_machine();
        }
        match lock(&self.reader).next(None)? {
            Some(HostMessage::Answer { done }) => Ok(done),
            _ => Err(LinkError::Unexpected { wanted: "answer" }),
        }
    }
}

impl Writer {
    fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        let frame = self.encoder.encode(message)?;
        self.port.write_all(&frame).map_err(LinkError::Write)
    }
}

impl Reader {
    /// The next message; `None` if it has not come by the deadline.
    fn next(&mut self, deadline: Option<Instant>) -> Result<Option<HostMessage>, LinkError> {
        let mut piece = [0; READ_BYTES];
        loop {
            if let Some(found) = self.decoder.next() {
                return found.map(Some).map_err(LinkError::Damaged);
            }
            if let Some(deadline) = deadline
                && !readable_by(&self.port, deadline)?
            {
                return Ok(None);
            }
            match self.port.read(&mut piece) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LinkError::Read(error)),
            }
        }
    }
}

/// Waits until there is something to read; says whether there is.
fn readable_by(port: &impl AsFd, deadline: Instant) -> Result<bool, LinkError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(port.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(LinkError::Read(errno.into())),
        }
    }
}

fn lock<T>(side: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the machine, so a poisoned lock is seen only on the way out.
    side.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use ktstr_wire::DumpMoment;

    use super::*;

    /// A link, and the host's end of it.
    fn link() -> (Link, UnixStream) {
        let (ours, host) = UnixStream::pair().expect("sockets");
        let link = Link::over(File::from(OwnedFd::from(ours))).expect("a duplicate");
        (link, host)
    }

    fn frames(messages: &[HostMessage]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let frames = messages.iter().map(|message| encoder.encode(message));
        frames.flat_map(|frame| frame.expect("small")).collect()
    }

    fn ask(link: &Link) -> Result<bool, LinkError> {
        link.exchange(Request::Dump(DumpMoment::BodyEnded))
    }

    const ANSWERS: [HostMessage; 2] = [
        HostMessage::Answer { done: true },
        HostMessage::Answer { done: false },
    ];

    #[test]
    fn answers_come_in_the_order_of_the_requests() {
        let (link, mut host) = link();
        host.write_all(&frames(&ANSWERS)).expect("room");
        assert!(ask(&link).expect("answered"));
        assert!(!ask(&link).expect("answered"));
        drop(host);
        assert!(matches!(ask(&link), Err(LinkError::Write(_))));
    }

    #[test]
    fn a_damaged_answer_is_no_answer() {
        let (link, mut host) = link();
        let mut stream = frames(&ANSWERS);
        let last = stream.len() - 1;
        stream[last] ^= 1;
        host.write_all(&stream).expect("room");
        assert!(ask(&link).expect("answered"));
        let error = ask(&link).expect_err("damaged");
        assert!(matches!(&error, LinkError::Damaged(_)), "{error}");
    }

    #[test]
    fn what_is_no_job_is_not_taken_for_one() {
        let (link, mut host) = link();
        host.write_all(&frames(&ANSWERS)).expect("room");
        let error = link.receive_job().expect_err("an answer");
        assert!(matches!(&error, LinkError::Unexpected { wanted: "job" }));
        drop(host);
        let mut reader = lock(&link.reader);
        assert_eq!(reader.next(None).expect("sent"), Some(ANSWERS[1].clone()));
        let error = reader.next(None).expect_err("closed");
        assert!(matches!(&error, LinkError::Closed), "{error}");
    }

    #[test]
    fn a_message_that_does_not_come_is_not_waited_for_longer() {
        let (link, _host) = link();
        let none = lock(&link.reader).next(Some(Instant::now())).expect("open");
        assert_eq!(none, None);
    }
}
