//! Kernel and engine, chosen once, with the reasons told.

use std::path::PathBuf;

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
    if let Some(engine) = target.engine {
        settings.engine = engine;
    }
    Ok(settings)
}

/// The variables whose values are paths, as tests shall have them. Tests run in the folder of their package, so
/// what is relative to this one must not stay so.
pub(crate) fn paths(settings: &Settings) -> Result<Vec<(&'static str, PathBuf)>, Refusal> {
    let scheduler = ktstr::scheduler_from_environment().or_exit(ExitCode::Usage)?;
    let paths = [
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

/// The same of a kernel that can't be had.
pub(crate) fn of_kernel(error: &ResolveError) -> ExitCode {
    match error {
        ResolveError::Variable(_)
        | ResolveError::NoSuchKeyOrFile { .. }
        | ResolveError::Path(_)
        | ResolveError::Debian(DebianError::NoSuchSuite { .. } | DebianError::NoKernel { .. }) => {
            ExitCode::Usage
        }
        _ => ExitCode::HostUnfit,
    }
}
