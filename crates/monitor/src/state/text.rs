//! The state in lines for a person, shortened.

use std::fmt::Write as _;

use ktstr_introspect::bpf::Value;

use super::{CpuState, KernelState, MapContent, MapState, ScxState, TaskState};
use crate::sample::Missing;

/// Waiting tasks of one CPU, CPUs, entries of a map, maps and lines of one value that are shown.
const MAX_WAITING: usize = 4;
const MAX_CPUS: usize = 32;
const MAX_ENTRIES: usize = 4;
const MAX_MAPS: usize = 64;
const MAX_VALUE_LINES: usize = 40;

impl KernelState {
    /// sched_ext, and the CPUs with who runs and who waits. `place` says where a CPU's instruction pointer is.
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
                for (at, state) in cpus.iter().enumerate().take(MAX_CPUS) {
                    cpu(&mut out, state, place(at));
                }
                left_out(&mut out, cpus.len(), MAX_CPUS);
            }
            Err(why) => _ = writeln!(out, "runqueues: {why}"),
        }
        if let Some(why) = &self.exhausted {
            _ = writeln!(out, "not all was read: {why}");
        }
        out
    }

    /// The BPF maps, without the constants of the build. What can't be read is named in one line at the end.
    pub fn maps_summary(&self) -> String {
        let mut out = String::new();
        let maps = match &self.maps {
            Ok(maps) => maps,
            Err(why) => return format!("BPF maps: {why}\n"),
        };
        let shown = &maps[..maps.len().min(MAX_MAPS)];
        shown.iter().for_each(|state| map(&mut out, state));
        let unread = shown.iter().filter_map(|map| {
            let why = map.content.as_ref().err()?;
            Some((why, format!("{} ({})", map.name, map.kind)))
        });
        let mut by_reason: Vec<(&Missing, Vec<String>)> = Vec::new();
        for (why, name) in unread {
            match by_reason.iter_mut().find(|(known, _)| *known == why) {
                Some((_, names)) => names.push(name),
                None => by_reason.push((why, vec![name])),
            }
        }
        for (why, names) in by_reason {
            _ = writeln!(out, "not read: {}: {why}", names.join(", "));
        }
        left_out(&mut out, maps.len(), MAX_MAPS);
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
    let running = match &state.running {
        Some(task) => name(task),
        // It is idle since nothing may be placed on it.
        None if !state.active => "going offline or coming online".to_owned(),
        None => "idle".to_owned(),
    };
    let depth = state.local_dsq_depth;
    let depth = depth.map_or(String::new(), |depth| format!(", local DSQ {depth}"));
    let place = place.map_or(String::new(), |place| format!(", in {place}"));
    _ = writeln!(
        out,
        "CPU {}: {running}{place}; {} runnable{depth}",
        state.cpu, state.nr_running
    );
    for task in state.waiting.iter().take(MAX_WAITING) {
        let waited = task
            .runnable_ms
            .map_or(String::new(), |ms| format!(" for {ms} ms"));
        _ = writeln!(out, "  waits{waited}: {}{}", name(task), queue(task));
    }
    left_out(out, state.waiting.len(), MAX_WAITING);
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
            let shown = variables
                .iter()
                .filter(|(name, value)| !is_constant_of_the_build(&state.name, name, value));
            let shown: Vec<_> = shown.collect();
            if shown.is_empty() {
                return;
            }
            _ = writeln!(out, "{} (map {}):", state.name, state.id);
            let lines = shown.into_iter().flat_map(|(name, value)| {
                let text = format!("{name} = {value}");
                text.lines()
                    .map(|line| format!("  {line}\n"))
                    .collect::<Vec<_>>()
            });
            let lines: Vec<String> = lines.collect();
            out.extend(lines.iter().take(MAX_VALUE_LINES).map(String::as_str));
            left_out(out, lines.len(), MAX_VALUE_LINES);
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
            for entry in entries.iter().take(MAX_ENTRIES) {
                let values: Vec<String> = entry.values.iter().map(flat).collect();
                _ = writeln!(out, "  {}: {}", flat(&entry.key), values.join(" | "));
            }
            left_out(out, entries.len(), MAX_ENTRIES);
        }
        Err(_) => {}
    }
}

/// Whether a global variable says nothing of this run: the kernel's constants that scx's headers keep
/// (`__SCX_SLICE_DFL`), the texts of `bpf_printk()` and `scx_bpf_error()` (`f.___fmt`), what the kernel's
/// configuration is, and a `.rodata` that nobody set before the program was loaded.
fn is_constant_of_the_build(section: &str, name: &str, value: &Value) -> bool {
    let read_only = section == ".rodata" || section.starts_with(".rodata.");
    name.starts_with("__SCX_")
        || name.contains(".___fmt")
        || name.contains(".____fmt")
        || section == ".kconfig"
        || (read_only && is_zero(value))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Uint(value) => *value == 0,
        Value::Int(value) => *value == 0,
        Value::Bool(value) => !*value,
        Value::Float(value) => *value == 0.0,
        Value::Enum { value, .. } => *value == 0,
        Value::Pointer(address) => *address == 0,
        Value::Text(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.iter().all(|byte| *byte == 0),
        Value::Struct(members) => members.iter().all(|(_, value)| is_zero(value)),
        Value::Array(elements) => elements.iter().all(is_zero),
        Value::Cut => false,
    }
}

/// A value in one line, cut short.
fn flat(value: &Value) -> String {
    const MAX_CHARS: usize = 100;

    let text = value.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn left_out(out: &mut String, count: usize, shown: usize) {
    if let Some(more) = count.checked_sub(shown).filter(|&more| more > 0) {
        _ = writeln!(out, "  … and {more} more");
    }
}
