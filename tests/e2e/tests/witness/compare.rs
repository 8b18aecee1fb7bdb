//! Holds what the host saw at one moment against what the guest said before and after.

use std::collections::BTreeMap;

use ktstr::monitor::SchedExtState;
use ktstr::monitor::state::{KernelState, MapContent, MapState, TaskState};
use ktstr::prelude::*;
use ktstr_introspect::Budget;
use ktstr_introspect::bpf::Value;
use ktstr_introspect::btf::{Btf, TypeId};

use crate::told::{Told, ToldContent, ToldMap, ToldTask, Trimmed, Types};

/// Two CPUs that set it at the same time may set it back: it need not grow.
const ALSO_SHRINKS: &str = "vtime_now";

/// What wakes up because the guest asks, or no more because it has asked, is runnable for one of both only.
const RACE: u32 = 2;

/// Runnable tasks in each sample.
#[derive(Default)]
struct NrRunning {
    host: Vec<u32>,
    guest: Vec<u32>,
}

/// What the samples have shown so far.
#[derive(Default)]
pub(crate) struct Seen {
    types: BTreeMap<u32, Btf>,
    workers: u32,
    nr_running: NrRunning,
    /// Values of maps that were compared, and how many of them the guest saw change around the host's look.
    values: usize,
    moved: usize,
    /// Events that had been counted, over all samples.
    events: u64,
}

impl Seen {
    pub(crate) fn new(types: &Types) -> Result<Self> {
        let parse = |(id, bytes): (&u32, &Vec<u8>)| Ok((*id, Btf::parse(bytes)?));
        Ok(Self {
            types: types.iter().map(parse).collect::<Result<_>>()?,
            ..Self::default()
        })
    }

    pub(crate) fn compare(
        &mut self,
        host: &KernelState,
        before: &Told,
        after: &Told,
    ) -> Result<()> {
        self.events += sched_ext(host, before, after)?;
        let cpus = host.cpus.as_ref().map_err(Clone::clone)?;
        let runnable: Vec<&TaskState> = cpus
            .iter()
            .flat_map(|cpu| cpu.running.iter().chain(&cpu.waiting))
            .collect();
        ensure!(before.workers == after.workers && !before.workers.is_empty());
        for told in &before.workers {
            let found = runnable.iter().find(|task| task.pid == told.pid);
            let found = found.with_context(|| format!("{told:?} is not runnable"))?;
            ensure!(agrees(found, told), "{found:?} is not {told:?}");
        }
        self.workers = u32::try_from(before.workers.len())?;
        let nr_running = cpus.iter().map(|cpu| cpu.nr_running).sum();
        self.nr_running.host.push(nr_running);
        self.nr_running.guest.push(before.nr_running);
        let maps = host.maps.as_ref().map_err(Clone::clone)?;
        ensure!(
            maps.len() == before.maps.len() && maps.len() == after.maps.len(),
            "{maps:?}"
        );
        for (map, (before, after)) in maps.iter().zip(before.maps.iter().zip(&after.maps)) {
            self.map(map, before, after)
                .with_context(|| format!("map {} `{}`", map.id, before.name))?;
        }
        Ok(())
    }

    fn map(&mut self, host: &MapState, before: &ToldMap, after: &ToldMap) -> Result<()> {
        ensure!(
            host.id == before.id && host.id == after.id,
            "the host sees id {}",
            host.id
        );
        ensure!(
            kind(before.kind) == Some(&host.kind),
            "the host sees a map of kind {}",
            host.kind
        );
        // Of global variables the host has the section's name, of which the map's has what there is room for.
        let is_name = match before.name.find('.') {
            Some(section) => host.name.starts_with(&before.name[section..]),
            None => host.name == before.name,
        };
        ensure!(is_name, "the host sees the name {}", host.name);
        let (ToldContent::Entries(before_entries), ToldContent::Entries(after_entries)) =
            (&before.content, &after.content)
        else {
            ensure!(host.content.is_err(), "{:?}", host.content);
            return Ok(());
        };
        let content = host.content.as_ref().map_err(Clone::clone)?;
        let btf = self.types.get(&before.btf_id).cloned();
        let [key_type, value_type] = before.type_ids;
        let render = |id, bytes| render(btf.as_ref(), TypeId(id), bytes);
        let hosts: Vec<(Option<&Value>, Vec<&Value>)> = match content {
            MapContent::Globals(value) => vec![(None, vec![value])],
            MapContent::Entries { entries, cut } => {
                ensure!(!cut);
                let entry = entries
                    .iter()
                    .map(|one| (Some(&one.key), one.values.iter().collect()));
                entry.collect()
            }
        };
        ensure!(hosts.len() == before_entries.len() && hosts.len() == after_entries.len());
        for ((host_key, host_values), (one, other)) in
            hosts.iter().zip(before_entries.iter().zip(after_entries))
        {
            let key = render(key_type, &one.0)?;
            ensure!(
                host_key.is_none_or(|host_key| *host_key == key),
                "the host sees key {host_key:?}"
            );
            ensure!(host_values.len() == one.1.len() && one.1.len() == other.1.len());
            for (host, (one, other)) in host_values.iter().zip(one.1.iter().zip(&other.1)) {
                let (one, other) = (render(value_type, one)?, render(value_type, other)?);
                self.lies_between("", &one, host, &other)?;
            }
        }
        Ok(())
    }

