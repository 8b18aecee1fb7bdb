//! Host or guest: the two roles of one binary.

use std::error::Error as _;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::Context as _;
use ktstr_guest::InnerOutcome;
use ktstr_host::{
    OuterMachine, ProgressLines, ProgressSender, RunLog, RunObserver, Session, Settings, TestPlan,
    VmResult, blank_sidecar, run_host_only,
};
use ktstr_report::{
    EngineInfo, Failure, FailureKind, KernelInfo, Outcome, Renderer, RunId, Sidecar, TimingSlack,
};
use ktstr_wire::InnerTest;

use crate::host_body::host_body;
use crate::registry::TestEntry;
use crate::settings_error::SettingsError;
use crate::{environment, log, registry};

/// Before `main`: PID 1 of a machine is the guest, and never gets there.
#[ctor::ctor(unsafe)]
fn before_main() {
    enter_guest_if_pid1();
}

/// Runs the guest side and never returns, if this process is PID 1 of a machine that the host side made;
/// otherwise does nothing. Every binary that links this crate calls it before `main`.
pub fn enter_guest_if_pid1() {
    if ktstr_guest::is_guest() {
        ktstr_guest::run(registry::guest_case, run_on_inner_host);
    }
}

/// The host side of the test `name`: what the `#[test]` function does.
///
/// Prints the report. A test that is not green panics, without a message of its own, since the report
/// has said everything.
pub fn run(name: &'static str) {
    let Some(entry) = registry::find(name) else {
        panic!(
            "the test {name} is not in the registry of this binary: was it stripped of its sections?"
        );
    };
    let log = start_log(entry);
    let (mut result, mut trouble) = run_entry(entry);
    trouble.extend(log.as_ref().err().map(|error| format!("{error:#}")));
    result
        .sidecar
        .remarks
        .extend(environment::lost_coverage().map(str::to_owned));
    let unstored = environment::unstored();
    let stored = result
        .sidecar
        .leave(&environment::run_store(), unstored.as_ref());
    let sidecar = &result.sidecar;
    let mut left_nothing = false;
    match &stored {
        Ok(path) => trouble.extend(write_dump(&result, path).err().map(|e| format!("{e:#}"))),
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            trouble.push(format!("{error}{}", cause.unwrap_or_default()));
            // Whoever sums up this run must not take it for one that had no such test.
            left_nothing = unstored.is_some();
        }
    }
    let palette = environment::palette();
    let log = log.ok().flatten();
    let report = Renderer::new(palette)
        .with_log(log.as_deref())
        .test(sidecar, stored.as_deref().ok());
    println!("{}", report.trim_end());
    for error in trouble {
        println!("{error}");
    }
    if !sidecar.outcome.is_green() || left_nothing {
        std::panic::resume_unwind(Box::new("the test is not green"));
    }
}

/// Starts the harness's own log beside the sidecar, if one is asked for.
fn start_log(entry: &TestEntry) -> anyhow::Result<Option<PathBuf>> {
    let Some(filter) = environment::log_filter()? else {
        return Ok(None);
    };
    let run = environment::run_store().run_dir(&environment::run_id()?);
    let path = log::start(&filter, &run, entry.name)
        .with_context(|| format!("can't write the log of this test into {}", run.display()))?;
    Ok(Some(path))
}

/// Puts the failure dump beside the sidecar, if there is one.
fn write_dump(result: &VmResult, sidecar: &Path) -> anyhow::Result<()> {
    let Some(json) = result.dump_json() else {
        return Ok(());
    };
    let path = Sidecar::dump_path(sidecar);
    let json = json.context("can't write the failure dump as JSON")?;
    fs::write(&path, json)
        .with_context(|| format!("can't write the failure dump {}", path.display()))
}

fn run_entry(entry: &'static TestEntry) -> (VmResult, Vec<String>) {
    let (run_id, trouble) = match environment::run_id() {
        Ok(id) => (id, None),
        Err(error) => (RunId::generate(SystemTime::now()), Some(error.to_string())),
    };
    let plan = plan(entry, run_id.to_string());
    if entry.takes_scheduler_from_environment()
        && let Err(error) = environment::scheduler_of_test()
    {
        return (
            unfit(&plan, &host_failure(&error)),
            trouble.into_iter().collect(),
        );
    }
    if entry.host_only && !has_inner_host() {
        let sidecar = run_host_only(&plan, host_body(entry, TimingSlack::default()));
        let result = VmResult::without_machine(sidecar);
        return (result, trouble.into_iter().collect());
    }
    let result = match session() {
        Ok(session) => run_plan(session, entry, &plan, &mut observers(&plan)),
        Err(failure) => unfit(&plan, failure),
    };
    (result, trouble.into_iter().collect())
}

