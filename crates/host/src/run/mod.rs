//! One machine from launch to end: it is driven under a deadline, and what it says becomes a [`Record`].

mod attempt;
mod console;
mod deadline;
mod drive;
mod guest_pause;
mod link;
mod lives;
mod order;
mod record;
mod speaker;

pub(crate) use attempt::boot;
pub(crate) use console::console_end;
pub(crate) use drive::{DriveError, drive};
pub(crate) use lives::Life;
pub(crate) use record::Record;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use record::empty_record;
