//! The thread of a machine: it reads all that QEMU says, and waits for its end.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use super::end::{Evidence, Shutdown};
use super::process;
use super::qmp::{self, Message};
use super::registers;
use super::shared::{Reply, Shared};
use crate::engine::{MachineEvent, OnEvent};
use crate::machine::StopReason;
use crate::readiness::wait_readable;
use crate::serial_watch::{CHUNK_BYTES, SerialWatch};

/// How long QEMU may take to say where the vCPUs are before the watchdog's kill.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// What is kept of QEMU's standard error.
const MAX_STDERR_BYTES: usize = 16 << 10;

/// The streams that this thread reads.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) qmp: UnixStream,
    pub(crate) com1: OwnedFd,
    pub(crate) com2: OwnedFd,
    pub(crate) stderr: UnixStream,
}

/// What watches QEMU from its start to its end.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    /// `None` once QEMU has closed it.
    qmp: Option<UnixStream>,
    stderr: Option<UnixStream>,
    serial: SerialWatch,
    child: Child,
    pidfd: OwnedFd,
    qmp_reader: qmp::Reader,
    evidence: Evidence,
    on_event: OnEvent,
    buffer: Vec<u8>,
}

impl Supervisor {
    /// Takes over a QEMU that this thread has just started.
    pub(crate) fn new(
        shared: Arc<Shared>,
        streams: Streams,
        mut child: Child,
        on_event: OnEvent,
    ) -> io::Result<Self> {
        let ports = [Some(streams.com1), Some(streams.com2)];
        let parts = SerialWatch::new(ports, shared.logs.clone())
            .and_then(|serial| Ok((serial, process::pidfd(&child)?)));
        let (serial, pidfd) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        Ok(Self {
            shared,
            qmp: Some(streams.qmp),
            stderr: Some(streams.stderr),
            serial,
            child,
            pidfd,
            qmp_reader: qmp::Reader::default(),
            evidence: Evidence::default(),
            on_event,
            buffer: vec![0; CHUNK_BYTES],
        })
    }

    /// Runs until QEMU is gone, then tells everyone.
    pub(crate) fn run(mut self) {
        let outcome = self.watch();
        if let Err(error) = outcome {
            let trouble = &mut self.evidence.trouble;
            trouble.get_or_insert(format!("the machine's thread can't go on: {error}"));
        }
        let status = self.reap();
        self.drain();
        let end = self.evidence.judge(status, self.serial.into_panic_text());
        self.shared.note_end(end.clone());
        (self.on_event)(MachineEvent::Ended(end));
    }

    /// Reads and follows events until there is a reason to end QEMU, or it has ended.
    fn watch(&mut self) -> io::Result<()> {
        // QEMU takes commands only after this one, and answers it once the machine is set up.
        let hello = qmp::request("qmp_capabilities", None, 0);
        if let Some(mut qmp) = self.qmp.as_ref() {
            qmp.write_all(&hello)?;
        }
        loop {
            if self.has_reason_to_end() {
                if self.evidence.stop == Some(StopReason::Watchdog) {
                    self.look_where_it_is();
                }
                return Ok(());
            }
            // A stop while the kernel panics changes nothing: so don't be woken by it again and again.
            let wake = (!self.serial.is_panicking()).then(|| self.shared.wake_fd());
            let [com1, com2] = self.serial.fds();
            let fds = [
                Some(self.pidfd.as_fd()),
                wake,
                self.qmp.as_ref().map(|qmp| qmp.as_fd()),
                com1,
                com2,
                self.stderr.as_ref().map(|stderr| stderr.as_fd()),
                self.shared.pause_fd(),
            ];
            let ready = wait_readable(fds, self.serial.panic_deadline())?;
            let [has_ended, _, qmp, com1, com2, stderr, paused] = ready;
            if has_ended {
                return Ok(());
            }
            if qmp {
                self.read_qmp()?;
            }
            self.serial.read([com1, com2])?;
            if stderr {
                self.read_stderr()?;
            }
            if paused && self.shared.take_notice_of_hold()? {
                (self.on_event)(MachineEvent::Paused);
            }
        }
    }

