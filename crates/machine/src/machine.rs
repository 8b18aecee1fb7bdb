//! A machine that runs, and how it ends.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ktstr_vmm::{FirstRun, GuestRam, SetupTimes, StepTime};

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
pub enum KillReason {
    /// It has served its purpose.
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
    Stopped(KillReason),
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
            Self::Stopped(KillReason::Done) => f.write_str("the machine was stopped"),
            Self::Stopped(KillReason::Watchdog) => {
                f.write_str("the machine was stopped by the watchdog")
            }
            Self::Stopped(KillReason::User) => f.write_str("the machine was stopped by the user"),
            Self::FailedToStart { message } => {
                write!(f, "the machine did not start: {message}")
            }
            Self::Broken { message } => write!(f, "the machine broke down: {message}"),
        }
    }
}

/// The reason in the first line of a panic's text, without the time and the words that every panic has.
fn panic_reason(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default().trim();
    line.split_once("Kernel panic - not syncing: ")
        .map_or(line, |(_, reason)| reason)
}

/// Why a running machine did not do as told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It has ended.
    #[error("can't {action}: the machine has ended")]
    Ended {
        /// What was asked for.
        action: &'static str,
    },
    /// No answer in time.
    #[error("can't {action}: no answer from the engine within {} s", timeout.as_secs())]
    Timeout {
        /// What was asked for.
        action: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The engine refused.
    #[error("can't {action}: the engine says {message:?}")]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// Its words.
        message: String,
    },
    /// The engine's answer makes no sense to us.
    #[error("can't {action}: the engine's answer is not understood at {at:?}")]
    Answer {
        /// What was asked for.
        action: &'static str,
        /// The place.
        at: String,
    },
    /// The connection or the host's own files failed.
    #[error("can't {action}")]
    Io {
        /// What was asked for.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The registers of one vCPU that tell where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuRegisters {
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Root of the page tables, with the PCID bits.
    pub cr3: u64,
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    pub gprs: [u64; 16],
    /// Whether the vCPU sleeps in `hlt`.
    pub halted: bool,
}

impl VcpuRegisters {
    /// Place of RSP in [`Self::gprs`].
    const RSP: usize = 7;

    /// The stack pointer.
    pub const fn rsp(&self) -> u64 {
        self.gprs[Self::RSP]
    }
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
pub struct Stopper(Arc<dyn Fn(KillReason) + Send + Sync>);

impl Stopper {
    /// `stop` ends the machine, and must return at once.
    pub fn new(stop: impl Fn(KillReason) + Send + Sync + 'static) -> Self {
        Self(Arc::new(stop))
    }

    /// Ends it, and returns at once. Does nothing if it has ended.
    pub fn stop(&self, reason: KillReason) {
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

    /// Lets the vCPUs run on.
    fn resume(&mut self) -> Result<(), ControlError>;

    /// Registers of every vCPU in CPU order. They belong together only while the machine is paused. Of a machine
    /// that the watchdog has ended they are the last ones, if the engine got to read them.
    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError>;

    /// What reads the CPU time that the host gives to the vCPUs.
    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError>;

    /// How it ended; `None` while it runs.
    fn end(&self) -> Option<End>;

    /// What ends it from another thread.
    fn stopper(&self) -> Stopper;

    /// Ends it, and waits until its process is gone. Does nothing if it has ended.
    fn kill(&mut self, reason: KillReason);

    /// Waits at most `timeout` for it to end.
    fn wait(&mut self, timeout: Duration) -> Option<End>;

    /// The process that runs the guest: the engine's child, or this process itself.
    fn pid(&self) -> u32;

    /// Where the time of the machine's set-up went, if the engine does it in this process.
    fn setup_steps(&self) -> &[SetupStep] {
        &[]
    }

    /// When the guest first ran, if the engine runs it in this process; `None` before.
    fn first_run(&self) -> Option<FirstRun> {
        None
    }

    /// How its vCPUs and its RAM lie on the host, as the host's kernel says, in performance mode.
    fn performance(&self) -> Option<&str> {
        None
    }

    /// Host memory that the engine uses beyond guest RAM, in bytes.
    fn footprint_bytes(&self) -> Result<u64, ControlError>;
}
