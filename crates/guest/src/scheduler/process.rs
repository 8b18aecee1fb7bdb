//! The scheduler's process, and what it prints.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_wire::Message;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, read};

use crate::link::{Link, LinkError};

const CHUNK_BYTES: usize = 16 << 10;

/// How often a process is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that the one who ends it and the one who watches it share.
pub(super) type SharedProcess = Arc<Mutex<Option<Process>>>;

pub(super) fn lock(process: &SharedProcess) -> MutexGuard<'_, Option<Process>> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn ended_with(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("its process ended with exit status {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("its process was killed by {signal}"),
            Err(_) => format!("its process was killed by signal {signal}"),
        },
        (None, None) => "its process ended".to_owned(),
    }
}

/// A running process whose output goes to the host.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: LogPump,
}

impl Process {
    pub(super) fn spawn(argv: &[String], link: &Arc<Link>) -> io::Result<Self> {
        Self::spawn_prepared(argv, link, |_| {})
    }

    /// Starts it once `prepare` has seen how.
    pub(super) fn spawn_prepared(
        argv: &[String],
        link: &Arc<Link>,
        prepare: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let (program, args) = argv
            .split_first()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))?;
        // One pipe for both, which keeps the order.
        let (output, writer) = io::pipe()?;
        let mut command = Command::new(program);
        command
            .args(args)
            // What it prints goes into files. TERM, which the kernel gives to PID 1, looks like a terminal.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        prepare(&mut command);
        Ok(Self {
            child: command.spawn()?,
            log: LogPump::start(output.into(), Arc::clone(link))?,
        })
    }

    /// Its id, as long as its end has not been asked for.
    pub(super) fn pid(&self) -> io::Result<Pid> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(Pid::from_raw(pid))
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        // An error would mean that it is no child of ours, which it is.
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub(super) fn wait_for_end(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() >= deadline {
                return ended;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks it to end; ends it, if it doesn't in time. Says whether it had to.
    pub(super) fn end(&mut self, within: Duration) -> bool {
        if self.ended().is_some() {
            return false;
        }
        if let Ok(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        if self.wait_for_end(within).is_some() {
            return false;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        true
    }

    /// Sends the last of its output.
    pub(super) fn finish_log(self) -> Result<(), LinkError> {
        self.log.finish()
    }
}

/// Carries what arrives in a pipe to the host.
#[derive(Debug)]
struct LogPump {
    thread: JoinHandle<Result<(), LinkError>>,
    /// Closing it tells the thread to send what is there and end, even if a child of the process lives on.
    running: io::PipeWriter,
}

impl LogPump {
    fn start(output: OwnedFd, link: Arc<Link>) -> io::Result<Self> {
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (ended, running) = io::pipe()?;
        let thread = thread::Builder::new()
            .name("ktstr-log".to_owned())
            .spawn(move || carry(&link, &output, &ended))?;
        Ok(Self { thread, running })
    }

    fn finish(self) -> Result<(), LinkError> {
        drop(self.running);
        // A panic in it has ended the machine.
        self.thread.join().unwrap_or(Ok(()))
    }
}

fn carry(link: &Link, output: &OwnedFd, ended: &io::PipeReader) -> Result<(), LinkError> {
    loop {
        let mut polled = [
            PollFd::new(output.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::Write(errno.into())),
        }
        let last = polled[1].any().unwrap_or(true);
        if !send_what_there_is(link, output)? || last {
            return Ok(());
        }
    }
}

/// Whether more may come.
fn send_what_there_is(link: &Link, output: &OwnedFd) -> Result<bool, LinkError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match read(output, &mut chunk) {
            Ok(0) => return Ok(false),
            Err(Errno::EAGAIN) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::Write(errno.into())),
            Ok(count) => link.send(&Message::SchedulerLog(chunk[..count].to_vec()))?,
        }
    }
}
