//! The scheduler under test: started, watched, ended, and reported on.
//!
//! It is attached when /sys/kernel/sched_ext says so and names it. From then on a thread looks after it: once
//! its process has ended or the kernel no longer names it, the load is interrupted. What the kernel said comes
//! from its log, and from the trace event that carries its dump, so that every scheduler is reported on alike,
//! whatever it prints itself.
//!
//! A stalled scheduler stops everything in the guest, this process too, until the kernel's watchdog throws it
//! out. So nothing here counts on being run in time.

mod dump;
mod held_maps;
mod kernel_words;
mod process;
mod sysfs;
mod verdict;
mod watchdog;

use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_report::{AssertResult, CheckResult, Outcome, SchedulerEnd, SchedulerReport, Subject};
use ktstr_scenario::{Interruption, checks};
use ktstr_wire::{DumpMoment, Message, Request, SchedulerJob, SchedulerStart};
use nix::sys::signal::Signal;

use crate::link::{Link, LinkError};
use dump::DumpTrace;
use held_maps::HeldMaps;
use process::Process;
use verdict::Seen;
use watchdog::NotSet;

/// How long loading and attaching may take. Under emulation the verifier alone takes the big ones 20 s.
const ATTACH_WITHIN: Duration = Duration::from_secs(120);

/// How long a scheduler that is told to end may take for it.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How long the process of a scheduler that was thrown out may take to print why, and end.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// How often sched_ext and the process are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Names of the checks that every test with a scheduler has.
const ATTACHED: &str = "scheduler_attached";
const ALIVE: &str = "scheduler_alive";

/// A scheduler that was attached.
#[derive(Debug)]
pub(crate) struct Scheduler {
    job: SchedulerJob,
    report: SchedulerReport,
    process: SharedProcess,
    watch: Option<Watch>,
    /// What came of the limit that the test sets.
    limit: Option<CheckResult>,
    trace: Option<DumpTrace>,
    _held: Option<HeldMaps>,
    link: Arc<Link>,
}

type SharedProcess = Arc<Mutex<Option<Process>>>;

/// Whether there is a scheduler to run the test under.
pub(crate) enum Start {
    /// It is attached.
    Attached(Box<Scheduler>),
    /// It never was; the host has the report, and this is what it means for the test.
    Failed(AssertResult),
}

/// Starts the scheduler and waits until it is attached. `interruption` is called for when it goes.
pub(crate) fn start(
    job: &SchedulerJob,
    link: &Arc<Link>,
    interruption: &Interruption,
) -> Result<Start, LinkError> {
    let mut report = SchedulerReport {
        name: job.name.clone(),
        command: command_line(&job.start),
        end: SchedulerEnd::NeverLoaded,
        ..SchedulerReport::default()
    };
    let trace = DumpTrace::arm();
    if let Err(error) = &trace {
        link.send(&Message::Remark(format!(
            "the kernel's dump of a failed scheduler can't be had: {error}"
        )))?;
    }
    let began = Instant::now();
    let mut started = Started::default();
    let attached = attach(job, link, &mut started);
    let Started { process, limit } = started;
    match attached {
        Ok(ops) => {
            report.attach_ms = Some(millis(began.elapsed()));
            if let Some(ops) = &ops {
                link.send(&Message::SchedulerAttached(ops.clone()))?;
            }
            report.ops = ops;
            let process = Arc::new(Mutex::new(process));
            let held = HeldMaps::all();
            if let Err(error) = &held {
                link.send(&Message::Remark(format!(
                    "the scheduler's maps can't be kept for the failure dump: {error}"
                )))?;
            }
            let watch = Watch::start(
                &report,
                Arc::clone(&process),
                interruption.clone(),
                Arc::clone(link),
            );
            Ok(Start::Attached(Box::new(Scheduler {
                job: job.clone(),
                report,
                process,
                watch: watch.ok(),
                limit,
                trace: trace.ok(),
                _held: held.ok(),
                link: Arc::clone(link),
            })))
        }
        Err(why) => {
            report.detail = why;
            if let Some(mut process) = process {
                process.end(END_WITHIN);
                process.finish_log()?;
            }
            let mut result = AssertResult::default();
            result.push(check(ATTACHED, false, report.sentence()));
            limit.into_iter().for_each(|check| result.push(check));
            link.send(&Message::Scheduler(report))?;
            Ok(Start::Failed(result))
        }
    }
}

/// What there is of a scheduler before it is attached.
#[derive(Default)]
struct Started {
    process: Option<Process>,
    limit: Option<CheckResult>,
}

