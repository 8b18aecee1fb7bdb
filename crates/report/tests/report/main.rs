//! Sidecars on disk, what a run comes to, and what a person reads of it.

#![expect(
    clippy::unwrap_used,
    reason = "the tests' helpers panic like the tests"
)]

mod rendering;
mod samples;
mod store;
mod summary;
