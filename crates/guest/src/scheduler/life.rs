//! One life of a scheduler, from its start to its report.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_declaration::Check;
use ktstr_report::{
    AssertResult, CheckResult, KernelExit, SchedulerEnd, SchedulerReport, shell_word,
};
use ktstr_scenario::{LoadStop, StopReason, checks, sched_ext};
use ktstr_wire::{Message, SchedulerJob, SchedulerStart};

use super::LOOK_EVERY;
use super::attach::{Attached, Started, attach, run_shell, tells_enabled};
use super::dump::{DumpTrace, Traced};
use super::held_maps::HeldMaps;
use super::process::{Process, SharedProcess, ended_with, lock};
use super::verdict::Seen;
use super::watch::{Watch, Watched};
use super::{kernel_words, verdict};
use crate::link::{Link, LinkError};

/// How long a scheduler that is told to end may take for it.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How long the process of a scheduler that was disabled may take to print why, and end.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// A scheduler that was attached.
#[derive(Debug)]
pub(super) struct Life {
    job: SchedulerJob,
    attached: Attached,
    report: SchedulerReport,
    process: SharedProcess,
    watch: Option<Watch>,
    /// What came of the limit that the test sets.
    limit: Option<CheckResult>,
    trace: Option<DumpTrace>,
    /// [`sched_ext::enable_seq`] before it was started.
    seq_before: Option<u64>,
    /// The last record of the kernel's log before it was started, if an earlier life may be in it.
    log_before: Option<u64>,
    _held: Option<HeldMaps>,
    link: Arc<Link>,
}

/// A life that is over.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) report: SchedulerReport,
    /// What that means for the test.
    pub(super) result: AssertResult,
}

/// Whether there is a scheduler to run the test under.
pub(super) enum Start {
    /// It is attached.
    Attached(Box<Life>),
    /// It never was.
    Failed(Box<Finished>),
}

/// Starts the scheduler for its `number`th life, from 1, and waits until it is attached. `load_stop` ends the load when
/// it goes.
pub(super) fn start(
    job: &SchedulerJob,
    number: u32,
    link: &Arc<Link>,
    load_stop: &LoadStop,
) -> Result<Start, LinkError> {
    let mut report = SchedulerReport {
        name: job.name.clone(),
        life: number,
        command: command_line(&job.start),
        end: SchedulerEnd::NeverLoaded,
        ..SchedulerReport::default()
    };
    let trace = DumpTrace::arm();
    if let Err(error) = &trace {
        remark(
            link,
            "the kernel's dump of a failed scheduler is not available",
            error,
        )?;
    }
    let seq_before = sched_ext::enable_seq();
    let log = (number > 1).then(checks::read_kernel_log);
    let log_before = log.and_then(|log| kernel_words::last_sequence(&log.ok()?));
    let began = Instant::now();
    let mut started = Started::default();
    let attached = attach(job, link, &mut started);
    let Started { process, limit } = started;
    match attached {
        Ok(attached) => {
            let is_proven = !matches!(attached, Attached::Unproven(_));
            report.attach_ms = is_proven.then(|| millis(began.elapsed()));
            report.ops = attached.ops();
            if let Some(ops) = &report.ops {
                link.send(&Message::SchedulerAttached(ops.clone()))?;
            }
            if let Ok(trace) = &trace
                && let Err(error) = trace.loaded()
            {
                remark(link, "bpf(2) calls are traced until the test ends", &error)?;
            }
            let process = Arc::new(Mutex::new(process));
            let held = hold_maps(link)?;
            let watched = Watched {
                ops: report.ops.clone(),
                seq_before,
                process: Arc::clone(&process),
                load_stop: load_stop.clone(),
                reason: StopReason::SchedulerGone {
                    scheduler: report.name.clone(),
                },
            };
            let watch = Watch::start(watched, Arc::clone(link));
            Ok(Start::Attached(Box::new(Life {
                job: job.clone(),
                attached,
                report,
                process,
                watch: watch.ok(),
                limit,
                trace: trace.ok(),
                seq_before,
                log_before,
                _held: held,
                link: Arc::clone(link),
            })))
        }
        Err(why) => {
            report.detail = why;
            if let Some(process) = process {
                end_unattached(process, trace.ok(), seq_before, &mut report)?;
            }
            let result = never_attached(&report, limit);
            Ok(Start::Failed(Box::new(Finished { report, result })))
        }
    }
}

fn hold_maps(link: &Link) -> Result<Option<HeldMaps>, LinkError> {
    let held = HeldMaps::all();
    if let Err(error) = &held {
        let what = "the scheduler's maps are missing from the failure dump";
        remark(link, what, error)?;
    }
    Ok(held.ok())
}

