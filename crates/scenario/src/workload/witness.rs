//! What a worker learns about itself at its end, for the checks of what was declared for it.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU8, Ordering};

use ktstr_report::{NodePages, PolicyAccount, PolicyKind};

use super::sched_policy::SchedPolicy;
use super::shared::Shared;
use super::syscalls::{page_nodes, sched_getattr};
use crate::sched_ext;

/// Pages of memory that tell where a worker's memory is.
const WITNESS_PAGES: usize = 64;

/// Page of x86-64.
const PAGE_BYTES: usize = 4096;

/// Memory that a worker allocates and touches when it begins. A mapping of its own: the allocator might hand out
/// pages that the harness touched, on nodes of its own.
#[derive(Debug)]
pub(super) struct MemoryWitness {
    memory: Option<Shared<AtomicU8>>,
}

impl MemoryWitness {
    pub(super) fn allocate() -> Self {
        let memory = Shared::<AtomicU8>::new(WITNESS_PAGES * PAGE_BYTES).ok();
        for page in memory.iter().flat_map(|memory| memory.chunks(PAGE_BYTES)) {
            page[0].store(1, Ordering::Relaxed);
        }
        Self { memory }
    }

    /// Pages on each node; none if the kernel doesn't say.
    pub(super) fn node_pages(&self) -> Vec<NodePages> {
        let nodes = self.memory.as_deref();
        let nodes = nodes.and_then(|memory| page_nodes(memory, PAGE_BYTES).ok());
        let nodes = nodes.unwrap_or_default();
        let mut pages: BTreeMap<u32, u64> = BTreeMap::new();
        for node in nodes.into_iter().flatten() {
            *pages.entry(node).or_default() += 1;
        }
        let pages = pages.into_iter();
        pages
            .map(|(node, pages)| NodePages { node, pages })
            .collect()
    }
}

/// The policy that the calling thread has now. What was declared is for the harness to add.
pub(super) fn policy() -> PolicyAccount {
    let seen = sched_getattr().ok().map(SchedPolicy::of_attr);
    let policy = match seen {
        Some(Ok((policy, _))) => Some(policy),
        _ => None,
    };
    let before = Takeover::read();
    let ext_seen = fs::read_to_string("/proc/thread-self/sched")
        .ok()
        .and_then(|text| ext_enabled(&text));
    // A scheduler that came or went meanwhile leaves it open which class was due.
    let takeover = before.filter(|before| Takeover::read() == Some(*before));
    PolicyAccount {
        kind: PolicyKind::Weighted,
        declared: String::new(),
        seen: seen.map(|seen| match seen {
            Ok((policy, nice)) => policy.describe(nice),
            Err(number) => format!("policy number {number}"),
        }),
        ext_due: policy
            .zip(takeover)
            .map(|(policy, takeover)| takeover.takes(policy)),
        ext_seen,
    }
}

/// Which tasks a sched_ext scheduler has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Takeover {
    /// There is none.
    Nothing,
    /// Those that ask for it.
    Asked,
    /// All but real-time and deadline tasks.
    All,
}

impl Takeover {
    /// `None` while a scheduler comes or goes.
    fn read() -> Option<Self> {
        Self::parse(&sched_ext::state(), sched_ext::switch_all().as_deref())
    }

    fn parse(state: &str, switch_all: Option<&str>) -> Option<Self> {
        match (state, switch_all) {
            ("" | "disabled", _) => Some(Self::Nothing),
            ("enabled", Some("1")) => Some(Self::All),
            ("enabled", Some("0")) => Some(Self::Asked),
            _ => None,
        }
    }

    /// `task_should_scx()` in kernel/sched/ext.c.
    fn takes(self, policy: SchedPolicy) -> bool {
        match (self, policy.kind()) {
            (_, PolicyKind::RealTime | PolicyKind::Deadline) | (Self::Nothing, _) => false,
            (Self::All, _) => true,
            (Self::Asked, _) => policy == SchedPolicy::Ext,
        }
    }
}

/// The line `ext.enabled : 1` (proc_sched_show_task() in kernel/sched/debug.c).
fn ext_enabled(text: &str) -> Option<bool> {
    let value = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "ext.enabled").then_some(value.trim())
    })?;
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_that_is_due_follows_from_policy_and_scheduler() {
        let all = Takeover::parse("enabled", Some("1")).expect("known");
        let asked = Takeover::parse("enabled", Some("0")).expect("known");
        let nothing = Takeover::parse("", None).expect("known");
        assert_eq!(Takeover::parse("disabled", Some("1")), Some(nothing));
        assert_eq!(Takeover::parse("disabling", Some("1")), None);
        for (policy, due) in [
            (SchedPolicy::Normal, [true, false, false]),
            (SchedPolicy::Idle, [true, false, false]),
            (SchedPolicy::Ext, [true, true, false]),
            (SchedPolicy::Fifo(1), [false, false, false]),
        ] {
            assert_eq!(
                [all, asked, nothing].map(|t| t.takes(policy)),
                due,
                "{policy}"
            );
        }
    }

    #[test]
    fn the_class_is_read_where_the_kernel_says_it() {
        let text = "worker (12, #threads: 1)\n---\nprio   :      120\next.enabled    :     1\n";
        assert_eq!(ext_enabled(text), Some(true));
        assert_eq!(
            ext_enabled(&text.replace("     1\n", "     0\n")),
            Some(false)
        );
        assert_eq!(ext_enabled("prio : 120\n"), None);
    }

    #[test]
    fn a_thread_learns_its_own_policy() {
        let policy = policy();
        assert!(policy.seen.is_some_and(|seen| seen.starts_with("SCHED_")));
    }

    #[test]
    fn memory_that_was_touched_is_on_nodes() {
        let pages = MemoryWitness::allocate().node_pages();
        let count: u64 = pages.iter().map(|node| node.pages).sum();
        // A kernel without CONFIG_MIGRATION says nothing.
        assert!(
            count == WITNESS_PAGES as u64 || pages.is_empty(),
            "{pages:?}"
        );
    }
}
