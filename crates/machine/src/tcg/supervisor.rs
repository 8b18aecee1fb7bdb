//! The thread of a machine: it starts QEMU, reads all that QEMU says, and waits for its end.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::read;
use serde_json::Value;

use super::end::{Evidence, Shutdown};
use super::process;
use super::qmp::{self, Message};
use super::registers;
use crate::console::ConsoleLog;
use crate::engine::OnEnd;
use crate::machine::{End, KillReason};
use crate::panic_latch::PanicLatch;

/// How long a panicking kernel may take to print its report and reset, before we end it.
const PANIC_GRACE: Duration = Duration::from_secs(2);

/// How long QEMU may take to say where the vCPUs are before the watchdog's kill.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Read from one stream before the others get their turn.
const CHUNK_BYTES: usize = 64 << 10;

/// What is kept of QEMU's standard error.
const STDERR_BYTES: usize = 16 << 10;

/// What the machine's handle and its thread share.
pub(crate) struct Shared {
    pub(crate) com1: ConsoleLog,
    pub(crate) com2: ConsoleLog,
    state: Mutex<State>,
    changed: Condvar,
    wake: EventFd,
}

#[derive(Default)]
struct State {
    stop: Option<KillReason>,
    /// Why QEMU is of no more use.
    trouble: Option<String>,
    end: Option<End>,
    /// QEMU's answer with the registers of the vCPUs, from before the watchdog's kill.
    last_registers: Option<Value>,
    next_id: u64,
    waiting: HashMap<u64, Sender<Result<Value, String>>>,
}

