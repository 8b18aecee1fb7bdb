//! The machine's thread: it reads the serial ports, sees a kernel panic, and tells how the machine ended.

use std::fmt;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_vmm::{Killer, MicroVm, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::console::ConsoleLog;
use crate::engine::OnEnd;
use crate::machine::{End, KillReason};
use crate::panic_latch::PanicLatch;

/// How long a panicking kernel may take to print its report and reset, before we end it.
const PANIC_GRACE: Duration = Duration::from_secs(2);

/// Read from one port before the other gets its turn.
const CHUNK_BYTES: usize = 64 << 10;

/// What the machine's handle and its thread share.
pub(super) struct Shared {
    pub(super) com1: ConsoleLog,
    pub(super) com2: ConsoleLog,
    vm: Mutex<MicroVm>,
    /// Not behind the lock, which who pauses or reads the machine holds.
    killer: Killer,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: Option<KillReason>,
    end: Option<End>,
}

impl Shared {
    pub(super) fn new(vm: MicroVm) -> Arc<Self> {
        Arc::new(Self {
            com1: ConsoleLog::new(),
            com2: ConsoleLog::new(),
            killer: vm.killer(),
            vm: Mutex::new(vm),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(super) fn vm(&self) -> MutexGuard<'_, MicroVm> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self) -> Option<End> {
        self.state().end.clone()
    }

    /// Ends the machine, and waits for nothing. The first reason counts.
    pub(super) fn stop(&self, reason: KillReason) {
        self.state().stop.get_or_insert(reason);
        self.killer.kill();
    }

    pub(super) fn wait(&self, timeout: Duration) -> Option<End> {
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), timeout, |state| state.end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.end.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
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

pub(super) struct Watcher {
    shared: Arc<Shared>,
    ports: [Option<UnixStream>; 2],
    panic: PanicLatch,
    panic_deadline: Option<Instant>,
}

impl Watcher {
    /// Starts the thread. It ends when the machine has ended and its ports are read dry.
    pub(super) fn start(
        shared: &Arc<Shared>,
        ended: Receiver<ktstr_vmm::End>,
        on_end: OnEnd,
    ) -> io::Result<JoinHandle<()>> {
        let take = |stream| shared.vm().take_stream(stream);
        let watcher = Self {
            ports: [take(Stream::Com1), take(Stream::Com2)],
            shared: Arc::clone(shared),
            panic: PanicLatch::default(),
            panic_deadline: None,
        };
        thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || watcher.run(&ended, on_end))
    }

    fn run(mut self, ended: &Receiver<ktstr_vmm::End>, on_end: OnEnd) {
        let trouble = self.read_ports().err();
        if trouble.is_some() {
            self.shared.killer.kill();
        }
        self.panic.finish();
        // The ports close when the machine ends, so this is here or about to come.
        let end = ended.recv().ok();
        let mut state = self.shared.state();
        let end = self.judge(end, state.stop, trouble);
        state.end = Some(end.clone());
        drop(state);
        self.shared.changed.notify_all();
        on_end(end);
    }

    /// Until both ports are closed.
    fn read_ports(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        while self.ports.iter().any(Option::is_some) {
            let ready = self.poll()?;
            for (port, ready) in ready.into_iter().enumerate() {
                if ready {
                    self.read_once(port, &mut buffer)?;
                }
            }
            if self.panic.is_set() {
                let deadline = *self
                    .panic_deadline
                    .get_or_insert_with(|| Instant::now() + PANIC_GRACE);
                if Instant::now() >= deadline {
                    self.shared.killer.kill();
                    self.panic_deadline = Some(deadline + PANIC_GRACE);
                }
            }
        }
        Ok(())
    }

    fn poll(&self) -> io::Result<[bool; 2]> {
        let timeout = self.panic_deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left.max(Duration::from_millis(1))).unwrap_or(PollTimeout::MAX)
        });
        let open = self.ports.iter().enumerate();
        let open: Vec<_> = open
            .filter_map(|(at, port)| Some((at, port.as_ref()?)))
            .collect();
        let mut fds: Vec<_> = open
            .iter()
            .map(|(_, port)| PollFd::new(port.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok([false; 2]),
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = [false; 2];
        for ((at, _), fd) in open.iter().zip(&fds) {
            ready[*at] = fd.any().unwrap_or(true);
        }
        Ok(ready)
    }

    fn read_once(&mut self, port: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Some(mut stream) = self.ports[port].as_ref() else {
            return Ok(());
        };
        match stream.read(buffer) {
            Ok(0) => self.ports[port] = None,
            Ok(len) if port == 0 => {
                self.shared.com1.push(&buffer[..len]);
                self.panic.feed(&buffer[..len]);
            }
            Ok(len) => self.shared.com2.push(&buffer[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.ports[port] = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A panic explains any end; a stop of ours explains a kill.
    fn judge(
        &self,
        end: Option<ktstr_vmm::End>,
        stop: Option<KillReason>,
        trouble: Option<io::Error>,
    ) -> End {
        use ktstr_vmm::End as VmEnd;
        if let Some(text) = self.panic.text() {
            return End::Panicked { text };
        }
        if let Some(error) = trouble {
            let message = format!("the machine's serial ports can't be read: {error}");
            return End::Broken { message };
        }
        match (end, stop) {
            (Some(VmEnd::PoweredOff), _) => End::PoweredOff,
            (Some(VmEnd::Reset), _) => End::Reset,
            (Some(VmEnd::TripleFault { vcpu, rip }), _) => End::TripleFault { vcpu, rip },
            (Some(VmEnd::Stopped), Some(reason)) => End::Stopped(reason),
            (Some(end), _) => End::Broken {
                message: end.to_string(),
            },
            (None, _) => End::Broken {
                message: "the machine did not say how it ended".to_owned(),
            },
        }
    }
}
