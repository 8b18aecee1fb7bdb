//! Work in bursts, with sleep between them.

use std::time::Duration;

use ktstr_report::CpuDemand;

use super::facts::Facts;
use super::spin::burn;
use crate::workload::WorkerControl;

pub(super) const ON: Duration = Duration::from_millis(50);
pub(super) const OFF: Duration = Duration::from_millis(100);

pub(super) const BURSTY: Facts = Facts::alone("Bursty", CpuDemand::Sleeping);

pub(super) fn bursty(control: &mut WorkerControl<'_>, on: Duration, off: Duration) {
    let on_ns = u64::try_from(on.as_nanos()).unwrap_or(u64::MAX);
    loop {
        let end_ns = control.now_ns().saturating_add(on_ns);
        while control.now_ns() < end_ns {
            if !control.iteration(burn()) {
                return;
            }
        }
        if !control.sleep(off) {
            return;
        }
    }
}
