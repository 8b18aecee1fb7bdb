//! The rules of the repository, each a function from what is there to what is wrong with it, one line a
//! fault. The test applies them to the repository, and each to something that breaks it.

mod arrows;
mod sources;
mod workspace;

pub use arrows::{ARROWS, forbidden_arrows};
pub use sources::{SourceFile, banned_names, mirror_hosts, overlong, own_policy, unsafe_outside};
pub use workspace::{
    Dependency, Package, WorkspaceError, library_crates, packages, root, source_files,
};
