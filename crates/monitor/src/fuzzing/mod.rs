//! Fuzz targets: what must hold of samples and states that are read out of a guest's memory.
//!
//! `fuzz/` runs them under libFuzzer, the test here with the seeds and what was once found. Not public API: it is
//! there only for tests and with the feature `fuzzing`.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ktstr_introspect::kernel::Kernel;
use ktstr_introspect::memory::Evidence;
use ktstr_introspect::{Budget, BudgetLimits, KernelImage};

use crate::state::StateReader;
use crate::{KernelSource, Missing, Source};
use synthetic::busy_bpf::busy_on;
use synthetic::busy_sched::populate;
use synthetic::fake_bpf::FakeBpf;
use synthetic::fake_sched::{CPUS, Era, FakeSched};
use synthetic::patched::Original;

/// What the readers' own tests are made with.
#[path = "../../../introspect/tests/synthetic"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests use more of it, and stop where they can't go on"
)]
mod synthetic {
    pub(super) mod btf_builder;
    pub(super) mod busy_bpf;
    pub(super) mod busy_sched;
    pub(super) mod fake_bpf;
    pub(super) mod fake_kernel;
    pub(super) mod fake_sched;
    pub(super) mod patched;
}

/// Far above what the kernel has as it was made.
const LIMITS: BudgetLimits = BudgetLimits {
    bytes: 4 << 20,
    nodes: 20_000,
    time: Duration::from_secs(60),
};
/// A little above what a node and a byte of that take here and in a line of text.
const MAX_STATE_BYTES: u64 = 8 << 20;
const MAX_TEXT_BYTES: usize = 1 << 20;
const TICK: Duration = Duration::from_millis(4);

struct Prepared {
    image: Arc<KernelImage>,
    memory: Original,
}

static KERNEL: LazyLock<Prepared> = LazyLock::new(|| {
    let mut fake = FakeSched::new(Era::PerCpu);
    populate(&mut fake);
    fake.kernel.symbol("jiffies_64", 8);
    let bpf = busy_on(FakeBpf::on(fake));
    let kernel = bpf.fake.kernel;
    Prepared {
        image: Arc::new(kernel.image(&bpf.fake.btf)),
        memory: Original::new(&kernel),
    }
});

fn attach(input: &[u8]) -> Option<Kernel> {
    let patched = Arc::new(KERNEL.memory.patched(input));
    Kernel::attach(patched, Arc::clone(&KERNEL.image), &Evidence::default()).ok()
}

/// A sample, a state in full and as lines, and a variable that is looked for, of a kernel in whose memory words are
/// exchanged: for each five bytes one.
pub fn state_reader(input: &[u8]) {
    let Some(kernel) = attach(input) else {
        return;
    };
    let cpus = u32::try_from(CPUS).unwrap_or(u32::MAX);
    let vcpu_times = || (Err(Missing::Unstable), Err(Missing::Unstable));
    if let Ok(mut source) = KernelSource::new(&kernel, cpus, Box::new(vcpu_times))
        && let Ok(look) = source.look()
    {
        assert!(look.cpus.len() as u64 <= CPUS);
    }
    let Ok(reader) = StateReader::new(&kernel, cpus, TICK) else {
        return;
    };
    let budget = Budget::new(LIMITS);
    let state = reader.read(&budget);
    assert_eq!(state.exhausted.is_some(), budget.exhausted().is_some());
    let bytes = state.memory_bytes();
    assert!(bytes <= MAX_STATE_BYTES, "{bytes} bytes of a state");
    let text = state.summary(|_| None) + &state.maps_summary();
    assert!(text.len() <= MAX_TEXT_BYTES, "{} bytes of text", text.len());
    let budget = Budget::new(LIMITS);
    let _ = reader.longest_waiting(&budget);
    for path in ["count", "both[1].shorts[2]", "nothing"] {
        if let Err(error) = reader.find_global(path, &budget) {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn kept_inputs_hold() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let mut inputs = 0;
        for kept in ["seeds", "regressions"] {
            let Ok(folder) = fs::read_dir(fuzz.join(kept).join("state_reader")) else {
                continue;
            };
            for file in folder {
                let path = file.expect("a file").path();
                eprintln!("{}", path.display());
                state_reader(&fs::read(path).expect("it can be read"));
                inputs += 1;
            }
        }
        assert!(inputs > 0, "there is no input");
    }

    #[test]
    fn the_kernel_as_it_was_made_is_read_in_full() {
        let kernel = attach(&[]).expect("it is a kernel");
        let reader = StateReader::new(&kernel, 2, TICK).expect("the types are there");
        let state = reader.read(&Budget::new(LIMITS));
        assert_eq!(state.exhausted, None);
        let cpus = state.cpus.expect("CPUs");
        let tasks = cpus
            .iter()
            .map(|cpu| cpu.waiting.len() + usize::from(cpu.running.is_some()));
        assert!(tasks.sum::<usize>() >= 2);
        assert_eq!(state.maps.expect("maps").len(), 3);
    }

    /// The memory of a test's samples is planned by the CPUs that its machine is declared with.
    #[test]
    fn fault_d4_a_sample_has_no_more_cpus_than_the_machine() {
        let kernel = attach(&[]).expect("it is a kernel");
        let vcpu_times = || (Err(Missing::Unstable), Err(Missing::Unstable));
        let mut source = KernelSource::new(&kernel, 1, Box::new(vcpu_times)).expect("a source");
        assert_eq!(source.look().expect("a look").cpus.len(), 1);
    }
}
