//! Everything that needs neither a network nor a real kernel.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on is to stop there"
)]

mod cache;
mod files;
mod foreign;
mod image;
mod images;
mod modules;
mod path;
mod requirements;
mod spec;
mod synthetic;
