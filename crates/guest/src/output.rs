//! The test's standard output and error, carried to the host in frames.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ktstr_wire::{Message, Stream};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{dup2_stderr, dup2_stdout, pipe2, read};

use crate::link::{Link, LinkError};

const CHUNK_BYTES: usize = 16 << 10;

/// Carries what is written to standard output and error of this process and its children.
#[derive(Debug)]
pub(crate) struct OutputPump {
    thread: JoinHandle<Result<(), LinkError>>,
    /// Closing it tells the thread to send what is there and end.
    running: io::PipeWriter,
}

impl OutputPump {
    /// Puts pipes in place of descriptors 1 and 2 and starts to carry what arrives in them.
    pub(crate) fn start(link: Arc<Link>) -> io::Result<Self> {
        let (stdout, stdout_writer) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr, stderr_writer) = pipe2(OFlag::O_CLOEXEC)?;
        dup2_stdout(&stdout_writer)?;
        dup2_stderr(&stderr_writer)?;
        for pipe in [&stdout, &stderr] {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let (ended, running) = io::pipe()?;
        let sources = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let thread = thread::Builder::new()
            .name("ktstr-output".to_owned())
            .spawn(move || carry(&link, &sources, &ended))?;
        Ok(Self { thread, running })
    }

    /// Carries all that has been written so far, and ends.
    pub(crate) fn finish(self) -> Result<(), LinkError> {
        // A test may leave text without a newline behind.
        let _ = io::stdout().flush();
        drop(self.running);
        match self.thread.join() {
            Ok(carried) => carried,
            // A panic in it has ended the machine.
            Err(_) => Ok(()),
        }
    }
}

fn carry(
    link: &Link,
    sources: &[(Stream, OwnedFd); 2],
    ended: &io::PipeReader,
) -> Result<(), LinkError> {
    loop {
        let mut polled = [
            PollFd::new(sources[0].1.as_fd(), PollFlags::POLLIN),
            PollFd::new(sources[1].1.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::Write(errno.into())),
        }
        let last = polled[2].any().unwrap_or(true);
        for (stream, source) in sources {
            send_all_there_is(link, *stream, source)?;
        }
        if last {
            return Ok(());
        }
    }
}

fn send_all_there_is(link: &Link, stream: Stream, source: &OwnedFd) -> Result<(), LinkError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    // Bounded, so that a flood on one stream doesn't starve the other.
    for _ in 0..64 {
        match read(source, &mut chunk) {
            Ok(0) | Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::Write(errno.into())),
            Ok(count) => link.send(&Message::Output(stream, chunk[..count].to_vec()))?,
        }
    }
    Ok(())
}
