//! Driving one machine from launch to end, and recording what it said.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktstr_machine::{End, Engine, LaunchError, Machine, MachineSpec, Port, StopReason};
use ktstr_wire::frame::OversizeError;
use ktstr_wire::{Job, Message, Request};

use super::deadline::Deadline;
use super::guest_pause::{Act, GuestPause};
use super::link::{self, Event, Events, Next};
use super::record::{Record, empty_record};
use super::speaker::{JobFrame, Speaker};
use crate::causes::chain;
use crate::events::{RunEvent, RunObserver};
use crate::observe::{Observer, ObserverSettings};
use crate::plan::Limits;

/// Frame errors kept for the report; the rest is only counted.
const FRAME_ERRORS_KEPT: usize = 16;

/// Remarks of the guest kept for the report. The rest is counted.
const MAX_REMARKS: usize = 64;

/// Requests of one guest that are carried out. The rest is refused, and counted.
const MAX_REQUESTS: u64 = 10_000;

/// How long the channel may take to run dry once the machine is gone.
const DRAIN: Duration = Duration::from_secs(5);

/// A machine could not be driven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    /// It could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The job does not fit into a frame: the environment that the guest is given is too large.
    #[error("what the guest is told, its environment included, is too large")]
    Job(#[from] OversizeError),
    /// Its link or its deadline could not be set up: a descriptor or a thread is missing.
    #[error("setting up the link and the deadline of the machine")]
    SetUp(#[source] io::Error),
    /// The engine gave no channel.
    #[error("the engine gave the machine no port for frames")]
    NoPort,
}

/// Launches the machine, gives its guest the job, and stays with it to its end; watches its kernel if told how.
pub(crate) fn drive(
    engine: &dyn Engine,
    spec: &MachineSpec,
    job: &Job,
    limits: Limits,
    observe: Option<ObserverSettings>,
    on: &mut dyn RunObserver,
) -> Result<Record, DriveError> {
    let job = JobFrame::new(job)?;
    let events = Events::default();
    let told = events.clone();
    let started = Instant::now();
    let mut machine = engine.launch(spec, Arc::new(move |event| told.note(event)))?;
    if spec.interactive_console
        && let Some(terminal) = machine.take_port(Port::Shell)
    {
        on.event(&RunEvent::Terminal(&terminal));
    }
    let port = machine.take_port(Port::Frames).ok_or(DriveError::NoPort)?;
    let hang_up = port.try_clone().map_err(DriveError::SetUp)?;
    let speaker = port.try_clone().and_then(|port| Speaker::new(port, job));
    let speaker = speaker.map_err(DriveError::SetUp)?;
    let stopper = machine.stopper();
    let deadline = Deadline::start(Some(started + limits.boot), move || {
        stopper.stop(StopReason::Watchdog);
    })
    .map_err(DriveError::SetUp)?;
    let listener = link::listen(port, events.clone()).map_err(DriveError::SetUp)?;
    let observer = observe.map(|settings| Observer::start(machine.as_ref(), settings));
    let mut driver = Driver {
        observer,
        speaker,
        on,
        machine: machine.as_mut(),
        events: events.clone(),
        deadline,
        limits,
        started,
        first_message: None,
        last_message: None,
        link_open: true,
        guest_pause: GuestPause::default(),
        requests: 0,
        more_remarks: 0,
        record: empty_record(),
    };
    driver.watch();
    let record = driver.into_record();
    drop(machine);
    // Whoever still holds the guest's end of the stream: the thread reads no more.
    events.close();
    let _ = hang_up.shutdown(Shutdown::Both);
    let _ = listener.join();
    Ok(record)
}

struct Driver<'a> {
    on: &'a mut dyn RunObserver,
    machine: &'a mut dyn Machine,
    observer: Option<Observer>,
    speaker: Speaker,
    events: Events,
    deadline: Deadline,
    limits: Limits,
    started: Instant,
    first_message: Option<Instant>,
    last_message: Option<Instant>,
    link_open: bool,
    guest_pause: GuestPause,
    requests: u64,
    more_remarks: u64,
    record: Record,
}

