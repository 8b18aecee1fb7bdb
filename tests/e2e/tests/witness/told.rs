//! What the guest says of itself: what it reads in /proc and /sys, and with bpf(2).

use std::collections::BTreeMap;
use std::fs;

use ktstr::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bpf_syscalls::{ARRAY, HASH, OpenMap, PERCPU_ARRAY, btf_bytes};

const SCHED_EXT: &str = "/sys/kernel/sched_ext";

/// What a line of the output begins with that tells something.
const READING: &str = "told: ";
const TYPES: &str = "types: ";

/// Type information by its id.
pub(crate) type Types = BTreeMap<u32, Vec<u8>>;

/// One look at everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) state: String,
    pub(crate) ops: String,
    pub(crate) events: BTreeMap<String, u64>,
    /// Runnable tasks on all CPUs, the one that asks among them.
    pub(crate) nr_running: u32,
    pub(crate) workers: Vec<ToldTask>,
    pub(crate) maps: Vec<ToldMap>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldTask {
    pub(crate) pid: i32,
    pub(crate) comm: String,
    pub(crate) policy: u32,
    /// As a list: `0-1`.
    pub(crate) cpus: String,
    /// Whether sched_ext has it.
    pub(crate) is_ext: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToldMap {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) kind: u32,
    pub(crate) btf_id: u32,
    /// Of a key, and of a value.
    pub(crate) type_ids: [u32; 2],
    pub(crate) content: ToldContent,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToldContent {
    /// The map is no table of values.
    NoTable,
    /// What it was when this map was told before: the largest never change.
    AsBefore,
    Entries(Entries),
}

/// Keys and values; of the latter one for each CPU if the map has that.
pub(crate) type Entries = Vec<(Trimmed, Vec<Trimmed>)>;

/// Bytes without the zeros at their end, and how many there are with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trimmed {
    hex: String,
    len: usize,
}

/// Asks the kernel, and prints what it says.
pub(crate) struct Teller {
    workers: Vec<i32>,
    cpus: usize,
    /// What each map held when it was last told.
    last: BTreeMap<u32, Entries>,
}

impl Teller {
    /// Prints the types of all maps, which don't change.
    pub(crate) fn begin(workers: Vec<i32>, cpus: usize) -> Result<Self> {
        let mut types: BTreeMap<u32, Trimmed> = BTreeMap::new();
        for map in OpenMap::all()? {
            if map.btf_id() != 0 {
                types.insert(map.btf_id(), Trimmed::new(&btf_bytes(map.btf_id())?));
            }
        }
        println!("{TYPES}{}", serde_json::to_string(&types)?);
        Ok(Self {
            workers,
            cpus,
            last: BTreeMap::new(),
        })
    }

    /// Looks at everything, and prints it.
    pub(crate) fn tell(&mut self) -> Result<()> {
        let load = read("/proc/loadavg")?;
        let running = load
            .split(' ')
            .nth(3)
            .and_then(|field| field.split('/').next());
        let mut told = Told {
            state: read(&format!("{SCHED_EXT}/state"))?,
            ops: read(&format!("{SCHED_EXT}/root/ops"))?,
            events: events(&read(&format!("{SCHED_EXT}/root/events"))?)?,
            nr_running: running.context("the number of runnable tasks")?.parse()?,
            workers: self
                .workers
                .iter()
                .copied()
                .map(ToldTask::read)
                .collect::<Result<_>>()?,
            maps: OpenMap::all()?
                .iter()
                .map(|map| ToldMap::read(map, self.cpus))
                .collect::<Result<_>>()?,
        };
        for map in &mut told.maps {
            let ToldContent::Entries(entries) = &map.content else {
                continue;
            };
            if self.last.get(&map.id) == Some(entries) {
                map.content = ToldContent::AsBefore;
            } else {
                self.last.insert(map.id, entries.clone());
            }
        }
        println!("{READING}{}", serde_json::to_string(&told)?);
        Ok(())
    }
}

/// What the guest's lines in `output` tell: the types by their ids, and all readings in order, whole.
pub(crate) fn read_lines(output: &str) -> Result<(Types, Vec<Told>)> {
    let types = output.lines().find_map(|line| line.strip_prefix(TYPES));
    let types: BTreeMap<u32, Trimmed> = serde_json::from_str(types.context("no types")?)?;
    let types = types.iter().map(|(id, bytes)| Ok((*id, bytes.bytes()?)));
    let mut last: BTreeMap<u32, Entries> = BTreeMap::new();
    let mut readings = Vec::new();
    for line in output.lines().filter_map(|line| line.strip_prefix(READING)) {
        let mut told: Told = serde_json::from_str(line)?;
        for map in &mut told.maps {
            match &map.content {
                ToldContent::Entries(entries) => _ = last.insert(map.id, entries.clone()),
                ToldContent::AsBefore => {
                    let entries = last.get(&map.id).context("nothing was told before")?;
                    map.content = ToldContent::Entries(entries.clone());
                }
                ToldContent::NoTable => {}
            }
        }
        readings.push(told);
    }
    Ok((types.collect::<Result<_>>()?, readings))
}

impl ToldTask {
    fn read(pid: i32) -> Result<Self> {
        let read = |name: &str| read(&format!("/proc/{pid}/{name}"));
        let stat = read("stat")?;
        // The third field on, the state (proc_pid_stat(5)).
        let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
        let policy = fields.split(' ').nth(41 - 3).context("field 41")?;
        let (status, sched) = (read("status")?, read("sched")?);
        let value = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value =
                line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned());
            value.with_context(|| format!("no {name} of task {pid}"))
        };
        Ok(Self {
            pid,
            comm: value(&status, "Name")?,
            policy: policy.parse()?,
            cpus: value(&status, "Cpus_allowed_list")?,
            is_ext: value(&sched, "ext.enabled")? == "1",
        })
    }
}

impl ToldMap {
    fn read(map: &OpenMap, cpus: usize) -> Result<Self> {
        let content = if [HASH, ARRAY, PERCPU_ARRAY].contains(&map.kind()) {
            let entries = map.entries(cpus)?.into_iter().map(|(key, values)| {
                let values = values.iter().map(|value| Trimmed::new(value));
                (Trimmed::new(&key), values.collect())
            });
            ToldContent::Entries(entries.collect())
        } else {
            ToldContent::NoTable
        };
        Ok(Self {
            id: map.id(),
            name: map.name(),
            kind: map.kind(),
            btf_id: map.btf_id(),
            type_ids: map.type_ids(),
            content,
        })
    }
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(text.trim().to_owned())
}

/// `SCX_EV_…` and a count on each line.
fn events(text: &str) -> Result<BTreeMap<String, u64>> {
    let event = |line: &str| {
        let (name, count) = line.split_once(' ').context("an event")?;
        Ok((name.to_owned(), count.parse()?))
    };
    text.lines().map(event).collect()
}

impl Trimmed {
    fn new(bytes: &[u8]) -> Self {
        let end = bytes.iter().rposition(|&byte| byte != 0);
        let kept = &bytes[..end.map_or(0, |last| last + 1)];
        Self {
            hex: kept.iter().map(|byte| format!("{byte:02x}")).collect(),
            len: bytes.len(),
        }
    }

    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let digits = self.hex.as_bytes().chunks(2);
        let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
        let mut bytes = digits.map(byte).collect::<Result<Vec<u8>>>()?;
        bytes.resize(self.len, 0);
        Ok(bytes)
    }
}
