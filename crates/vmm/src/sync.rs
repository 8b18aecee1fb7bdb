//! What threads of a machine agree by. In a file of its own, so that the model of the gate (`tests/gate.rs`) puts
//! loom's in their place.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
