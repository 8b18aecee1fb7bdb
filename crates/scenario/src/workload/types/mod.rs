//! The kinds of work.
//!
//! A kind is its [`Facts`] and a function, in a file of its family. To add one: write both, add the
//! variant, and name it in `facts`, `run` and `NAMED` below.

mod bursty;
mod facts;
mod fan_futex;
mod pair_futex;
mod pair_pipe;
mod spin;

use std::fmt;
use std::time::Duration;

use ktstr_report::CpuDemand;

pub(super) use self::facts::Facts;
use super::WorkerControl;

/// What a worker does.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum WorkType {
    /// Spins without a break.
    SpinWait,
    /// Calls sched_yield(2) over and over.
    YieldHeavy,
    /// Spins for some microseconds, then yields.
    Mixed,
    /// Spins for `on`, sleeps for `off`, and so on.
    Bursty {
        /// Length of a burst.
        on: Duration,
        /// Sleep between bursts.
        off: Duration,
    },
    /// Pairs that wake each other through pipes: write, then block in poll(2).
    PipeIo,
    /// Pairs that wake each other through a futex.
    FutexPingPong,
    /// Groups in which one wakes the others at once through a futex, and sleeps until all of them have answered.
    FutexFanOut {
        /// How many it wakes; the group has one more.
        fan_out: usize,
    },
    /// The test's own work.
    Custom {
        /// Its name in reports.
        name: &'static str,
        /// The work: calls [`WorkerControl::iteration`] in a loop and returns when that says so. In a
        /// forked worker it must keep away from locks that threads of the harness may have held at the
        /// fork: no printing, no logging.
        run: fn(&mut WorkerControl<'_>),
    },
}

impl WorkType {
    /// Those that [`WorkType::from_name`] knows, with their usual parameters.
    const NAMED: [Self; 7] = [
        Self::SpinWait,
        Self::YieldHeavy,
        Self::Mixed,
        Self::bursty(),
        Self::PipeIo,
        Self::FutexPingPong,
        Self::futex_fan_out(),
    ];

    /// [`WorkType::Bursty`] with its usual 50 ms on and 100 ms off.
    pub const fn bursty() -> Self {
        Self::Bursty {
            on: bursty::ON,
            off: bursty::OFF,
        }
    }

    /// [`WorkType::FutexFanOut`] with its usual fan-out of 4.
    pub const fn futex_fan_out() -> Self {
        Self::FutexFanOut {
            fan_out: fan_futex::FAN_OUT,
        }
    }

    /// The work type of this name, with its usual parameters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name, as in reports.
    pub const fn name(&self) -> &'static str {
        self.facts().name
    }

    /// How many workers work together; the number of workers must be a multiple.
    pub const fn group_size(&self) -> usize {
        self.facts().group_size
    }

    /// When its workers want a CPU.
    pub const fn cpu_demand(&self) -> CpuDemand {
        self.facts().demand
    }

    pub(super) const fn facts(&self) -> Facts {
        match self {
            Self::SpinWait => spin::SPIN_WAIT,
            Self::YieldHeavy => spin::YIELD_HEAVY,
            Self::Mixed => spin::MIXED,
            Self::Bursty { .. } => bursty::BURSTY,
            Self::PipeIo => pair_pipe::PIPE_IO,
            Self::FutexPingPong => pair_futex::FUTEX_PING_PONG,
            Self::FutexFanOut { fan_out } => fan_futex::facts(*fan_out),
            Self::Custom { name, .. } => Facts::alone(name, CpuDemand::Sleeping),
        }
    }

    /// Works until told to stop.
    pub(super) fn run(&self, control: &mut WorkerControl<'_>) {
        match self {
            Self::SpinWait => spin::spin_wait(control),
            Self::YieldHeavy => spin::yield_heavy(control),
            Self::Mixed => spin::mixed(control),
            Self::Bursty { on, off } => bursty::bursty(control, *on, *off),
            Self::PipeIo => pair_pipe::pipe_io(control),
            Self::FutexPingPong => pair_futex::futex_ping_pong(control),
            Self::FutexFanOut { fan_out } => fan_futex::futex_fan_out(control, *fan_out),
            Self::Custom { run, .. } => run(control),
        }
    }
}

impl fmt::Display for WorkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_type() {
        for kind in WorkType::NAMED {
            let found = WorkType::from_name(&kind.to_string()).map(|found| found.name());
            assert_eq!(found, Some(kind.name()));
        }
        assert!(WorkType::from_name("spinwait").is_none());
    }
}
