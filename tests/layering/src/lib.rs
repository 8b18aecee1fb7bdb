//! The rules of the repository, each a function from what is there to what is wrong with it, one line a
//! fault. The test applies them to the repository, and each to something that breaks it.

mod arrows;
mod dependencies;
mod environment;
mod functions;
mod modules;
mod source_file;
mod sources;
mod syntax;
mod workspace;

pub use arrows::{ARROWS, forbidden_arrows, forbidden_reexports};
pub use dependencies::unused_dependencies;
pub use environment::environment_readers;
pub use functions::overlong_functions;
pub use modules::module_circles;
pub use source_file::SourceFile;
pub use sources::{banned_names, mirror_hosts, overlong, own_policy, unsafe_outside};
pub use workspace::{
    Dependency, Package, WorkspaceError, library_crates, packages, root, source_files,
};