impl Shared {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Arc::new(Self {
            com1: ConsoleLog::new(),
            com2: ConsoleLog::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
            wake: EventFd::from_flags(flags)?,
        }))
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// Waits at most `timeout` for the end.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<End> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), timeout, |state| state.end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.end.clone()
    }

    /// Asks the thread to end the machine. The first reason counts.
    pub(crate) fn stop(&self, reason: KillReason) {
        self.lock().stop.get_or_insert(reason);
        // Fails only when the counter is full, and then the thread is awake already.
        let _ = self.wake.write(1);
    }

    /// Has the thread end a machine that can't be told to run on.
    pub(crate) fn give_up(&self, trouble: String) {
        self.lock().trouble.get_or_insert(trouble);
        let _ = self.wake.write(1);
    }

    /// Why the machine was given up.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// QEMU's answer with the registers, from before the watchdog's kill.
    pub(crate) fn last_registers(&self) -> Option<Value> {
        self.lock().last_registers.clone()
    }

    /// Tells everyone how the machine ended.
    pub(crate) fn note_end(&self, end: End) {
        let mut state = self.lock();
        state.end = Some(end);
        // Whoever waits for a reply learns by the closed channel that none will come.
        state.waiting.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// A number for a request, and where its reply will come; `None` once the machine has ended.
    pub(crate) fn expect_reply(&self) -> Option<(u64, Receiver<Result<Value, String>>)> {
        let mut state = self.lock();
        if state.end.is_some() {
            return None;
        }
        // The thread's own first request has number 0.
        state.next_id += 1;
        let id = state.next_id;
        let (sender, receiver) = mpsc::channel();
        state.waiting.insert(id, sender);
        Some((id, receiver))
    }

    /// Nobody waits for the reply with this number any more.
    pub(crate) fn forget_reply(&self, id: u64) {
        self.lock().waiting.remove(&id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("com1", &self.com1)
            .field("com2", &self.com2)
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

/// The streams that this thread reads.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) qmp: UnixStream,
    pub(crate) com1: OwnedFd,
    pub(crate) com2: OwnedFd,
    pub(crate) stderr: UnixStream,
}

/// The machine's thread, from QEMU's start to its end.
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    streams: Streams,
    child: Child,
    pidfd: OwnedFd,
    qmp: qmp::Reader,
    panic: PanicLatch,
    panic_deadline: Option<Instant>,
    evidence: Evidence,
}

impl Supervisor {
    /// Takes over a QEMU that this thread has just started.
    pub(crate) fn new(shared: Arc<Shared>, streams: Streams, mut child: Child) -> io::Result<Self> {
        let pidfd = match process::pidfd(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        Ok(Self {
            shared,
            streams,
            child,
            pidfd,
            qmp: qmp::Reader::default(),
            panic: PanicLatch::default(),
            panic_deadline: None,
            evidence: Evidence::default(),
        })
    }

    /// Runs until QEMU is gone, then tells everyone.
    pub(crate) fn run(mut self, on_end: OnEnd) {
        let outcome = self.watch();
        if let Err(error) = outcome {
            let trouble = &mut self.evidence.trouble;
            trouble.get_or_insert(format!("the machine's thread can't go on: {error}"));
        }
        let status = self.reap();
        self.drain();
        self.panic.finish();
        let end = self.evidence.judge(status, self.panic.text());
        self.shared.note_end(end.clone());
        on_end(end);
    }

    /// Reads and follows events until there is a reason to end QEMU, or it has ended.
    fn watch(&mut self) -> io::Result<()> {
        // QEMU takes commands only after this one, and answers it once the machine is set up.
        let hello = qmp::request("qmp_capabilities", None, 0);
        (&self.streams.qmp).write_all(&hello)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut open = [true; 4];
        loop {
            if self.has_reason_to_end() {
                if self.evidence.stop == Some(KillReason::Watchdog) {
                    self.look_where_it_is(&mut buffer);
                }
                return Ok(());
            }
            let ready = self.poll(open)?;
            if ready.child_ended {
                return Ok(());
            }
            for (stream, open) in open.iter_mut().enumerate() {
                if ready.streams[stream] && *open {
                    *open = self.read_once(stream, &mut buffer)? != Read::Ended;
                }
            }
        }
    }

    /// Asks for the registers of the vCPUs, which a QEMU that is gone can't be asked for. It is not waited for longer
    /// than [`LAST_LOOK`], whatever it does.
    fn look_where_it_is(&mut self, buffer: &mut [u8]) {
        let until = Instant::now() + LAST_LOOK;
        let Some((id, reply)) = self.shared.expect_reply() else {
            return;
        };
        let (command, arguments) = registers::command();
        let request = qmp::request(command, Some(&arguments), id);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut open = send(self.streams.qmp.as_raw_fd(), &request, flags) == Ok(request.len());
        while open && self.evidence.trouble.is_none() {
            if let Ok(answer) = reply.try_recv() {
                self.shared.lock().last_registers = answer.ok();
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let timeout = PollTimeout::try_from(left.max(Duration::from_millis(1)));
            let mut fds = [PollFd::new(self.streams.qmp.as_fd(), PollFlags::POLLIN)];
            open = match poll(&mut fds, timeout.unwrap_or(PollTimeout::ZERO)) {
                Ok(0) | Err(Errno::EINTR) => true,
                Ok(_) => !matches!(self.read_once(0, buffer), Ok(Read::Ended) | Err(_)),
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
        if self.panic.is_set() {
            let deadline = *self
                .panic_deadline
                .get_or_insert_with(|| Instant::now() + PANIC_GRACE);
            return Instant::now() >= deadline;
        }
        self.evidence.stop = self.shared.lock().stop;
        self.evidence.stop.is_some()
    }

    fn poll(&self, open: [bool; 4]) -> io::Result<Ready> {
        let timeout = match self.panic_deadline {
            None => PollTimeout::NONE,
            // At least a millisecond, so that a deadline less than one ahead is not polled for in a loop.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.max(Duration::from_millis(1)))
                    .unwrap_or(PollTimeout::MAX)
            }
        };
        // A stop while the kernel panics changes nothing: so don't be woken by it again and again.
        let wake = if self.panic.is_set() {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let streams = self.fds();
        let flags = |stream: usize| {
            if open[stream] {
                PollFlags::POLLIN
            } else {
                PollFlags::empty()
            }
        };
        let mut fds = [
            PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.wake.as_fd(), wake),
            PollFd::new(streams[0].as_fd(), flags(0)),
            PollFd::new(streams[1].as_fd(), flags(1)),
            PollFd::new(streams[2].as_fd(), flags(2)),
            PollFd::new(streams[3].as_fd(), flags(3)),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(Ready {
            child_ended: is_ready(&fds[0]),
            streams: [2, 3, 4, 5].map(|at| is_ready(&fds[at])),
        })
    }

    fn fds(&self) -> [BorrowedFd<'_>; 4] {
        [
            self.streams.qmp.as_fd(),
            self.streams.com1.as_fd(),
            self.streams.com2.as_fd(),
            self.streams.stderr.as_fd(),
        ]
    }

    /// Reads what is there, at most a buffer full.
    fn read_once(&mut self, stream: usize, buffer: &mut [u8]) -> io::Result<Read> {
        let fd = self.fds()[stream];
        let read = match stream {
            // Pipes, which don't wait.
            1 | 2 => read(fd, buffer),
            _ => recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
        };
        let len = match read {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(Read::Ended),
            Ok(len) => len,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Read::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let bytes = &buffer[..len];
        match stream {
            0 => self.follow(bytes),
            1 => {
                self.shared.com1.push(bytes);
                self.panic.feed(bytes);
            }
            2 => self.shared.com2.push(bytes),
            _ => {
                let room = STDERR_BYTES - self.evidence.stderr.len();
                self.evidence
                    .stderr
                    .extend_from_slice(&bytes[..len.min(room)]);
            }
        }
        Ok(Read::Bytes)
    }

    /// Acts on messages of QEMU's control stream.
    fn follow(&mut self, bytes: &[u8]) {
        let messages = match self.qmp.feed(bytes) {
            Ok(messages) => messages,
            Err(error) => {
                self.evidence.trouble.get_or_insert(error.to_string());
                return;
            }
        };
        for message in messages {
            match message {
                Message::Greeting => {}
                Message::Reply {
                    id: Some(0),
                    result,
                } => match result {
                    Ok(_) => self.evidence.started = true,
                    Err(error) => {
                        self.evidence.trouble.get_or_insert(error);
                    }
                },
                Message::Reply { id, result } => {
                    let waiting = id.and_then(|id| self.shared.lock().waiting.remove(&id));
                    if let Some(sender) = waiting {
                        // The one who asked may have given up.
                        let _ = sender.send(result);
                    }
                }
                Message::Event { name, data } if name == "SHUTDOWN" => {
                    self.evidence
                        .shutdown
                        .get_or_insert(Shutdown::from_reason(data.reason.as_deref()));
                }
                Message::Event { .. } => {}
            }
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
        let mut buffer = vec![0; CHUNK_BYTES];
        for stream in 0..self.fds().len() {
            while let Ok(Read::Bytes) = self.read_once(stream, &mut buffer) {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Bytes,
    Nothing,
    Ended,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    child_ended: bool,
    streams: [bool; 4],
}
