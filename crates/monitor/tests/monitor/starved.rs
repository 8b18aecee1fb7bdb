//! What vCPUs had of the time that they wanted, before a stall report.

use ktstr_monitor::{MIN_VCPU_SHARE_PCT, Recording, Sample, VcpuTime, vcpu_share_pct_before};

use crate::guest::{healthy, recording};

const SECOND_NS: u64 = 1_000_000_000;
/// When the guest printed its report, on its own clock.
const AT_US: u64 = 25_000_000;

/// 30 s of a machine with two busy CPUs, a sample each second, in each of which `change` is told the time in seconds.
fn half_a_minute(change: impl Fn(u64, &mut Sample)) -> Recording {
    recording((1..=30).map(|second| {
        let mut sample = healthy(second);
        sample.at_ns = second * SECOND_NS;
        for cpu in &mut sample.cpus {
            if let Ok(rq) = &mut cpu.rq {
                rq.clock_ns = second * SECOND_NS;
            }
        }
        change(second, &mut sample);
        sample
    }))
}

fn shared(second: u64, ran_ms: u64, waited_ms: u64, sample: &mut Sample) {
    sample.vcpu_time = Ok(VcpuTime::Shared {
        thread_ns: second * ran_ms * 1_000_000,
        turn_ns: 100_000_000,
    });
    sample.vcpu_wait_ns = Ok(vec![second * waited_ms * 1_000_000]);
}

#[test]
fn fault_c3_a_vcpu_on_a_busy_host_had_a_small_share_of_what_it_wanted() {
    // CPU 1 ran for 2 % of the time and waited for the rest.
    let own = half_a_minute(|second, sample| {
        let now = second * SECOND_NS;
        sample.vcpu_time = Ok(VcpuTime::Own(vec![now, now / 50]));
        sample.vcpu_wait_ns = Ok(vec![0, now / 50 * 49]);
    });
    let share = vcpu_share_pct_before(&own, AT_US).expect("samples");
    assert!((1.9..2.1).contains(&share), "{share}");
    // 64 CPUs that take turns on a thread that has 80 % of a CPU.
    let turns = half_a_minute(|second, sample| {
        sample.cpus = vec![sample.cpus[0].clone(); 64];
        shared(second, 800, 200, sample);
    });
    let share = vcpu_share_pct_before(&turns, AT_US).expect("samples");
    assert!(share < MIN_VCPU_SHARE_PCT && share > 1.0, "{share}");
}

#[test]
fn fault_c3_a_vcpu_that_had_what_it_wanted_is_no_excuse() {
    let share = vcpu_share_pct_before(
        &half_a_minute(|second, sample| {
            let now = second * SECOND_NS;
            sample.vcpu_time = Ok(VcpuTime::Own(vec![now, now]));
        }),
        AT_US,
    );
    assert_eq!(share, Some(100.0));
    let share = vcpu_share_pct_before(
        &half_a_minute(|second, sample| shared(second, 900, 100, sample)),
        AT_US,
    );
    assert_eq!(share, Some(45.0), "two busy CPUs on one thread");
    // A CPU that sleeps while tasks wait for it wants nothing of the host: that is the scheduler's fault.
    let share = vcpu_share_pct_before(
        &half_a_minute(|second, sample| shared(second, 10, 5, sample)),
        AT_US,
    );
    assert_eq!(share, None);
}

#[test]
fn without_samples_of_the_time_before_nothing_is_said() {
    let whole = half_a_minute(|second, sample| shared(second, 1, 999, sample));
    assert!(vcpu_share_pct_before(&whole, AT_US).is_some());
    assert_eq!(vcpu_share_pct_before(&whole, 5_000_000), None, "5 s");
    assert_eq!(vcpu_share_pct_before(&Recording::default(), AT_US), None);
    let untold = half_a_minute(|second, sample| {
        shared(second, 1, 999, sample);
        sample.vcpu_wait_ns = Err(ktstr_monitor::Missing::Unstable);
    });
    assert_eq!(vcpu_share_pct_before(&untold, AT_US), None);
}
