//! A kernel with tasks and dispatch queues in whose memory words are exchanged.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::synthetic::busy_sched::busy_sched;
use super::synthetic::fake_kernel::MAX_CPUS;
use super::synthetic::fake_sched::Era;
use super::synthetic::patched::Original;
use crate::KernelImage;
use crate::budget::{Budget, BudgetLimits};
use crate::kernel::{DispatchQueues, Kernel, PerCpu, ReadError, Runqueues, Tasks};
use crate::memory::Evidence;

/// Far above what the kernel has as it was made.
const LIMITS: BudgetLimits = BudgetLimits {
    bytes: 4 << 20,
    nodes: 10_000,
    time: Duration::from_secs(60),
};

struct Prepared {
    image: Arc<KernelImage>,
    memory: Original,
}

static KERNEL: LazyLock<Prepared> = LazyLock::new(|| {
    let fake = busy_sched(Era::PerCpu);
    Prepared {
        image: Arc::new(fake.kernel.image(&fake.btf)),
        memory: Original::new(&fake.kernel),
    }
});

fn attach(input: &[u8]) -> Option<(Kernel, PerCpu)> {
    let patched = Arc::new(KERNEL.memory.patched(input));
    let image = Arc::clone(&KERNEL.image);
    let kernel = Kernel::attach(patched, image, &Evidence::default()).ok()?;
    let percpu = PerCpu::read(&kernel, MAX_CPUS).ok()?;
    Some((kernel, percpu))
}

/// What was read has been charged, and what was too much is told as that.
fn holds<T>(read: &Result<T, ReadError>, budget: &Budget) {
    if let Err(ReadError::Budget(why)) = read {
        assert_eq!(budget.exhausted(), Some(*why));
    } else {
        assert_eq!(budget.exhausted(), None);
    }
}

/// The list of tasks, and those that run.
pub fn tasks(input: &[u8]) {
    let Some((kernel, percpu)) = attach(input) else {
        return;
    };
    let tasks = Tasks::new(&kernel, &percpu).expect("the types are there");
    let budget = Budget::new(LIMITS);
    let all = tasks.all(&budget);
    holds(&all, &budget);
    let count = all.map_or(0, |all| all.len() as u64);
    assert!(count <= budget.spent().nodes, "{count} tasks");
    let runqueues = Runqueues::new(&kernel, &percpu).expect("the types are there");
    for runqueue in runqueues.read().unwrap_or_default() {
        if let Ok(task) = tasks.read(runqueue.curr, &Budget::new(LIMITS)) {
            assert!(task.cpus.len() <= percpu.cpus() && task.comm.len() <= 64);
        }
    }
}

/// The queues of CPUs and nodes, and those in the hash table.
pub fn dispatch_queues(input: &[u8]) {
    let Some((kernel, percpu)) = attach(input) else {
        return;
    };
    let Ok(Some(queues)) = DispatchQueues::new(&kernel, &percpu) else {
        return;
    };
    let budget = Budget::new(LIMITS);
    let mut count = 0;
    let readers = [
        DispatchQueues::local,
        DispatchQueues::global,
        DispatchQueues::user,
    ];
    for read in readers {
        let read = read(&queues, &budget);
        holds(&read, &budget);
        let read = read.unwrap_or_default();
        count += read
            .iter()
            .map(|queue| 1 + queue.tasks.len())
            .sum::<usize>();
    }
    // A queue is read for less than a node, but at the cost of bytes.
    let most = budget.spent().nodes + budget.spent().bytes / 16;
    assert!(count as u64 <= most, "{count} queues and tasks");
}
