//! Watching the kernel of a machine while its test runs.
//!
//! A thread of its own finds the kernel in guest memory once PID 1 spoke, and starts the monitor. The
//! driver never waits for it, but at the end. What keeps it from seeing is the reason why the monitor's
//! checks are not judged; it is no failure of the test.

mod capture;
mod guest_memory;
mod image;
mod moments;
mod rate;
mod stalls;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_declaration::Watch;
use ktstr_introspect::kernel::Kernel;
use ktstr_introspect::memory::Evidence;
use ktstr_machine::{Machine, VcpuClock, VcpuCpuTime};
use ktstr_monitor::state::{KernelState, StateReader};
use ktstr_monitor::{
    CpuSample, KernelSource, Missing, Recording, Sample, Sampler, Series, Span, VcpuTime, VcpuTimes,
};
use ktstr_report::{Assert, AssertResult};
use ktstr_wire::{DumpMoment, GuestStage, Request};

use crate::causes::chain;
use capture::Sight;
pub use capture::{Moment, VcpuState};
use guest_memory::GuestRam;
pub(crate) use image::LazyImage;
use moments::Moments;
pub use rate::{MonitorRate, MonitorRateError};

/// How long the kernel may take to be found after PID 1 spoke: its memory was set up long before.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Most memory that the samples of one test may take.
const RECORDING_BYTES: u64 = 64 << 20;

/// How to sample a guest of that many CPUs with `hz` ticks a second, so that all samples of a test that may
/// run for `limit` are kept, if they don't take too much memory; `None` for not at all.
pub(crate) fn sampling(
    rate: MonitorRate,
    cpus: u32,
    limit: Option<Duration>,
    hz: Option<u32>,
) -> Option<ktstr_monitor::Settings> {
    let MonitorRate::Every(interval) = rate else {
        return None;
    };
    let default = ktstr_monitor::Settings::default();
    // What a CPU lacks is said in texts of about that length.
    let cpu_bytes = size_of::<CpuSample>() as u64 + 128;
    let sample_bytes = cpu_bytes * u64::from(cpus) + 2048;
    let most = usize::try_from(RECORDING_BYTES / sample_bytes).unwrap_or(usize::MAX);
    let wanted = limit.map_or(default.capacity, |limit| {
        let samples = limit.as_millis() / interval.as_millis().max(1) + 1;
        usize::try_from(samples).unwrap_or(usize::MAX)
    });
    Some(ktstr_monitor::Settings {
        interval,
        tick: hz.map_or(default.tick, |hz| Duration::from_secs(1) / hz.max(1)),
        capacity: wanted.min(most),
    })
}

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

/// Most snapshots of one test.
const MAX_SNAPSHOTS: usize = 1000;

/// Most remarks of one test.
const MAX_REMARKS: usize = 1000;

/// Moments that a failure dump has at most.
const MAX_DUMP_MOMENTS: usize = 4;

/// How often a task that waits too long is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Longest label of a snapshot, and path of a global variable, in bytes.
const LABEL_BYTES: usize = 200;

/// Sees into one machine.
#[derive(Debug)]
pub(crate) struct Observer {
    booted: Option<Sender<Result<VcpuClock, String>>>,
    state: State,
    body_began: Option<Instant>,
    body_ended: Option<Instant>,
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

#[derive(Debug)]
enum State {
    Looking(JoinHandle<Result<Sight, String>>),
    Seeing(Box<Sight>),
    Blind(String),
}

/// What the host saw of a test.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The samples; empty if nothing could be seen.
    pub recording: Recording,
    /// When the test's body ran; `None` if it never did.
    pub body: Option<Span>,
    /// The snapshots that the test asked for, in order of time.
    pub snapshots: Vec<Moment>,
    /// The state of the kernel at moments that explain a failure, in order of time: when a task had waited too
    /// long, when the scheduler was found to be gone, when the body or the machine had ended.
    pub dump: Vec<Moment>,
    /// Why nothing could be seen.
    pub blind: Option<String>,
    /// Set if another host saw it, in a machine around it; then only its failure dump is known, as JSON.
    pub(crate) inner: Option<InnerHost>,
    /// What a test asked for and could not be done, and why.
    pub remarks: Vec<String>,
}

