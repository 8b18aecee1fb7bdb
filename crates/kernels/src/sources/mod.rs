//! Where kernels come from: one file each. All of them end in [`import`], which turns what they found into
//! a cache entry.

pub(crate) mod deb;
pub(crate) mod debian;
mod import;
pub(crate) mod path;
mod regular;

pub use deb::DebError;
pub use debian::DebianError;
pub use import::ImportError;
pub use path::PathError;
pub use regular::FileError;
