//! Where a test runs: in a machine of this host, in one inside an emulated machine, or in no machine.

mod host_only;
mod nested;
mod shell;

pub use host_only::{Body, run_host_only};
pub use shell::{ShellEnd, ShellError, ShellPlan};
