//! What a test can declare: each attribute of `#[ktstr_test]` and each check is one row. The macro parses by
//! the rows, its messages and the tables of the documentation are made from them.
//!
//! Attributes that belong together fill one struct ([`Boot`], [`Run`], …). It goes whole from the test to
//! whoever acts on it, so a new attribute is a row with its field here, and its consumer.

mod attribute;
mod check;
mod checks;
mod machine;
mod run;
mod scheduler;
mod section;

pub use attribute::{Attribute, Fills, Needs, Takes};
pub use check::{Bound, Cause, CheckSpec, JudgedBy, Preset};
pub use checks::Check;
pub use machine::{Boot, MachineShape, NumaEntry, Packed};
pub use run::{Run, Watch};
pub use scheduler::SchedulerOptions;
pub use section::{Section, attribute, attributes};
