//! Watching the kernel of a machine while its test runs.
//!
//! A thread of its own finds the kernel in guest memory once PID 1 spoke, and starts the monitor. The driver waits for it
//! when it is asked for a snapshot or a dump, and at the end. What keeps it from seeing is the reason why the monitor's
//! checks are not judged; the test does not fail for it.

mod attach;
mod capture;
mod guest_memory;
mod image;
mod moments;
mod observation;
mod phases;
mod rate;
mod sampling;
mod stalls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ktstr_declaration::Watch;
use ktstr_machine::Machine;
use ktstr_monitor::Span;
use ktstr_report::Phase;
use ktstr_wire::{DumpMoment, GuestStage, Request};

use crate::causes::chain;
use attach::{AttachedKernel, Attachment};
pub use capture::{Moment, VcpuState};
use guest_memory::GuestRam;
pub(crate) use image::LazyImage;
use moments::Moments;
pub use observation::Observation;
use phases::PhaseEdges;
pub use rate::{MonitorRate, MonitorRateError};
pub(crate) use sampling::sampling;

/// What a test asks of its observer.
#[derive(Clone, Debug)]
pub(crate) struct ObserverSettings {
    /// The kernel's image.
    pub(crate) image: Arc<LazyImage>,
    /// How to sample; `None` if the host is not to look.
    pub(crate) sampling: Option<ktstr_monitor::Settings>,
    /// Snapshots to take, evenly over the time for which the test holds its load.
    pub(crate) watch: Watch,
    /// How long that is.
    pub(crate) duration: Duration,
    /// CPUs that the machine is declared with.
    pub(crate) cpus: u32,
    /// Whether the test runs under a scheduler of sched_ext.
    pub(crate) has_scheduler: bool,
}

/// Snapshots of one test.
const MAX_SNAPSHOTS: usize = 1000;

/// Remarks of one test.
const MAX_REMARKS: usize = 1000;

/// Moments that a failure dump has at most.
const MAX_DUMP_MOMENTS: usize = 4;

/// How often a task that waits too long is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest label of a snapshot, and path of a global variable, in bytes.
const MAX_LABEL_BYTES: usize = 200;

/// Sees into one machine.
#[derive(Debug)]
pub(crate) struct Observer {
    attachment: Attachment,
    body_began: Option<Instant>,
    body_ended: Option<Instant>,
    phases: PhaseEdges,
    /// When periodic snapshots are due, from the beginning of the body; the next is the last.
    due: Vec<Duration>,
    /// For how long snapshots have stopped the machine since the body began.
    stopped: Duration,
    snapshots: Moments,
    dump: Moments,
    watches_for_stalls: bool,
    /// When to look next for a task that waits too long.
    look_at: Option<Instant>,
    remarks: Vec<String>,
}

impl Observer {
    /// Begins with a machine that was just launched.
    pub(crate) fn start(machine: &dyn Machine, settings: ObserverSettings) -> Self {
        let mut due: Vec<Duration> =
            capture::periodic(settings.watch.num_snapshots, settings.duration).collect();
        due.reverse();
        Self {
            attachment: Attachment::begin(
                GuestRam(machine.memory().clone()),
                settings.image,
                settings.cpus,
                settings.sampling,
            ),
            body_began: None,
            body_ended: None,
            phases: PhaseEdges::default(),
            due,
            stopped: Duration::ZERO,
            snapshots: Moments::new(MAX_SNAPSHOTS),
            dump: Moments::new(MAX_DUMP_MOMENTS),
            watches_for_stalls: settings.has_scheduler,
            look_at: None,
            remarks: Vec::new(),
        }
    }

    /// PID 1 spoke.
    pub(crate) fn booted(&mut self, machine: &mut dyn Machine) {
        let clock = || machine.vcpu_clock().map_err(|error| chain(&error));
        self.attachment.booted(clock);
    }

    /// The guest enters a stage.
    pub(crate) fn entered(&mut self, stage: GuestStage) {
        match stage {
            GuestStage::Body => {
                let now = Instant::now();
                self.body_began = Some(now);
                self.look_at = self.watches_for_stalls.then_some(now + LOOK_EVERY);
            }
            _ if self.body_began.is_some() => {
                self.body_ended.get_or_insert_with(Instant::now);
                self.look_at = None;
            }
            _ => {}
        }
    }

    /// A phase of the body begins or ends.
    pub(crate) fn phase(&mut self, phase: Phase, begins: bool) {
        self.phases.edge(phase, begins);
    }

    /// The machine ended: samples from then on say nothing of the test.
    pub(crate) fn machine_ended(&mut self, at: Instant) {
        if self.body_began.is_some() {
            self.body_ended.get_or_insert(at);
        }
    }

