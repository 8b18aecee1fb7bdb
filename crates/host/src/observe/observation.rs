//! What the host saw of a test.

use ktstr_monitor::state::KernelState;
use ktstr_monitor::{PhaseSpan, Recording, Sample, Series, Span};
use ktstr_report::{Assert, AssertResult};

use super::capture::Moment;

/// What the host saw of a test.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The samples; empty if nothing could be seen.
    pub recording: Recording,
    /// When the test's body ran; `None` if it never did.
    pub body: Option<Span>,
    /// The phases of the body, in order of time.
    pub phases: Vec<PhaseSpan>,
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
            (None, Some(body)) => {
                ktstr_monitor::judge_phases(&self.recording, body, &self.phases, assert)
            }
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
