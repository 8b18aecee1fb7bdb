//! A test harness for Linux process schedulers.
//!
//! A test declares a machine and what runs in it. The harness boots that machine with a real, unmodified
//! kernel, runs the test's body as root inside, and judges what the scheduler made of the load:
//!
//! ```no_run
//! use ktstr::prelude::*;
//!
//! /// Two LLCs of two cores, one cgroup pinned to each.
//! #[ktstr_test(llcs = 2, cores = 2)]
//! fn pinned_to_llcs(ctx: &Ctx) -> Result<AssertResult> {
//!     Ok(execute_defs(ctx, vec![
//!         CgroupDef::named("left").workers(2).cpuset(CpusetSpec::Llc(0)),
//!         CgroupDef::named("right").workers(2).cpuset(CpusetSpec::Llc(1)),
//!     ])?)
//! }
//! # fn main() {}
//! ```
//!
//! The same binary is the host side, as the ordinary test that `cargo test` or nextest runs, and the
//! guest side, as PID 1 of the machine. See [`ktstr_test`] for what a test can declare, and
//! [`Assert`] for the checks that every test gets without asking.

#![warn(missing_docs)]

mod entry;
mod environment;
mod folders;
mod host_body;
mod log;
mod registry;
mod scheduler;
mod settings_error;

/// Declares a test: a function `fn(ctx: &Ctx) -> Result<AssertResult>`, run as root in a virtual machine of
/// its own. It is an ordinary `#[test]` for `cargo test` and nextest; `#[ignore]` works as usual.
///
#[doc = include_str!("attributes.md")]
///
/// A check that is off is named in the report as not checked; see [`Assert`].
///
/// A test under a scheduler has two more, which can't be turned off: `scheduler_attached`, that the kernel had it
/// attached and named it, and `scheduler_alive`, that it had until the end of the test.
///
/// With `expect_err` a test passes if just this goes wrong, and fails with what happened instead if it doesn't.
/// Apart from `load_failure`, it takes a scheduler that was attached:
///
/// | `expect_err(…)` | what is expected |
/// |---|---|
/// | `stall` | the kernel's watchdog disables the scheduler |
/// | `scx_error`, `scx_error(contains = "text")` | the kernel disables it for an error, with these words |
/// | `check(max_gap_ms)` | this check does not hold, and the scheduler stays |
/// | `load_failure`, `load_failure(contains = "text")` | the kernel refuses to load the scheduler, with these words |
///
/// It excuses checks that follow from it (the guide's chapter on schedulers has the table), and no others.
///
/// A shape that can't exist, an attribute that is not in these tables, and a value that makes no sense are
/// compile errors where they stand:
///
/// ```compile_fail
/// # use ktstr::prelude::*;
/// #[ktstr_test(llcs = 3, numa_nodes = 2)] // 3 LLCs can't be shared evenly among 2 NUMA nodes
/// fn uneven(ctx: &Ctx) -> Result<AssertResult> {
///     Ok(scenarios::steady(ctx)?)
/// }
/// # fn main() {}
/// ```
///
/// ```compile_fail
/// # use ktstr::prelude::*;
/// #[ktstr_test(core = 2)] // there is no attribute `core`
/// fn misspelt(ctx: &Ctx) -> Result<AssertResult> {
///     Ok(scenarios::steady(ctx)?)
/// }
/// # fn main() {}
/// ```
///
/// ```compile_fail
/// # use ktstr::prelude::*;
/// #[ktstr_test(host_only, cores = 2)] // `cores` needs a machine; `host_only` tests have none
/// fn contradictory(ctx: &Ctx) -> Result<AssertResult> {
///     Ok(scenarios::steady(ctx)?)
/// }
/// # fn main() {}
/// ```
pub use ktstr_macros::ktstr_test;

/// Declares a scheduler to run tests under, as a `static`:
///
/// ```
/// use ktstr::prelude::*;
///
/// declare_scheduler!(MINE, {
///     name = "mine",
///     binary = "scx_mine",
///     topology = (1, 2, 4, 1),
///     sched_args = ["--slice-us", "5000"],
/// });
///
/// #[ktstr_test(scheduler = MINE, llcs = 1)]
/// fn one_llc(ctx: &Ctx) -> Result<AssertResult> {
///     Ok(scenarios::steady(ctx)?)
/// }
/// ```
///
/// | field | meaning |
/// |---|---|
/// | `name` | its name in reports |
/// | `binary` | its program: the file that `KTSTR_SCHEDULER` names, else the binary target of this name, built with cargo in this workspace (`KTSTR_SCHEDULER_PROFILE` names the profile) |
/// | `binary_path` | or a file; a relative path starts at this crate |
/// | `enable`, `disable` | or shell commands for one that is part of the kernel |
/// | `is_enabled` | beside them, where it is not of sched_ext: a shell command that ends with status 0 only while it is on |
/// | `topology` | `(numa_nodes, llcs, cores, threads)` of its tests, where they don't declare their own |
/// | `sched_args` | arguments of its program |
/// | `ops` | the name that the kernel has for it, or its beginning; if unset, that of `binary` without `scx_`, and any for a file |
/// | `checks` | checks of declared properties that it ignores by design, such as `{ cpu_share = off, cpu_quota = off }`; a test's own setting wins |
/// | `kernels` | releases that it is for, by their beginning, such as `["6.16", "7"]`; on others its tests are skipped |
pub use ktstr_macros::declare_scheduler;

pub use ktstr_host::{Moment, Observation, VmResult};
pub use ktstr_monitor as monitor;
pub use ktstr_report::{AssertResult, CheckResult, ExitCode, Outcome, WorkerReport};
pub use ktstr_scenario as scenario;
pub use ktstr_scenario::{Assert, Ctx};
pub use ktstr_topology::{CpuSet, NumaMemory, Topology};

pub use entry::enter_guest_if_pid1;
pub use scheduler::Scheduler;

pub use environment::{scheduler_from_environment, settings_from_environment};
pub use settings_error::SettingsError;

/// What a test file needs, in one `use`.
pub mod prelude {
    pub use anyhow::{Context as _, Result, anyhow, bail, ensure};
    pub use ktstr_macros::{declare_scheduler, ktstr_test};
    pub use ktstr_scenario::*;

    pub use crate::{Scheduler, VmResult};
}

/// For the code that [`ktstr_test`] makes. No part of the public interface.
#[doc(hidden)]
pub mod __private {
    pub use ktstr_declaration::{
        Boot, MachineShape, NumaEntry, Packed, Run, SchedulerOptions, Watch,
    };
    pub use ktstr_report::Expectation;
    pub use linkme;

    pub use crate::entry::run;
    pub use crate::registry::{TESTS, TestEntry, post_vm_result, topology};
    pub use crate::scheduler::{SchedulerUse, assert_under, topology_under};
}

#[cfg(test)]
mod tests {
    #[test]
    fn fault_f14_the_prelude_has_what_its_own_functions_take() {
        use crate::prelude::{CgroupDef, CgroupKind, Knob, Limit};

        let def = CgroupDef::named("small").knob(Knob::PidsMax(Limit::At(9)));
        assert!(format!("{def:?}").contains("PidsMax"));
        assert_eq!(CgroupKind::Domain.to_string(), "domain");
    }
}
