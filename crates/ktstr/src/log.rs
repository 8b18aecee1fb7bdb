//! The harness's own log: a file beside the sidecar, if `KTSTR_LOG` asks for one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use ktstr_report::Sidecar;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{fmt, registry};

/// Starts the log of this process, in the folder of its run, and says where it is. The test that comes first names the
/// file; under a runner with a process for each test it is the only one.
pub(crate) fn start(filter: &Targets, run: &Path, test: &str) -> io::Result<PathBuf> {
    static LOG: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = LOG.get_or_init(|| {
        let path = Sidecar::log_path(run, test, std::process::id());
        open(filter, run, &path)
            .map(|()| path)
            .map_err(|error| error.to_string())
    });
    path.clone().map_err(io::Error::other)
}

fn open(filter: &Targets, run: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(run)?;
    let file = File::create(path)?;
    let lines = fmt::layer()
        .with_ansi(false)
        .with_thread_names(true)
        .with_writer(Mutex::new(file));
    let log = registry().with(filter.clone()).with(lines);
    // A test that has a log of its own keeps it.
    let _ = tracing::subscriber::set_global_default(log);
    Ok(())
}
