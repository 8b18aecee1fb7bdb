//! Driving one machine from launch to end, and recording what it said.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ktstr_machine::{End, Engine, KillReason, LaunchError, Machine, MachineSpec, Port};
use ktstr_report::SchedulerReport;
use ktstr_wire::{FrameError, Message, Phase, Request, TestEnd};

use crate::link::{self, EVENT_QUEUE, Event};
use crate::observe::{Observation, Observer, ObserverSettings};
use crate::order::Order;
use crate::text::BoundedText;

/// Frame errors kept for the report; the rest is only counted.
const FRAME_ERRORS_KEPT: usize = 16;

/// Remarks of the guest kept for the report.
const REMARKS_KEPT: usize = 64;

/// How long the channel may take to run dry once the machine is gone.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a guest may leave an answer unread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a machine may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From launch to the guest's first message.
    pub(crate) boot: Duration,
    /// From there to its last.
    pub(crate) run: Option<Duration>,
}

/// What a machine said and how it ended.
#[derive(Debug)]
pub(crate) struct Record {
    /// The guest's kernel, if PID 1 spoke.
    pub(crate) release: Option<String>,
    /// The last phase it announced.
    pub(crate) phase: Option<Phase>,
    /// How the test's body ended.
    pub(crate) result: Option<TestEnd>,
    /// The sidecar of a test that the guest ran as a host.
    pub(crate) sidecar: Option<Vec<u8>>,
    /// Name that the kernel has for the scheduler, once it was attached.
    pub(crate) scheduler_attached: Option<String>,
    /// What became of the scheduler.
    pub(crate) scheduler: Option<SchedulerReport>,
    /// What the scheduler printed.
    pub(crate) scheduler_log: BoundedText,
    /// Why the guest could not be made ready.
    pub(crate) setup_failed: Option<Vec<String>>,
    /// Exit status of the command.
    pub(crate) exit: Option<u8>,
    /// Whether the guest said that it is done.
    pub(crate) said_bye: bool,
    /// Remarks of the guest, and of the link.
    pub(crate) remarks: Vec<String>,
    /// Damage on the link.
    pub(crate) frame_errors: Vec<FrameError>,
    /// Damage beyond what is kept.
    pub(crate) more_frame_errors: u64,
    /// Whether the messages came in an order that makes sense.
    pub(crate) order: Order,
    /// What the test printed.
    pub(crate) output: BoundedText,
    /// COM1.
    pub(crate) console: String,
    /// COM2.
    pub(crate) crash: String,
    /// How the machine ended.
    pub(crate) end: End,
    /// From launch to the first message.
    pub(crate) boot: Duration,
    /// From there to the last.
    pub(crate) run: Duration,
    /// From there until the machine was gone.
    pub(crate) teardown: Duration,
    /// The failure dump of a test that the guest ran as a host.
    pub(crate) inner_dump: Option<Vec<u8>>,
    /// What the host saw of its kernel, if it looked.
    pub(crate) observation: Option<Observation>,
    /// Memory of the machine's process beyond guest RAM when the result came, if it was asked for.
    pub(crate) footprint_bytes: Option<u64>,
}

impl Record {
    /// Whether PID 1 spoke.
    pub(crate) fn booted(&self) -> bool {
        self.release.is_some()
    }

    /// Keeps what a message says. Of what comes once the first stands.
    pub(crate) fn keep(&mut self, message: Message) {
        match message {
            Message::Hello { release, .. } => {
                self.release.get_or_insert(release);
            }
            Message::Phase(phase) => self.phase = Some(phase),
            Message::Remark(remark) => self.remarks.push(remark),
            Message::Output(_, bytes) => self.output.push(&bytes),
            Message::SetupFailed(chain) => {
                self.setup_failed.get_or_insert(chain);
            }
            Message::Result(end) => {
                self.result.get_or_insert(end);
            }
            Message::Sidecar(json) => {
                self.sidecar.get_or_insert(json);
            }
            Message::SchedulerAttached(ops) => {
                self.scheduler_attached.get_or_insert(ops);
            }
            Message::SchedulerLog(bytes) => self.scheduler_log.push(&bytes),
            Message::Scheduler(report) => {
                self.scheduler.get_or_insert(*report);
            }
            Message::Exit(status) => self.exit = Some(status),
            Message::FailureDump(json) => {
                self.inner_dump.get_or_insert(json);
            }
            Message::Bye => self.said_bye = true,
            // Nothing of it is left.
            Message::Request(_) => {}
        }
    }
}

