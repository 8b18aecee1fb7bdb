//! Making cgroups and setting their knobs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ktstr_topology::CpuSet;

use super::entry::Entry;
use super::ledger::Ledger;
use super::{CgroupError, CgroupKind, CpuMax, Knob, Limit, name, removal, tasks};

/// How long one write to a control file may take, before any allowance of the engine.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Controllers that tests have knobs for.
const CONTROLLERS: [&str; 5] = ["cpuset", "cpu", "memory", "io", "pids"];

/// Those of them that work in a threaded tree.
const THREADED_CONTROLLERS: [&str; 3] = ["cpuset", "cpu", "pids"];

/// Operations on the cgroups of a test. Names are relative to the workload root; `a/b` is the cgroup `b`
/// in the cgroup `a`.
pub trait CgroupOps {
    /// Makes the cgroup `name`, and those above it as far as they are missing, with every controller
    /// enabled along the way.
    fn create(&self, name: &str, kind: CgroupKind) -> Result<(), CgroupError>;

    /// Moves all tasks of `name` to the hierarchy's root and removes it. Those above it that were made
    /// only for its sake go as well when they are empty. Waits at most a second for tasks to be gone.
    fn remove(&self, name: &str) -> Result<(), CgroupError>;

    /// Sets one knob.
    fn set(&self, name: &str, knob: &Knob) -> Result<(), CgroupError>;

    /// Moves processes. One that has ended is passed over, unless all have; the harness's own is refused.
    fn move_tasks(&self, name: &str, pids: &[i32]) -> Result<(), CgroupError>;

    /// Moves threads of the harness to a threaded cgroup.
    fn move_threads(&self, name: &str, tids: &[i32]) -> Result<(), CgroupError>;

    /// The CPUs that its tasks may use now.
    fn effective_cpuset(&self, name: &str) -> Result<CpuSet, CgroupError>;

    /// Names of all cgroups that were made and not removed, in order.
    fn names(&self) -> Vec<String>;

    /// Moves one process.
    fn move_task(&self, name: &str, pid: i32) -> Result<(), CgroupError> {
        self.move_tasks(name, &[pid])
    }

    /// Moves one thread of the harness to a threaded cgroup.
    fn move_thread(&self, name: &str, tid: i32) -> Result<(), CgroupError> {
        self.move_threads(name, &[tid])
    }

    /// Sets the CPUs.
    fn set_cpuset(&self, name: &str, cpus: &CpuSet) -> Result<(), CgroupError> {
        self.set(name, &Knob::Cpus(cpus.clone()))
    }

    /// Sets the NUMA nodes for memory.
    fn set_cpuset_mems(&self, name: &str, nodes: &CpuSet) -> Result<(), CgroupError> {
        self.set(name, &Knob::Mems(nodes.clone()))
    }

    /// Sets the CPU bandwidth.
    fn set_cpu_max(&self, name: &str, max: CpuMax) -> Result<(), CgroupError> {
        self.set(name, &Knob::CpuMax(max))
    }

    /// Sets the weight against its siblings, 1 to 10000.
    fn set_cpu_weight(&self, name: &str, weight: u32) -> Result<(), CgroupError> {
        self.set(name, &Knob::CpuWeight(weight))
    }

    /// Sets the hard limit of memory.
    fn set_memory_max(&self, name: &str, limit: Limit) -> Result<(), CgroupError> {
        self.set(name, &Knob::MemoryMax(limit))
    }

    /// Sets the most tasks it may have.
    fn set_pids_max(&self, name: &str, limit: Limit) -> Result<(), CgroupError> {
        self.set(name, &Knob::PidsMax(limit))
    }

    /// Stops all its tasks.
    fn freeze(&self, name: &str) -> Result<(), CgroupError> {
        self.set(name, &Knob::Freeze(true))
    }