impl Observer {
    /// Begins with a machine that was just launched.
    pub(crate) fn start(machine: &dyn Machine, settings: ObserverSettings) -> Self {
        let (booted, has_booted) = channel();
        let memory = GuestRam(machine.memory().clone());
        let mut due: Vec<Duration> =
            capture::periodic(settings.watch.num_snapshots, settings.duration).collect();
        due.reverse();
        let watches_for_stalls = settings.has_scheduler;
        let looks = settings.sampling.map(|sampling| {
            thread::Builder::new()
                .name("ktstr-observer".to_owned())
                .spawn(move || {
                    let (image, cpus) = (&settings.image, settings.cpus);
                    find_and_sample(memory, image, cpus, sampling, &has_booted)
                })
        });
        Self {
            booted: Some(booted),
            state: match looks {
                Some(Ok(thread)) => State::Looking(thread),
                Some(Err(error)) => {
                    State::Blind(format!("starting the observer's thread: {error}"))
                }
                None => State::Blind("KTSTR_MONITOR is `off`".to_owned()),
            },
            body_began: None,
            body_ended: None,
            due,
            stopped: Duration::ZERO,
            snapshots: Moments::new(MAX_SNAPSHOTS),
            dump: Moments::new(MAX_DUMP_MOMENTS),
            watches_for_stalls,
            look_at: None,
            remarks: Vec::new(),
        }
    }

    /// PID 1 spoke.
    pub(crate) fn booted(&mut self, machine: &mut dyn Machine) {
        if let Some(booted) = self.booted.take() {
            let clock = machine.vcpu_clock().map_err(|error| chain(&error));
            // A thread that has given up already says why at the end.
            let _ = booted.send(clock);
        }
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
        let sight = self.sight().map_err(str::to_owned);
        match sight.and_then(|sight| sight.write_global(path, value)) {
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
        let moment = self.sight()?.capture(machine, label)?;
        self.stopped += Duration::from_nanos(moment.stopped_ns);
        Ok(moment)
    }

    /// When to look next for a task that waits too long.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Keeps the state of the kernel if a task of sched_ext has waited for half of what the kernel's watchdog
    /// allows: when that has thrown the scheduler out, the state is another. Once a test.
    pub(crate) fn look_for_stall(&mut self, machine: &mut dyn Machine) {
        self.look_at = None;
        let State::Seeing(_) = self.state else {
            // Still looking; it is not to be waited for here.
            self.look_at = self.still_to_be_seen().then(|| Instant::now() + LOOK_EVERY);
            return;
        };
        match self.sight().map_or(Ok(None), Sight::stalling) {
            Ok(Some(what)) => _ = self.dump(machine, what),
            Ok(None) => self.look_at = Some(Instant::now() + LOOK_EVERY),
            // It is looked for no more.
            Err(exhausted) => self.remark(format!(
                "no task that waits too long was looked for from then on: {exhausted}"
            )),
        }
    }

    /// Takes over what the observer's thread has found, if it has.
    fn still_to_be_seen(&mut self) -> bool {
        if matches!(&self.state, State::Looking(thread) if thread.is_finished()) {
            let _ = self.sight();
        }
        !matches!(self.state, State::Blind(_))
    }

    /// Waits until the kernel is found, or it is known that it will not be.
    fn sight(&mut self) -> Result<&Sight, &str> {
        if let State::Looking(_) = self.state {
            // A thread that still waits for PID 1 gives up.
            self.booted = None;
            let looking = std::mem::replace(&mut self.state, State::Blind(String::new()));
            if let State::Looking(thread) = looking {
                self.state = match thread.join() {
                    Ok(Ok(sight)) => State::Seeing(Box::new(sight)),
                    Ok(Err(why)) => State::Blind(why),
                    Err(_) => State::Blind("the observer's thread panicked".to_owned()),
                };
            }
        }
        match &self.state {
            State::Seeing(sight) => Ok(sight),
            State::Blind(why) => Err(why),
            State::Looking(_) => Err("the observer's thread is not waited for"),
        }
    }

    /// Looks no longer. To be called before the machine is ended.
    pub(crate) fn finish(mut self) -> Observation {
        let now = Instant::now();
        // Whatever comes of it is in the state.
        let _ = self.sight();
        let mut observation = Observation {
            snapshots: self.snapshots.into_vec(),
            dump: self.dump.into_vec(),
            remarks: self.remarks,
            ..Observation::default()
        };
        match self.state {
            State::Seeing(sight) => {
                let sampler = sight.sampler;
                observation.body = self.body_began.map(|began| Span {
                    from_ns: sampler.at_ns(began),
                    to_ns: sampler.at_ns(self.body_ended.unwrap_or(now)),
                });
                observation.recording = sampler.stop();
            }
            State::Blind(why) => observation.blind = Some(why),
            State::Looking(_) => {}
        }
        observation
    }
}

/// At most [`LABEL_BYTES`] of what a guest calls a snapshot.
fn cut(label: &str) -> &str {
    let mut ends = (0..=LABEL_BYTES.min(label.len())).rev();
    let end = ends.find(|&end| label.is_char_boundary(end));
    &label[..end.unwrap_or(0)]
}

/// What is left of an inner host.
#[derive(Clone, Debug, Default)]
pub(crate) struct InnerHost {
    pub(crate) dump: Option<Vec<u8>>,
}

impl Observation {
    pub(crate) fn of_inner_host(dump: Option<Vec<u8>>) -> Self {
        Self {
            inner: Some(InnerHost { dump }),
            ..Self::default()
        }
    }