impl Driver<'_> {
    /// Until the guest is done, gone, or out of time. Whatever is queued, and whatever this waits for, a guest that is
    /// out of time is ended by the deadline's own thread.
    fn watch(&mut self) {
        while !self.record.said_bye && !self.deadline.has_come() {
            if self.look() || self.act_on_pause() {
                continue;
            }
            let observer = self.observer.as_ref();
            let snapshot = observer.and_then(Observer::next_due);
            let look = observer.and_then(Observer::next_look);
            let others = [snapshot, look, self.guest_pause.due()];
            let until = others.into_iter().flatten().chain(self.deadline.at());
            match self.events.next(until.min()) {
                Next::Event(event) => self.take(event),
                Next::Paused => self.guest_pause.paused(Instant::now()),
                Next::Nothing => {}
                Next::Ended => {
                    // What it sent before may not have been read yet.
                    self.drain();
                    break;
                }
            }
        }
        let in_time = self.deadline.call_off();
        let now = Instant::now();
        self.last_message = Some(self.deadline.at().map_or(now, |deadline| deadline.min(now)));
        if !in_time {
            self.machine.stop(StopReason::Watchdog);
        }
        let timed_out = !in_time && self.ended_by_watchdog();
        if timed_out {
            self.describe_where_it_hung();
        }
        self.finish_observation(timed_out);
        if in_time && self.record.said_bye {
            self.record.footprint_bytes = self.machine.footprint_bytes().ok();
            self.machine.stop(StopReason::Done);
        }
    }

    /// Takes the look at the guest that is due, if one is.
    fn look(&mut self) -> bool {
        let Some(observer) = &mut self.observer else {
            return false;
        };
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if is_due(observer.next_look()) {
            observer.look_for_stall(self.machine);
        } else if is_due(observer.next_due()) {
            observer.take_due(self.machine);
        } else {
            return false;
        }
        true
    }

    /// Whether the watchdog ended the machine, and not the guest itself shortly before.
    fn ended_by_watchdog(&self) -> bool {
        let end = self.machine.end();
        end.is_none_or(|end| end == End::Stopped(StopReason::Watchdog))
    }

    fn finish_observation(&mut self, timed_out: bool) {
        let Some(mut observer) = self.observer.take() else {
            return;
        };
        let ended = self.events.end().map(|(_, at)| at);
        let ended = if timed_out { self.last_message } else { ended };
        if let Some(at) = ended {
            observer.machine_ended(at);
        }
        // A guest that said all has been asked when its body had ended.
        if !self.record.said_bye && self.record.booted() {
            let when = if timed_out {
                "after the watchdog had ended the machine"
            } else {
                "after the machine had ended"
            };
            observer.dump(self.machine, when.to_owned());
        }
        self.record.observation = Some(observer.finish());
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Frame(Ok(message)) => self.take_message(message),
            Event::Frame(Err(error)) if self.record.frame_errors.len() < FRAME_ERRORS_KEPT => {
                self.record.frame_errors.push(error);
            }
            Event::Frame(Err(_)) => self.record.more_frame_errors += 1,
            Event::LinkClosed => self.link_open = false,
        }
    }

    fn take_message(&mut self, message: Message) {
        let record = &mut self.record;
        record.order.take(&message);
        match message {
            Message::Hello { release, .. } => {
                if self.first_message.is_none() {
                    let now = Instant::now();
                    self.first_message = Some(now);
                    self.deadline.set(self.limits.run.map(|run| now + run));
                }
                self.speaker.send_job();
                self.on.event(&RunEvent::Booted { release: &release });
                record.release = Some(release);
                if let Some(observer) = &mut self.observer {
                    observer.booted(self.machine);
                }
            }
            Message::Stage(stage) => {
                record.stage = Some(stage);
                self.on.event(&RunEvent::Stage(stage));
                if let Some(observer) = &mut self.observer {
                    observer.entered(stage);
                }
            }
            Message::Phase { phase, begins } => {
                if let Some(observer) = &mut self.observer {
                    observer.phase(phase, begins);
                }
            }
            Message::Remark(remark) if record.remarks.len() < MAX_REMARKS => {
                record.remarks.push(remark);
            }
            Message::Remark(_) => self.more_remarks += 1,
            Message::Output(stream, bytes) => {
                self.on.event(&RunEvent::Output {
                    stream,
                    bytes: &bytes,
                    until: self.deadline.at(),
                });
                record.output.push(&bytes);
            }
            Message::Request(what) => self.take_request(what),
            message => {
                if let Message::SchedulerAttached(ops) = &message {
                    self.on.event(&RunEvent::Attached { ops });
                }
                record.keep(message);
            }
        }
    }

    fn take_request(&mut self, what: Request) {
        self.requests += 1;
        if self.observer.is_none() || self.requests > MAX_REQUESTS {
            if what.is_at_a_pause() {
                self.guest_pause.refused();
            }
            self.speaker.answer(false);
        } else if !what.is_at_a_pause() {
            self.carry_out(what);
        } else if let Some(earlier) = self.guest_pause.asked(what, Instant::now()) {
            self.carry_out(earlier);
        }
    }

    /// Carries out what the guest has paused its machine for.
    fn act_on_pause(&mut self) -> bool {
        match self.guest_pause.act(Instant::now()) {
            Some(Act::Answer(what)) => self.carry_out(what),
            Some(Act::Release) => self.release(),
            None => return false,
        }
        true
    }

    fn carry_out(&mut self, what: Request) {
        let label = match &what {
            Request::Snapshot(label) => Some(label.clone()),
            _ => None,
        };
        let observer = self.observer.as_mut();
        let done = observer.is_some_and(|observer| observer.answer(self.machine, what));
        self.release();
        if let Some(label) = label.filter(|_| done) {
            self.on.event(&RunEvent::Snapshot { label: &label });
        }
        self.speaker.answer(done);
    }

    fn release(&mut self) {
        // One that can't be released is ended by the watchdog, if it has not ended.
        let _ = self.machine.release();
    }

    /// Where each CPU stood: the difference between a guest that spins and one that sleeps.
    fn describe_where_it_hung(&mut self) {
        let cpus = match self.machine.vcpu_registers() {
            Ok(cpus) => cpus,
            Err(error) => {
                let remark = format!(
                    "where the vCPUs were when the watchdog fired is not known: {}",
                    chain(&error)
                );
                self.record.remarks.push(remark);
                return;
            }
        };
        for (cpu, registers) in cpus.iter().enumerate() {
            let state = if registers.halted { ", asleep" } else { "" };
            let remark = format!(
                "vCPU {cpu} when the watchdog fired: RIP {:#x}{state}",
                registers.rip
            );
            self.record.remarks.push(remark);
        }
    }

    /// Takes what is left of the channel. A machine that has ended left a finite amount, which is waited for as long as
    /// [`DRAIN`]; of one that the watchdog ended nothing is taken after that.
    fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        let is_finite = self.machine.end().is_some() && !self.deadline.has_come();
        while self.link_open && (is_finite || Instant::now() < until) {
            match self.events.next_left(until) {
                Some(event) => self.take(event),
                None => break,
            }
        }
    }

    /// Says what was left out because there was too much of it.
    fn note_what_is_left_out(&mut self, unread: usize) {
        let more = [
            (self.more_remarks, "remarks of the guest are left out"),
            (
                self.requests.saturating_sub(MAX_REQUESTS),
                "requests of the guest were refused, since it had made too many",
            ),
            (
                unread as u64,
                "messages of the guest were not read before the time for it was over",
            ),
        ];
        for (count, what) in more.into_iter().filter(|&(count, _)| count > 0) {
            self.record.remarks.push(format!("{count} more {what}"));
        }
    }

    fn into_record(mut self) -> Record {
        self.drain();
        let unread = self.events.close();
        self.note_what_is_left_out(unread);
        let gone = Instant::now();
        let first = self.first_message.unwrap_or(gone);
        let last = self.last_message.unwrap_or(gone);
        let end = self.machine.end();
        let end = end.unwrap_or_else(|| End::Broken {
            message: "the engine did not say how the machine ended".to_owned(),
        });
        self.on.event(&RunEvent::Ended(&end));
        Record {
            end,
            performance: self.machine.performance().map(str::to_owned),
            console: self.machine.com1().contents(),
            crash: self.machine.com2().contents(),
            boot: first.saturating_duration_since(self.started),
            run: last.saturating_duration_since(first),
            teardown: gone.saturating_duration_since(last),
            ..self.record
        }
    }
}

#[cfg(test)]
mod tests;
