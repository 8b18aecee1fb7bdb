//! What a resolution may be told.

use std::path::PathBuf;
use std::time::Duration;

/// What a resolution depends on beside the spec and the cache.
#[derive(Clone, Debug)]
pub struct ResolveOptions {
    /// Ask the mirror again although the cache has a kernel that fits.
    pub refresh: bool,
    /// The root folder of the machine whose apt sources are read: `/`.
    pub machine_root: PathBuf,
    /// How long a mirror may send less than 1 KiB a second before it is given up.
    pub mirror_patience: Duration,
}

/// Long enough for a mirror that thinks before it answers, and for apt on a busy host to read its lists.
pub(crate) const MIRROR_PATIENCE: Duration = Duration::from_secs(90);

impl Default for ResolveOptions {
    fn default() -> Self {
        Self {
            refresh: false,
            machine_root: PathBuf::from("/"),
            mirror_patience: MIRROR_PATIENCE,
        }
    }
}
