//! sched_ext: whether it is enabled, whose ops, why they ended, and what it counts (`kernel/sched/ext.c`).
//!
//! Since Linux commit 48e126777386 ("sched_ext: Introduce scx_sched") (v6.16) most of it is in the `struct scx_sched`
//! that `scx_root` points to; before, in variables.

use super::{Kernel, PerCpu, ReadError};
use crate::btf::{Btf, Field, Kind, LayoutError, Struct, Type};

/// Longest text of an exit that is read: the dump's own limit is lower (`SCX_EXIT_DUMP_DFL_LEN`).
const MAX_DUMP_BYTES: usize = 1 << 20;
/// `SCX_EXIT_MSG_LEN`.
const MAX_MESSAGE_BYTES: usize = 1024;
/// `SCX_OPS_NAME_LEN`.
const MAX_NAME_BYTES: usize = 128;
const COUNTER_BYTES: usize = 8;

/// How far a scheduler is (`enum scx_enable_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedExtState {
    Enabling,
    Enabled,
    Disabling,
    Disabled,
    /// None that is known here.
    Other(u32),
}

/// Why a scheduler ended (`struct scx_exit_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    /// `enum scx_exit_kind`: 0 while it runs, 64 and above a wish, 1024 and above an error.
    pub kind: u32,
    /// Its name as this kernel has it: `SCX_EXIT_ERROR_STALL`.
    pub kind_name: Option<String>,
    /// The scheduler's own code.
    pub code: i64,
    /// The kind in words.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// The kernel's dump; empty if there is none.
    pub dump: String,
}

/// Reads the state of sched_ext.
#[derive(Clone, Debug)]
pub struct SchedExt {
    kernel: Kernel,
    percpu: PerCpu,
    state: u64,
    states: Vec<(u32, SchedExtState)>,
    root: Root,
    events: Option<Events>,
    exit_kinds: Vec<(u32, String)>,
    exit: ExitFields,
}

/// Where the scheduler's own data is.
#[derive(Clone, Debug)]
enum Root {
    /// `scx_root`, a pointer to a structure with these members.
    Pointer {
        pointer: u64,
        name: u64,
        exit_info: u64,
    },
    /// Variables: the name's address, and that of a pointer to the exit.
    Variables { name: u64, exit_info: Option<u64> },
}

#[derive(Clone, Debug)]
struct Events {
    place: EventsPlace,
    names: Vec<String>,
    /// Where each is, from the first one's beginning.
    offsets: Vec<u64>,
    len: u64,
}

/// Where `struct scx_event_stats` is for each CPU.
#[derive(Clone, Debug)]
enum EventsPlace {
    /// In what a member of the scheduler points to, at an offset.
    Scheduler { pointer: u64, member: u64, at: u64 },
    /// A per-CPU variable.
    Variable { address: u64 },
}

#[derive(Clone, Debug)]
struct ExitFields {
    kind: Field,
    code: Field,
    reason: Field,
    message: Field,
    dump: Field,
}

