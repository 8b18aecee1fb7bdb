//! Watching the kernel of a machine while its test runs.
//!
//! A thread of its own finds the kernel in guest memory once PID 1 spoke, and starts the monitor. The
//! driver never waits for it, but at the end. What keeps it from seeing is the reason why the monitor's
//! checks are not judged; it is no failure of the test.

mod guest_memory;
mod image;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_introspect::kernel::Kernel;
use ktstr_introspect::memory::Evidence;
use ktstr_machine::{Machine, VcpuClock, VcpuCpuTime};
use ktstr_monitor::{
    CpuSample, KernelSource, Missing, Reading, Recording, Sampler, Span, VcpuTime, VcpuTimes,
};
use ktstr_report::{AssertResult, Thresholds};
use ktstr_wire::Phase;

use crate::causes::chain;
use guest_memory::GuestRam;
pub(crate) use image::LazyImage;

/// How long the kernel may take to be found after PID 1 spoke: its memory was set up long before.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Most memory that the samples of one test may take.
const RECORDING_BYTES: u64 = 64 << 20;

/// How to sample a guest of that many CPUs with `hz` ticks a second, so that all samples of a test that may
/// run for `limit` are kept, if they don't take too much memory.
pub(crate) fn sampling(
    cpus: u32,
    limit: Option<Duration>,
    hz: Option<u32>,
) -> ktstr_monitor::Settings {
    let default = ktstr_monitor::Settings::default();
    let sample_bytes = size_of::<CpuSample>() as u64 * u64::from(cpus) + 2048;
    let most = usize::try_from(RECORDING_BYTES / sample_bytes).unwrap_or(usize::MAX);
    let wanted = limit.map_or(default.capacity, |limit| {
        let samples = limit.as_millis() / default.interval.as_millis().max(1) + 1;
        usize::try_from(samples).unwrap_or(usize::MAX)
    });
    ktstr_monitor::Settings {
        tick: hz.map_or(default.tick, |hz| Duration::from_secs(1) / hz.max(1)),
        capacity: wanted.min(most),
        ..default
    }
}

/// What a test asks of its observer.
#[derive(Clone, Debug)]
pub(crate) struct ObserverSettings {
    /// The kernel's image.
    pub(crate) image: Arc<LazyImage>,
    /// How to sample.
    pub(crate) sampling: ktstr_monitor::Settings,
}

/// Sees into one machine.
#[derive(Debug)]
pub(crate) struct Observer {
    booted: Option<Sender<Result<VcpuClock, String>>>,
    thread: JoinHandle<Result<Sampler, String>>,
    body_began: Option<Instant>,
    body_ended: Option<Instant>,
}

/// What the host saw of a test.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The samples; empty if nothing could be seen.
    pub recording: Recording,
    /// When the test's body ran; `None` if it never did.
    pub body: Option<Span>,
    /// Why nothing could be seen.
    pub blind: Option<String>,
}

impl Observer {
    /// Begins with a machine that was just launched. The error says why that can't be.
    pub(crate) fn start(machine: &dyn Machine, settings: ObserverSettings) -> Result<Self, String> {
        let (booted, has_booted) = channel();
        let memory = GuestRam(machine.memory().clone());
        let thread = thread::Builder::new()
            .name("ktstr-observer".to_owned())
            .spawn(move || find_and_sample(memory, &settings, &has_booted))
            .map_err(|error| format!("starting the observer's thread: {error}"))?;
        Ok(Self {
            booted: Some(booted),
            thread,
            body_began: None,
            body_ended: None,
        })
    }

    /// PID 1 spoke.
    pub(crate) fn booted(&mut self, machine: &mut dyn Machine) {
        if let Some(booted) = self.booted.take() {
            let clock = machine.vcpu_clock().map_err(|error| chain(&error));
            // A thread that has given up already says why at the end.
            let _ = booted.send(clock);
        }
    }

    /// The guest enters a phase.
    pub(crate) fn entered(&mut self, phase: Phase) {
        match phase {
            Phase::Body => self.body_began = Some(Instant::now()),
            _ if self.body_began.is_some() => {
                self.body_ended.get_or_insert_with(Instant::now);
            }
            _ => {}
        }
    }

    /// Looks no longer. To be called before the machine is ended.
    pub(crate) fn finish(self) -> Observation {
        let now = Instant::now();
        drop(self.booted);
        let sampler = match self.thread.join() {
            Ok(Ok(sampler)) => sampler,
            Ok(Err(why)) => return Observation::blind(why),
            Err(_) => return Observation::blind("the observer's thread panicked".to_owned()),
        };
        let body = self.body_began.map(|began| Span {
            from_ns: sampler.at_ns(began),
            to_ns: sampler.at_ns(self.body_ended.unwrap_or(now)),
        });
        Observation {
            recording: sampler.stop(),
            body,
            blind: None,
        }
    }
}

impl Observation {
    pub(crate) fn blind(why: String) -> Self {
        Self {
            blind: Some(why),
            ..Self::default()
        }
    }

    /// The monitor's checks over the time in which the test's body ran.
    pub fn judge(&self, thresholds: &Thresholds) -> AssertResult {
        match (&self.blind, self.body) {
            (Some(why), _) => {
                let why = format!("the host could not see into the guest's kernel: {why}");
                ktstr_monitor::without_samples(thresholds, &why)
            }
            (None, Some(body)) => ktstr_monitor::judge(&self.recording, body, thresholds),
            (None, None) => {
                ktstr_monitor::without_samples(thresholds, "the test's body did not run")
            }
        }
    }
}

/// The observer's thread, until samples are taken.
fn find_and_sample(
    memory: GuestRam,
    settings: &ObserverSettings,
    has_booted: &Receiver<Result<VcpuClock, String>>,
) -> Result<Sampler, String> {
    // The machine boots meanwhile.
    let image = settings.image.get()?;
    let clock = has_booted
        .recv()
        .map_err(|_| "the guest's PID 1 never spoke".to_owned())?;
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
    let source = KernelSource::new(&kernel, vcpu_times(clock)).map_err(|error| chain(&error))?;
    Sampler::start(Box::new(source), settings.sampling)
        .map_err(|error| format!("starting the monitor's thread: {error}"))
}

fn vcpu_times(clock: Result<VcpuClock, String>) -> VcpuTimes {
    Box::new(move || -> Reading<VcpuTime> {
        let clock = clock.as_ref().map_err(|why| Missing::Failed(why.clone()))?;
        match clock.read() {
            Ok(VcpuCpuTime::Own(times)) => Ok(VcpuTime::Own(times)),
            Ok(VcpuCpuTime::Shared { thread_ns, turn_ns }) => {
                Ok(VcpuTime::Shared { thread_ns, turn_ns })
            }
            Err(error) => Err(Missing::Failed(error.to_string())),
        }
    })
}
