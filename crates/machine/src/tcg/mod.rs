//! The `tcg` engine: QEMU as a child process, emulating the CPU in software.
//!
//! Everything between us and QEMU is an inherited fd without a name (guest RAM, initramfs, console
//! streams, control), so that nothing is left behind however either side ends.

mod args;
mod end;
mod engine;
mod machine;
mod process;
mod qmp;
mod registers;
mod streams;
mod supervisor;
mod topology;
mod version;

pub(crate) use engine::TcgEngine;
