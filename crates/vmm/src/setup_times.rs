//! Where the time goes until the guest runs.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Time that a step of the set-up took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTime {
    pub wall: Duration,
    /// CPU time, user and system, of the thread that does the set-up.
    pub cpu: Duration,
}

impl std::ops::Add for StepTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
        }
    }
}

/// Where the time of a machine's start went, up to the first instruction of the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetupTimes {
    /// Opening KVM and making the virtual machine with its interrupt controllers.
    pub vm: StepTime,
    /// Mapping guest RAM and giving it to KVM.
    pub memory: StepTime,
    /// Putting kernel, initramfs and parameters into guest RAM.
    pub load: StepTime,
    /// Building the ACPI tables.
    pub tables: StepTime,
    /// Making the devices.
    pub devices: StepTime,
    /// Making and setting up the vCPUs, and starting their threads.
    pub vcpus: StepTime,
}

impl SetupTimes {
    /// The steps in their order, each with its name.
    pub fn steps(&self) -> [(&'static str, StepTime); 6] {
        [
            ("vm", self.vm),
            ("memory", self.memory),
            ("kernel load", self.load),
            ("tables", self.tables),
            ("devices", self.devices),
            ("vCPUs", self.vcpus),
        ]
    }

    /// All of it.
    pub fn total(&self) -> StepTime {
        let steps = self.steps().into_iter().map(|(_, time)| time);
        steps.fold(StepTime::default(), std::ops::Add::add)
    }
}

/// Measures one step after the other.
#[derive(Debug)]
pub(crate) struct StepClock {
    wall: Instant,
    cpu: Duration,
}

impl StepClock {
    pub(crate) fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: thread_cpu_time(),
        }
    }

    /// Time since the last call, or the start.
    pub(crate) fn lap(&mut self) -> StepTime {
        let before = std::mem::replace(self, Self::start());
        StepTime {
            wall: self.wall.duration_since(before.wall),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

/// The moment in which the boot CPU first enters the guest: the set-up is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstRun {
    pub at: Instant,
    /// CPU time, user and system, of all threads of this process since it was started.
    pub process_cpu: Duration,
}

impl FirstRun {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            process_cpu: cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID),
        }
    }
}

fn thread_cpu_time() -> Duration {
    cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Zero on a host that doesn't count it; Linux does.
fn cpu_time(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}
