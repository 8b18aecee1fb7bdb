//! The thread that samples.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_monitor::{Clock, Look, Missing, Reading, Sampler, Settings, Source};

use crate::guest::healthy;

struct Counted(Arc<AtomicU64>);

impl Source for Counted {
    fn look(&mut self) -> Reading<Look> {
        let at = self.0.fetch_add(1, Ordering::Relaxed);
        if at == 1 {
            return Err(Missing::Unstable);
        }
        let sample = healthy(at);
        Ok(Look {
            cpus: sample.cpus,
            sched_ext: sample.sched_ext,
            vcpu_time: sample.vcpu_time,
            vcpu_wait_ns: sample.vcpu_wait_ns,
        })
    }
}

/// A sampler that has looked at least `looks` times.
fn running(looks: u64, settings: Settings) -> Sampler {
    let count = Arc::new(AtomicU64::new(0));
    let sampler =
        Sampler::start(Box::new(Counted(Arc::clone(&count))), settings).expect("a thread");
    let deadline = Instant::now() + Duration::from_secs(30);
    while count.load(Ordering::Relaxed) <= looks {
        assert!(Instant::now() < deadline, "the sampler does not look");
        thread::yield_now();
    }
    sampler
}

fn settings() -> Settings {
    Settings {
        clock: Clock::HostInterval(Duration::from_millis(2)),
        capacity: 8,
        ..Settings::default()
    }
}

#[test]
fn it_keeps_the_newest_samples_and_counts_the_rest() {
    let sampler = running(20, settings());
    assert!(sampler.latest().is_some());
    let before = sampler.at_ns(Instant::now());
    let recording = sampler.stop();
    assert_eq!(recording.samples.len(), 8);
    assert_eq!(recording.dropped + 8, recording.cost.samples);
    assert!(recording.samples.iter().is_sorted_by_key(|s| s.at_ns));
    assert!(recording.samples[0].at_ns < before);
    assert_eq!(recording.interval_ns, 2_000_000);
}

#[test]
fn what_could_not_be_seen_is_a_sample_that_says_so() {
    let recording = running(2, settings()).stop();
    let failed = recording
        .samples
        .iter()
        .find(|sample| sample.cpus.is_empty())
        .unwrap();
    assert_eq!(failed.sched_ext, Err(Missing::Unstable));
}

#[test]
fn at_pauses_of_the_guest_it_looks_only_when_it_is_asked() {
    let settings = Settings {
        clock: Clock::GuestPauses,
        ..settings()
    };
    let count = Arc::new(AtomicU64::new(0));
    let source = Box::new(Counted(Arc::clone(&count)));
    let sampler = Sampler::start(source, settings).expect("a thread");
    for looks in 1..=3 {
        assert!(sampler.sample());
        assert_eq!(count.load(Ordering::Relaxed), looks);
    }
    let recording = sampler.stop();
    assert_eq!((recording.samples.len(), recording.interval_ns), (3, 0));
}

#[test]
fn by_the_hosts_clock_it_can_be_asked_for_one_more() {
    let sampler = running(1, settings());
    assert!(sampler.sample());
    let recording = sampler.stop();
    assert!(recording.samples.iter().is_sorted_by_key(|s| s.at_ns));
}

#[test]
fn its_own_cost_is_measured() {
    let cost = running(20, settings()).stop().cost;
    assert!(cost.cpu_ns > 0 && cost.longest_sample_ns > 0);
    let share = cost.cpu_share_pct().unwrap();
    assert!(share > 0.0 && share <= 100.0, "{share}");
}

#[test]
fn a_recording_is_the_same_after_it_was_written_and_read() {
    let recording = running(3, settings()).stop();
    let json = serde_json::to_string(&recording).unwrap();
    assert_eq!(
        serde_json::from_str::<ktstr_monitor::Recording>(&json).unwrap(),
        recording
    );
}
