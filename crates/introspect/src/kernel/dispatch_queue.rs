//! Dispatch queues of sched_ext (`struct scx_dispatch_q`): each CPU's own, each node's, and those that the
//! scheduler made, which are in a hash table by id.

use std::collections::HashSet;

use super::BudgetedMemory;
use super::{Kernel, PerCpu, ReadError, SchedExt, list, stable};
use crate::btf::Field;
use crate::budget::Budget;

/// More nodes than any kernel has (`MAX_NUMNODES`, `CONFIG_NODES_SHIFT` up to 10).
const MAX_NODES: u32 = 1024;
/// `SCX_DSQ_LNODE_ITER_CURSOR`: not a task, but the place of one who looks at the queue.
const ITER_CURSOR: u32 = 1;
/// The lowest bit of a pointer in a `struct bucket_table` is a lock, or says that it is none.
const NULLS: u64 = 1;

/// Whose queue it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DsqKind {
    /// That of a CPU, from which it runs tasks.
    Local { cpu: u32 },
    /// That of a node, from which its CPUs help themselves.
    Global {
        /// The node.
        node: u32,
    },
    /// One that the scheduler made.
    User,
}

/// A dispatch queue, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchQueue {
    /// Whose it is.
    pub kind: DsqKind,
    /// Address of its `struct scx_dispatch_q`.
    pub address: u64,
    /// Its id; those of the kernel's own queues have the highest bit set.
    pub id: u64,
    /// How many tasks are on it, as it counts them.
    pub nr: u32,
    /// Addresses of the tasks on it, the next to run first.
    pub tasks: Vec<u64>,
}

#[derive(Clone, Debug)]
pub struct DispatchQueues {
    kernel: Kernel,
    sched_ext: SchedExt,
    /// Of each CPU in order.
    local: Vec<u64>,
    nodes: u32,
    hash: Hash,
    global: Global,
    queue: Queue,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    id: Field,
    nr: Field,
    list: Field,
    /// The hash table's link in a queue.
    hash_node: Field,
    /// The list's link in a task, and the flags of what is linked.
    link: Field,
    link_flags: Field,
    task_link: Field,
}

/// Where the hash table is.
#[derive(Clone, Copy, Debug)]
struct Hash {
    place: Place,
    table: Field,
    size: Field,
    nest: Field,
    buckets: Field,
}

/// A member of the root scheduler, or a variable.
#[derive(Clone, Copy, Debug)]
enum Place {
    Scheduler { offset: u64 },
    Variable { address: u64 },
}

/// An array of pointers by node, to queues or what holds one.
#[derive(Clone, Copy, Debug)]
struct Global {
    place: Place,
    queue_in: u64,
}

