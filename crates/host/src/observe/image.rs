//! What is known of the kernel before it runs.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ktstr_introspect::KernelImage;

use crate::causes::chain;

/// The kernel's types and symbols, read from its file by the first test that needs them.
#[derive(Debug)]
pub(crate) struct LazyImage {
    vmlinux: PathBuf,
    image: OnceLock<Result<Arc<KernelImage>, String>>,
}

impl LazyImage {
    /// Of the kernel in the file `vmlinux`.
    pub(crate) fn new(vmlinux: PathBuf) -> Self {
        Self {
            vmlinux,
            image: OnceLock::new(),
        }
    }

    /// The error says why the kernel can't be seen into.
    pub(crate) fn get(&self) -> Result<Arc<KernelImage>, String> {
        let read = || {
            let bytes = fs::read(&self.vmlinux)
                .map_err(|error| format!("reading {}: {error}", self.vmlinux.display()))?;
            let image = KernelImage::from_vmlinux(&bytes);
            image.map(Arc::new).map_err(|error| chain(&error))
        };
        self.image.get_or_init(read).clone()
    }
}