/// Ends a program that attached no scheduler, and fills in why if it had ended by itself.
fn end_unattached(
    mut process: Process,
    trace: Option<DumpTrace>,
    seq_before: Option<u64>,
    report: &mut SchedulerReport,
) -> Result<(), LinkError> {
    let ended_by_itself = process.ended().is_some();
    process.end(END_WITHIN);
    process.finish_log()?;
    if ended_by_itself {
        let traced = trace.and_then(|trace| trace.read().ok());
        not_loaded(report, &traced.unwrap_or_default(), seq_before);
    }
    Ok(())
}

fn remark(link: &Link, what: &str, error: &io::Error) -> Result<(), LinkError> {
    link.send(&Message::Remark(format!("{what}: {error}")))
}

/// What it means for the test that its scheduler never attached. `limit` is the check of the watchdog's limit.
fn never_attached(report: &SchedulerReport, limit: Option<CheckResult>) -> AssertResult {
    let mut result = AssertResult::default();
    let attached = CheckResult::fail(Check::SchedulerAttached, report.sentence());
    result.push(attached);
    limit.into_iter().for_each(|check| result.push(check));
    result
}

/// Fills in why a program ended without a scheduler that is attached.
fn not_loaded(report: &mut SchedulerReport, traced: &Traced, seq_before: Option<u64>) {
    report.enables = sched_ext::enables_since(seq_before);
    let load = traced.failed_load();
    if report.enables.is_some_and(|enables| enables > 0) {
        report
            .detail
            .push_str("; the kernel had enabled it, and it was gone before it was seen");
    }
    if let Some(refused) = &load.refused {
        report.detail.push_str("; ");
        report.detail.push_str(&refused.to_string());
    }
    report.failed_load = Some(load);
    // Newer kernels let the call succeed, and tell the scheduler that it was disabled.
    let log = checks::read_kernel_log().unwrap_or_default();
    report.exits = kernel_words::of_any(&log);
    kernel_words::complete(&mut report.exits, &traced.exits);
    report.exit = KernelExit::decisive(&report.exits).cloned();
}

impl Life {
    /// Ends the scheduler, and judges it. `by_test` says whether the test asked for that before its body was over.
    pub(super) fn finish(mut self, by_test: bool) -> Result<Finished, LinkError> {
        let gone = self.watch.take().is_some_and(Watch::stop);
        let mut process = lock(&self.process).take();
        let lives = process
            .as_mut()
            .is_none_or(|process| process.ended().is_none());
        let is_attached = self.is_attached()?;
        let to_the_end = !gone && lives && is_attached;
        // One that was disabled may still be printing why.
        let by_itself = match &mut process {
            Some(process) if !(lives && is_attached) => process.wait_for_end(LAST_WORDS_WITHIN),
            _ => None,
        };
        if let Some(process) = &mut process
            && process.end(END_WITHIN)
        {
            self.remark("the scheduler's process did not end when told to, and was killed")?;
        }
        if let SchedulerStart::Builtin { disable, .. } = &self.job.start
            && let Err(why) = run_shell(disable, &self.link)
        {
            self.remark(&format!("switching the scheduler off failed: {why}"))?;
        }
        if let Some(process) = process {
            process.finish_log()?;
        }
        self.conclude(to_the_end, by_test, by_itself)?;
        let mut result = judged(&self.report);
        self.limit.into_iter().for_each(|check| result.push(check));
        Ok(Finished {
            report: self.report,
            result,
        })
    }