    /// Lets its tasks run again.
    fn unfreeze(&self, name: &str) -> Result<(), CgroupError> {
        self.set(name, &Knob::Freeze(false))
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    kind: CgroupKind,
    /// Made only because one below it was asked for.
    implied: bool,
}

/// Cgroups of a test, below one workload root. Clones work on the same cgroups.
#[derive(Clone, Debug)]
pub struct CgroupManager {
    mount: PathBuf,
    workload_root: String,
    write_timeout: Duration,
    nodes: Arc<Mutex<BTreeMap<String, Node>>>,
    ledger: Ledger,
}

impl CgroupManager {
    /// The workload root of a test that declares none.
    pub const WORKLOAD_ROOT: &str = "/ktstr";

    /// The manager of a test, below the cgroup `workload_root` of /sys/fs/cgroup.
    pub fn of_tests(workload_root: &str) -> Result<Self, CgroupError> {
        let root = workload_root.strip_prefix('/');
        Self::new("/sys/fs/cgroup", root.unwrap_or(workload_root))
    }

    /// A manager for the cgroup v2 hierarchy mounted at `mount` (`/sys/fs/cgroup`), with its cgroups in
    /// `workload_root` there (`ktstr`; `a/b` nests). Threaded ones go into a directory of their own right
    /// below `mount`, named after it (`ktstr.threads`, `a.b.threads`): only there can the harness's threads
    /// be placed. Nothing is made before the first cgroup is.
    pub fn new(mount: impl Into<PathBuf>, workload_root: &str) -> Result<Self, CgroupError> {
        name::check(workload_root)?;
        Ok(Self {
            mount: mount.into(),
            workload_root: workload_root.to_owned(),
            write_timeout: WRITE_TIMEOUT,
            nodes: Arc::default(),
            ledger: Ledger::default(),
        })
    }

    /// Allows `slack` more time for a write to a control file than the usual 2 s.
    #[must_use]
    pub fn with_slack(mut self, slack: Duration) -> Self {
        self.write_timeout = WRITE_TIMEOUT.saturating_add(slack);
        self
    }

    /// Directory of the cgroup `name`, for what this library has no operation for.
    pub fn path(&self, name: &str) -> Result<PathBuf, CgroupError> {
        self.known(name).map(|(entry, _)| entry.dir)
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, dir: PathBuf) -> Entry {
        Entry {
            dir,
            write_timeout: self.write_timeout,
        }
    }

    pub(super) fn mount_entry(&self) -> Entry {
        self.entry(self.mount.clone())
    }

    fn root_name(&self, kind: CgroupKind) -> String {
        match kind {
            CgroupKind::Domain => self.workload_root.clone(),
            CgroupKind::Threaded => format!("{}.threads", self.workload_root.replace('/', ".")),
        }
    }

    pub(super) const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Every cgroup that there is, and the workload roots, by name.
    pub(super) fn levels(&self) -> Vec<(String, Entry)> {
        let nodes = self.nodes();
        let mut levels: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, node) in nodes.iter() {
            let root = self.root_name(node.kind);
            let dir = self.mount.join(&root);
            levels.insert(name.clone(), self.entry(dir.join(name)));
            levels.insert(root_label(&root), self.entry(dir));
        }
        levels.into_iter().collect()
    }

    /// Name of the workload root of `name` among the [`Self::levels`].
    pub(super) fn root_of(&self, name: &str) -> Result<String, CgroupError> {
        let (_, kind) = self.known(name)?;
        Ok(root_label(&self.root_name(kind)))
    }

    /// The workload root, the cgroups above `name`, and `name` itself.
    pub(super) fn lineage(&self, name: &str) -> Result<Vec<Entry>, CgroupError> {
        let (entry, kind) = self.known(name)?;
        let root = self.mount.join(self.root_name(kind));
        let above = name::ancestors(name).map(|above| self.entry(root.join(above)));
        let above: Vec<Entry> = above.collect();
        Ok([self.entry(root)]
            .into_iter()
            .chain(above)
            .chain([entry])
            .collect())
    }

