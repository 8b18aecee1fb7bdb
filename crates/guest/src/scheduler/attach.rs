//! Starting a scheduler, and the proof that it is attached.
//!
//! For one of sched_ext that is the kernel's word, which names it. One that is something else, such as a feature of
//! EEVDF, is switched on by a command, whose exit status proves nothing: its declaration has another command that tells
//! whether it is on, and has to tell both.

use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_report::CheckResult;
use ktstr_scenario::sched_ext;
use ktstr_wire::{SchedulerJob, SchedulerStart};

use super::LOOK_EVERY;
use super::process::{Process, ended_with};
use super::watchdog::{self, NotSet};
use crate::link::Link;

/// How long loading and attaching may take. Under emulation the verifier alone takes the big ones 20 s.
const ATTACH_WITHIN: Duration = Duration::from_secs(120);

/// What there is of a scheduler before it is attached.
#[derive(Default)]
pub(super) struct Started {
    pub(super) process: Option<Process>,
    /// What came of the limit that the test sets.
    pub(super) limit: Option<CheckResult>,
}

/// A scheduler that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// The kernel has this name for it.
    Named(String),
    /// This command of its declaration tells that it is on, and told before that it was not.
    Told(String),
    /// Nothing shows it, and why.
    Unproven(String),
}

impl Attached {
    /// Name that the kernel has for it.
    pub(super) fn ops(&self) -> Option<String> {
        match self {
            Self::Named(ops) => Some(ops.clone()),
            _ => None,
        }
    }
}

/// Starts the scheduler and waits until it is attached; or says why it is not.
pub(super) fn attach(
    job: &SchedulerJob,
    link: &Arc<Link>,
    started: &mut Started,
) -> Result<Attached, String> {
    if let Some(other) = sched_ext::attached() {
        return Err(format!("the scheduler `{other}` is attached already"));
    }
    let limit = job.watchdog.as_ref();
    let argv = match &job.start {
        SchedulerStart::Program(argv) => argv,
        SchedulerStart::Builtin {
            enable, is_enabled, ..
        } => {
            started.limit = limit.map(|limit| watchdog::check(limit, &Err(NotSet::NoProgram)));
            return switch_on(job, enable, is_enabled.as_deref(), link);
        }
    };
    if !sched_ext::is_there() {
        return Err("the kernel has no sched_ext (CONFIG_SCHED_CLASS_EXT)".to_owned());
    }
    let deadline = Instant::now() + ATTACH_WITHIN;
    let spawned = match limit {
        None => Process::spawn(argv, link),
        Some(limit) => {
            watchdog::spawn_limited(argv, link, limit, deadline).map(|(process, set)| {
                started.limit = Some(watchdog::check(limit, &set));
                process
            })
        }
    };
    let spawned = spawned.map_err(|error| format!("its program can't be run: {error}"))?;
    let process = started.process.insert(spawned);
    loop {
        if let Some(ops) = sched_ext::attached() {
            return named(job, ops);
        }
        if let Some(status) = process.ended() {
            return Err(ended_with(status));
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "after {} s its process runs, and sched_ext says `{}`",
                ATTACH_WITHIN.as_secs(),
                sched_ext::state()
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Whether what the kernel has attached is the one that is declared.
fn named(job: &SchedulerJob, ops: String) -> Result<Attached, String> {
    match &job.ops {
        Some(wanted) if !is_named(&ops, wanted) => Err(format!(
            "the kernel has a scheduler attached that it calls `{ops}`, not `{wanted}`; if that is its name, declare \
             `ops = \"{ops}\"`"
        )),
        _ => Ok(Attached::Named(ops)),
    }
}

/// `bpfland` names `bpfland` and `bpfland_1.1.4_x86_64`, and not `bpflander`.
fn is_named(ops: &str, wanted: &str) -> bool {
    ops.strip_prefix(wanted)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

/// Switches on one that is part of the kernel.
fn switch_on(
    job: &SchedulerJob,
    enable: &str,
    is_enabled: Option<&str>,
    link: &Arc<Link>,
) -> Result<Attached, String> {
    if let Some(command) = is_enabled
        && tells_enabled(command, link)?
    {
        return Err(format!(
            "`{command}` told that it is on before `{enable}` was run: it tells nothing"
        ));
    }
    run_shell(enable, link)?;
    let deadline = Instant::now() + ATTACH_WITHIN;
    while sched_ext::state() == "enabling" && Instant::now() < deadline {
        thread::sleep(LOOK_EVERY);
    }
    if let Some(ops) = sched_ext::attached() {
        return named(job, ops);
    }
    match is_enabled {
        Some(command) if tells_enabled(command, link)? => Ok(Attached::Told(command.to_owned())),
        Some(command) => Err(format!(
            "`{command}` tells that it is off after `{enable}` was run"
        )),
        None => Ok(Attached::Unproven(format!(
            "`{enable}` ended with success, and sched_ext has no scheduler attached; if it is something else, declare \
             `is_enabled = \"COMMAND\"`, which ends with status 0 only while it is on"
        ))),
    }
}

/// Whether the command of a declaration tells that the scheduler is on.
pub(super) fn tells_enabled(command: &str, link: &Arc<Link>) -> Result<bool, String> {
    Ok(shell(command, link)?.success())
}

/// Runs a shell command; why it failed, if it did.
pub(super) fn run_shell(command: &str, link: &Arc<Link>) -> Result<(), String> {
    let status = shell(command, link)?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{command}`: {}", ended_with(status))),
    }
}

/// Runs a shell command to its end.
fn shell(command: &str, link: &Arc<Link>) -> Result<ExitStatus, String> {
    let argv = [SchedulerJob::SHELL, "sh", "-c", command].map(str::to_owned);
    let mut process =
        Process::spawn(&argv, link).map_err(|error| format!("no shell can be run: {error}"))?;
    let status = process.wait_for_end(ATTACH_WITHIN);
    process.end(Duration::ZERO);
    process.finish_log().map_err(|error| error.to_string())?;
    status.ok_or_else(|| {
        format!(
            "`{command}` did not end within {} s",
            ATTACH_WITHIN.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_go_on_with_a_version() {
        assert!(is_named("bpfland", "bpfland"));
        assert!(is_named("bpfland_1.1.4_x86_64", "bpfland"));
        assert!(!is_named("bpflander", "bpfland"));
        assert!(!is_named("land", "bpfland"));
    }
}
