//! A command or a shell in a machine of its own.

use std::io;
use std::time::Duration;

use ktstr_machine::End;
use ktstr_report::{Assert, Failure};
use ktstr_topology::Topology;
use ktstr_wire::Task;

use super::choice::TestsOnly;
use super::here::Here;
use super::resources::{KVM_MODULES, give_kvm};
use super::set_up::SetUpError;
use crate::events::{RunEvent, RunObserver};
use crate::initramfs::Include;
use crate::memory::MemoryPlan;
use crate::plan::{Limits, boot_limit};
use crate::run::{Record, console_end, drive};
use crate::verdict::{Terms, failure_of, judge};

/// What a shell wants.
#[derive(Clone, Debug)]
pub struct ShellPlan {
    /// Shape of the machine.
    pub topology: Topology,
    /// Memory of the machine.
    pub memory: MemoryPlan,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether it is a shell at the user's terminal.
    pub interactive: bool,
    /// Files of the host it needs; the shell itself among them.
    pub includes: Vec<Include>,
    /// Kernel modules it needs, by name.
    pub modules: Vec<String>,
    /// Whether it has a KVM of its own, which the `tcg` engine can give.
    pub own_kvm: bool,
    /// How long the command may take; a shell at a terminal has no limit.
    pub timeout: Option<Duration>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct ShellEnd {
    /// Exit status of the command.
    pub status: u8,
    /// Remarks of the guest.
    pub remarks: Vec<String>,
}

/// The command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// Shells don't run there.
    #[error(transparent)]
    TestsOnly(#[from] TestsOnly),
    /// The machine could not be set up.
    #[error("{}{}", .0.summary, detail(.0))]
    SetUp(Failure),
    /// The machine ended before the command did.
    #[error("{}{}\nthe end of the console:\n{console}", .failure.summary, detail(.failure))]
    Died {
        /// Why.
        failure: Failure,
        /// The end of the guest's console.
        console: String,
    },
    /// This host's terminal can't be used.
    #[error("connecting the terminal to the machine")]
    Terminal(#[source] io::Error),
}

fn detail(failure: &Failure) -> String {
    if failure.detail.is_empty() {
        String::new()
    } else {
        format!("\n{}", failure.detail.trim_end())
    }
}

/// Keeps the remarks, and passes all on.
struct Remarks<'a> {
    kept: Vec<String>,
    next: &'a mut dyn RunObserver,
}

impl RunObserver for Remarks<'_> {
    fn event(&mut self, event: &RunEvent<'_>) {
        if let RunEvent::Remark(remark) | RunEvent::Fallback { remark, .. } = event
            && !self.kept.iter().any(|known| known == remark)
        {
            self.kept.push((*remark).to_owned());
        }
        self.next.event(event);
    }
}

/// Runs the command to its end. What it prints is in the events; so is the terminal of an interactive shell.
pub(crate) fn run(
    runner: Here<'_>,
    plan: &ShellPlan,
    on: &mut dyn RunObserver,
) -> Result<ShellEnd, ShellError> {
    let limits = Limits {
        boot: boot_limit(&plan.topology),
        run: plan.timeout,
    };
    let mut on = Remarks {
        kept: Vec::new(),
        next: on,
    };
    let mut driven = drive_shell(runner, plan, limits, &mut on);
    let fallback = driven.as_ref().err();
    if let Some(tcg) = fallback.and_then(|error| runner.fallback(error, &mut on)) {
        driven = drive_shell(runner.on(tcg.as_ref()), plan, limits, &mut on);
    }
    let record = driven.map_err(|error| ShellError::SetUp(failure_of(error.kind(), &error)))?;
    // A person who turns the machine off has left the shell.
    let turned_off = plan.interactive && record.booted() && record.end == End::PoweredOff;
    let Some(status) = record.exit.or(turned_off.then_some(0)) else {
        let terms = Terms {
            limits,
            assert: &Assert::DEFAULT,
            has_scheduler: false,
        };
        let (_, failure, _) = judge(&record, terms);
        let failure = failure.unwrap_or_else(|| Failure {
            kind: ktstr_report::FailureKind::Harness,
            summary: "the machine ended before the command did".to_owned(),
            detail: String::new(),
        });
        return Err(ShellError::Died {
            failure,
            console: console_end(&record.console),
        });
    };
    let mut remarks = on.kept;
    remarks.extend(record.remarks);
    Ok(ShellEnd { status, remarks })
}

fn drive_shell(
    runner: Here<'_>,
    plan: &ShellPlan,
    limits: Limits,
    on: &mut dyn RunObserver,
) -> Result<Record, SetUpError> {
    let (resources, engine) = (runner.resources, runner.engine);
    let mut modules: Vec<&str> = plan.modules.iter().map(String::as_str).collect();
    if plan.own_kvm {
        modules.extend(KVM_MODULES);
    }
    let contents = resources.base_contents(plan.includes.clone(), &modules)?;
    let task = Task::Shell {
        argv: plan.argv.clone(),
        interactive: plan.interactive,
    };
    let (mut spec, job) =
        resources.machine_spec(plan.topology, &plan.memory, &contents, task, on)?;
    spec.interactive_console = plan.interactive;
    if plan.own_kvm {
        give_kvm(&mut spec);
    }
    engine.check(&spec)?;
    let permit = resources.permit(engine, engine.name(), "a shell", &spec, on)?;
    on.event(&RunEvent::Booting {
        attempt: 1,
        queued: permit.waited,
    });
    Ok(drive(engine, &spec, &job, limits, None, on)?)
}