    fn known(&self, name: &str) -> Result<(Entry, CgroupKind), CgroupError> {
        let nodes = self.nodes();
        let Some(node) = nodes.get(name) else {
            return Err(CgroupError::Unknown {
                name: name.to_owned(),
                known: nodes.keys().cloned().collect(),
            });
        };
        let dir = self.mount.join(self.root_name(node.kind)).join(name);
        Ok((self.entry(dir), node.kind))
    }

    /// As [`Self::known`], for what only an innermost cgroup can do.
    fn known_leaf(
        &self,
        name: &str,
        what: &'static str,
    ) -> Result<(Entry, CgroupKind), CgroupError> {
        let known = self.known(name)?;
        let prefix = format!("{name}/");
        let nodes = self.nodes();
        let children: Vec<String> = nodes
            .keys()
            .filter(|other| other.starts_with(&prefix))
            .cloned()
            .collect();
        if children.is_empty() {
            return Ok(known);
        }
        Err(CgroupError::HasChildren {
            name: name.to_owned(),
            what,
            children,
        })
    }

    /// Makes one directory, if it isn't there, and prepares it to be of `kind`.
    fn make(&self, dir: &Path, kind: CgroupKind) -> Result<(), CgroupError> {
        match fs::create_dir(dir) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(CgroupError::Create {
                    path: dir.to_owned(),
                    source,
                });
            }
            _ => {}
        }
        let entry = self.entry(dir.to_owned());
        if kind == CgroupKind::Threaded && entry.read("cgroup.type")?.trim() != "threaded" {
            entry.write("cgroup.type", "threaded")?;
        }
        Ok(())
    }

    /// Hands all controllers that tests have knobs for, as far as the kernel offers them here, down to
    /// the children of `dir`.
    fn enable_controllers(&self, dir: &Path, wanted: &[&str]) -> Result<(), CgroupError> {
        let entry = self.entry(dir.to_owned());
        let offered = entry.read("cgroup.controllers")?;
        let enabled = entry.read("cgroup.subtree_control")?;
        let has = |text: &str, wanted: &str| text.split_whitespace().any(|name| name == wanted);
        let missing: Vec<String> = wanted
            .iter()
            .filter(|name| has(&offered, name) && !has(&enabled, name))
            .map(|name| format!("+{name}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        entry.write("cgroup.subtree_control", &missing.join(" "))
    }

    /// Makes the workload root of `kind`, if it isn't there, with every controller enabled for its children, and says
    /// where it is. The first cgroup makes it too.
    pub fn make_root(&self, kind: CgroupKind) -> Result<PathBuf, CgroupError> {
        let mut dir = self.mount.clone();
        let name = self.root_name(kind);
        for part in name.split('/') {
            self.enable_controllers(&dir, &CONTROLLERS)?;
            dir.push(part);
            // A tree in which only the last part is threaded keeps outer parts free for both kinds.
            self.make(&dir, CgroupKind::Domain)?;
        }
        self.make(&dir, kind)?;
        self.enable_controllers(&dir, controllers(kind))?;
        Ok(dir)
    }

    /// Removes those above `name` that were made only for the sake of what is no longer there.
    fn remove_implied(&self, name: &str) -> Result<(), CgroupError> {
        let above: Vec<&str> = name::ancestors(name).collect();
        for above in above.into_iter().rev() {
            let implied = self.nodes().get(above).is_some_and(|node| node.implied);
            let Ok((entry, kind)) = self.known_leaf(above, "be removed") else {
                break;
            };
            if !implied {
                break;
            }
            removal::remove(&entry, &self.mount_entry(), kind)?;
            self.nodes().remove(above);
            self.ledger.forget(above);
        }
        Ok(())
    }

    fn check_new(&self, name: &str, kind: CgroupKind) -> Result<(), CgroupError> {
        name::check(name)?;
        let nodes = self.nodes();
        if nodes.contains_key(name) {
            return Err(CgroupError::Exists {
                name: name.to_owned(),
            });
        }
        let other = name::ancestors(name)
            .find(|above| nodes.get(*above).is_some_and(|node| node.kind != kind));
        match other {
            None => Ok(()),
            Some(above) => Err(CgroupError::MixedKinds {
                name: name.to_owned(),
                kind,
                above: above.to_owned(),
            }),
        }
    }
}

/// A workload root's name in accounts. No name of a test's cgroup begins with a slash.
fn root_label(root: &str) -> String {
    format!("/{root}")
}

const fn controllers(kind: CgroupKind) -> &'static [&'static str] {
    match kind {
        CgroupKind::Domain => &CONTROLLERS,
        CgroupKind::Threaded => &THREADED_CONTROLLERS,
    }
}

