//! Where a test runs: in a machine of this host, in one inside an emulated machine, or in no machine.

mod choice;
mod here;
mod host_only;
mod nested;
mod resources;
mod set_up;
mod shell;

use std::time::Instant;

use ktstr_report::Sidecar;

pub use choice::{RunsIn, TestsOnly, UnknownEngine};
pub use host_only::{Body, run_host_only};
pub use resources::OuterMachine;
pub(crate) use resources::Resources;
pub(crate) use set_up::SetUpError;
pub(crate) use shell::{OnTerminal, run as run_shell};
pub use shell::{ShellEnd, ShellError, ShellPlan};

use crate::cpu_queue::Waiting;
use crate::observe::Observation;
use crate::plan::TestPlan;

/// Runs tests in one place.
pub(crate) trait Runner {
    /// The word for it in reports and in the queue.
    fn name(&self) -> &'static str;

    /// Runs one test, and fills in what it came to.
    fn run(
        &self,
        plan: &TestPlan,
        started: Instant,
        sidecar: &mut Sidecar,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Observation, SetUpError>;
}