impl SchedExt {
    /// Looks up where everything is; nothing if the kernel has no sched_ext.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Option<Self>, ReadError> {
        // Renamed by Linux commit 1a7ff7216c8b ("sched_ext: Drop "ops" from scx_ops_enable_state and friends") (v6.16).
        let names = ["scx_enable_state_var", "scx_ops_enable_state_var"];
        let Some(state) = names.iter().find_map(|name| kernel.optional_symbol(name)) else {
            return Ok(None);
        };
        let btf = &kernel.image.btf;
        let root = Root::new(kernel)?;
        let exit = btf.structure("scx_exit_info")?;
        Ok(Some(Self {
            state,
            states: states(btf),
            events: Events::new(kernel, &root)?,
            root,
            exit_kinds: enumerators(btf.find(Kind::Enum, "scx_exit_kind")),
            exit: ExitFields {
                kind: exit.field("kind")?,
                code: exit.field("exit_code")?,
                reason: exit.field("reason")?,
                message: exit.field("msg")?,
                dump: exit.field("dump")?,
            },
            kernel: kernel.clone(),
            percpu: percpu.clone(),
        }))
    }

    /// Whether a scheduler is enabled.
    pub fn state(&self) -> Result<SchedExtState, ReadError> {
        let value = self.kernel.memory.u32(self.state)?;
        let known = self.states.iter().find(|(number, _)| *number == value);
        Ok(known.map_or(SchedExtState::Other(value), |(_, state)| *state))
    }

    /// The name of the scheduler's ops; nothing while there is none.
    pub fn ops_name(&self) -> Result<Option<String>, ReadError> {
        let memory = &self.kernel.memory;
        let address = match self.root {
            Root::Pointer { pointer, name, .. } => match memory.u64(pointer)? {
                0 => return Ok(None),
                scheduler => scheduler.wrapping_add(name),
            },
            Root::Variables { name, .. } => name,
        };
        let name = memory.text(address, MAX_NAME_BYTES)?;
        Ok((!name.is_empty()).then_some(name))
    }

    /// Address of the root scheduler's `struct scx_sched`; nothing while there is none, or if this kernel has
    /// no such structure.
    pub fn root_address(&self) -> Result<Option<u64>, ReadError> {
        match self.root {
            Root::Pointer { pointer, .. } => {
                let address = self.kernel.memory.u64(pointer)?;
                Ok((address != 0).then_some(address))
            }
            Root::Variables { .. } => Ok(None),
        }
    }

    /// Why the scheduler ends or ended; nothing while there is none, or it has no such record yet.
    pub fn exit_info(&self) -> Result<Option<ExitInfo>, ReadError> {
        let memory = &self.kernel.memory;
        let pointer = match (&self.root, self.root_address()?) {
            (Root::Pointer { exit_info, .. }, Some(root)) => Some(root.wrapping_add(*exit_info)),
            (Root::Variables { exit_info, .. }, _) => *exit_info,
            (Root::Pointer { .. }, None) => None,
        };
        let Some(pointer) = pointer else {
            return Ok(None);
        };
        let info = memory.u64(pointer)?;
        if info == 0 {
            return Ok(None);
        }
        let exit = &self.exit;
        let text = |field: &Field, max| match memory.u64(info.wrapping_add(field.offset))? {
            0 => Ok(String::new()),
            text => memory.text(text, max),
        };
        let kind = memory.u32(info.wrapping_add(exit.kind.offset))?;
        let code = memory.u64(info.wrapping_add(exit.code.offset))?;
        let known = self.exit_kinds.iter().find(|(number, _)| *number == kind);
        Ok(Some(ExitInfo {
            kind,
            kind_name: known.map(|(_, name)| name.clone()),
            code: code.cast_signed(),
            reason: text(&exit.reason, MAX_MESSAGE_BYTES)?,
            message: text(&exit.message, MAX_MESSAGE_BYTES)?,
            dump: text(&exit.dump, MAX_DUMP_BYTES)?,
        }))
    }

    /// The names of the events that this kernel counts (`SCX_EV_*`), in the order of [`Self::events`]. None if
    /// it counts none.
    pub fn event_names(&self) -> &[String] {
        self.events.as_ref().map_or(&[], |events| &events.names)
    }

    /// How often each event happened, over all CPUs, since the scheduler was loaded. Nothing while there is
    /// none, or if this kernel counts none.
    pub fn events(&self) -> Result<Option<Vec<i64>>, ReadError> {
        let Some(events) = &self.events else {
            return Ok(None);
        };
        let memory = &self.kernel.memory;
        let variable = match events.place {
            EventsPlace::Variable { address } => address,
            EventsPlace::Scheduler {
                pointer,
                member,
                at,
            } => match memory.u64(pointer)? {
                0 => return Ok(None),
                scheduler => memory.u64(scheduler.wrapping_add(member))?.wrapping_add(at),
            },
        };
        let mut sums = vec![0_i64; events.offsets.len()];
        for address in self.percpu.addresses(variable) {
            let counters = memory.bytes(address, events.len)?;
            for (sum, offset) in sums.iter_mut().zip(&events.offsets) {
                let at = usize::try_from(*offset).unwrap_or(usize::MAX);
                let value = crate::bytes::u64_at(&counters, at).unwrap_or(0);
                *sum = sum.wrapping_add(value.cast_signed());
            }
        }
        Ok(Some(sums))
    }
}

