//! The thread that moves bytes between the console's queues and the host.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use vm_memory::GuestMemoryMmap;

use super::pci::VirtioPci;
use crate::devices::lock;

/// How long the host may take, after the machine has ended, to read what the guest had sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The running thread.
#[derive(Debug)]
pub(crate) struct Worker {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
}

impl Worker {
    /// Starts it. `wake` is the event that the device writes to.
    pub(crate) fn start(
        device: Arc<Mutex<VirtioPci>>,
        memory: GuestMemoryMmap,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let loop_of = Loop {
            device,
            memory,
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("ktstr-console".to_owned())
            .spawn(move || loop_of.run())?;
        Ok(Self { thread, stop, wake })
    }

    /// Moves what the guest had sent, then ends. Called when no CPU of the guest runs any more.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.wake.write(1);
        // A panic in the thread has been printed; the ports' ends are closed either way.
        let _ = self.thread.join();
    }
}

struct Loop {
    device: Arc<Mutex<VirtioPci>>,
    memory: GuestMemoryMmap,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
}

impl Loop {
    fn run(&self) {
        let mut stop_at = None;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            let more = lock(&self.device).process(&self.memory);
            if stopping {
                let until = *stop_at.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                let blocked = lock(&self.device).console().is_blocked();
                if !(more || blocked) || Instant::now() >= until {
                    return;
                }
            }
            let timeout_ms: u16 = match (more, stopping) {
                (true, _) => 0,
                (false, true) => 20,
                (false, false) => 1000,
            };
            if self.wait(timeout_ms).is_err() {
                return;
            }
        }
    }

    /// Waits for the device, a port's host end, or the time.
    fn wait(&self, timeout_ms: u16) -> nix::Result<()> {
        let streams = self.streams();
        let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            streams
                .iter()
                .map(|(stream, flags)| PollFd::new(stream.as_fd(), *flags)),
        );
        match poll(&mut fds, PollTimeout::from(timeout_ms)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error),
        }
        if fds[0].any().unwrap_or(false) {
            self.wake.read()?;
        }
        Ok(())
    }

    /// The streams to wait for, and for what.
    fn streams(&self) -> Vec<(Arc<UnixStream>, PollFlags)> {
        let mut device = lock(&self.device);
        let waits = device.console().waits().map(|(stream, read, write)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, read);
            flags.set(PollFlags::POLLOUT, write);
            (stream, flags)
        });
        // A stream waited for in vain would report a hang-up again and again.
        waits.filter(|(_, flags)| !flags.is_empty()).collect()
    }
}
