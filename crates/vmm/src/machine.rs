//! A machine that runs.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_clock_data;
use kvm_ioctls::VmFd;

use crate::arch::registers::VcpuRegisters;
use crate::control_error::ControlError;
use crate::end::End;
use crate::gate::{Gate, Pauser};
use crate::guest_ram::GuestRam;
use crate::realtime::VcpuPlacement;
use crate::setup_times::{FirstRun, SetupTimes};
use crate::vcpu::VcpuThreads;

/// How long vCPUs may take to stop. A vCPU that waits for a host that doesn't read a serial port is
/// interrupted, so only a host that gives its threads no CPU time comes near.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A byte stream between guest and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Output of the first serial port. What is written to it is not read.
    Com1,
    /// Output of the second serial port. What is written to it is not read.
    Com2,
    /// The port of the console with this number.
    Port(u32),
}

/// Our ends of the streams, until they are taken.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) com1: Option<UnixStream>,
    pub(crate) com2: Option<UnixStream>,
    /// By number.
    pub(crate) ports: BTreeMap<u32, UnixStream>,
}

/// Ends a machine from any thread, also while another one uses its handle.
#[derive(Clone, Debug)]
pub struct Killer(Arc<Gate>);

impl Killer {
    /// Ends it, and returns at once. Does nothing if it has ended.
    pub fn kill(&self) {
        self.0.end(End::Stopped);
    }
}

/// A machine that was started. Dropping it ends it.
#[derive(Debug)]
pub struct MicroVm {
    pub(crate) gate: Arc<Gate>,
    pub(crate) threads: Arc<VcpuThreads>,
    pub(crate) vm: Arc<VmFd>,
    pub(crate) ram: GuestRam,
    pub(crate) streams: Streams,
    pub(crate) times: SetupTimes,
    pub(crate) paused_clock: Option<kvm_clock_data>,
    pub(crate) supervisor: Option<JoinHandle<()>>,
}

impl MicroVm {
    /// Guest RAM, readable while the guest runs and after it ended.
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Where the vCPUs' threads run, if they were given host CPUs.
    pub fn placements(&self) -> &[VcpuPlacement] {
        self.threads.placements()
    }

    /// Our end of `stream`; `None` the second time, or if the machine has no such stream. What the guest
    /// sent before the machine ended can still be read, then the stream ends.
    pub fn take_stream(&mut self, stream: Stream) -> Option<UnixStream> {
        match stream {
            Stream::Com1 => self.streams.com1.take(),
            Stream::Com2 => self.streams.com2.take(),
            Stream::Port(number) => self.streams.ports.remove(&number),
        }
    }

    /// Where the time of the set-up went.
    pub fn setup_times(&self) -> &SetupTimes {
        &self.times
    }

    /// When the boot CPU first entered the guest; `None` before.
    pub fn first_run(&self) -> Option<FirstRun> {
        self.threads.first_run()
    }

    /// Stops all vCPUs, and kvmclock with them. Does nothing if they are stopped.
    pub fn pause(&mut self) -> Result<(), ControlError> {
        const ACTION: &str = "pause the machine";
        let was_paused = self.gate.is_closed_by(Pauser::Host);
        self.gate.close(Pauser::Host);
        let paused = self.stopped(ACTION).and_then(|_| {
            if self.paused_clock.is_none() {
                let clock = self.vm.get_clock();
                self.paused_clock = Some(clock.map_err(ControlError::failed(ACTION))?);
            }
            Ok(())
        });
        if paused.is_err() && !was_paused {
            self.gate.open(Pauser::Host);
        }
        paused
    }

    /// Lets the vCPUs run on, unless the guest has paused them. Does nothing if they run.
    pub fn resume(&mut self) -> Result<(), ControlError> {
        self.open("resume the machine", Pauser::Host, Pauser::Guest)
    }

    /// Lets a guest run on that has paused its machine, unless the host has paused it too.
    pub fn release(&mut self) -> Result<(), ControlError> {
        self.open("release the guest", Pauser::Guest, Pauser::Host)
    }

    fn open(
        &mut self,
        action: &'static str,
        pauser: Pauser,
        other: Pauser,
    ) -> Result<(), ControlError> {
        if self.end().is_some() {
            return Err(ControlError::Ended { action });
        }
        if !self.gate.is_closed_by(other)
            && let Some(clock) = self.paused_clock.take()
        {
            let clock = kvm_clock_data {
                clock: clock.clock,
                ..kvm_clock_data::default()
            };
            let set = self.vm.set_clock(&clock);
            set.map_err(ControlError::failed(action))?;
        }
        self.gate.open(pauser);
        Ok(())
    }

    /// Registers of every vCPU in CPU order. If the machine is not paused, all vCPUs are stopped for a
    /// moment. Those of a machine that was killed are as each vCPU left the guest.
    pub fn registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        const ACTION: &str = "read the vCPUs' registers";
        if self.end().is_some() {
            return self
                .gate
                .left()
                .ok_or(ControlError::Ended { action: ACTION });
        }
        if self.gate.is_closed() {
            return self.stopped(ACTION);
        }
        self.gate.close(Pauser::Host);
        let registers = self.stopped(ACTION);
        self.gate.open(Pauser::Host);
        registers
    }

    /// The threads that run the vCPUs, by CPU number. A thread that hasn't run yet is 0.
    pub fn vcpu_tids(&self) -> Vec<i32> {
        self.threads.tids()
    }

    /// How it ended; `None` while anything of it is left.
    pub fn end(&self) -> Option<End> {
        self.gate.finished(Duration::ZERO)
    }

    /// Waits at most `timeout` until it has ended and nothing of it is left.
    pub fn wait(&self, timeout: Duration) -> Option<End> {
        self.gate.finished(timeout)
    }

    /// What ends it from another thread.
    pub fn killer(&self) -> Killer {
        Killer(Arc::clone(&self.gate))
    }

    /// Ends it, and waits until nothing of it is left: for two seconds at most if nobody reads what the
    /// guest had sent. Does nothing if it has ended.
    pub fn kill(&mut self) {
        self.gate.end(End::Stopped);
        let callback = |thread: &JoinHandle<()>| thread.thread().id() == thread::current().id();
        if let Some(supervisor) = self.supervisor.take_if(|thread| !callback(thread)) {
            // It panics only if the callback does.
            let _ = supervisor.join();
        }
    }

    /// Kicks until all vCPUs are parked.
    fn stopped(&self, action: &'static str) -> Result<Vec<VcpuRegisters>, ControlError> {
        let until = Instant::now() + PAUSE_TIMEOUT;
        let mut patience = Duration::from_micros(500);
        loop {
            self.threads.kick();
            let parked = self
                .gate
                .parked(patience)
                .ok_or(ControlError::Ended { action })?;
            let Some(vcpu) = parked.iter().position(Option::is_none) else {
                return Ok(parked.into_iter().flatten().collect());
            };
            if Instant::now() >= until {
                return Err(ControlError::Timeout {
                    action,
                    what: format!("vCPU {vcpu}"),
                    timeout: PAUSE_TIMEOUT,
                });
            }
            patience = (patience * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for MicroVm {
    fn drop(&mut self) {
        self.kill();
    }
}
