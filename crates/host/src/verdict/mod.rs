//! From what happened to what is reported: pure functions of the record of a run.

mod expectation;
mod outcome;
mod sidecar;
mod vm_result;
mod writer;

pub(crate) use expectation::apply as apply_expectation;
pub(crate) use outcome::{Terms, against_outer_machine, fail, inconclusive, judge, judge_end};
pub use sidecar::blank_sidecar;
pub(crate) use sidecar::{conclude, failure_of};
pub use vm_result::{DUMP_SCHEMA_VERSION, VmResult};
pub(crate) use writer::SidecarWriter;
