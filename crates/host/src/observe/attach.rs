//! Finding the kernel in guest memory, on a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_introspect::kernel::Kernel;
use ktstr_introspect::memory::Evidence;
use ktstr_machine::{VcpuClock, VcpuCpuTime};
use ktstr_monitor::state::StateReader;
use ktstr_monitor::{KernelSource, Missing, Sampler, VcpuTime, VcpuTimes};

use super::guest_memory::GuestRam;
use super::image::LazyImage;
use crate::causes::chain;

/// How long the kernel may take to be found after PID 1 spoke: its memory was set up long before.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The kernel of a machine, found and sampled.
#[derive(Debug)]
pub(super) struct AttachedKernel {
    pub(super) guest_ram: GuestRam,
    pub(super) kernel: Kernel,
    pub(super) reader: StateReader,
    pub(super) sampler: Sampler,
    /// Whether the sampler is asked for a sample at each pause of the guest.
    pub(super) samples_at_pauses: bool,
}

/// What the thread tells: the kernel, or why there is none.
type Found = Result<Box<AttachedKernel>, String>;

/// The kernel, or the search for it.
#[derive(Debug)]
pub(super) struct Attachment {
    /// Tells the thread that PID 1 spoke, and what reads the vCPUs' CPU time.
    booted: Option<Sender<Result<VcpuClock, String>>>,
    /// The search, until its outcome is taken over.
    thread: Option<JoinHandle<Found>>,
    found: Found,
}

impl Attachment {
    /// Begins to look for the kernel in `memory`. With no way to sample, nothing is looked at.
    pub(super) fn begin(
        memory: GuestRam,
        image: Arc<LazyImage>,
        cpus: u32,
        sampling: Option<ktstr_monitor::Settings>,
    ) -> Self {
        let Some(sampling) = sampling else {
            return Self::impossible("KTSTR_MONITOR is `off`".to_owned());
        };
        let (booted, has_booted) = channel();
        let search = thread::Builder::new()
            .name("ktstr-observer".to_owned())
            .spawn(move || find_and_sample(memory, &image, cpus, sampling, &has_booted));
        match search {
            Ok(thread) => Self {
                booted: Some(booted),
                thread: Some(thread),
                found: Err("the search for the kernel has not ended".to_owned()),
            },
            Err(error) => Self::impossible(format!("starting the observer's thread: {error}")),
        }
    }

    fn impossible(why: String) -> Self {
        Self {
            booted: None,
            thread: None,
            found: Err(why),
        }
    }

    /// PID 1 spoke. `clock` is called if anybody wants to know.
    pub(super) fn booted(&mut self, clock: impl FnOnce() -> Result<VcpuClock, String>) {
        if let Some(booted) = self.booted.take() {
            // A thread that has given up already says why at the end.
            let _ = booted.send(clock());
        }
    }

    /// The kernel, or why it was not found; `None` while it is looked for.
    pub(super) fn get(&mut self) -> Option<Result<&AttachedKernel, &str>> {
        let searches = |thread: &JoinHandle<Found>| !thread.is_finished();
        if self.thread.as_ref().is_some_and(searches) {
            return None;
        }
        Some(self.wait())
    }

    /// Waits until the kernel is found, or it is known that it will not be.
    pub(super) fn wait(&mut self) -> Result<&AttachedKernel, &str> {
        if let Some(thread) = self.thread.take() {
            // A thread that still waits for PID 1 gives up.
            self.booted = None;
            let panicked = |_| Err("the observer's thread panicked".to_owned());
            self.found = thread.join().unwrap_or_else(panicked);
        }
        self.found.as_deref().map_err(String::as_str)
    }

    pub(super) fn finish(mut self) -> Found {
        // Whatever comes of it is kept.
        let _ = self.wait();
        self.found
    }
}

/// The observer's thread, until samples are taken.
fn find_and_sample(
    memory: GuestRam,
    image: &LazyImage,
    cpus: u32,
    sampling: ktstr_monitor::Settings,
    has_booted: &Receiver<Result<VcpuClock, String>>,
) -> Found {
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
            Err(_) => thread::sleep(RETRY_AFTER),
        }
    };
    let source =
        KernelSource::new(&kernel, cpus, vcpu_times(clock)).map_err(|error| chain(&error))?;
    let reader = StateReader::new(&kernel, cpus, sampling.tick).map_err(|error| chain(&error))?;
    let sampler = Sampler::start(Box::new(source), sampling)
        .map_err(|error| format!("starting the monitor's thread: {error}"))?;
    Ok(Box::new(AttachedKernel {
        guest_ram,
        kernel,
        reader,
        sampler,
        samples_at_pauses: sampling.clock == ktstr_monitor::Clock::GuestPauses,
    }))
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
