//! The `kvm` engine: our own microVM in this process, on the host's KVM.

mod engine;
mod machine;
mod watcher;

pub(crate) use engine::KvmEngine;
