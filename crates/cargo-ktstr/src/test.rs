//! `cargo ktstr test`.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::SystemTime;

use anyhow::Context as _;
use ktstr_host::{PROGRESS_ENV, Session};
use ktstr_report::{
    ExitCode as Code, RUN_ID_ENV, RUNS_DIR_ENV, Renderer, Run as StoredRun, RunId, RunStore,
    RunSummary, StoreError, UNSTORED_DIR_ENV,
};

use crate::args::TestArgs;
use crate::edge::{OrExit as _, Refusal};
use crate::metadata::Metadata;
use crate::nextest_args::NextestArgs;
use crate::progress::Talk;
use crate::record::{self, Scratch};
use crate::running_tests::RunningTests;
use crate::verdict::{Run, Verdict, verdict};
use crate::{environment, output, packages, runs, session, signals};

/// What to say when nextest isn't there.
pub(crate) const NEXTEST_ADVICE: &str = "cargo install cargo-nextest --locked";

/// Runs the tests and sums up their outcomes.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode, Refusal> {
    let cargo = environment::cargo();
    require_nextest(&cargo)?;
    let nextest_args = NextestArgs(&args.nextest_args);
    let metadata = metadata(&cargo, nextest_args)?;
    let choice = package_arguments(nextest_args, metadata.as_ref())?;
    let settings = session::settings(&args.target)?;
    let paths = session::paths(&settings)?;
    let session = session::open(settings, Talk::All)?;
    announce(&session)?;

    let target = metadata.as_ref().map(|known| &*known.target_directory);
    let store = runs::in_target(target)?;
    let run_id = RunId::generate(SystemTime::now());
    // So that `runs clean` leaves it alone. A folder that can't be made is told of by each test.
    let _held = store.hold_run(&run_id).ok();
    let scratch = scratch();
    let mut nextest = Command::new(&cargo);
    nextest
        .args(["nextest", "run"])
        .args(scratch.as_ref().and_then(record_option))
        .args(choice)
        .args(&args.nextest_args)
        .envs(paths)
        .env("KTSTR_KERNEL", session.kernel().key())
        .env("KTSTR_ENGINE", session.runs_in_of_tests().name())
        .env(RUN_ID_ENV, run_id.as_str())
        .env(RUNS_DIR_ENV, store.root());
    if let Some(scratch) = &scratch {
        nextest.env(UNSTORED_DIR_ENV, scratch.unstored());
    }
    let running = scratch.as_ref().and_then(show_running_tests);
    if let Some(running) = &running {
        nextest.env(PROGRESS_ENV, running.socket());
    }
    let status = run_and_wait(&mut nextest)?;
    drop(running);

    let ran = scratch.as_ref().and_then(|scratch| scratch.read(target));
    let run = Run {
        nextest: status,
        recorded: ran.as_ref().map(Vec::len),
        signal: signals::taken(),
        is_build_only: nextest_args.is_build_only(),
        no_skips: args.no_skips,
    };
    let mut summary = summary(&store, &run_id, scratch)?;
    if run.signal.is_none() {
        summary.others = record::others(ran.as_deref().unwrap_or_default(), &summary);
    }
    conclude(&verdict(run, &summary), &summary, &store, &run_id)
}

/// What cargo says of the workspace. Tests that were built elsewhere need none.
fn metadata(cargo: &Path, args: NextestArgs<'_>) -> Result<Option<Metadata>, Refusal> {
    match Metadata::ask(cargo, args.manifest_path()) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(_) if args.are_built_elsewhere() => Ok(None),
        Err(error) => Err(Refusal::new(Code::Usage, error)),
    }
}

/// Without it the run goes on: tests that leave no result are then not named.
fn scratch() -> Option<Scratch> {
    let made = Scratch::make();
    if let Err(error) = &made {
        output::say(&format!(
            "warning: no temporary folder for nextest's record of this run: {error}"
        ));
    }
    made.ok()
}

/// On a terminal that can show them. Without, the run goes on as well.
fn show_running_tests(scratch: &Scratch) -> Option<RunningTests> {
    let is_dumb = environment::terminal_kind().is_none_or(|kind| kind == "dumb");
    let is_shown = output::is_watched() && !is_dumb;
    is_shown.then(|| RunningTests::show(scratch.progress_socket()).ok())?
}

