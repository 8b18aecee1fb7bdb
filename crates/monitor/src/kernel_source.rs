//! Looking at a kernel in guest memory.

use ktstr_introspect::kernel::{
    CpuMask, Kernel, PerCpu, ReadError, Runqueue, Runqueues, SchedExt, SchedExtState as State,
};

use crate::sample::{
    CpuSample, Missing, Reading, RqSample, SchedExtSample, SchedExtState, SchedStats, ScxRqSample,
    VcpuTime,
};
use crate::sampler::{Look, Source};

/// Says how much CPU time the host has given to the vCPUs, and for how long it had their threads wait.
pub type VcpuTimes = Box<dyn FnMut() -> (Reading<VcpuTime>, Reading<Vec<u64>>) + Send>;

/// A running kernel as a source of samples: what it keeps about scheduling, read from its memory.
pub struct KernelSource {
    kernel: Kernel,
    percpu: PerCpu,
    runqueues: Runqueues,
    /// Nothing if the kernel has none.
    sched_ext: Option<SchedExt>,
    vcpu_times: VcpuTimes,
}

impl KernelSource {
    /// Looks up where in `kernel`, of a machine of `declared_cpus`, everything is. A sample is as long as these
    /// make it, whatever the guest says.
    pub fn new(
        kernel: &Kernel,
        declared_cpus: u32,
        vcpu_times: VcpuTimes,
    ) -> Result<Self, ReadError> {
        let percpu = PerCpu::read(kernel, declared_cpus)?;
        Ok(Self {
            runqueues: Runqueues::new(kernel, &percpu)?,
            sched_ext: SchedExt::new(kernel, &percpu)?,
            kernel: kernel.clone(),
            percpu,
            vcpu_times,
        })
    }

    fn sched_ext(&self) -> Reading<SchedExtSample> {
        let Some(sched_ext) = &self.sched_ext else {
            return Err(Missing::Absent("sched_ext".to_owned()));
        };
        sample_sched_ext(sched_ext)
    }
}

impl Source for KernelSource {
    fn look(&mut self) -> Reading<Look> {
        let online = self.percpu.online(&self.kernel).map_err(missing)?;
        let runqueues = self.runqueues.read().map_err(missing)?;
        let (vcpu_time, vcpu_wait_ns) = (self.vcpu_times)();
        Ok(Look {
            cpus: runqueues.iter().map(|rq| cpu(rq, &online)).collect(),
            sched_ext: self.sched_ext(),
            vcpu_time,
            vcpu_wait_ns,
        })
    }
}

/// sched_ext as a whole.
pub(crate) fn sample_sched_ext(sched_ext: &SchedExt) -> Reading<SchedExtSample> {
    let state = sched_ext.state().map_err(missing)?;
    let events = match sched_ext.events() {
        Ok(Some(counts)) => {
            let counts = counts.into_iter().map(i64::cast_unsigned);
            let names = sched_ext.event_names().iter().cloned();
            Ok(names.zip(counts).collect())
        }
        Ok(None) if sched_ext.event_names().is_empty() => {
            Err(Missing::Absent("struct scx_event_stats".to_owned()))
        }
        Ok(None) => Err(Missing::NotInitialised),
        Err(error) => Err(missing(error)),
    };
    Ok(SchedExtSample {
        state: match state {
            State::Enabling => SchedExtState::Enabling,
            State::Enabled => SchedExtState::Enabled,
            State::Disabling => SchedExtState::Disabling,
            State::Disabled => SchedExtState::Disabled,
            State::Other(number) => SchedExtState::Other(number),
        },
        events,
    })
}

fn cpu(rq: &Runqueue, online: &CpuMask) -> CpuSample {
    let absent = |what: &str| Missing::Absent(what.to_owned());
    let scx = rq.scx.map(|scx| ScxRqSample {
        nr_running: scx.nr_running,
        local_dsq_depth: scx.local_dsq_nr,
        flags: scx.flags,
    });
    let schedstat = rq.schedstat.map(|stat| SchedStats {
        run_delay_ns: stat.run_delay_ns,
        pcount: stat.pcount,
        yld_count: stat.yld_count,
        sched_count: stat.sched_count,
        sched_goidle: stat.sched_goidle,
        ttwu_count: stat.ttwu_count,
        ttwu_local: stat.ttwu_local,
    });
    CpuSample {
        online: online.contains(rq.cpu),
        rq: Ok(RqSample {
            nr_running: rq.nr_running,
            clock_ns: rq.clock_ns,
        }),
        scx: scx.ok_or_else(|| absent("struct scx_rq")),
        schedstat: schedstat.ok_or_else(|| absent("schedstats (CONFIG_SCHEDSTATS)")),
    }
}

pub(crate) fn missing(error: ReadError) -> Missing {
    match error {
        ReadError::Unstable { .. } => Missing::Unstable,
        ReadError::NoSymbol { name } => Missing::Absent(name.to_owned()),
        ReadError::Budget(error) => Missing::Budget(error.to_string()),
        ReadError::Layout(error) => Missing::Absent(error.to_string()),
        error => Missing::Failed(error.to_string()),
    }
}

impl std::fmt::Debug for KernelSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelSource")
            .field("runqueues", &self.runqueues)
            .field("sched_ext", &self.sched_ext)
            .finish_non_exhaustive()
    }
}