/// A machine could not be driven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    /// It could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A thread could not be started.
    #[error("starting the thread that listens to the machine")]
    Thread(#[source] io::Error),
    /// The engine gave no channel.
    #[error("the engine gave the machine no port for frames")]
    NoPort,
}

/// Receives output as it arrives.
pub(crate) type OnOutput<'a> = &'a mut dyn FnMut(ktstr_wire::Stream, &[u8]);

/// Launches the machine and stays with it to its end, and watches its kernel if told how. `on_launch` gets the machine once, before anything
/// is read from it.
pub(crate) fn drive(
    engine: &dyn Engine,
    spec: &MachineSpec,
    limits: Limits,
    observe: Option<ObserverSettings>,
    on_launch: &mut dyn FnMut(&mut dyn Machine),
    on_output: OnOutput<'_>,
) -> Result<Record, DriveError> {
    let (events, received) = sync_channel(EVENT_QUEUE);
    let ended = events.clone();
    let started = Instant::now();
    let mut machine = engine.launch(
        spec,
        Box::new(move |end| {
            // The driver may have left already.
            let _ = ended.send(Event::Ended(end));
        }),
    )?;
    on_launch(machine.as_mut());
    let port = machine.take_port(Port::Frames).ok_or(DriveError::NoPort)?;
    let answers = port.try_clone().map_err(DriveError::Thread)?;
    answers
        .set_write_timeout(Some(ANSWER_TIMEOUT))
        .map_err(DriveError::Thread)?;
    let listener = link::listen(port, events).map_err(DriveError::Thread)?;
    let observer = observe.map(|settings| Observer::start(machine.as_ref(), settings));
    let mut driver = Driver {
        observer,
        answers,
        machine: machine.as_mut(),
        received,
        limits,
        started,
        first_message: None,
        last_message: None,
        link_open: true,
        end: None,
        record: empty_record(),
    };
    driver.watch(on_output);
    let record = driver.into_record(on_output);
    drop(machine);
    // The stream is closed with the machine, so the thread has ended or is about to.
    let _ = listener.join();
    Ok(record)
}

struct Driver<'a> {
    machine: &'a mut dyn Machine,
    observer: Option<Observer>,
    /// Our end of the frames' port, to answer on.
    answers: UnixStream,
    received: Receiver<Event>,
    limits: Limits,
    started: Instant,
    first_message: Option<Instant>,
    last_message: Option<Instant>,
    link_open: bool,
    end: Option<End>,
    record: Record,
}

