//! Kernel and engine, chosen once, with the reasons told.

use ktstr_host::{Session, SessionError, Settings};
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

/// Resolves the kernel, which may mean to fetch it, and finds the engine.
pub(crate) fn open(settings: Settings, talk: Talk) -> Result<Session, Refusal> {
    let progress = crate::progress::for_stderr(talk);
    Session::open(settings, progress.as_ref())
        .map_err(|error| Refusal::new(exit_code(&error), error))
}

fn exit_code(error: &SessionError) -> ExitCode {
    match error {
        SessionError::Engine(_) | SessionError::Cache(_) | SessionError::Queue(_) => {
            ExitCode::HostUnfit
        }
        _ => ExitCode::HarnessFailed,
    }
}
