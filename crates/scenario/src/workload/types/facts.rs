//! What the harness needs to know of a kind of work.

use ktstr_report::CpuDemand;

use crate::workload::link::LinkKind;

#[derive(Clone, Copy, Debug)]
pub(in crate::workload) struct Facts {
    pub(in crate::workload) name: &'static str,
    /// Workers that work together.
    pub(in crate::workload) group_size: usize,
    /// Cells of memory that the workers of a group share.
    pub(in crate::workload) group_cells: usize,
    pub(in crate::workload) demand: CpuDemand,
    pub(in crate::workload) link: LinkKind,
}

impl Facts {
    /// Those of workers that work alone.
    pub(in crate::workload) const fn alone(name: &'static str, demand: CpuDemand) -> Self {
        Self {
            name,
            group_size: 1,
            group_cells: 0,
            demand,
            link: LinkKind::None,
        }
    }
}
