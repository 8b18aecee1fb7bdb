//! The workers' figures, a row a cgroup.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::quantity::span_ns;
use super::text::clean_line;
use crate::{CgroupReport, WorkerExit, WorkerReport};

const HEADER: [&str; 10] = [
    "cgroup",
    "CPUs",
    "workers",
    "iterations",
    "CPU time",
    "off-CPU %",
    "run delay",
    "max gap",
    "migrations",
    "wake p99 / max",
];
pub(super) const UNKNOWN: &str = "–";

/// Workers that sent a report stand in the table; each that sent none is named below it. Empty without
/// any cgroup.
pub(super) fn stats(cgroups: &[CgroupReport]) -> String {
    if cgroups.is_empty() {
        return String::new();
    }
    let mut table = table(&HEADER);
    table.add_rows(cgroups.iter().map(row));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = indented(&table, "  ");
    for cgroup in cgroups {
        for worker in cgroup.workers.iter().filter(|worker| !worker.completed()) {
            let (name, work) = (clean_line(&cgroup.name), clean_line(&worker.work_type));
            let end = end_of(&worker.exit);
            _ = writeln!(out, "  worker {} ({work}) in {name} {end}", worker.pid);
        }
    }
    out
}

/// A table without lines, two spaces between columns.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    let last = header.len() - 1;
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 2 }));
    }
    table
}

/// The table's lines without trailing blanks.
pub(super) fn indented(table: &Table, indent: &str) -> String {
    let mut out = String::new();
    for line in table.lines() {
        _ = writeln!(out, "{indent}{}", line.trim_end());
    }
    out
}

fn row(cgroup: &CgroupReport) -> Vec<String> {
    let reporting: Vec<&WorkerReport> = cgroup.workers.iter().filter(|w| w.completed()).collect();
    let sum = |figure: fn(&WorkerReport) -> u64| {
        reporting
            .iter()
            .fold(0_u64, |sum, worker| sum.saturating_add(figure(worker)))
    };
    let worst_ns = |figure: &dyn Fn(&WorkerReport) -> Option<u64>| {
        let worst = reporting.iter().filter_map(|worker| figure(worker)).max();
        worst.map_or_else(|| UNKNOWN.to_owned(), span_ns)
    };
    let woken = |figure: fn(&WorkerReport) -> u64| {
        worst_ns(&|worker| (worker.wake_latency.samples > 0).then(|| figure(worker)))
    };
    let all = cgroup.workers.len();
    let cpus = cgroup.cpuset.as_ref().map(ToString::to_string);
    let wake_max = woken(|worker| worker.wake_latency.max_ns);
    vec![
        clean_line(&cgroup.name),
        cpus.unwrap_or_else(|| UNKNOWN.to_owned()),
        match reporting.len() {
            some if some < all => format!("{some} of {all}"),
            _ => all.to_string(),
        },
        sum(|worker| worker.iterations).to_string(),
        span_ns(sum(|worker| worker.cpu_time_ns)),
        off_cpu_range(&reporting),
        worst_ns(&|worker| worker.run_delay_ns),
        worst_ns(&|worker| Some(worker.max_gap_ns)),
        sum(|worker| worker.migrations).to_string(),
        if wake_max == UNKNOWN {
            wake_max
        } else {
            format!(
                "{} / {wake_max}",
                woken(|worker| worker.wake_latency.p99_ns)
            )
        },
    ]
}

/// Least and most of the workers.
fn off_cpu_range(workers: &[&WorkerReport]) -> String {
    let shares = || workers.iter().filter_map(|worker| worker.off_cpu_pct());
    match (
        shares().min_by(f64::total_cmp),
        shares().max_by(f64::total_cmp),
    ) {
        (Some(least), Some(most)) => format!("{least:.1} – {most:.1}"),
        _ => UNKNOWN.to_owned(),
    }
}

fn end_of(exit: &WorkerExit) -> String {
    match exit {
        WorkerExit::Completed => "completed".to_owned(),
        WorkerExit::Exited(status) => format!("exited with status {status} and sent no report"),
        WorkerExit::Signaled(signal) => format!("was killed by signal {signal}"),
        WorkerExit::TimedOut => "sent no report in time and was killed".to_owned(),
        WorkerExit::WaitFailed(why) => format!("ended unobserved: {}", clean_line(why)),
        WorkerExit::Panicked(message) => format!("panicked: {}", clean_line(message)),
    }
}
