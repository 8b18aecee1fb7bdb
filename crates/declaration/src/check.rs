//! What a check is.

/// One check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheckSpec {
    /// Its name: the attribute of `#[ktstr_test]`, the method of `Assert`, and what reports call it.
    pub name: &'static str,
    /// What a test can set.
    pub takes: Bound,
    /// What holds for a test that sets nothing.
    pub preset: Preset,
    /// Unit of its value and its bound; empty for a ratio.
    pub unit: &'static str,
    /// Who judges it, and from what.
    pub judged_by: JudgedBy,
    /// Whether the declaration of a scheduler that ignores by design what it checks can turn it off.
    pub scheduler_may_ignore: bool,
    /// Expected faults that keep it from holding: a test that expects one of them passes without it.
    pub excused_by: &'static [Cause],
    /// When it holds.
    pub text: &'static str,
}

/// What a test can set of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Nothing: it is always judged where there is something to judge.
    Fixed,
    /// `true` or `false`.
    Switch,
    /// A whole number, or `off`.
    Whole,
    /// A number, or `off`.
    Number,
}

/// How a check is set in a test that says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preset {
    /// On, without a bound.
    On,
    /// On with this bound. It is left out where the library knows that it says nothing.
    Bound(f64),
    /// The same with a bound for optimised builds, and one for builds without optimisation, whose workers and
    /// harness are slower.
    BoundByBuild {
        /// In an optimised build.
        optimised: f64,
        /// In a build without optimisation.
        debug: f64,
    },
    /// Off, since only the test knows its load. The bound is a customary one, if there is one.
    Off(Option<f64>),
}

impl Preset {
    /// The bound, if it is on with one.
    pub const fn bound(self) -> Option<f64> {
        match self {
            Self::Bound(bound) => Some(bound),
            Self::BoundByBuild { debug, .. } if cfg!(debug_assertions) => Some(debug),
            Self::BoundByBuild { optimised, .. } => Some(optimised),
            Self::On | Self::Off(_) => None,
        }
    }

    /// The bound that it has, or that is customary.
    pub const fn customary(self) -> Option<f64> {
        match self {
            Self::Off(customary) => customary,
            _ => self.bound(),
        }
    }
}

/// Who judges a check, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgedBy {
    /// The test's process, from the reports of its workers and the accounts of its cgroups.
    Workers,
    /// The guest, from the state of its machine.
    Guest,
    /// The guest, from the life of the scheduler under test.
    Scheduler,
    /// The host, from the monitor's samples of the kernel.
    Monitor,
}

impl JudgedBy {
    /// Whether it takes a machine: a `host_only` test has none.
    pub const fn needs_machine(self) -> bool {
        !matches!(self, Self::Workers)
    }
}

/// What a test can expect, as far as it keeps checks from holding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The kernel's watchdog disables the scheduler: until then tasks wait, and CPUs idle.
    Stall,
    /// The scheduler is gone from some moment on: disabled for an error, or dead. The load is interrupted.
    Gone,
    /// It never came, and the body was not run.
    NotLoaded,
}
