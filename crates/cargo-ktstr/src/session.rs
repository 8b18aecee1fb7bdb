//! Kernel and engine, chosen once, with the reasons told.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ktstr_host::{Session, SessionError, Settings};
use ktstr_kernels::{DebianError, ResolveError};
use ktstr_report::ExitCode;

use crate::args::Target;
use crate::edge::{OrExit as _, Refusal};
use crate::progress::Talk;

/// What the environment chooses, and over it what the command line does.
pub(crate) fn settings(target: &Target) -> Result<Settings, Refusal> {
    let mut settings = ktstr::settings_from_environment().or_exit(ExitCode::Usage)?;
    if let Some(kernel) = &target.kernel {
        settings.kernel = Some(kernel.clone());
    }
    if let Some(runs_in) = target.engine {
        settings.runs_in = runs_in;
    }
    Ok(settings)
}

/// The variables whose values are paths, as tests get them. Tests run in the folder of their package, so
/// what is relative to this one must not stay so.
pub(crate) fn paths(settings: &Settings) -> Result<Vec<(&'static str, PathBuf)>, Refusal> {
    let scheduler = ktstr::scheduler_from_environment().or_exit(ExitCode::Usage)?;
    let here = env::current_dir()
        .context("there is no working folder")
        .or_exit(ExitCode::HostUnfit)?;
    let libraries = settings.library_path.as_deref();
    let libraries = libraries.map(|list| PathBuf::from(absolute_list(list, &here)));
    let paths = [
        ("LD_LIBRARY_PATH", libraries),
        ("KTSTR_CACHE_DIR", settings.cache.clone()),
        ("KTSTR_LOCK_DIR", settings.lock_folder.clone()),
        ("KTSTR_QEMU", settings.engine_options.qemu.clone()),
        ("KTSTR_SCHEDULER", scheduler),
    ]
    .into_iter()
    .filter_map(|(name, path)| Some((name, path?)))
    .collect();
    Ok(paths)
}

/// A list of folders with `:` between, as the loader takes it (ld.so(8)), each starting at `here` if it is relative. An
/// empty one means `here`.
fn absolute_list(list: &str, here: &Path) -> String {
    let absolute = |part: &str| match Path::new(part) {
        // What the loader itself replaces.
        path if path.is_absolute() || part.starts_with('$') => part.to_owned(),
        _ if part.is_empty() => here.display().to_string(),
        path => here.join(path).display().to_string(),
    };
    let parts: Vec<String> = list.split([':', ';']).map(absolute).collect();
    parts.join(":")
}

/// Resolves the kernel, which may mean to fetch it, and finds the engine.
pub(crate) fn open(settings: Settings, talk: Talk) -> Result<Session, Refusal> {
    let progress = crate::progress::for_stderr(talk);
    Session::open(settings, progress.as_ref())
        .map_err(|error| Refusal::new(exit_code(&error), error))
}

/// Whose fault it is that there is no kernel or engine: what the user named, or what this host lacks, its network
/// among that.
fn exit_code(error: &SessionError) -> ExitCode {
    match error {
        SessionError::Kernel(error) => of_kernel(error),
        SessionError::KernelUnfit { .. } => ExitCode::Usage,
        _ => ExitCode::HostUnfit,
    }
}

/// The same of a kernel that is not available.
pub(crate) fn of_kernel(error: &ResolveError) -> ExitCode {
    match error {
        ResolveError::NoSuchKeyOrFile { .. }
        | ResolveError::Path(_)
        | ResolveError::Debian(DebianError::NoSuchSuite { .. } | DebianError::NoKernel { .. }) => {
            ExitCode::Usage
        }
        _ => ExitCode::HostUnfit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_f1_a_list_of_library_folders_starts_where_the_user_is() {
        let list = |text: &str| absolute_list(text, Path::new("/home/me"));
        assert_eq!(list("lib:/opt/lib"), "/home/me/lib:/opt/lib");
        assert_eq!(list(":../x"), "/home/me:/home/me/../x");
        assert_eq!(list("$ORIGIN/../lib"), "$ORIGIN/../lib");
    }

    #[test]
    fn fault_f8_only_a_fault_of_our_own_is_the_harnesss() {
        let no_such = ResolveError::NoSuchKeyOrFile {
            name: "x".to_owned(),
            known: Vec::new(),
        };
        assert_eq!(exit_code(&SessionError::Kernel(no_such)), ExitCode::Usage);
        let no_network = DebianError::Apt {
            what: "apt-get update",
            mirror: "http://mirror.example/debian".to_owned(),
            message: "Temporary failure resolving".to_owned(),
        };
        let no_network = SessionError::Kernel(ResolveError::Debian(no_network));
        assert_eq!(exit_code(&no_network), ExitCode::HostUnfit);
    }
}
