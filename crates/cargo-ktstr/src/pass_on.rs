//! Writing on what a command in a machine prints, to a reader that may not read.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use ktstr_wire::Stream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

/// A pipe that can be written to takes as much without waiting (`PIPE_BUF`, pipe(7)).
const PIECE_BYTES: usize = 4096;

/// What the command prints, on the stream where it printed it.
#[derive(Debug, Default)]
pub(crate) struct PassOn {
    /// What nobody read in time.
    pub(crate) lost_bytes: u64,
}

impl PassOn {
    /// Writes `bytes`, and gives up at `until`. A reader that is gone is no reason to stop.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], until: Option<Instant>) {
        let lost = match stream {
            Stream::Stdout => write_by(io::stdout().as_fd(), bytes, until),
            Stream::Stderr => write_by(io::stderr().as_fd(), bytes, until),
        };
        self.lost_bytes += lost as u64;
    }
}

/// How many bytes were not written because nobody had read what came before by `until`.
fn write_by(fd: BorrowedFd<'_>, mut bytes: &[u8], until: Option<Instant>) -> usize {
    while !bytes.is_empty() {
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, or the last of it would be polled for in a loop.
            let left = left + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
        let written = match poll(&mut fds, timeout) {
            Ok(0) => return bytes.len(),
            Ok(_) => write(fd, &bytes[..bytes.len().min(PIECE_BYTES)]),
            Err(errno) => Err(errno),
        };
        match written {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => return 0,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::thread;

    use super::*;

    #[test]
    fn fault_d1_a_reader_that_does_not_read_is_not_waited_for_longer_than_allowed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let all = vec![b'y'; 1 << 20];
        let until = Instant::now() + Duration::from_millis(50);
        let lost = write_by(writer.as_fd(), &all, Some(until));
        assert!(Instant::now() >= until);
        assert!(lost > 0 && lost < all.len(), "{lost} bytes were lost");
        // The time is over, so nothing is waited for.
        assert_eq!(write_by(writer.as_fd(), b"more", Some(until)), 4);
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), all.len() - lost);
    }

    #[test]
    fn a_reader_that_reads_gets_all_and_one_that_is_gone_is_no_loss() {
        let (mut reader, writer) = io::pipe().unwrap();
        let all = vec![b'y'; 1 << 20];
        let reads = thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read.len()
        });
        assert_eq!(write_by(writer.as_fd(), &all, None), 0);
        drop(writer);
        assert_eq!(reads.join().unwrap(), all.len());
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(write_by(writer.as_fd(), &all, None), 0);
    }
}
