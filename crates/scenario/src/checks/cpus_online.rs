//! `cpus_online`: all CPUs of the declared machine are online.

use ktstr_declaration::Check;
use ktstr_report::{AssertResult, CheckResult, Subject};
use ktstr_topology::{CpuSet, Topology};

use super::figure::{Measured, float};

pub(super) fn judge(result: &mut AssertResult, topology: &Topology, online: &CpuSet) {
    let declared = topology.cpus();
    let missing = declared.difference(online);
    let measured = Measured {
        value: float(declared.intersection(online).len() as u64),
        bound: float(declared.len() as u64),
    };
    let subject = Subject {
        cpu: missing.iter().next(),
        ..Subject::default()
    };
    let detail = if missing.is_empty() {
        format!("CPUs {online} are online")
    } else {
        format!("CPUs {missing} are not online; of the declared CPUs {declared}, {online} are")
    };
    let judged = CheckResult::judged(Check::CpusOnline, missing.is_empty(), detail);
    result.push(measured.of(judged, subject));
}
