//! The scheduler under test: started, watched, ended, and reported on.
//!
//! It is attached when /sys/kernel/sched_ext says so and names it. From then on a thread looks after it: once
//! its process has ended or the kernel no longer names it, the load is interrupted. What the kernel said comes
//! from its log, and from trace events that carry its dump and its reasons, so that every scheduler is reported on
//! alike, whatever it prints itself. How often it was enabled comes from the kernel's own count: a scheduler that goes
//! and comes back between two looks was not attached to the end.
//!
//! A stalled scheduler stops everything in the guest, this process too, until the kernel's watchdog disables
//! it. So nothing here counts on being run in time.

mod dump;
mod held_maps;
mod kernel_words;
mod process;
mod sysfs;
mod verdict;
mod watch;
mod watchdog;

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_report::{
    AssertResult, CheckResult, KernelExit, Outcome, SchedulerEnd, SchedulerReport, Subject,
    shell_word,
};
use ktstr_scenario::{Interruption, checks};
use ktstr_wire::{Message, SchedulerJob, SchedulerStart};
use nix::sys::signal::Signal;

use crate::link::{Link, LinkError};
use dump::{DumpTrace, Traced};
use held_maps::HeldMaps;
use process::Process;
use verdict::Seen;
use watch::{Watch, Watched};
use watchdog::NotSet;

/// How long loading and attaching may take. Under emulation the verifier alone takes the big ones 20 s.
const ATTACH_WITHIN: Duration = Duration::from_secs(120);

/// How long a scheduler that is told to end may take for it.
const END_WITHIN: Duration = Duration::from_secs(30);

/// How long the process of a scheduler that was disabled may take to print why, and end.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

/// How often sched_ext and the process are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
    /// [`sysfs::enable_seq`] before it was started.
    seq_before: Option<u64>,
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
    let seq_before = sysfs::enable_seq();
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
            let watched = Watched {
                ops: report.ops.clone(),
                seq_before,
                process: Arc::clone(&process),
                interruption: interruption.clone(),
                reason: format!("scheduler `{}` had gone", report.name),
            };
            let watch = Watch::start(watched, Arc::clone(link));
            Ok(Start::Attached(Box::new(Scheduler {
                job: job.clone(),
                report,
                process,
                watch: watch.ok(),
                limit,
                trace: trace.ok(),
                seq_before,
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
            result.push(check(SchedulerReport::ATTACHED, false, report.sentence()));
            limit.into_iter().for_each(|check| result.push(check));
            link.send(&Message::Scheduler(Box::new(report)))?;
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
        let is_attached = sysfs::attached() == self.report.ops;
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
        self.conclude(to_the_end, by_itself)?;
        let mut result = AssertResult::default();
        let name = &self.report.name;
        let attach_s = Duration::from_millis(self.report.attach_ms.unwrap_or(0)).as_secs_f64();
        let attached = format!("scheduler `{name}` was attached after {attach_s:.2} s");
        result.push(check(SchedulerReport::ATTACHED, true, attached));
        let held = self.report.end == SchedulerEnd::Attached;
        result.push(check(SchedulerReport::ALIVE, held, self.report.sentence()));
        self.limit.into_iter().for_each(|check| result.push(check));
        self.link.send(&Message::Scheduler(Box::new(self.report)))?;
        Ok(result)
    }

    /// Fills in how it ended.
    fn conclude(&mut self, to_the_end: bool, process: Option<ExitStatus>) -> Result<(), LinkError> {
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
            let enables = sysfs::enables_since(self.seq_before);
            match checks::read_kernel_log() {
                Ok(log) => {
                    let mut words = kernel_words::of_log(&log, &ops);
                    kernel_words::complete(&mut words.exits, &traced.exits);
                    self.report.exits = words.exits;
                    self.report.enables =
                        enables.or(Some(words.enables).filter(|&count| count > 0));
                }
                Err(error) => {
                    self.report.enables = enables;
                    self.remark(&format!(
                        "the kernel's reason for ending the scheduler can't be had: {error}"
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
            process,
            exits: &report.exits,
            enables: report.enables,
        });
        report.detail = process.map(ended_with).unwrap_or_default();
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
        SchedulerStart::Program(argv) => {
            let words: Vec<String> = argv.iter().map(|word| shell_word(word)).collect();
            words.join(" ")
        }
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
    fn fault_f13_the_command_line_shows_where_an_argument_ends() {
        let argv = ["/scheduler/scx_mine", "--cpus", "", "a b", "it's"].map(str::to_owned);
        let start = SchedulerStart::Program(argv.to_vec());
        let shown = r"/scheduler/scx_mine --cpus '' 'a b' 'it'\''s'";
        assert_eq!(command_line(&start), shown);
    }

    #[test]
    fn a_name_may_go_on_with_a_version() {
        assert!(is_named("bpfland", "bpfland"));
        assert!(is_named("bpfland_1.1.4_x86_64", "bpfland"));
        assert!(!is_named("bpflander", "bpfland"));
        assert!(!is_named("land", "bpfland"));
    }
}
