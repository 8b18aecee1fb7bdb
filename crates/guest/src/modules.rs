//! Loading kernel modules.

use std::fs::{self, File};
use std::io;

use ktstr_wire::Modules;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// A module can't be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("reading the list of modules, {}", Modules::LIST)]
    List(#[source] io::Error),
    #[error("module {name}: its file {path} can't be opened in the guest")]
    Open {
        name: String,
        path: String,
        source: io::Error,
    },
    #[error(
        "module {name} was refused by the kernel ({errno}): {hint}; the kernel's own words are in the console"
    )]
    Refused {
        name: String,
        errno: Errno,
        hint: &'static str,
    },
}

/// Loads the modules of the list in its order. One that is already there is fine.
pub(crate) fn load_all() -> Result<(), ModuleError> {
    let list = fs::read_to_string(Modules::LIST).map_err(ModuleError::List)?;
    list.lines().try_for_each(load)
}

fn load(module: &str) -> Result<(), ModuleError> {
    let name = || module.to_owned();
    let path = Modules::path(module);
    let file = File::open(&path).map_err(|source| ModuleError::Open {
        name: name(),
        path,
        source,
    })?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(ModuleError::Refused {
            name: name(),
            errno,
            hint: hint(errno),
        }),
    }
}

/// What finit_module(2) means by its errors.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOEXEC => "it isn't a module, or was built for another kernel",
        Errno::ENOENT => "it needs a symbol that no loaded module provides",
        Errno::EKEYREJECTED | Errno::ENOKEY => "the kernel takes only signed modules",
        Errno::ENODEV => "the device it drives isn't there",
        Errno::EPERM => "module loading is locked down",
        _ => "its init function failed",
    }
}