impl DispatchQueues {
    /// Looks up where everything is; nothing if the kernel has no sched_ext.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Option<Self>, ReadError> {
        let Some(sched_ext) = SchedExt::new(kernel, percpu)? else {
            return Ok(None);
        };
        let btf = &kernel.image.btf;
        let local = btf.structure("rq")?.offset("scx.local_dsq")?;
        let runqueues = kernel.symbol("runqueues")?;
        let nodes = match kernel.optional_symbol("nr_node_ids") {
            Some(address) => kernel.memory.u32(address)?,
            None => 1,
        };
        if nodes > MAX_NODES {
            return Err(ReadError::TooMany {
                what: "the list of nodes",
                limit: MAX_NODES as usize,
            });
        }
        let (hash, global) = places(kernel)?;
        Ok(Some(Self {
            local: percpu
                .addresses(runqueues)
                .map(|rq| rq.wrapping_add(local))
                .collect(),
            nodes,
            hash,
            global,
            queue: Queue::new(kernel)?,
            sched_ext,
            kernel: kernel.clone(),
        }))
    }

    /// The queue of each CPU, in their order.
    pub fn local(&self, budget: &Budget) -> Result<Vec<DispatchQueue>, ReadError> {
        let memory = self.kernel.memory.within(budget);
        (0..)
            .zip(&self.local)
            .map(|(cpu, &address)| self.read(memory, DsqKind::Local { cpu }, address))
            .collect()
    }

    /// The queues of the nodes; none while there is no scheduler.
    pub fn global(&self, budget: &Budget) -> Result<Vec<DispatchQueue>, ReadError> {
        let memory = self.kernel.memory.within(budget);
        let Some(array) = self.address(self.global.place)? else {
            return Ok(Vec::new());
        };
        let array = memory.u64(array)?;
        if array == 0 {
            return Ok(Vec::new());
        }
        (0..self.nodes)
            .map(|node| {
                let holder = memory.u64(array.wrapping_add(u64::from(node) * 8))?;
                let address = holder.wrapping_add(self.global.queue_in);
                self.read(memory, DsqKind::Global { node }, address)
            })
            .collect()
    }

    /// The queues that the scheduler made, in no particular order; none while there is no scheduler.
    pub fn user(&self, budget: &Budget) -> Result<Vec<DispatchQueue>, ReadError> {
        let memory = self.kernel.memory.within(budget);
        let Some(table) = self.address(self.hash.place)? else {
            return Ok(Vec::new());
        };
        let queues = stable(|| self.hashed(memory, table))?;
        queues
            .into_iter()
            .map(|address| self.read(memory, DsqKind::User, address))
            .collect()
    }

    fn address(&self, place: Place) -> Result<Option<u64>, ReadError> {
        Ok(match place {
            Place::Variable { address } => Some(address),
            Place::Scheduler { offset } => {
                let root = self.sched_ext.root_address()?;
                root.map(|root| root.wrapping_add(offset))
            }
        })
    }

    /// What is in the hash table at `table` (`struct rhashtable`, `include/linux/rhashtable.h`).
    fn hashed(&self, memory: BudgetedMemory<'_>, table: u64) -> Result<Vec<u64>, ReadError> {
        let hash = &self.hash;
        let buckets = memory.u64(table.wrapping_add(hash.table.offset))?;
        if buckets == 0 {
            return Ok(Vec::new());
        }
        let size = u64::from(memory.u32(buckets.wrapping_add(hash.size.offset))?);
        if memory.u32(buckets.wrapping_add(hash.nest.offset))? != 0 {
            return Err(ReadError::Unsupported {
                what: "the table of dispatch queues has several levels, as when the kernel runs out of memory",
            });
        }
        let heads = memory.bytes(buckets.wrapping_add(hash.buckets.offset), size * 8)?;
        let (heads, _) = heads.as_chunks::<8>();
        let mut queues = Vec::new();
        let mut seen = HashSet::new();
        for head in heads {
            // Of a head, the lowest bit is a lock.
            let mut at = u64::from_le_bytes(*head) & !NULLS;
            while at != 0 && at & NULLS == 0 {
                // Each queue is on one chain; chains that meet are being changed.
                if !seen.insert(at) {
                    return Err(ReadError::Unstable {
                        what: "the table of dispatch queues",
                    });
                }
                memory.budget().charge_nodes(1)?;
                queues.push(at.wrapping_sub(self.queue.hash_node.offset));
                at = memory.u64(at)?;
            }
        }
        Ok(queues)
    }

    fn read(
        &self,
        memory: BudgetedMemory<'_>,
        kind: DsqKind,
        address: u64,
    ) -> Result<DispatchQueue, ReadError> {
        let queue = &self.queue;
        stable(|| {
            let head = address.wrapping_add(queue.list.offset);
            let nodes = list::walk(memory, head, "a dispatch queue")?;
            let mut tasks = Vec::new();
            for node in nodes {
                let link = node.wrapping_sub(queue.link.offset);
                let flags = memory.u32(link.wrapping_add(queue.link_flags.offset))?;
                if flags & ITER_CURSOR == 0 {
                    tasks.push(link.wrapping_sub(queue.task_link.offset));
                }
            }
            Ok(DispatchQueue {
                kind,
                address,
                id: memory.u64(address.wrapping_add(queue.id.offset))?,
                nr: memory.u32(address.wrapping_add(queue.nr.offset))?,
                tasks,
            })
        })
    }
}

impl Queue {
    fn new(kernel: &Kernel) -> Result<Self, ReadError> {
        let btf = &kernel.image.btf;
        let queue = btf.structure("scx_dispatch_q")?;
        let task = btf.structure("task_struct")?;
        let link = task.inner("scx.dsq_list")?;
        Ok(Self {
            id: queue.field("id")?,
            nr: queue.field("nr")?,
            list: queue.field("list")?,
            hash_node: queue.field("hash_node")?,
            link: link.field("node")?,
            link_flags: link.field("flags")?,
            task_link: task.field("scx.dsq_list")?,
        })
    }
}

/// Where the hash table and the nodes' queues are: in the scheduler since Linux commits cdf5a6faa8cf ("sched_ext: Move
/// dsq_hash into scx_sched") and 8409b800a0b1 ("sched_ext: Move global_dsqs into scx_sched") (v6.16), before variables.
fn places(kernel: &Kernel) -> Result<(Hash, Global), ReadError> {
    let btf = &kernel.image.btf;
    let table = btf.structure("rhashtable")?;
    let buckets = btf.structure("bucket_table")?;
    let hash = |place| -> Result<Hash, ReadError> {
        Ok(Hash {
            place,
            table: table.field("tbl")?,
            size: buckets.field("size")?,
            nest: buckets.field("nest")?,
            buckets: buckets.field("buckets")?,
        })
    };
    let Ok(sched) = btf.structure("scx_sched") else {
        let variable = |name| -> Result<Place, ReadError> {
            Ok(Place::Variable {
                address: kernel.symbol(name)?,
            })
        };
        let global = Global {
            place: variable("global_dsqs")?,
            queue_in: 0,
        };
        return Ok((hash(variable("dsq_hash")?)?, global));
    };
    let member = |path| -> Result<Place, ReadError> {
        Ok(Place::Scheduler {
            offset: sched.offset(path)?,
        })
    };
    // "sched_ext: Wrap global DSQs in per-node structure" (after v6.18).
    let global = if sched.optional("pnode")?.is_some() {
        Global {
            place: member("pnode")?,
            queue_in: btf.structure("scx_sched_pnode")?.offset("global_dsq")?,
        }
    } else {
        Global {
            place: member("global_dsqs")?,
            queue_in: 0,
        }
    };
    Ok((hash(member("dsq_hash")?)?, global))
}
