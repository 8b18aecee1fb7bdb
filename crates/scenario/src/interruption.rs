//! Ending a load early.

use std::sync::{Arc, OnceLock};

/// Tells whoever holds a load that there is no point in holding it any longer: the scheduler under test has
/// gone. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Interruption {
    reason: Arc<OnceLock<String>>,
}

impl Interruption {
    /// Calls for it; the first reason stands. As a clause: `scheduler x had died`.
    pub fn call(&self, reason: impl Into<String>) {
        let _ = self.reason.set(reason.into());
    }

    /// Why, if it was called for.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}
