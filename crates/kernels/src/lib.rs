//! Kernels for tests: found, fetched, checked and kept.
//!
//! [`resolve`] turns a [`KernelSpec`] (what a person wrote after `--kernel`) into a [`Kernel`]: files in the
//! [`Cache`] with everything that a machine, a monitor or an initramfs needs of them. What it does on the way
//! is told as [`Event`]s to a [`Progress`]. [`tools`] are the programs that are fetched in the same way.

mod cache;
mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod image;
mod kernel;
mod modules;
mod options;
mod progress;
mod requirements;
mod resolve;
mod sources;
mod spec;
pub mod tools;

pub use cache::{Cache, CacheError, Damage, Entry, FileStamp, Listed, LockError, Metadata, Origin};
pub use config::{KernelConfig, OptionState};
pub use kernel::Kernel;
pub use modules::{ModuleError, ModuleFile};
pub use options::ResolveOptions;
pub use progress::{Event, Lines, Progress, Quiet};
pub use requirements::{Requirement, Requirements, check as check_config};
pub use resolve::{ResolveError, resolve};
pub use sources::{DebError, DebianError, FileError, ImportError, PathError};
pub use spec::{DebianSpec, KernelSpec, SpecError};