impl Driver<'_> {
    /// Until the guest is done, gone, or out of time.
    fn watch(&mut self, on_output: OnOutput<'_>) {
        let mut timed_out = false;
        while self.end.is_none() && !self.record.said_bye {
            let observer = self.observer.as_ref();
            let snapshot = observer.and_then(Observer::next_due);
            let look = observer.and_then(Observer::next_look);
            let deadline = self.deadline();
            let next = deadline.into_iter().chain(snapshot).chain(look).min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let received = match left {
                Some(left) => self.received.recv_timeout(left),
                None => self
                    .received
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(event) => self.take(event, on_output),
                Err(RecvTimeoutError::Timeout) if next != deadline => {
                    if let Some(observer) = &mut self.observer {
                        if next == look {
                            observer.look_for_stall(self.machine);
                        } else {
                            observer.take_due(self.machine);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.describe_where_it_hangs();
                    timed_out = true;
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.last_message = Some(Instant::now());
        if let Some(mut observer) = self.observer.take() {
            // A guest that said all has been asked when its body had ended.
            if !self.record.said_bye && self.record.booted() {
                let when = match &self.end {
                    Some(_) => "after the machine had ended",
                    None => "before the watchdog ended the machine",
                };
                observer.dump(self.machine, when.to_owned());
            }
            self.record.observation = Some(observer.finish());
        }
        if timed_out {
            self.machine.kill(KillReason::Watchdog);
        } else if self.record.said_bye {
            self.record.footprint_bytes = self.machine.footprint_bytes().ok();
            self.machine.kill(KillReason::Done);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.first_message {
            None => Some(self.started + self.limits.boot),
            Some(first) => self.limits.run.map(|run| first + run),
        }
    }

    fn take(&mut self, event: Event, on_output: OnOutput<'_>) {
        match event {
            Event::Frame(Ok(message)) => self.take_message(message, on_output),
            Event::Frame(Err(error)) if self.record.frame_errors.len() < FRAME_ERRORS_KEPT => {
                self.record.frame_errors.push(error);
            }
            Event::Frame(Err(_)) => self.record.more_frame_errors += 1,
            Event::LinkClosed => self.link_open = false,
            Event::Ended(end) => self.end = Some(end),
        }
    }

    fn take_message(&mut self, message: Message, on_output: OnOutput<'_>) {
        let record = &mut self.record;
        record.order.take(&message);
        match message {
            Message::Hello { release, .. } => {
                self.first_message.get_or_insert_with(Instant::now);
                record.release = Some(release);
                if let Some(observer) = &mut self.observer {
                    observer.booted(self.machine);
                }
            }
            Message::Phase(phase) => {
                record.phase = Some(phase);
                if let Some(observer) = &mut self.observer {
                    observer.entered(phase);
                }
            }
            Message::Remark(remark) if record.remarks.len() < REMARKS_KEPT => {
                record.remarks.push(remark);
            }
            Message::Remark(_) => {}
            Message::Output(stream, bytes) => {
                on_output(stream, &bytes);
                record.output.push(&bytes);
            }
            Message::Request(what) => self.answer(what),
            message => record.keep(message),
        }
    }

    /// Does what the guest asks for, and tells it, since it waits.
    fn answer(&mut self, what: Request) {
        let done = match &mut self.observer {
            Some(observer) => observer.answer(self.machine, what),
            None => false,
        };
        let answer = if done {
            Message::DONE
        } else {
            Message::NOT_DONE
        };
        // A guest that is gone needs no answer; one that does not get it is ended by the watchdog.
        let _ = self.answers.write_all(&[answer]);
    }

    /// Where each CPU stands: the difference between a guest that spins and one that sleeps.
    fn describe_where_it_hangs(&mut self) {
        let Ok(cpus) = self.machine.vcpu_registers() else {
            return;
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

    fn into_record(mut self, on_output: OnOutput<'_>) -> Record {
        let deadline = Instant::now() + DRAIN;
        while self.end.is_none() || self.link_open {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.received.recv_timeout(left) {
                Ok(event) => self.take(event, on_output),
                Err(_) => break,
            }
        }
        let gone = Instant::now();
        let first = self.first_message.unwrap_or(gone);
        let last = self.last_message.unwrap_or(gone);
        Record {
            end: self
                .end
                .or_else(|| self.machine.end())
                .unwrap_or(End::Broken {
                    message: "the engine did not say how the machine ended".to_owned(),
                }),
            console: self.machine.com1().contents(),
            crash: self.machine.com2().contents(),
            boot: first.saturating_duration_since(self.started),
            run: last.saturating_duration_since(first),
            teardown: gone.saturating_duration_since(last),
            ..self.record
        }
    }
}

pub(crate) fn empty_record() -> Record {
    Record {
        release: None,
        phase: None,
        result: None,
        sidecar: None,
        scheduler_attached: None,
        scheduler: None,
        scheduler_log: BoundedText::default(),
        setup_failed: None,
        exit: None,
        said_bye: false,
        remarks: Vec::new(),
        frame_errors: Vec::new(),
        more_frame_errors: 0,
        order: Order::default(),
        output: BoundedText::default(),
        console: String::new(),
        crash: String::new(),
        end: End::PoweredOff,
        boot: Duration::ZERO,
        run: Duration::ZERO,
        teardown: Duration::ZERO,
        inner_dump: None,
        observation: None,
        footprint_bytes: None,
    }
}
