//! `cargo ktstr test`.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::SystemTime;

use anyhow::Context as _;
use ktstr_host::Session;
use ktstr_report::{
    ExitCode as Code, Palette, RUN_ID_ENV, RUNS_DIR_ENV, Renderer, RunId, RunStore, RunSummary,
    StoreError,
};

use crate::args::TestArgs;
use crate::edge::{OrExit as _, Refusal};
use crate::metadata::Metadata;
use crate::progress::Talk;
use crate::verdict::{Verdict, verdict};
use crate::{output, packages, session, signals};

/// What to say when nextest isn't there.
pub(crate) const NEXTEST_ADVICE: &str = "cargo install cargo-nextest --locked";

/// Runs the tests and sums up what they came to.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode, Refusal> {
    let cargo = cargo();
    require_nextest(&cargo)?;
    let metadata = Metadata::ask(&cargo).or_exit(Code::Usage)?;
    let choice = package_arguments(args, &metadata)?;
    let settings = session::settings(&args.target)?;
    let qemu = settings.engine_options.qemu.clone();
    let session = session::open(settings, Talk::All)?;
    announce(&session)?;

    let store = store(&metadata)?;
    let run_id = RunId::generate(SystemTime::now());
    let mut nextest = Command::new(&cargo);
    nextest
        .args(["nextest", "run"])
        .args(choice)
        .args(&args.filters)
        .args(&args.nextest_args)
        .env("KTSTR_KERNEL", session.kernel().key())
        .env("KTSTR_ENGINE", session.engine_of_tests().name())
        .env(RUN_ID_ENV, run_id.as_str())
        .env(RUNS_DIR_ENV, store.root());
    for (name, path) in absolute_paths(qemu)? {
        nextest.env(name, path);
    }
    let status = run_and_wait(&mut nextest)?;
    let summary = summary(&store, &run_id)?;
    conclude(
        &verdict(status, &summary),
        &summary,
        &store.run_dir(&run_id),
    )
}

/// The variables whose values are paths. Tests run in the folder of their package, so what is relative to this
/// one must not stay so.
fn absolute_paths(qemu: Option<PathBuf>) -> Result<Vec<(&'static str, PathBuf)>, Refusal> {
    let cache = env::var_os("KTSTR_CACHE_DIR")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    // A bare name is looked for on PATH.
    let qemu = qemu.filter(|path| path.components().count() > 1);
    [("KTSTR_CACHE_DIR", cache), ("KTSTR_QEMU", qemu)]
        .into_iter()
        .filter_map(|(name, path)| Some((name, path?)))
        .map(|(name, path)| Ok((name, std::path::absolute(path)?)))
        .collect::<io::Result<_>>()
        .or_exit(Code::HostUnfit)
}

/// The cargo that called this command, else the one on `PATH`.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The version of nextest, if it is installed.
pub(crate) fn nextest_version(cargo: &Path) -> io::Result<Option<String>> {
    let output = Command::new(cargo)
        .args(["nextest", "--version"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .next()
        .filter(|_| output.status.success())
        .map(str::to_owned))
}

fn require_nextest(cargo: &Path) -> Result<(), Refusal> {
    let version = nextest_version(cargo)
        .with_context(|| format!("can't run cargo as `{}`", cargo.display()))
        .or_exit(Code::HostUnfit)?;
    match version {
        Some(_) => Ok(()),
        None => Err(Refusal::message(
            Code::HostUnfit,
            format!("cargo-nextest, which runs the tests, is not installed: `{NEXTEST_ADVICE}`"),
        )),
    }
}

/// The arguments that choose packages: the user's own, else those of the packages that have our tests.
fn package_arguments(args: &TestArgs, metadata: &Metadata) -> Result<Vec<OsString>, Refusal> {
    if args.workspace {
        return Ok(vec!["--workspace".into()]);
    }
    let by_name = |names: &mut dyn Iterator<Item = &str>| {
        names.flat_map(|name| ["-p".into(), name.into()]).collect()
    };
    if !args.package.is_empty() {
        return Ok(by_name(&mut args.package.iter().map(String::as_str)));
    }
    if packages::are_chosen_by(&args.nextest_args) {
        return Ok(Vec::new());
    }
    let folder = env::current_dir()
        .context("there is no working folder")
        .or_exit(Code::HostUnfit)?;
    match packages::select(metadata, &folder) {
        Ok(selected) => Ok(by_name(&mut selected.into_iter())),
        Err(none) => Err(Refusal::message(
            Code::NoTests,
            format!(
                "no package here depends on `ktstr` itself (looked at: {}): run this in the folder of one that \
                 does, name one with `-p`, or take all with `--workspace`",
                none.looked_at.join(", ")
            ),
        )),
    }
}

/// Says what the tests will run on, and what they will miss there.
fn announce(session: &Session) -> Result<(), Refusal> {
    let kernel = session.kernel();
    output::say(&format!(
        "kernel: {} ({}; key {})",
        kernel.release(),
        kernel.source(),
        kernel.key()
    ));
    output::say(&session.engine_announcement());
    let requirements = kernel.requirements().or_exit(Code::HarnessFailed)?;
    if requirements.unchecked {
        output::say(
            "warning: the kernel's options are not known, so it is not checked for what tests need",
        );
    }
    for warning in &requirements.warnings {
        output::say(&format!("warning: the kernel lacks {warning}"));
    }
    Ok(())
}

fn store(metadata: &Metadata) -> Result<RunStore, Refusal> {
    let store = RunStore::for_target_dir(&metadata.target_directory);
    let root = std::path::absolute(store.root()).or_exit(Code::HostUnfit)?;
    Ok(RunStore::new(root))
}

fn run_and_wait(nextest: &mut Command) -> Result<ExitStatus, Refusal> {
    signals::stay_for_child()
        .context("can't prepare for signals")
        .or_exit(Code::HostUnfit)?;
    let mut child = nextest
        .spawn()
        .context("can't start `cargo nextest run`")
        .or_exit(Code::HostUnfit)?;
    signals::set_child(Some(&child));
    let status = child
        .wait()
        .context("can't wait for `cargo nextest run`")
        .or_exit(Code::HarnessFailed);
    signals::set_child(None);
    status
}

/// A run of which there is no folder has no results.
fn summary(store: &RunStore, run_id: &RunId) -> Result<RunSummary, Refusal> {
    match store.load_run(run_id) {
        Ok(run) => Ok(RunSummary::of_run(&run)),
        Err(StoreError::NoSuchRun { .. }) => Ok(RunSummary::default()),
        Err(error) => Err(Refusal::new(Code::HarnessFailed, error)),
    }
}

fn conclude(verdict: &Verdict, summary: &RunSummary, folder: &Path) -> Result<ExitCode, Refusal> {
    let palette = Palette::for_stream(io::stdout().is_terminal());
    if !summary.tests.is_empty() || !summary.unreadable.is_empty() {
        let text = Renderer::new(palette).summary(summary);
        output::print(&format!("\n{text}results in {}\n", folder.display()))?;
    }
    if let Some(remark) = &verdict.remark {
        output::say(remark);
    }
    Ok(verdict.code.into())
}
