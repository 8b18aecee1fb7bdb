//! The thread that takes samples.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::clock::Clock;
use crate::recording::Recording;
use crate::sample::{Reading, Sample, SchedExtSample, VcpuTime};
use crate::{CpuSample, DEFAULT_INTERVAL};

/// What a source sees in one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// CPUs by number.
    pub cpus: Vec<CpuSample>,
    /// sched_ext as a whole.
    pub sched_ext: Reading<SchedExtSample>,
    /// CPU time given to the vCPUs.
    pub vcpu_time: Reading<VcpuTime>,
    /// Time for which the vCPUs' threads waited for a CPU.
    pub vcpu_wait_ns: Reading<Vec<u64>>,
}

/// Something that can be looked at again and again, without stopping it.
pub trait Source: Send {
    /// Looks once. The error says why nothing could be seen.
    fn look(&mut self) -> Reading<Look>;
}

/// How to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When samples are taken.
    pub clock: Clock,
    /// Length of the guest's scheduling tick.
    pub tick: Duration,
    /// Most samples that are kept. Then the oldest are dropped, and counted.
    pub capacity: usize,
}

impl Default for Settings {
    /// A sample every 100 ms of the last seven minutes, of a guest with 250 ticks a second.
    fn default() -> Self {
        Self {
            clock: Clock::HostInterval(DEFAULT_INTERVAL),
            tick: Duration::from_millis(4),
            capacity: 4200,
        }
    }
}

/// Takes samples on a thread of its own until stopped or dropped. It only reads: the machine never waits
/// for it.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    recording: Arc<Mutex<Recording>>,
    /// Each is answered when its sample was taken. Dropped, it ends the thread.
    ask: Option<Sender<Sender<()>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts. By the host's clock the first sample is taken at once.
    pub fn start(source: Box<dyn Source>, settings: Settings) -> io::Result<Self> {
        let started = Instant::now();
        let recording = Arc::new(Mutex::new(Recording {
            interval_ns: settings.clock.interval().map_or(0, nanos),
            tick_ns: nanos(settings.tick),
            ..Recording::default()
        }));
        let (ask, asked) = channel();
        let worker = Worker {
            source,
            settings,
            started,
            recording: Arc::clone(&recording),
        };
        let thread = thread::Builder::new()
            .name("ktstr-monitor".to_owned())
            .spawn(move || worker.run(&asked))?;
        Ok(Self {
            started,
            recording,
            ask: Some(ask),
            thread: Some(thread),
        })
    }

    /// A moment on the clock of [`Sample::at_ns`]; 0 for one before the start.
    pub fn at_ns(&self, moment: Instant) -> u64 {
        nanos(moment.saturating_duration_since(self.started))
    }

    /// Takes a sample now, and returns when it is taken. Whether it was: a source that has panicked gives none.
    pub fn sample(&self) -> bool {
        let (answer, taken) = channel();
        let asked = self.ask.as_ref().map(|ask| ask.send(answer));
        matches!(asked, Some(Ok(()))) && taken.recv().is_ok()
    }

    /// The newest sample.
    pub fn latest(&self) -> Option<Sample> {
        lock(&self.recording).samples.back().cloned()
    }

    /// Stops the thread, and gives what it recorded.
    pub fn stop(mut self) -> Recording {
        self.join();
        std::mem::take(&mut *lock(&self.recording))
    }

    fn join(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the source has been printed; what was recorded before it stands.
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.join();
    }
}

struct Worker {
    source: Box<dyn Source>,
    settings: Settings,
    started: Instant,
    recording: Arc<Mutex<Recording>>,
}

impl Worker {
    fn run(mut self, asked: &Receiver<Sender<()>>) {
        let clock = self.settings.clock;
        let mut due = clock.interval().map(|_| self.started);
        loop {
            let answer = match wait(asked, due) {
                Ok(answer) => Some(answer),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.take_sample();
            match answer {
                // Who asked may have given up.
                Some(answer) => _ = answer.send(()),
                None => due = due.and_then(|due| clock.next(due, Instant::now())),
            }
        }
    }

    fn take_sample(&mut self) {
        let began = Instant::now();
        let at_ns = nanos(began.duration_since(self.started));
        let look = self.source.look();
        let took_ns = nanos(began.elapsed());
        let sample = match look {
            Ok(look) => Sample {
                at_ns,
                took_ns,
                cpus: look.cpus,
                sched_ext: look.sched_ext,
                vcpu_time: look.vcpu_time,
                vcpu_wait_ns: look.vcpu_wait_ns,
            },
            Err(why) => Sample::unreadable(at_ns, &why),
        };
        let cpu = thread_cpu_time();
        let mut recording = lock(&self.recording);
        recording.push(sample, self.settings.capacity);
        let cost = &mut recording.cost;
        cost.samples += 1;
        cost.longest_sample_ns = cost.longest_sample_ns.max(took_ns);
        cost.span_ns = nanos(self.started.elapsed());
        cost.cpu_ns = cpu.map_or(cost.cpu_ns, nanos);
    }
}

/// Waits until somebody asks, until `due`, or for nothing any more.
fn wait(
    asked: &Receiver<Sender<()>>,
    due: Option<Instant>,
) -> Result<Sender<()>, RecvTimeoutError> {
    match due {
        Some(due) => asked.recv_timeout(due.saturating_duration_since(Instant::now())),
        None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

fn thread_cpu_time() -> Option<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok()?;
    Some(time.into())
}

fn lock(recording: &Mutex<Recording>) -> MutexGuard<'_, Recording> {
    // Nothing panics while it holds the lock.
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whole nanoseconds.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
