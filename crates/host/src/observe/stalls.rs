//! Stall reports of the guest's kernel, held against the CPU time that its vCPUs had.

use ktstr_monitor::{MIN_VCPU_SHARE_PCT, STALL_SPAN, vcpu_share_pct_before};
use ktstr_report::{AssertResult, Outcome};

use super::Observation;

impl Observation {
    /// Has stall reports of the kernel decide nothing if, before each of them, a vCPU had too little of the CPU time
    /// that it wanted: then it is the host that was slow.
    pub(crate) fn weigh_stalls(&self, result: &mut AssertResult) {
        let shares = result.kernel_stalls_us.iter().map(|&at_us| {
            vcpu_share_pct_before(&self.recording, at_us)
                .filter(|&share_pct| share_pct < MIN_VCPU_SHARE_PCT)
        });
        let shares: Option<Vec<f64>> = shares.collect();
        let greatest = shares.into_iter().flatten().max_by(f64::total_cmp);
        let Some(share_pct) = greatest else {
            return;
        };
        let failed = result.checks.iter_mut();
        for check in failed.filter(|one| one.check == "kernel_log" && one.outcome == Outcome::Fail)
        {
            check.outcome = Outcome::Inconclusive;
            check.detail.push_str(&format!(
                "; in the {} s before it the host gave a vCPU {share_pct:.1} % of the CPU time that it wanted, and below \
                 {} % a stall says nothing of the kernel: declare fewer CPUs, or give the host less to do",
                STALL_SPAN.as_secs(),
                MIN_VCPU_SHARE_PCT,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use ktstr_monitor::{CpuSample, Missing, Recording, RqSample, Sample, VcpuTime};
    use ktstr_report::CheckResult;

    use super::*;

    /// 30 s of a machine with `cpus` busy CPUs on one thread, which has `ran_pct` of a CPU and waits for the rest.
    fn observation(cpus: usize, ran_pct: u64) -> Observation {
        let samples = (1..=30_u64).map(|second| {
            let now_ns = second * 1_000_000_000;
            let rq = RqSample {
                nr_running: 2,
                clock_ns: now_ns,
            };
            let cpu = CpuSample {
                online: true,
                rq: Ok(rq),
                scx: Err(Missing::NotInitialised),
                schedstat: Err(Missing::NotInitialised),
            };
            Sample {
                at_ns: now_ns,
                took_ns: 0,
                cpus: vec![cpu; cpus],
                sched_ext: Err(Missing::NotInitialised),
                vcpu_time: Ok(VcpuTime::Shared {
                    thread_ns: now_ns / 100 * ran_pct,
                    turn_ns: 100_000_000,
                }),
                vcpu_wait_ns: Ok(vec![now_ns / 100 * (100 - ran_pct)]),
            }
        });
        Observation {
            recording: Recording {
                samples: samples.collect(),
                ..Recording::default()
            },
            ..Observation::default()
        }
    }

    fn weighed(observation: &Observation, stalls_us: &[u64]) -> CheckResult {
        let mut result = AssertResult {
            kernel_stalls_us: stalls_us.to_vec(),
            ..AssertResult::default()
        };
        result.push(CheckResult {
            detail: "the guest's kernel printed `rcu: INFO: rcu_preempt detected stalls`"
                .to_owned(),
            ..CheckResult::at_most("kernel_log", 1.0, 0.0, "complaints")
        });
        observation.weigh_stalls(&mut result);
        result.checks.remove(0)
    }

    #[test]
    fn fault_c3_a_stall_of_a_starved_machine_is_inconclusive_with_the_figures() {
        let check = weighed(&observation(32, 50), &[24_000_000, 28_000_000]);
        assert_eq!(check.outcome, Outcome::Inconclusive);
        insta::assert_snapshot!(check.detail, @"the guest's kernel printed `rcu: INFO: rcu_preempt detected stalls`; in the 20 s before it the host gave a vCPU 1.6 % of the CPU time that it wanted, and below 5 % a stall says nothing of the kernel: declare fewer CPUs, or give the host less to do");
    }

    #[test]
    fn fault_c3_a_stall_of_a_machine_that_had_its_time_fails() {
        let served = observation(4, 90);
        assert_eq!(weighed(&served, &[24_000_000]).outcome, Outcome::Fail);
        let starved = observation(32, 50);
        let other = weighed(&starved, &[]);
        assert_eq!(
            other.outcome,
            Outcome::Fail,
            "not all complaints are stalls"
        );
        let early = weighed(&starved, &[3_000_000, 24_000_000]);
        assert_eq!(
            early.outcome,
            Outcome::Fail,
            "nothing is known of the first"
        );
    }
}