/// The result of a test that can't be run here, with the kernel and the engine that were asked for.
fn unfit(plan: &TestPlan, failure: &Failure) -> VmResult {
    VmResult::without_machine(Sidecar {
        outcome: Outcome::Fail,
        failure: Some(failure.clone()),
        kernel: environment::chosen("KTSTR_KERNEL").map(|key| KernelInfo {
            key,
            ..KernelInfo::default()
        }),
        engine: environment::chosen("KTSTR_ENGINE").map(|name| EngineInfo {
            name,
            ..EngineInfo::default()
        }),
        ..blank_sidecar(plan)
    })
}

fn host_failure(error: &SettingsError) -> Failure {
    Failure {
        kind: FailureKind::Host,
        summary: error.to_string(),
        detail: String::new(),
    }
}

/// Who is told how far the test is: the command that started this process, or who reads its standard error.
fn observers(plan: &TestPlan) -> Vec<Box<dyn RunObserver>> {
    let socket = environment::progress_socket();
    let stages = socket.is_none() && std::io::stderr().is_terminal();
    vec![
        Box::new(RunLog::new(&plan.name)),
        Box::new(ProgressLines::new(&plan.name, plan.run.duration(), stages)),
        Box::new(ProgressSender::new(
            socket.as_deref(),
            &plan.name,
            plan.run.duration(),
        )),
    ]
}

/// Runs a test, and what it wants run when its machine has ended.
fn run_plan(
    session: &Session,
    entry: &TestEntry,
    plan: &TestPlan,
    on: &mut dyn RunObserver,
) -> VmResult {
    let mut result = session.run_test(plan, on);
    // An inner host has done the rest.
    if result.is_of_this_host() {
        if let Some(post_vm) = entry.post_vm
            && result.sidecar.outcome != Outcome::Skip
        {
            let returned = post_vm(&result);
            let chain = |error: anyhow::Error| error.chain().map(ToString::to_string).collect();
            result.take_post_vm(returned.map_err(chain));
        }
        result.explain();
    }
    result
}

/// Whether a test for the host only has another host than this one.
fn has_inner_host() -> bool {
    environment::settings_of_test().is_ok_and(|settings| settings.runs_in.has_inner_host())
}

/// Kernel and engine are resolved by the first test of a process and serve all.
fn session() -> Result<&'static Session, &'static Failure> {
    static SESSION: OnceLock<Result<Session, Failure>> = OnceLock::new();
    let opened = SESSION.get_or_init(|| {
        let settings = environment::settings_of_test().map_err(|error| host_failure(&error))?;
        Session::open(settings, &ktstr_kernels::Lines::default())
            .map_err(|error| error.to_failure())
    });
    opened.as_ref()
}

fn plan(entry: &TestEntry, run_id: String) -> TestPlan {
    TestPlan {
        name: entry.name.to_owned(),
        run_id,
        shape: entry.shape,
        boot: entry.boot,
        packed: entry.packed,
        run: entry.run,
        watch: entry.watch,
        assert: entry.assert,
        includes: Vec::new(),
        scheduler: entry.scheduler.map(|scheduler| {
            // One that is not there is refused by `run_entry`.
            let chosen = environment::scheduler_of_test().ok().flatten();
            scheduler.plan(chosen.as_deref())
        }),
        expect: entry.expect.clone(),
    }
}

/// The host side once more, in a machine that has a KVM of its own and the kernel in a cache.
fn run_on_inner_host(test: &InnerTest) -> anyhow::Result<InnerOutcome> {
    let entry = registry::find(&test.name)
        .with_context(|| format!("the test {} is not in this binary's registry", test.name))?;
    let mut plan = plan(entry, test.run_id.clone());
    if entry.host_only {
        let sidecar = run_host_only(&plan, host_body(entry, test.slack.clone()));
        return Ok(InnerOutcome {
            sidecar: sidecar.to_json()?,
            dump: None,
        });
    }
    let settings = Settings {
        outer: Some(OuterMachine {
            slack: test.slack.clone(),
        }),
        ..environment::settings_of_test()?
    };
    let session = Session::open(settings, &ktstr_kernels::Quiet)?;
    // The outer host has built or found its program, and put it here.
    if let (Some(scheduler), Some(program)) = (&mut plan.scheduler, &test.scheduler) {
        scheduler.use_program(program);
    }
    let result = run_plan(&session, entry, &plan, &mut ());
    Ok(InnerOutcome {
        sidecar: result.sidecar.to_json()?,
        dump: result.dump_json().transpose()?,
    })
}
