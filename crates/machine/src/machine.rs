//! A machine that runs, and how it ends.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ktstr_report::KERNEL_PANIC;
use ktstr_vmm::{ControlError, FirstRun, GuestRam, SetupTimes, StepTime, VcpuRegisters};

use crate::console::ConsoleLog;
use crate::vcpu_clock::VcpuClock;

/// A byte stream between guest and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// virtio console port 0, `/dev/hvc0` in the guest; only on machines with an interactive console.
    Shell,
    /// virtio console port 1, by the name that [`MachineSpec::frames_port_name`](crate::MachineSpec::frames_port_name)
    /// gives it.
    Frames,
}

/// Why we ended a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// It is not needed any more.
    Done,
    /// It took longer than the test allows.
    Watchdog,
    /// The user interrupted.
    User,
}

/// How a machine ended. What a test came to is not told by this: only the guest's own frames tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The guest powered itself off.
    PoweredOff,
    /// The guest reset itself without a kernel panic: a triple fault, or a reboot.
    Reset,
    /// One of the guest's CPUs shut down: it had lost its exception handling. Told apart from [`Self::Reset`]
    /// on `kvm` only.
    TripleFault {
        /// The CPU.
        vcpu: u32,
        /// Where it was; `None` if KVM does not say.
        rip: Option<u64>,
    },
    /// The guest kernel panicked.
    Panicked {
        /// What COM1 said, from the panic line on.
        text: String,
    },
    /// The engine's process was killed by a signal that we did not send.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// We ended it.
    Stopped(StopReason),
    /// The engine never came to run the guest.
    FailedToStart {
        /// What the engine said about it.
        message: String,
    },
    /// The engine gave up while the guest ran.
    Broken {
        /// What the engine said about it.
        message: String,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PoweredOff => f.write_str("the guest powered off"),
            Self::Reset => f.write_str("the guest reset itself (triple fault or reboot)"),
            &Self::TripleFault { vcpu, rip } => ktstr_vmm::End::TripleFault { vcpu, rip }.fmt(f),
            Self::Panicked { text } => {
                write!(f, "the guest kernel panicked: {}", panic_reason(text))
            }
            Self::Killed { signal } => {
                let name = nix::sys::signal::Signal::try_from(*signal)
                    .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
                write!(f, "the machine's process was killed from outside by {name}")
            }
            Self::Stopped(StopReason::Done) => f.write_str("the machine was stopped"),
            Self::Stopped(StopReason::Watchdog) => {
                f.write_str("the machine was stopped by the watchdog")
            }
            Self::Stopped(StopReason::User) => f.write_str("the machine was stopped by the user"),
            Self::FailedToStart { message } => {
                write!(f, "the machine did not start: {message}")
            }
            Self::Broken { message } => write!(f, "the machine failed: {message}"),
        }
    }
}

/// The reason in the first line of a panic's text, without the time and the words that every panic has.
fn panic_reason(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default().trim();
    line.split_once(KERNEL_PANIC)
        .map_or(line, |(_, reason)| reason.trim_start_matches(": "))
}

/// How a machine came to run, if the engine does it in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Startup {
    /// Where the time of its set-up went.
    pub steps: Vec<SetupStep>,
    /// When the guest first ran; `None` before.
    pub first_run: Option<FirstRun>,
}

/// A step of a machine's set-up, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupStep {
    /// Its name.
    pub name: &'static str,
    /// Time by the clock.
    pub wall: Duration,
    /// CPU time, user and system.
    pub cpu: Duration,
}

impl SetupStep {
    pub(crate) fn all(times: &SetupTimes) -> Vec<Self> {
        let step = |(name, time): (_, StepTime)| Self {
            name,
            wall: time.wall,
            cpu: time.cpu,
        };
        times.steps().into_iter().map(step).collect()
    }
}

/// Ends a machine from any thread, also while another one uses its handle.
#[derive(Clone)]
pub struct Stopper(Arc<dyn Fn(StopReason) + Send + Sync>);

impl Stopper {
    /// `stop` ends the machine, and must return at once.
    pub fn new(stop: impl Fn(StopReason) + Send + Sync + 'static) -> Self {
        Self(Arc::new(stop))
    }

    /// Ends it, and returns at once. Does nothing if it has ended.
    pub fn stop(&self, reason: StopReason) {
        (self.0)(reason);
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper").finish_non_exhaustive()
    }
}

/// A machine that was launched. Dropping it ends it.
pub trait Machine: Send + fmt::Debug {
    /// Guest RAM, readable while the guest runs and after it ended.
    fn memory(&self) -> &GuestRam;

    /// Our end of `port`; `None` the second time, or if the machine has no such port. What the guest sent
    /// before it ended can still be read, then the stream ends.
    fn take_port(&mut self, port: Port) -> Option<UnixStream>;

    /// The kernel console.
    fn com1(&self) -> &ConsoleLog;

    /// Crash messages of the guest's own runtime.
    fn com2(&self) -> &ConsoleLog;

    /// Stops all vCPUs. Guest time stops with them.
    fn pause(&mut self) -> Result<(), ControlError>;

    /// Lets the vCPUs run on, unless the guest has paused them.
    fn resume(&mut self) -> Result<(), ControlError>;

    /// Lets a guest run on that has paused its machine ([`MachineEvent::Paused`](crate::MachineEvent)), unless
    /// [`Self::pause`] keeps it from it. Does nothing if it has not.
    fn release(&mut self) -> Result<(), ControlError>;

    /// Registers of every vCPU in CPU order. They belong together only while the machine is paused. Of a machine
    /// that the watchdog has ended they are the last ones, if the engine got to read them.
    ///
    /// On `tcg`, the vCPUs of a machine that its guest has paused run on for a moment before QEMU can tell them: whoever
    /// reads memory too reads it first.
    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError>;

    /// What reads the CPU time that the host gives to the vCPUs.
    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError>;

    /// How it ended; `None` while it runs.
    fn end(&self) -> Option<End>;

    /// What ends it from another thread.
    fn stopper(&self) -> Stopper;

    /// Ends it, and waits until its process is gone. Does nothing if it has ended.
    fn stop(&mut self, reason: StopReason);

    /// Waits at most `timeout` for it to end.
    fn wait(&mut self, timeout: Duration) -> Option<End>;

    /// The process that runs the guest: the engine's child, or this process itself.
    fn pid(&self) -> u32;

    /// How it came to run; empty if another process runs it.
    fn startup(&self) -> Startup {
        Startup::default()
    }

    /// How its vCPUs and its RAM lie on the host, as the host's kernel says, in performance mode.
    fn performance(&self) -> Option<&str> {
        None
    }

    /// Host memory that the engine uses beyond guest RAM, in bytes.
    fn footprint_bytes(&self) -> Result<u64, ControlError>;
}
