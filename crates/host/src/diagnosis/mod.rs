//! Why a scheduler failed, in one line: what happened, to whom, because of what.
//!
//! A pure function of what a test left: the scheduler's report and log, and the kernel's state at the moments of
//! the failure dump. Each rule states facts that were read, never a guess; without one that fits, the line says
//! how the scheduler ended, and no more.

mod log;
mod stall;

use ktstr_monitor::state::CpuState;
use ktstr_report::{Outcome, SchedulerEnd, SchedulerReport, Sidecar};

use crate::observe::Moment;

/// What of a moment the rules look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// CPUs by number; empty if they could not be read.
    pub(crate) cpus: &'a [CpuState],
}

impl<'a> From<&'a Moment> for Scene<'a> {
    fn from(moment: &'a Moment) -> Self {
        Self {
            cpus: moment.kernel.cpus.as_deref().unwrap_or_default(),
        }
    }
}

/// The cause of a failure of the scheduler under test. `scenes` are in order of time. Empty for a test without a
/// scheduler, one that is green, and one whose scheduler was attached to the end.
pub(crate) fn cause(sidecar: &Sidecar, scenes: &[Scene<'_>]) -> String {
    let Some(scheduler) = &sidecar.scheduler else {
        return String::new();
    };
    if sidecar.outcome.is_green() || scheduler.end == SchedulerEnd::Attached {
        return String::new();
    }
    let release = sidecar
        .kernel
        .as_ref()
        .map(|kernel| kernel.release.as_str());
    let found = match scheduler.end {
        SchedulerEnd::NeverLoaded => not_loaded(scheduler, release),
        SchedulerEnd::Stalled => stall::cause(scheduler, scenes),
        SchedulerEnd::Died => died(scheduler),
        _ => None,
    };
    let mut cause = match (found, scheduler.end) {
        (Some(found), _) => match disabled_before(scheduler) {
            Some(before) => format!("{found}, after the kernel had disabled it: {before}"),
            None => found,
        },
        // The failure that ended the machine is the first line of its own.
        (None, SchedulerEnd::Unknown) => return String::new(),
        (None, _) => scheduler.sentence(),
    };
    if let Some(warning) = kernel_warning(sidecar) {
        cause.push_str("; ");
        cause.push_str(warning);
    }
    cause
}

/// Why libbpf or the kernel refused the scheduler's program, as its log tells it.
pub(crate) fn refusal_in_log(log: &str) -> Option<String> {
    log::refusal(log, None)
}

fn not_loaded(scheduler: &SchedulerReport, release: Option<&str>) -> Option<String> {
    let why = log::refusal(&scheduler.log, release).or_else(|| log::last_error(&scheduler.log))?;
    Some(format!(
        "scheduler `{}` was not loaded: {why}",
        scheduler.name
    ))
}

fn died(scheduler: &SchedulerReport) -> Option<String> {
    let name = &scheduler.name;
    match log::panic(&scheduler.log) {
        Some(panic) => Some(format!("scheduler `{name}` panicked: {panic}")),
        None => {
            let error = log::last_error(&scheduler.log)?;
            Some(format!("scheduler `{name}` died: {error}"))
        }
    }
}

/// Why the kernel disabled the scheduler before what ended it, where that was neither an error nor its own process.
fn disabled_before(scheduler: &SchedulerReport) -> Option<&str> {
    let exits = scheduler.exits.iter().take_while(|exit| !exit.is_error());
    let exit = exits.into_iter().find(|exit| !exit.is_from_user_space())?;
    Some(match exit.message.as_str() {
        "" => &exit.reason,
        message => message,
    })
}

/// What the check of the kernel's log says of the first complaint.
fn kernel_warning(sidecar: &Sidecar) -> Option<&str> {
    let mut failed = sidecar.result.with_outcome(Outcome::Fail);
    let check = failed.find(|check| check.check == "kernel_log")?;
    check.detail.lines().next().filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;
