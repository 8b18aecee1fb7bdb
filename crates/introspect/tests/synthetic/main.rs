//! Every reader over made-up bytes: what they give for what is right, and that nothing hostile makes them
//! panic or run on.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on is to stop there"
)]

mod bounds;
mod bpf;
mod btf;
mod btf_builder;
mod busy_bpf;
mod busy_sched;
mod fake_bpf;
mod fake_kernel;
mod fake_sched;
mod kallsyms;
mod kallsyms_builder;
mod kernel;
mod memory;
