//! A command or a shell in a machine of its own.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ktstr_machine::{End, Port};
use ktstr_report::{Failure, Thresholds};
use ktstr_topology::Topology;
use ktstr_wire::Task;

use super::choice::TestsOnly;
use super::here::Here;
use super::resources::{KVM_MODULES, give_kvm};
use super::set_up::SetUpError;
use crate::cpu_queue::Waiting;
use crate::initramfs::Include;
use crate::memory::MemoryPlan;
use crate::plan::{Limits, boot_limit};
use crate::run::{OnOutput, Record, console_end, drive};
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
    /// Whether a person talks to it.
    pub interactive: bool,
    /// Files of the host it needs; the shell itself among them.
    pub includes: Vec<Include>,
    /// Kernel modules it needs, by name.
    pub modules: Vec<String>,
    /// Whether it has a KVM of its own, which the `tcg` engine can give.
    pub own_kvm: bool,
    /// How long the command may take; a person may take as long as they like.
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

/// Connects a person's terminal: gets the stream of the guest's terminal.
pub(crate) type OnTerminal<'a> = &'a mut dyn FnMut(UnixStream);

/// Who is told what a shell's machine does.
struct Listeners<'a> {
    output: OnOutput<'a>,
    terminal: OnTerminal<'a>,
    wait: &'a mut dyn FnMut(&Waiting),
}

/// Runs the command, once there are host CPUs for it: `on_wait` is told about waiting. What it prints goes to
/// `on_output` as it arrives, with the time by which that must return: the command's time is over then. For an
/// interactive shell, `on_terminal` gets the stream that it talks on.
pub(crate) fn run(
    runner: Here<'_>,
    plan: &ShellPlan,
    on_output: OnOutput<'_>,
    on_terminal: OnTerminal<'_>,
    on_wait: &mut dyn FnMut(&Waiting),
) -> Result<ShellEnd, ShellError> {
    let limits = Limits {
        boot: boot_limit(&plan.topology),
        run: plan.timeout,
    };
    let mut remarks = Vec::new();
    let on = &mut Listeners {
        output: on_output,
        terminal: on_terminal,
        wait: on_wait,
    };
    let mut driven = drive_shell(runner, plan, limits, &mut remarks, on);
    if let Some((tcg, remark)) = driven
        .as_ref()
        .err()
        .and_then(|error| runner.fallback(error))
    {
        remarks.push(remark);
        driven = drive_shell(runner.on(tcg.as_ref()), plan, limits, &mut remarks, on);
    }
    let record = driven.map_err(|error| ShellError::SetUp(failure_of(error.kind(), &error)))?;
    // A person who turns the machine off has left the shell.
    let turned_off = plan.interactive && record.booted() && record.end == End::PoweredOff;
    let Some(status) = record.exit.or(turned_off.then_some(0)) else {
        let terms = Terms {
            limits,
            thresholds: &Thresholds::DEFAULT,
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
    remarks.extend(record.remarks);
    Ok(ShellEnd { status, remarks })
}

fn drive_shell(
    runner: Here<'_>,
    plan: &ShellPlan,
    limits: Limits,
    remarks: &mut Vec<String>,
    on: &mut Listeners<'_>,
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
    let mut spec = resources.machine_spec(plan.topology, &plan.memory, &contents, task, remarks)?;
    spec.interactive_console = plan.interactive;
    if plan.own_kvm {
        give_kvm(&mut spec);
    }
    engine.check(&spec)?;
    let _share = resources.share(engine, engine.name(), "a shell", &spec, on.wait)?;
    let mut on_launch = |machine: &mut dyn ktstr_machine::Machine| {
        if plan.interactive
            && let Some(stream) = machine.take_port(Port::Shell)
        {
            (on.terminal)(stream);
        }
    };
    Ok(drive(
        engine,
        &spec,
        limits,
        None,
        &mut on_launch,
        on.output,
    )?)
}
