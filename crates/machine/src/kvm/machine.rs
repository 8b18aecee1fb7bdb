//! A running microVM.

use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ktstr_vmm::{FirstRun, GuestRam, Stream};

use super::watcher::Shared;
use crate::console::ConsoleLog;
use crate::footprint;
use crate::machine::{
    ControlError, End, KillReason, Machine, Port, SetupStep, Stopper, VcpuRegisters,
};
use crate::vcpu_clock::VcpuClock;

/// How long the machine's thread may take to read the rest and tell the end, once the vCPUs are gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct KvmMachine {
    memory: GuestRam,
    setup: Vec<SetupStep>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    performance: Option<String>,
}

impl KvmMachine {
    pub(super) fn new(
        shared: Arc<Shared>,
        thread: JoinHandle<()>,
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
            thread: Some(thread),
            performance,
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(ktstr_vmm::ControlError) -> ControlError {
    move |error| ControlError::Refused {
        action,
        message: error.to_string(),
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
        &self.shared.com1
    }

    fn com2(&self) -> &ConsoleLog {
        &self.shared.com2
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        self.shared
            .vm()
            .pause()
            .map_err(failed("pause the machine"))
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.shared
            .vm()
            .resume()
            .map_err(failed("resume the machine"))
    }

    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        let registers = self.shared.vm().registers();
        let registers = registers.map_err(failed("read the vCPUs' registers"))?;
        let convert = |vcpu: &ktstr_vmm::VcpuRegisters| VcpuRegisters {
            rip: vcpu.rip,
            rflags: vcpu.rflags,
            cr3: vcpu.cr3,
            gprs: vcpu.gprs,
            halted: vcpu.halted,
        };
        Ok(registers.iter().map(convert).collect())
    }

    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError> {
        let action = "find the vCPUs' threads";
        let tids = self.shared.vm().vcpu_tids();
        VcpuClock::open(process::id(), &tids, Duration::ZERO)
            .map_err(|source| ControlError::Io { action, source })
    }

    fn end(&self) -> Option<End> {
        self.shared.end()
    }

    fn stopper(&self) -> Stopper {
        let shared = Arc::clone(&self.shared);
        Stopper::new(move |reason| shared.stop(reason))
    }

    fn kill(&mut self, reason: KillReason) {
        if self.end().is_none() {
            self.shared.stop(reason);
            self.wait(KILL_TIMEOUT);
        }
    }

    fn wait(&mut self, timeout: Duration) -> Option<End> {
        self.shared.wait(timeout)
    }

    fn pid(&self) -> u32 {
        process::id()
    }

    fn setup_steps(&self) -> &[SetupStep] {
        &self.setup
    }

    fn first_run(&self) -> Option<FirstRun> {
        self.shared.vm().first_run()
    }

    fn footprint_bytes(&self) -> Result<u64, ControlError> {
        let action = "read the memory use of this process";
        let ram: Vec<_> = self.memory.host_ranges().collect();
        footprint::bytes(process::id(), &ram).map_err(|source| ControlError::Io { action, source })
    }
}

impl Drop for KvmMachine {
    fn drop(&mut self) {
        self.kill(KillReason::Done);
        // `on_end` runs on that thread and may own this handle.
        let thread = self.thread.take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && self.end().is_some()
        {
            // A panic there is one of `on_end`, which has been printed.
            let _ = thread.join();
        }
    }
}