    /// When the next periodic snapshot is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let began = self.body_began.filter(|_| self.body_ended.is_none())?;
        Some(began + self.stopped + *self.due.last()?)
    }

    /// Takes the periodic snapshot that is due.
    pub(crate) fn take_due(&mut self, machine: &mut dyn Machine) {
        if self.due.pop().is_some() {
            let label = format!("periodic {}", self.snapshots.len() + 1);
            self.snapshot(machine, &label);
        }
    }

    /// Does what the guest asks for. Says whether it could.
    pub(crate) fn answer(&mut self, machine: &mut dyn Machine, request: Request) -> bool {
        match request {
            Request::Snapshot(label) => self.snapshot(machine, cut(&label)),
            Request::WriteGlobal { path, value } => self.write_global(cut(&path), value),
            // One place is kept for the machine's end.
            Request::Dump(_) if self.dump.len() + 1 >= MAX_DUMP_MOMENTS => false,
            Request::Dump(DumpMoment::SchedulerGone) => self.dump(
                machine,
                "when the scheduler was found to be gone".to_owned(),
            ),
            Request::Dump(DumpMoment::BodyEnded) => {
                self.dump(machine, "at the end of the test's body".to_owned())
            }
        }
    }

    fn snapshot(&mut self, machine: &mut dyn Machine, label: &str) -> bool {
        let room = self.snapshots.has_room();
        let taken = room.and_then(|()| self.read(machine, label.to_owned()));
        match taken {
            Ok(moment) => {
                if let Some(why) = &moment.kernel.exhausted {
                    self.remark(format!("the snapshot `{label}` does not have all: {why}"));
                }
                self.snapshots.push(moment);
                true
            }
            Err(why) => {
                self.remark(format!("the snapshot `{label}` was not taken: {why}"));
                false
            }
        }
    }

    fn write_global(&mut self, path: &str, value: i128) -> bool {
        let kernel = self.attachment.wait().map_err(str::to_owned);
        match kernel.and_then(|kernel| kernel.write_global(path, value)) {
            Ok(()) => true,
            Err(why) => {
                self.remark(format!("{value} was not written into `{path}`: {why}"));
                false
            }
        }
    }

    fn remark(&mut self, remark: String) {
        if self.remarks.len() < MAX_REMARKS {
            self.remarks.push(remark);
        }
    }

    /// Reads what a failure dump shows. Says whether it has it.
    pub(crate) fn dump(&mut self, machine: &mut dyn Machine, label: String) -> bool {
        let room = self.dump.has_room();
        let taken = room.and_then(|()| self.read(machine, label));
        let is_taken = taken.is_ok();
        taken.into_iter().for_each(|moment| self.dump.push(moment));
        is_taken
    }

    fn read(&mut self, machine: &mut dyn Machine, label: String) -> Result<Moment, String> {
        let moment = self.attachment.wait()?.capture(machine, label)?;
        self.stopped += Duration::from_nanos(moment.stopped_ns);
        Ok(moment)
    }

    /// When to look next for a task that waits too long.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Keeps the state of the kernel if a task of sched_ext has waited for half of what the kernel's watchdog
    /// allows: when that has disabled the scheduler, the state is another. Once a test.
    pub(crate) fn look_for_stall(&mut self, machine: &mut dyn Machine) {
        let later = Some(Instant::now() + LOOK_EVERY);
        self.look_at = None;
        let stalling = match self.attachment.get() {
            // It is not to be waited for here.
            None => return self.look_at = later,
            Some(kernel) => kernel.map_or(Ok(None), AttachedKernel::stalling),
        };
        match stalling {
            Ok(Some(what)) => _ = self.dump(machine, what),
            Ok(None) => self.look_at = later,
            // It is looked for no more.
            Err(exhausted) => self.remark(format!(
                "no task that waits too long was looked for from then on: {exhausted}"
            )),
        }
    }

    /// Looks no longer. To be called before the machine is ended.
    pub(crate) fn finish(self) -> Observation {
        let now = Instant::now();
        let mut observation = Observation {
            snapshots: self.snapshots.into_vec(),
            dump: self.dump.into_vec(),
            remarks: self.remarks,
            ..Observation::default()
        };
        match self.attachment.finish() {
            Ok(kernel) => {
                let sampler = kernel.sampler;
                let body_ended = self.body_ended.unwrap_or(now);
                observation.phases = self.phases.spans(&sampler, body_ended);
                observation.body = self.body_began.map(|began| Span {
                    from_ns: sampler.at_ns(began),
                    to_ns: sampler.at_ns(body_ended),
                });
                observation.recording = sampler.stop();
            }
            Err(why) => observation.blind = Some(why),
        }
        observation
    }
}

/// At most [`MAX_LABEL_BYTES`] of what a guest calls a snapshot.
fn cut(label: &str) -> &str {
    let mut ends = (0..=MAX_LABEL_BYTES.min(label.len())).rev();
    let end = ends.find(|&end| label.is_char_boundary(end));
    &label[..end.unwrap_or(0)]
}