impl CgroupOps for CgroupManager {
    fn create(&self, name: &str, kind: CgroupKind) -> Result<(), CgroupError> {
        self.check_new(name, kind)?;
        let root = self.make_root(kind)?;
        for above in name::ancestors(name) {
            let dir = root.join(above);
            self.make(&dir, kind)?;
            self.nodes().entry(above.to_owned()).or_insert(Node {
                kind,
                implied: true,
            });
            self.enable_controllers(&dir, controllers(kind))?;
        }
        let dir = root.join(name);
        if let Err(error) = self.make(&dir, kind) {
            // What was made on the way must not stay behind unknown.
            let _ = fs::remove_dir(&dir);
            let _ = self.remove_implied(name);
            return Err(error);
        }
        let node = Node {
            kind,
            implied: false,
        };
        self.nodes().insert(name.to_owned(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), CgroupError> {
        let (entry, kind) = self.known_leaf(name, "be removed")?;
        removal::remove(&entry, &self.mount_entry(), kind)?;
        self.nodes().remove(name);
        self.ledger.forget(name);
        self.remove_implied(name)
    }

    fn set(&self, name: &str, knob: &Knob) -> Result<(), CgroupError> {
        let (entry, kind) = self.known(name)?;
        if kind == CgroupKind::Threaded && !knob.works_threaded() {
            return Err(CgroupError::NotThreaded {
                name: name.to_owned(),
                file: knob.file(),
            });
        }
        entry.write(knob.file(), &knob.value())?;
        self.ledger.record(name, &entry, knob);
        Ok(())
    }

    fn move_tasks(&self, name: &str, pids: &[i32]) -> Result<(), CgroupError> {
        let (entry, kind) = self.known_leaf(name, "hold tasks")?;
        if kind == CgroupKind::Threaded {
            return Err(CgroupError::WrongKind {
                name: name.to_owned(),
                kind,
                advice: "place threads in it by their tids with `move_threads`",
            });
        }
        tasks::refuse_own(name, pids)?;
        tasks::place(&entry, name, "cgroup.procs", pids)
    }

    fn move_threads(&self, name: &str, tids: &[i32]) -> Result<(), CgroupError> {
        let (entry, kind) = self.known_leaf(name, "hold tasks")?;
        if kind == CgroupKind::Domain {
            return Err(CgroupError::WrongKind {
                name: name.to_owned(),
                kind,
                advice: "the harness's threads can only go to one made with CgroupKind::Threaded",
            });
        }
        tasks::require_own_threads(name, tids)?;
        tasks::place(&entry, name, "cgroup.threads", tids)
    }

    fn effective_cpuset(&self, name: &str) -> Result<CpuSet, CgroupError> {
        const FILE: &str = "cpuset.cpus.effective";
        let (entry, _) = self.known(name)?;
        let text = entry.read(FILE)?;
        text.parse().map_err(|_| CgroupError::Content {
            path: entry.path(FILE),
            text,
            expected: "a list of CPUs",
        })
    }

    fn names(&self) -> Vec<String> {
        self.nodes().keys().cloned().collect()
    }
}
