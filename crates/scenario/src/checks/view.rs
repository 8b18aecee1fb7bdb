//! Ways to look at the reports.

use std::fmt;

use ktstr_report::{CgroupReport, Subject, WorkerReport};

/// One worker, and where it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub(super) cgroup: &'a CgroupReport,
    pub(super) worker: &'a WorkerReport,
}

impl Placed<'_> {
    pub(super) fn subject(&self) -> Subject {
        Subject {
            cgroup: Some(self.cgroup.name.clone()),
            worker: Some(self.worker.pid),
            cpu: None,
        }
    }
}

impl fmt::Display for Placed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cgroup, worker } = self;
        write!(
            f,
            "worker {} ({}) of cgroup `{}`",
            worker.pid, worker.work_type, cgroup.name
        )
    }
}

pub(super) fn all(cgroups: &[CgroupReport]) -> impl Iterator<Item = Placed<'_>> {
    cgroups.iter().flat_map(|cgroup| {
        let workers = cgroup.workers.iter();
        workers.map(move |worker| Placed { cgroup, worker })
    })
}

/// Those that sent a report of their own.
pub(super) fn completed(cgroups: &[CgroupReport]) -> impl Iterator<Item = Placed<'_>> {
    all(cgroups).filter(|placed| placed.worker.completed())
}

/// Workers that can be compared: of one type, in one cgroup, with a report of their own.
#[derive(Clone, Debug)]
pub(super) struct Peers<'a> {
    pub(super) cgroup: &'a CgroupReport,
    pub(super) work_type: &'a str,
    pub(super) workers: Vec<&'a WorkerReport>,
}

pub(super) fn peers(cgroups: &[CgroupReport]) -> Vec<Peers<'_>> {
    let mut groups: Vec<Peers<'_>> = Vec::new();
    for Placed { cgroup, worker } in completed(cgroups) {
        let work_type = worker.work_type.as_str();
        let known = groups
            .iter_mut()
            .find(|group| std::ptr::eq(group.cgroup, cgroup) && group.work_type == work_type);
        match known {
            Some(group) => group.workers.push(worker),
            None => groups.push(Peers {
                cgroup,
                work_type,
                workers: vec![worker],
            }),
        }
    }
    groups
}