    /// Numbers grow; all else stays.
    fn lies_between(
        &mut self,
        path: &str,
        before: &Value,
        host: &Value,
        after: &Value,
    ) -> Result<()> {
        match (before, host, after) {
            (Value::Struct(before), Value::Struct(host), Value::Struct(after)) => {
                ensure!(host.len() == before.len() && host.len() == after.len());
                for (((name, host), (told_name, before)), (_, after)) in
                    host.iter().zip(before).zip(after)
                {
                    ensure!(
                        name == told_name,
                        "the host sees `{name}` for `{told_name}`"
                    );
                    self.lies_between(&format!("{path}.{name}"), before, host, after)?;
                }
            }
            (Value::Array(before), Value::Array(host), Value::Array(after)) => {
                ensure!(host.len() == before.len() && host.len() == after.len());
                for ((host, before), after) in host.iter().zip(before).zip(after) {
                    self.lies_between(path, before, host, after)?;
                }
            }
            _ if path.ends_with(ALSO_SHRINKS) => ensure!(host.as_integer().is_some()),
            _ => {
                let numbers = [before, host, after].map(Value::as_integer);
                let fits = match numbers {
                    [Some(before), Some(host), Some(after)] => before <= host && host <= after,
                    _ => before == host && host == after,
                };
                ensure!(
                    fits,
                    "`{path}` was {before}, the host saw {host}, then it was {after}"
                );
                self.values += 1;
                self.moved += usize::from(before != after);
            }
        }
        Ok(())
    }

    /// What must have been seen in all samples together.
    pub(crate) fn finish(self) -> Result<()> {
        let (samples, moved) = (self.nr_running.host.len(), self.moved);
        ensure!(
            moved >= samples,
            "only {moved} of {} values moved",
            self.values
        );
        ensure!(
            self.events > 0,
            "no event was counted, so that equality says nothing"
        );
        let [host, guest] = [self.nr_running.host, self.nr_running.guest].map(median);
        ensure!(
            host >= self.workers && host.abs_diff(guest) <= RACE,
            "{} workers spin; in half of the samples the host saw {host} runnable tasks or more, the guest {guest}",
            self.workers
        );
        Ok(())
    }
}

/// As the type says, which was read with bpf(2) as well; else as bytes.
fn render(btf: Option<&Btf>, id: TypeId, bytes: &Trimmed) -> Result<Value> {
    let bytes = bytes.bytes()?;
    Ok(match btf.filter(|_| id != TypeId(0)) {
        Some(btf) => Value::render(btf, id, &bytes, &Budget::default())?,
        None => Value::Bytes(bytes),
    })
}

/// How many events were counted.
fn sched_ext(host: &KernelState, before: &Told, after: &Told) -> Result<u64> {
    let scx = host.sched_ext.as_ref().map_err(Clone::clone)?;
    for told in [before, after] {
        ensure!(
            told.state == "enabled" && scx.sample.state == SchedExtState::Enabled,
            "{scx:?}"
        );
        ensure!(
            scx.ops.as_deref() == Some(told.ops.as_str()),
            "{:?} is not {}",
            scx.ops,
            told.ops
        );
    }
    let events = scx.sample.events.as_ref().map_err(Clone::clone)?;
    let names = |told: &Told| events.keys().eq(told.events.keys());
    ensure!(
        !events.is_empty() && names(before) && names(after),
        "{events:?}"
    );
    for ((name, count), (before, after)) in events
        .iter()
        .zip(before.events.values().zip(after.events.values()))
    {
        ensure!(
            (before..=after).contains(&count),
            "{name} was {before}, the host saw {count}, then it was {after}"
        );
    }
    Ok(events.values().sum())
}

fn median(mut numbers: Vec<u32>) -> u32 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or(0)
}

fn agrees(host: &TaskState, told: &ToldTask) -> bool {
    host.comm == told.comm
        && policy(told.policy) == Some(&host.policy)
        && host.cpus == told.cpus
        && (host.class == "ext") == told.is_ext
}

/// `SCHED_*` (include/uapi/linux/sched.h).
fn policy(number: u32) -> Option<&'static str> {
    [
        "other", "fifo", "rr", "batch", "", "idle", "deadline", "ext",
    ]
    .get(number as usize)
    .copied()
}

/// `BPF_MAP_TYPE_*` (include/uapi/linux/bpf.h), those that are here.
fn kind(number: u32) -> Option<&'static str> {
    match number {
        1 => Some("hash"),
        2 => Some("array"),
        6 => Some("percpu_array"),
        26 => Some("struct_ops"),
        _ => None,
    }
}
