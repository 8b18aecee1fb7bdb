//! The checks, judged on reports made by hand.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod declared;
mod reported;
mod samples;
