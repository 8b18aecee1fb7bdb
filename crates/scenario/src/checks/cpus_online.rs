//! `cpus_online`: all CPUs of the declared machine are online.

use ktstr_report::{AssertResult, Subject};
use ktstr_topology::{CpuSet, Topology};

use super::OFF;
use super::verdict::{Check, Measured, float};

pub(super) const CHECK: Check = Check {
    name: "cpus_online",
    unit: "CPUs",
};

pub(super) fn judge(result: &mut AssertResult, on: bool, topology: &Topology, online: &CpuSet) {
    if !on {
        return result.push_not_checked(CHECK.name, OFF);
    }
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
    CHECK.conclude(result, missing.is_empty(), measured, subject, detail);
}
