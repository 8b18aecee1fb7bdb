//! Waiting for the first of several streams.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Which of `fds` can be read, or have ended, by `until` at the latest. `None` is not waited for. A signal ends the
/// wait early.
pub(crate) fn wait_readable<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    until: Option<Instant>,
) -> io::Result<[bool; N]> {
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        let left_ms = until.saturating_duration_since(Instant::now()).as_millis();
        // At least a millisecond, so that a deadline less than one ahead is not polled for in a loop.
        PollTimeout::try_from(left_ms.max(1)).unwrap_or(PollTimeout::MAX)
    });
    let waited = fds.iter().enumerate();
    let waited: Vec<_> = waited.filter_map(|(at, fd)| Some((at, (*fd)?))).collect();
    let mut polled: Vec<_> = waited
        .iter()
        .map(|&(_, fd)| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let mut ready = [false; N];
    match poll(&mut polled, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(ready),
        Err(errno) => return Err(errno.into()),
    }
    for ((at, _), fd) in waited.iter().zip(&polled) {
        ready[*at] = fd.any().unwrap_or(true);
    }
    Ok(ready)
}
