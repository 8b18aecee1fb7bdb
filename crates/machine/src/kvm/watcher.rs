//! The machine's thread: it reads the serial ports, sees a kernel panic, and tells how the machine ended.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use ktstr_vmm::{Killer, MicroVm, Stream};

use crate::end_cell::EndCell;
use crate::engine::{MachineEvent, OnEvent};
use crate::machine::{End, StopReason};
use crate::readiness::wait_readable;
use crate::serial_watch::{SerialLogs, SerialWatch};

/// What the machine's handle and its thread share.
pub(super) struct Shared {
    pub(super) logs: SerialLogs,
    pub(super) ended: EndCell,
    vm: Mutex<MicroVm>,
    /// Not behind the lock, which who pauses or reads the machine holds.
    killer: Killer,
}

impl Shared {
    pub(super) fn new(vm: MicroVm) -> Arc<Self> {
        Arc::new(Self {
            logs: SerialLogs::default(),
            ended: EndCell::default(),
            killer: vm.killer(),
            vm: Mutex::new(vm),
        })
    }

    pub(super) fn vm(&self) -> MutexGuard<'_, MicroVm> {
        self.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the machine, and waits for nothing. The first reason counts.
    pub(super) fn stop(&self, reason: StopReason) {
        self.ended.ask_to_stop(reason);
        self.killer.kill();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("logs", &self.logs)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

pub(super) struct Watcher {
    shared: Arc<Shared>,
    serial: SerialWatch,
}

impl Watcher {
    /// Starts the thread. It ends when the machine has ended and its ports are read dry.
    pub(super) fn start(
        shared: &Arc<Shared>,
        ended: Receiver<ktstr_vmm::End>,
        on_event: OnEvent,
    ) -> io::Result<JoinHandle<()>> {
        let take = |stream| shared.vm().take_stream(stream).map(UnixStream::into);
        let ports = [take(Stream::Com1), take(Stream::Com2)];
        let watcher = Self {
            serial: SerialWatch::new(ports, shared.logs.clone())?,
            shared: Arc::clone(shared),
        };
        thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || watcher.run(&ended, &on_event))
    }

    fn run(mut self, ended: &Receiver<ktstr_vmm::End>, on_event: &OnEvent) {
        let trouble = self.read_ports().err();
        if trouble.is_some() {
            self.shared.killer.kill();
        }
        // The ports close when the machine ends, so this is here or about to come.
        let end = ended.recv().ok();
        let end = judge(
            self.serial.into_panic_text(),
            trouble,
            end,
            self.shared.ended.stop_reason(),
        );
        self.shared.ended.set(end.clone());
        on_event(MachineEvent::Ended(end));
    }

    /// Until both ports are closed.
    fn read_ports(&mut self) -> io::Result<()> {
        while !self.serial.has_ended() {
            let ready = wait_readable(self.serial.fds(), self.serial.panic_deadline())?;
            self.serial.read(ready)?;
            if self.serial.has_panicked_for_long() {
                self.shared.killer.kill();
            }
        }
        Ok(())
    }
}

/// A panic explains any end; a stop of ours explains a kill.
fn judge(
    panic: Option<String>,
    trouble: Option<io::Error>,
    end: Option<ktstr_vmm::End>,
    stop: Option<StopReason>,
) -> End {
    use ktstr_vmm::End as VmEnd;
    if let Some(text) = panic {
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