/// The name that the kernel has for the scheduler once it is attached, or why it is not.
fn attach(
    job: &SchedulerJob,
    link: &Arc<Link>,
    started: &mut Started,
) -> Result<Option<String>, String> {
    let limit = job.watchdog.as_ref();
    if let SchedulerStart::Builtin { enable, .. } = &job.start {
        started.limit = limit.map(|limit| watchdog::check(limit, &Err(NotSet::NoProgram)));
        run_shell(enable, link)?;
        return Ok(sysfs::attached());
    }
    if !sysfs::is_there() {
        return Err("the kernel has no sched_ext (CONFIG_SCHED_CLASS_EXT)".to_owned());
    }
    if let Some(other) = sysfs::attached() {
        return Err(format!("the scheduler `{other}` is attached already"));
    }
    let SchedulerStart::Program(argv) = &job.start else {
        return Err("no program is known for it".to_owned());
    };
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
        if let Some(ops) = sysfs::attached() {
            return match &job.ops {
                Some(wanted) if !is_named(&ops, wanted) => Err(format!(
                    "the kernel has a scheduler attached that it calls `{ops}`, not `{wanted}`; if that is its \
                     name, declare `ops = \"{ops}\"`"
                )),
                _ => Ok(Some(ops)),
            };
        }
        if let Some(status) = process.ended() {
            return Err(ended_with(status));
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "after {} s its process runs, and sched_ext says `{}`",
                ATTACH_WITHIN.as_secs(),
                sysfs::state()
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// `bpfland` names `bpfland` and `bpfland_1.1.4_x86_64`, and not `bpflander`.
fn is_named(ops: &str, wanted: &str) -> bool {
    ops.strip_prefix(wanted)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
}

impl Scheduler {
    /// Ends the scheduler, sends the report, and judges it.
    pub(crate) fn finish(mut self) -> Result<AssertResult, LinkError> {
        let gone = self.watch.take().is_some_and(Watch::stop);
        let mut process = lock(&self.process).take();
        let lives = process
            .as_mut()
            .is_none_or(|process| process.ended().is_none());
        let to_the_end = !gone && lives && sysfs::attached() == self.report.ops;
        // One that was thrown out may still be printing why.
        let by_itself = match &mut process {
            Some(process) if !to_the_end => process.wait_for_end(LAST_WORDS_WITHIN),
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
        self.conclude(to_the_end, by_itself)?;
        let mut result = AssertResult::default();
        let name = &self.report.name;
        let attach_s = Duration::from_millis(self.report.attach_ms.unwrap_or(0)).as_secs_f64();
        let attached = format!("scheduler `{name}` was attached after {attach_s:.2} s");
        result.push(check(ATTACHED, true, attached));
        let held = self.report.end == SchedulerEnd::Attached;
        result.push(check(ALIVE, held, self.report.sentence()));
        self.limit.into_iter().for_each(|check| result.push(check));
        self.link.send(&Message::Scheduler(self.report))?;
        Ok(result)
    }

    /// Fills in how it ended.
    fn conclude(&mut self, to_the_end: bool, process: Option<ExitStatus>) -> Result<(), LinkError> {
        if let Some(ops) = self.report.ops.clone() {
            self.wait_until_disabled()?;
            match checks::read_kernel_log() {
                Ok(log) => self.report.exit = kernel_words::last_exit(&log, &ops),
                Err(error) => self.remark(&format!(
                    "the kernel's reason for ending the scheduler can't be had: {error}"
                ))?,
            }
        }
        match self.trace.as_ref().map(DumpTrace::read).transpose() {
            Ok(dump) => self.report.dump = dump.unwrap_or_default(),
            Err(error) => self.remark(&format!("the kernel's dump can't be read: {error}"))?,
        }
        if let Some(exit) = &mut self.report.exit {
            exit.kind = kernel_words::kind(exit, &self.report.dump);
        }
        self.report.end = verdict::end(&Seen {
            to_the_end,
            process,
            exit: self.report.exit.clone(),
        });
        self.report.detail = process.map(ended_with).unwrap_or_default();
        Ok(())
    }

    fn wait_until_disabled(&self) -> Result<(), LinkError> {
        let deadline = Instant::now() + END_WITHIN;
        while !sysfs::is_disabled() {
            if Instant::now() >= deadline {
                let state = sysfs::state();
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

/// Looks after an attached scheduler until it is told to stop.
#[derive(Debug)]
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<bool>,
}

impl Watch {
    fn start(
        report: &SchedulerReport,
        process: SharedProcess,
        interruption: Interruption,
        link: Arc<Link>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let ops = report.ops.clone();
        let reason = format!("scheduler `{}` had gone", report.name);
        let thread = thread::Builder::new()
            .name("ktstr-watch".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let ended = lock(&process).as_mut().and_then(Process::ended);
                    if ended.is_some() || sysfs::attached() != ops {
                        // A link that broke ends the machine elsewhere.
                        let _ = link.ask(Request::Dump(DumpMoment::SchedulerGone));
                        interruption.call(reason);
                        return true;
                    }
                    thread::sleep(LOOK_EVERY);
                }
                false
            })?;
        Ok(Self { stop, thread })
    }

    /// Whether the scheduler had gone.
    fn stop(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        // A panic in it has ended the machine.
        self.thread.join().unwrap_or(true)
    }
}

fn lock(process: &SharedProcess) -> MutexGuard<'_, Option<Process>> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a shell command to its end; why it failed, if it did.
fn run_shell(command: &str, link: &Arc<Link>) -> Result<(), String> {
    let argv = [SchedulerJob::SHELL, "sh", "-c", command].map(str::to_owned);
    let mut process =
        Process::spawn(&argv, link).map_err(|error| format!("no shell can be run: {error}"))?;
    let status = process.wait_for_end(ATTACH_WITHIN);
    process.end(Duration::ZERO);
    let sent = process.finish_log();
    match status {
        Some(status) if status.success() => sent.map_err(|error| error.to_string()),
        Some(status) => Err(format!("`{command}`: {}", ended_with(status))),
        None => Err(format!(
            "`{command}` did not end within {} s",
            ATTACH_WITHIN.as_secs()
        )),
    }
}

fn ended_with(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;

    match (status.code(), status.signal()) {
        (Some(code), _) => format!("its process ended with exit status {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("its process was killed by {signal}"),
            Err(_) => format!("its process was killed by signal {signal}"),
        },
        (None, None) => "its process ended".to_owned(),
    }
}

fn command_line(start: &SchedulerStart) -> String {
    match start {
        SchedulerStart::Program(argv) => argv.join(" "),
        SchedulerStart::Builtin { enable, .. } => enable.clone(),
    }
}

fn check(name: &str, holds: bool, detail: String) -> CheckResult {
    CheckResult {
        check: name.to_owned(),
        outcome: if holds { Outcome::Pass } else { Outcome::Fail },
        value: None,
        bound: None,
        unit: String::new(),
        subject: Subject::default(),
        detail,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
