//! The figures of the phases, a row for each cgroup in each.

use comfy_table::CellAlignment;

use super::quantity::span_ns;
use super::stats::{UNKNOWN, indented, table};
use super::text::clean_line;
use crate::{Phase, PhaseCgroup, PhaseReport};

const HEADER: [&str; 8] = [
    "phase",
    "length",
    "scheduler",
    "cgroup",
    "iterations",
    "CPU time",
    "run delay",
    "max gap",
];

/// Empty for a body of one load, whose figures are those of its workers.
pub(super) fn phases(phases: &[PhaseReport]) -> String {
    if phases
        .iter()
        .filter(|one| one.phase != Phase::BASELINE)
        .count()
        < 2
    {
        return String::new();
    }
    let mut table = table(&HEADER);
    for phase in phases {
        let head = [
            phase.phase.to_string(),
            span_ns(phase.to_ns.saturating_sub(phase.from_ns)),
            scheduler(phase),
        ];
        if phase.cgroups.is_empty() {
            table.add_row(head.iter().cloned().chain(vec![UNKNOWN.to_owned(); 5]));
        }
        for cgroup in &phase.cgroups {
            table.add_row(head.iter().cloned().chain(figures(cgroup)));
        }
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    indented(&table, "  ")
}

fn scheduler(phase: &PhaseReport) -> String {
    let name = |ops: &Option<String>| match ops {
        Some(ops) => clean_line(ops),
        None => "EEVDF".to_owned(),
    };
    let (from, to) = (name(&phase.scheduler_from), name(&phase.scheduler_to));
    match from == to {
        true => from,
        false => format!("{from}, then {to}"),
    }
}

fn figures(cgroup: &PhaseCgroup) -> [String; 5] {
    let workers = &cgroup.workers;
    let sum = |pick: fn(&crate::PhaseWorker) -> Option<u64>| {
        let all: Option<Vec<u64>> = workers.iter().map(pick).collect();
        let sum = all.map(|all| span_ns(all.iter().sum()));
        sum.unwrap_or_else(|| UNKNOWN.to_owned())
    };
    let max_gap_ns = workers.iter().map(|worker| worker.max_gap_ns).max();
    [
        clean_line(&cgroup.name),
        cgroup.total_iterations().to_string(),
        sum(|worker| worker.cpu_time_ns),
        sum(|worker| worker.run_delay_ns),
        max_gap_ns.map_or_else(|| UNKNOWN.to_owned(), span_ns),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PhaseWorker;

    fn phase(phase: Phase, scheduler: [Option<&str>; 2], iterations: u64) -> PhaseReport {
        let workers = vec![PhaseWorker {
            iterations,
            cpu_time_ns: Some(900_000_000),
            max_gap_ns: 12_000_000,
            ..PhaseWorker::default()
        }];
        let cgroup = PhaseCgroup {
            name: "cg_0".to_owned(),
            workers,
        };
        let [from, to] = scheduler.map(|ops| ops.map(str::to_owned));
        PhaseReport {
            phase,
            from_ns: 1_000_000_000,
            to_ns: 2_500_000_000,
            cgroups: Vec::from_iter((phase != Phase::BASELINE).then_some(cgroup)),
            scheduler_from: from,
            scheduler_to: to,
        }
    }

    #[test]
    fn phases_are_shown_if_there_is_more_than_one_step() {
        let mine = Some("mine");
        let mut all = vec![
            phase(Phase::BASELINE, [mine; 2], 0),
            phase(Phase::step(0), [mine; 2], 400),
        ];
        assert_eq!(phases(&all), "");
        all.push(phase(Phase::step(1), [mine, None], 300));
        insta::assert_snapshot!(phases(&all));
    }
}
