//! Results that find no room where they belong.

use std::error::Error;
use std::path::PathBuf;

use crate::{RunStore, Sidecar, StoreError};

/// Names a folder for results that can't be written into the run store. `cargo ktstr test` sets it for all of its
/// test processes; a test that can't leave its result there either fails.
pub const UNSTORED_DIR_ENV: &str = "KTSTR_UNSTORED_DIR";

impl Sidecar {
    /// Writes this result into `store`, or if that can't be done into `instead`, with the reason as its last remark.
    /// Says where it is. The error is that of `store`.
    pub fn leave(
        &mut self,
        store: &RunStore,
        instead: Option<&RunStore>,
    ) -> Result<PathBuf, StoreError> {
        let refused = match store.write(self) {
            Ok(path) => return Ok(path),
            Err(error) => error,
        };
        let Some(instead) = instead else {
            return Err(refused);
        };
        // Without the names of the test and of a temporary file, so that it is the same for all tests of the run.
        let mut cause: &dyn Error = &refused;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let cause = cause.to_string();
        let folder = store.root().display();
        self.remarks
            .push(format!("can't write to {folder}: {cause}"));
        instead.write(self).map_err(|_| refused)
    }
}