    /// Asks for the registers of the vCPUs, which a QEMU that is gone can't be asked for. It is not waited for longer
    /// than [`LAST_LOOK`], whatever it does.
    fn look_where_it_is(&mut self) {
        let until = Instant::now() + LAST_LOOK;
        let Some((id, reply)) = self.shared.expect_reply() else {
            return;
        };
        let (command, arguments) = registers::command();
        let request = qmp::request(command, Some(&arguments), id);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = self
            .qmp
            .as_ref()
            .map(|qmp| send(qmp.as_raw_fd(), &request, flags));
        let mut is_open = sent == Some(Ok(request.len()));
        while is_open && self.evidence.trouble.is_none() && Instant::now() < until {
            if let Ok(answer) = reply.try_recv() {
                if let Reply::Done(answer) = answer {
                    self.shared.note_last_registers(answer);
                }
                return;
            }
            let qmp = self.qmp.as_ref().map(|qmp| qmp.as_fd());
            is_open = match wait_readable([qmp], Some(until)) {
                Ok([true]) => self.read_qmp().is_ok() && self.qmp.is_some(),
                Ok([false]) => true,
                Err(_) => false,
            };
        }
    }

    fn has_reason_to_end(&mut self) -> bool {
        if let Some(trouble) = self.shared.trouble() {
            self.evidence.trouble.get_or_insert(trouble);
        }
        if self.evidence.shutdown.is_some() || self.evidence.trouble.is_some() {
            return true;
        }
        if self.serial.is_panicking() {
            return self.serial.has_panicked_for_long();
        }
        self.evidence.stop = self.shared.ended.stop_reason();
        self.evidence.stop.is_some()
    }

    fn read_qmp(&mut self) -> io::Result<Read> {
        let read = read_once(&mut self.qmp, &mut self.buffer)?;
        if let Read::Bytes(len) = read {
            match self.qmp_reader.feed(&self.buffer[..len]) {
                Ok(messages) => messages
                    .into_iter()
                    .for_each(|message| self.follow(message)),
                Err(error) => _ = self.evidence.trouble.get_or_insert(error.to_string()),
            }
        }
        Ok(read)
    }

    fn read_stderr(&mut self) -> io::Result<Read> {
        let read = read_once(&mut self.stderr, &mut self.buffer)?;
        if let Read::Bytes(len) = read {
            let kept = &mut self.evidence.stderr;
            let room = MAX_STDERR_BYTES - kept.len();
            kept.extend_from_slice(&self.buffer[..len.min(room)]);
        }
        Ok(read)
    }

    /// Acts on a message of QEMU's control stream.
    fn follow(&mut self, message: Message) {
        match message {
            Message::Reply {
                id: Some(0),
                result: Ok(_),
            } => self.evidence.started = true,
            Message::Reply {
                id: Some(0),
                result: Err(error),
            } => _ = self.evidence.trouble.get_or_insert(error),
            Message::Reply {
                id: Some(id),
                result,
            } => {
                let reply = result.map_or_else(Reply::Refused, Reply::Done);
                self.shared.reply(id, reply);
            }
            Message::Event { name, data } if name == "SHUTDOWN" => {
                let shutdown = Shutdown::from_reason(data.reason.as_deref());
                self.evidence.shutdown.get_or_insert(shutdown);
            }
            Message::Greeting | Message::Reply { id: None, .. } | Message::Event { .. } => {}
        }
    }

    /// Ends QEMU if need be, and waits for it. There is nothing in it to be saved.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }

    /// Reads what the streams still hold. QEMU is gone, so it is a finite amount.
    fn drain(&mut self) {
        while let Ok(Read::Bytes(_)) = self.read_qmp() {}
        self.serial.drain();
        while let Ok(Read::Bytes(_)) = self.read_stderr() {}
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Bytes(usize),
    Nothing,
    Ended,
}

/// Reads what is there, at most a buffer full. A stream that has ended is closed.
fn read_once(stream: &mut Option<UnixStream>, buffer: &mut [u8]) -> io::Result<Read> {
    let Some(open) = stream else {
        return Ok(Read::Ended);
    };
    match recv(open.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(0) | Err(Errno::ECONNRESET) => {
            *stream = None;
            Ok(Read::Ended)
        }
        Ok(len) => Ok(Read::Bytes(len)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Read::Nothing),
        Err(errno) => Err(errno.into()),
    }
}
