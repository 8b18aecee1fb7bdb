//! A running microVM.

use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use ktstr_vmm::{ControlError, GuestRam, Stream, VcpuRegisters};

use super::watcher::Shared;
use crate::console::ConsoleLog;
use crate::end_cell::MachineThread;
use crate::footprint;
use crate::machine::{End, Machine, Port, SetupStep, Startup, StopReason, Stopper};
use crate::vcpu_clock::VcpuClock;

/// How long the machine's thread may take to read the rest and tell the end, once the vCPUs are gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct KvmMachine {
    memory: GuestRam,
    setup: Vec<SetupStep>,
    shared: Arc<Shared>,
    thread: MachineThread,
    performance: Option<String>,
}

impl KvmMachine {
    pub(super) fn new(
        shared: Arc<Shared>,
        thread: MachineThread,
        performance: Option<String>,
    ) -> Self {
        let (memory, setup) = {
            let vm = shared.vm();
            (vm.ram().clone(), SetupStep::all(vm.setup_times()))
        };
        Self {
            memory,
            setup,
            shared,
            thread,
            performance,
        }
    }
}

impl Machine for KvmMachine {
    fn memory(&self) -> &GuestRam {
        &self.memory
    }

    fn take_port(&mut self, port: Port) -> Option<UnixStream> {
        self.shared.vm().take_stream(match port {
            Port::Shell => Stream::Port(0),
            Port::Frames => Stream::Port(1),
        })
    }

    fn performance(&self) -> Option<&str> {
        self.performance.as_deref()
    }

    fn com1(&self) -> &ConsoleLog {
        &self.shared.logs.com1
    }

    fn com2(&self) -> &ConsoleLog {
        &self.shared.logs.com2
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        self.shared.vm().pause()
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.shared.vm().resume()
    }

    fn release(&mut self) -> Result<(), ControlError> {
        self.shared.vm().release()
    }

    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        self.shared.vm().registers()
    }

    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError> {
        let action = "find the vCPUs' threads";
        let tids = self.shared.vm().vcpu_tids();
        VcpuClock::open(process::id(), &tids, Duration::ZERO).map_err(ControlError::failed(action))
    }

    fn end(&self) -> Option<End> {
        self.shared.ended.get()
    }

    fn stopper(&self) -> Stopper {
        let shared = Arc::clone(&self.shared);
        Stopper::new(move |reason| shared.stop(reason))
    }

    fn stop(&mut self, reason: StopReason) {
        if self.end().is_none() {
            self.shared.stop(reason);
            self.wait(STOP_TIMEOUT);
        }
    }

    fn wait(&mut self, timeout: Duration) -> Option<End> {
        self.shared.ended.wait(timeout)
    }

    fn pid(&self) -> u32 {
        process::id()
    }

    fn startup(&self) -> Startup {
        Startup {
            steps: self.setup.clone(),
            first_run: self.shared.vm().first_run(),
        }
    }

    fn footprint_bytes(&self) -> Result<u64, ControlError> {
        let action = "read the memory use of this process";
        let ram: Vec<_> = self.memory.host_ranges().collect();
        footprint::bytes(process::id(), &ram).map_err(ControlError::failed(action))
    }
}

impl Drop for KvmMachine {
    fn drop(&mut self) {
        self.stop(StopReason::Done);
        if self.end().is_some() {
            self.thread.join();
        }
    }
}