    /// Fills in how it ended.
    fn conclude(
        &mut self,
        to_the_end: bool,
        by_test: bool,
        process: Option<ExitStatus>,
    ) -> Result<(), LinkError> {
        if self.report.ops.is_some() {
            self.wait_until_disabled()?;
        }
        let traced = match self.trace.as_ref().map(DumpTrace::read).transpose() {
            Ok(traced) => traced.unwrap_or_default(),
            Err(error) => {
                self.remark(&format!("the kernel's trace can't be read: {error}"))?;
                Traced::default()
            }
        };
        if let Some(ops) = self.report.ops.clone() {
            let enables = sched_ext::enables_since(self.seq_before);
            match checks::read_kernel_log() {
                Ok(log) => {
                    let log = kernel_words::after(&log, self.log_before);
                    let mut words = kernel_words::of_log(log, &ops);
                    kernel_words::complete(&mut words.exits, &traced.exits);
                    self.report.exits = words.exits;
                    self.report.enables =
                        enables.or(Some(words.enables).filter(|&count| count > 0));
                }
                Err(error) => {
                    self.report.enables = enables;
                    self.remark(&format!(
                        "the kernel's reason for disabling the scheduler is not available: {error}"
                    ))?;
                }
            }
        }
        let report = &mut self.report;
        report.dump = traced.dump;
        if let Some(kind) = kernel_words::kind_in_dump(&report.dump)
            && let Some(error) = report.exits.iter_mut().find(|exit| exit.is_error())
        {
            error.kind = Some(kind);
        }
        report.exit = KernelExit::decisive(&report.exits).cloned();
        report.end = verdict::end(&Seen {
            to_the_end,
            by_test,
            process,
            exits: &report.exits,
            enables: report.enables,
        });
        report.detail = process.map(ended_with).unwrap_or_default();
        match &self.attached {
            Attached::Unproven(why) => {
                report.end = SchedulerEnd::Unproven;
                report.detail.clone_from(why);
            }
            Attached::Told(command) if !report.end.is_good() => {
                report.detail = format!("`{command}` tells that it is off at the end");
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether it is attached now.
    fn is_attached(&self) -> Result<bool, LinkError> {
        let told = match &self.attached {
            Attached::Named(_) | Attached::Unproven(_) => {
                return Ok(sched_ext::attached() == self.report.ops);
            }
            Attached::Told(command) => tells_enabled(command, &self.link),
        };
        match told {
            Ok(told) => Ok(told),
            Err(why) => self.remark(&why).map(|()| false),
        }
    }

    fn wait_until_disabled(&self) -> Result<(), LinkError> {
        let deadline = Instant::now() + END_WITHIN;
        while !sched_ext::is_disabled() {
            if Instant::now() >= deadline {
                let state = sched_ext::state();
                return self.remark(&format!(
                    "{} s after the scheduler's end sched_ext is still `{state}`",
                    END_WITHIN.as_secs()
                ));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn remark(&self, text: &str) -> Result<(), LinkError> {
        self.link.send(&Message::Remark(text.to_owned()))
    }
}

fn command_line(start: &SchedulerStart) -> String {
    match start {
        SchedulerStart::Program(argv) => {
            let words: Vec<String> = argv.iter().map(|word| shell_word(word)).collect();
            words.join(" ")
        }
        SchedulerStart::Builtin { enable, .. } => enable.clone(),
    }
}

/// The checks of a scheduler that was started, by what became of it.
fn judged(report: &SchedulerReport) -> AssertResult {
    let mut result = AssertResult::default();
    if report.end == SchedulerEnd::Unproven {
        for check in [Check::SchedulerAttached, Check::SchedulerAlive] {
            result.push(CheckResult::inconclusive(check, report.sentence()));
        }
        return result;
    }
    let name = &report.name;
    let attach_s = Duration::from_millis(report.attach_ms.unwrap_or(0)).as_secs_f64();
    let attached = format!("scheduler `{name}` was attached after {attach_s:.2} s");
    result.push(CheckResult::pass(Check::SchedulerAttached, attached));
    let is_good = report.end.is_good();
    let alive = CheckResult::judged(Check::SchedulerAlive, is_good, report.sentence());
    result.push(alive);
    result
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ktstr_report::Outcome;

    use super::*;

    #[test]
    fn fault_f13_the_command_line_shows_where_an_argument_ends() {
        let argv = ["/scheduler/scx_mine", "--cpus", "", "a b", "it's"].map(str::to_owned);
        let start = SchedulerStart::Program(argv.to_vec());
        let shown = r"/scheduler/scx_mine --cpus '' 'a b' 'it'\''s'";
        assert_eq!(command_line(&start), shown);
    }

    #[test]
    fn fault_a4_what_nothing_shows_to_be_attached_is_inconclusive() {
        let report = SchedulerReport {
            name: "x".to_owned(),
            end: SchedulerEnd::Unproven,
            detail: "`true` ended with success".to_owned(),
            ..SchedulerReport::default()
        };
        let result = judged(&report);
        let checks: Vec<(&str, Outcome)> = result
            .checks
            .iter()
            .map(|check| (check.check.as_str(), check.outcome))
            .collect();
        assert_eq!(
            checks,
            [
                ("scheduler_attached", Outcome::Inconclusive),
                ("scheduler_alive", Outcome::Inconclusive)
            ]
        );
        assert_eq!(
            result.checks[0].detail,
            "scheduler `x` was not shown to be attached; `true` ended with success"
        );
    }
}
