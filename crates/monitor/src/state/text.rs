//! The state in lines for a person, shortened.

use std::fmt::Write as _;

use ktstr_introspect::bpf::Value;

use super::{CpuState, KernelState, MapContent, MapState, ScxState, TaskState};

/// Waiting tasks of one CPU, CPUs, entries of a map and lines of one value that are shown.
const MOST_WAITING: usize = 4;
const MOST_CPUS: usize = 32;
const MOST_ENTRIES: usize = 4;
const MOST_VALUE_LINES: usize = 40;

impl KernelState {
    /// sched_ext, CPUs with their tasks, and maps, a line each where that does. `place` says where a CPU's
    /// instruction pointer is.
    pub fn summary(&self, place: impl Fn(usize) -> Option<String>) -> String {
        let mut out = String::new();
        match &self.sched_ext {
            Ok(scx) => sched_ext(&mut out, scx),
            Err(why) => _ = writeln!(out, "sched_ext: {why}"),
        }
        if let Some((cpu, task)) = self.longest_waiting() {
            let waited = task.runnable_ms.unwrap_or(0);
            _ = writeln!(
                out,
                "longest waiting: {} on CPU {cpu}, runnable for {waited} ms{}",
                name(task),
                queue(task)
            );
        }
        match &self.cpus {
            Ok(cpus) => {
                for (at, state) in cpus.iter().enumerate().take(MOST_CPUS) {
                    cpu(&mut out, state, place(at));
                }
                left_out(&mut out, cpus.len(), MOST_CPUS);
            }
            Err(why) => _ = writeln!(out, "runqueues: {why}"),
        }
        match &self.maps {
            Ok(maps) => maps.iter().for_each(|state| map(&mut out, state)),
            Err(why) => _ = writeln!(out, "BPF maps: {why}"),
        }
        out
    }
}

fn sched_ext(out: &mut String, scx: &ScxState) {
    let ops = scx.ops.as_deref().unwrap_or("none");
    let state = format!("{:?}", scx.sample.state).to_ascii_lowercase();
    _ = write!(out, "sched_ext: {state}, ops {ops}");
    if let Some(ms) = scx.watchdog_timeout_ms {
        _ = write!(out, ", watchdog {ms} ms");
    }
    _ = writeln!(out);
    if let Some(exit) = &scx.exit {
        _ = writeln!(
            out,
            "  exit {}: {} ({})",
            exit.kind, exit.reason, exit.message
        );
    }
    match &scx.sample.events {
        Ok(events) => {
            let seen = events.iter().filter(|(_, count)| **count != 0);
            let seen: Vec<String> = seen
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            let seen = if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.join(", ")
            };
            _ = writeln!(out, "  events: {seen}");
        }
        Err(why) => _ = writeln!(out, "  events: {why}"),
    }
}

fn cpu(out: &mut String, state: &CpuState, place: Option<String>) {
    if !state.online {
        _ = writeln!(out, "CPU {}: offline", state.cpu);
        return;
    }
    let running = state.running.as_ref().map_or("idle".to_owned(), name);
    let depth = state.local_dsq_depth;
    let depth = depth.map_or(String::new(), |depth| format!(", local DSQ {depth}"));
    let place = place.map_or(String::new(), |place| format!(", in {place}"));
    _ = writeln!(
        out,
        "CPU {}: {running}{place}; {} runnable{depth}",
        state.cpu, state.nr_running
    );
    for task in state.waiting.iter().take(MOST_WAITING) {
        let waited = task
            .runnable_ms
            .map_or(String::new(), |ms| format!(" for {ms} ms"));
        _ = writeln!(out, "  waits{waited}: {}{}", name(task), queue(task));
    }
    left_out(out, state.waiting.len(), MOST_WAITING);
}

fn name(task: &TaskState) -> String {
    format!(
        "{}[{}] ({}, CPUs {})",
        task.comm, task.pid, task.class, task.cpus
    )
}

fn queue(task: &TaskState) -> String {
    let dsq = task.dsq.as_ref();
    dsq.map_or(String::new(), |dsq| format!(", on DSQ {dsq}"))
}

fn map(out: &mut String, state: &MapState) {
    match &state.content {
        Ok(MapContent::Globals(Value::Struct(variables))) => {
            _ = writeln!(out, "{} (map {}):", state.name, state.id);
            let lines = variables.iter().flat_map(|(name, value)| {
                let text = format!("{name} = {value}");
                text.lines()
                    .map(|line| format!("  {line}\n"))
                    .collect::<Vec<_>>()
            });
            let lines: Vec<String> = lines.collect();
            out.extend(lines.iter().take(MOST_VALUE_LINES).map(String::as_str));
            left_out(out, lines.len(), MOST_VALUE_LINES);
        }
        Ok(MapContent::Globals(value)) => {
            _ = writeln!(out, "{} (map {}): {value}", state.name, state.id);
        }
        Ok(MapContent::Entries { entries, cut }) => {
            let more = if *cut { " and more" } else { "" };
            _ = writeln!(
                out,
                "{} (map {}, {}), entries: {}{more}",
                state.name,
                state.id,
                state.kind,
                entries.len()
            );
            for entry in entries.iter().take(MOST_ENTRIES) {
                let values: Vec<String> = entry.values.iter().map(flat).collect();
                _ = writeln!(out, "  {}: {}", flat(&entry.key), values.join(" | "));
            }
            left_out(out, entries.len(), MOST_ENTRIES);
        }
        Err(why) => {
            _ = writeln!(
                out,
                "{} (map {}, {}): {why}",
                state.name, state.id, state.kind
            );
        }
    }
}

/// A value in one line, cut short.
fn flat(value: &Value) -> String {
    const MOST_CHARS: usize = 100;

    let text = value.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn left_out(out: &mut String, count: usize, shown: usize) {
    if let Some(more) = count.checked_sub(shown).filter(|&more| more > 0) {
        _ = writeln!(out, "  … and {more} more");
    }
}
