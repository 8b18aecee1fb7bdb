//! What connects the workers of a group.

use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::WorkloadError;

/// What a work type needs between the workers of a group, besides shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkKind {
    /// Nothing.
    None,
    /// A pipe in each direction between two workers.
    PipePair,
}

/// One worker's end.
#[derive(Debug)]
pub(super) enum Link {
    None,
    Pipe { rx: OwnedFd, tx: OwnedFd },
}

/// The ends for one group of `size` workers.
pub(super) fn connect(kind: LinkKind, size: usize) -> Result<Vec<Link>, WorkloadError> {
    match kind {
        LinkKind::None => Ok((0..size).map(|_| Link::None).collect()),
        LinkKind::PipePair => {
            // Without O_NONBLOCK a worker whose partner was killed could wait forever.
            let pipe = || pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(WorkloadError::Pipe);
            let (first_rx, second_tx) = pipe()?;
            let (second_rx, first_tx) = pipe()?;
            Ok(vec![
                Link::Pipe {
                    rx: first_rx,
                    tx: first_tx,
                },
                Link::Pipe {
                    rx: second_rx,
                    tx: second_tx,
                },
            ])
        }
    }
}
