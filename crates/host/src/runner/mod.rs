//! Where a test runs: in a machine of this host, in one inside an emulated machine, or in no machine.

mod choice;
mod here;
mod host_only;
mod nested;
mod resources;
mod set_up;
mod shell;

use ktstr_report::{Assert, Sidecar};

pub use choice::{RunsIn, TestsOnly, UnknownEngine};
pub use host_only::{Body, run_host_only};
pub use resources::OuterMachine;
pub(crate) use resources::Resources;
pub(crate) use set_up::SetUpError;
pub(crate) use shell::run as run_shell;
pub use shell::{ShellEnd, ShellError, ShellPlan};

use crate::events::RunObserver;
use crate::observe::Observation;
use crate::plan::{Limits, TestPlan};
use crate::run::Record;
use crate::verdict::conclude;

/// Runs tests in one place.
pub(crate) trait Runner {
    /// The word for it in reports and in the queue.
    fn name(&self) -> &'static str;

    /// Runs a test in a machine to its end.
    fn run(&self, plan: &TestPlan, on: &mut dyn RunObserver) -> Result<Ran, SetUpError>;

    /// Fills in the outcome of the test, and returns what the host saw.
    fn conclude(&self, sidecar: &mut Sidecar, ran: Ran, assert: &Assert) -> Observation {
        conclude(sidecar, ran.record, ran.limits, assert)
    }
}

/// A machine that ran to its end.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) record: Record,
    /// How long it was allowed to take.
    pub(crate) limits: Limits,
}