    /// The monitor's checks over the time in which the test's body ran.
    pub fn judge(&self, assert: &Assert) -> AssertResult {
        match (&self.blind, self.body) {
            (Some(why), _) => {
                let why = format!("the host could not see into the guest's kernel: {why}");
                ktstr_monitor::without_samples(assert, &why)
            }
            (None, Some(body)) => ktstr_monitor::judge(&self.recording, body, assert),
            (None, None) => ktstr_monitor::without_samples(assert, "the test's body did not run"),
        }
    }

    /// What `value` reads off each sample of the time in which the test's body ran.
    pub fn series(
        &self,
        name: impl Into<String>,
        unit: impl Into<String>,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Series {
        let body = self.body.unwrap_or(Span::ALL);
        Series::of_samples(&self.recording, body, name, unit, value)
    }

    /// What `value` reads off each snapshot.
    pub fn snapshot_series(
        &self,
        name: impl Into<String>,
        unit: impl Into<String>,
        value: impl Fn(&KernelState) -> Option<f64>,
    ) -> Series {
        let mut series = Series::new(name, unit);
        for moment in &self.snapshots {
            series.push(moment.at_ns, moment.label.clone(), value(&moment.kernel));
        }
        series
    }
}

/// The observer's thread, until samples are taken.
fn find_and_sample(
    memory: GuestRam,
    image: &LazyImage,
    cpus: u32,
    sampling: ktstr_monitor::Settings,
    has_booted: &Receiver<Result<VcpuClock, String>>,
) -> Result<Sight, String> {
    // The machine boots meanwhile.
    let image = image.get()?;
    let clock = has_booted
        .recv()
        .map_err(|_| "the guest's PID 1 never spoke".to_owned())?;
    let guest_ram = memory.clone();
    let memory = Arc::new(memory);
    let deadline = Instant::now() + ATTACH_TIMEOUT;
    let kernel = loop {
        match Kernel::attach(
            Arc::clone(&memory) as _,
            Arc::clone(&image),
            &Evidence::default(),
        ) {
            Ok(kernel) => break kernel,
            Err(error) if Instant::now() >= deadline => return Err(chain(&error)),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let source =
        KernelSource::new(&kernel, cpus, vcpu_times(clock)).map_err(|error| chain(&error))?;
    let reader = StateReader::new(&kernel, cpus, sampling.tick).map_err(|error| chain(&error))?;
    let sampler = Sampler::start(Box::new(source), sampling)
        .map_err(|error| format!("starting the monitor's thread: {error}"))?;
    Ok(Sight {
        guest_ram,
        kernel,
        reader,
        sampler,
    })
}

fn vcpu_times(clock: Result<VcpuClock, String>) -> VcpuTimes {
    Box::new(move || {
        let clock = match &clock {
            Ok(clock) => clock,
            Err(why) => {
                let missing = Missing::Failed(why.clone());
                return (Err(missing.clone()), Err(missing));
            }
        };
        let time = clock.read().map(|time| match time {
            VcpuCpuTime::Own(times) => VcpuTime::Own(times),
            VcpuCpuTime::Shared { thread_ns, turn_ns } => VcpuTime::Shared { thread_ns, turn_ns },
        });
        let failed = |error: std::io::Error| Missing::Failed(error.to_string());
        (time.map_err(failed), clock.read_wait_ns().map_err(failed))
    })
}