fn record_option(scratch: &Scratch) -> Option<String> {
    let option = scratch.nextest_option();
    if let Err(error) = &option {
        output::say(&format!(
            "warning: nextest can't be made to record this run: {error}"
        ));
    }
    option.ok()
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

/// The arguments that choose packages and their features, beyond the user's own: the packages that have our tests,
/// and what switches the library on in them.
fn package_arguments(
    args: NextestArgs<'_>,
    metadata: Option<&Metadata>,
) -> Result<Vec<OsString>, Refusal> {
    let Some(metadata) = metadata else {
        return Ok(Vec::new());
    };
    let mut folder = env::current_dir()
        .context("there is no working folder")
        .or_exit(Code::HostUnfit)?;
    if let Some(manifest) = args.manifest_path() {
        folder = folder.join(manifest).parent().unwrap_or(&folder).to_owned();
    }
    let mut chosen: Vec<OsString> = Vec::new();
    let mut selected = Vec::new();
    if !args.choose_packages() {
        selected = packages::select(metadata, &folder).map_err(|none| {
            Refusal::message(
                Code::NoTests,
                format!(
                    "no package here depends on `ktstr` itself (looked at: {}): run this in the folder of one that \
                     does, name one with `-p`, or take all with `--workspace`",
                    none.looked_at.join(", ")
                ),
            )
        })?;
        chosen.extend(selected.iter().flat_map(|name| ["-p".into(), name.into()]));
    }
    let features = packages::features(metadata, &folder, args, &selected);
    if !features.is_empty() {
        let features = features.join(",");
        output::say(&format!(
            "features: {features}, for `ktstr` is an optional dependency there"
        ));
        chosen.extend(["--features".into(), features.into()]);
    }
    Ok(chosen)
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
    if environment::counts_coverage() {
        output::say(
            "warning: coverage of what runs in a guest is not counted, only that of the host's side",
        );
    }
    Ok(())
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

/// Sums up the results of a run, those in `scratch` among them. With such, that folder stays.
fn summary(
    store: &RunStore,
    run_id: &RunId,
    scratch: Option<Scratch>,
) -> Result<RunSummary, Refusal> {
    let stored = stored_run(store, run_id)?;
    let unstored = scratch
        .as_ref()
        .map(|scratch| stored_run(&RunStore::new(scratch.unstored()), run_id))
        .transpose()?
        .flatten();
    let runs = [stored.as_ref(), unstored.as_ref()];
    let runs = runs.into_iter().flatten();
    let mut summary = RunSummary::of_runs(runs);
    if let Some((unstored, scratch)) = unstored.zip(scratch) {
        summary.unstored = reasons(&unstored);
        scratch.keep();
    }
    Ok(summary)
}

/// A run of which there is no folder has no results.
fn stored_run(store: &RunStore, run_id: &RunId) -> Result<Option<StoredRun>, Refusal> {
    match store.load_run(run_id) {
        Ok(run) => Ok(Some(run)),
        Err(StoreError::NoSuchRun { .. }) => Ok(None),
        Err(error) => Err(Refusal::new(Code::HostUnfit, error)),
    }
}

/// Why results are where they don't belong, and where that is. The test has put that last among its remarks.
fn reasons(unstored: &StoredRun) -> Vec<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for stored in &unstored.sidecars {
        let remarks = &stored.sidecar.remarks;
        let reason = remarks.last().map_or("no reason was given", String::as_str);
        match counts.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((reason, 1)),
        }
    }
    let folder = unstored.dir.display();
    counts
        .into_iter()
        .map(|(reason, count)| {
            let results = if count == 1 { "result" } else { "results" };
            format!("{count} {results}: {reason}; kept in {folder}")
        })
        .collect()
}

fn conclude(
    verdict: &Verdict,
    summary: &RunSummary,
    store: &RunStore,
    run_id: &RunId,
) -> Result<ExitCode, Refusal> {
    let palette = environment::palette();
    let is_worth_it = !summary.tests.is_empty()
        || !summary.unreadable.is_empty()
        || !summary.others.failed.is_empty();
    if is_worth_it {
        let mut renderer = Renderer::new(palette);
        if let Some(columns) = output::columns() {
            renderer = renderer.within(columns);
        }
        let text = renderer.summary(summary);
        output::print(&format!(
            "\n{text}results in {}\n",
            store.run_dir(run_id).display()
        ))?;
    }
    if let Some(remark) = &verdict.remark {
        output::say(remark);
    }
    if let Some(advice) = runs::advice(store) {
        output::say(&advice);
    }
    Ok(verdict.code.into())
}
