//! Taking locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock also after a panic in another thread: the machine is being ended then, and a device has
/// no state that could do harm.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