impl Root {
    fn new(kernel: &Kernel) -> Result<Self, ReadError> {
        let btf = &kernel.image.btf;
        // Linux commit 48e126777386 ("sched_ext: Introduce scx_sched") (v6.16).
        if let Some(pointer) = kernel.optional_symbol("scx_root") {
            let sched = btf.structure("scx_sched")?;
            return Ok(Self::Pointer {
                pointer,
                name: sched.offset("ops.name")?,
                exit_info: sched.offset("exit_info")?,
            });
        }
        let ops = kernel.symbol("scx_ops")?;
        let name = btf.structure("sched_ext_ops")?.offset("name")?;
        Ok(Self::Variables {
            name: ops.wrapping_add(name),
            exit_info: kernel.optional_symbol("scx_exit_info"),
        })
    }
}

impl Events {
    fn new(kernel: &Kernel, root: &Root) -> Result<Option<Self>, ReadError> {
        let btf = &kernel.image.btf;
        // Linux commit 17103b8504de ("sched_ext: Implement event counter infrastructure") (v6.15).
        let Ok(stats) = btf.structure("scx_event_stats") else {
            return Ok(None);
        };
        let Some(place) = EventsPlace::new(kernel, root, stats)? else {
            return Ok(None);
        };
        let (names, offsets) = stats
            .as_type()
            .members()
            .map(|member| (member.name.to_owned(), u64::from(member.bit_offset / 8)))
            .unzip::<_, _, Vec<_>, Vec<u64>>();
        let end = offsets.iter().max().copied().unwrap_or(0);
        Ok(Some(Self {
            place,
            names,
            len: end.saturating_add(COUNTER_BYTES as u64),
            offsets,
        }))
    }
}

impl EventsPlace {
    fn new(kernel: &Kernel, root: &Root, stats: Struct<'_>) -> Result<Option<Self>, LayoutError> {
        let btf = &kernel.image.btf;
        let Root::Pointer { pointer, .. } = root else {
            let variable = kernel.optional_symbol("event_stats_cpu");
            return Ok(variable.map(|address| Self::Variable { address }));
        };
        let sched = btf.structure("scx_sched")?;
        let place = |member: Field, at| Self::Scheduler {
            pointer: *pointer,
            member: member.offset,
            at,
        };
        // "sched_ext: Put event_stats_cpu in struct scx_sched_pcpu" (v6.18): with other things of a CPU.
        if let Some(member) = sched.optional("pcpu")? {
            let pcpu = sched.inner("pcpu")?;
            let at = pcpu.optional("event_stats")?;
            return Ok(at
                .filter(|at| at.type_id == stats.as_type().id())
                .map(|at| place(member, at.offset)));
        }
        // Linux commit c201ea1578d3 ("sched_ext: Move event_stats_cpu into scx_sched") (v6.16): by itself.
        let member = sched.optional("event_stats_cpu")?;
        Ok(member.map(|member| place(member, 0)))
    }
}

/// The values of `enum scx_enable_state`, which was `scx_ops_enable_state` until Linux commit 1a7ff7216c8b
/// ("sched_ext: Drop "ops" from scx_ops_enable_state and friends") (v6.16).
fn states(btf: &Btf) -> Vec<(u32, SchedExtState)> {
    let known = btf
        .find(Kind::Enum, "scx_enable_state")
        .or_else(|| btf.find(Kind::Enum, "scx_ops_enable_state"));
    enumerators(known)
        .into_iter()
        .filter_map(|(number, name)| {
            let state = match name.rsplit('_').next()? {
                "ENABLING" => SchedExtState::Enabling,
                "ENABLED" => SchedExtState::Enabled,
                "DISABLING" => SchedExtState::Disabling,
                "DISABLED" => SchedExtState::Disabled,
                _ => return None,
            };
            Some((number, state))
        })
        .collect()
}

fn enumerators(of: Option<Type<'_>>) -> Vec<(u32, String)> {
    of.into_iter()
        .flat_map(|of| of.enumerators())
        .filter_map(|one| Some((u32::try_from(one.value).ok()?, one.name.to_owned())))
        .collect()
}
