//! A kernel with BPF objects in whose memory anything may have changed.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use super::synthetic::busy_bpf::{busy, read_all};
use super::synthetic::fake_bpf::FakeBpf;
use super::synthetic::fake_kernel::{FIRST_OBJECT, MAX_CPUS};
use crate::KernelImage;
use crate::bpf::{Maps, Programs};
use crate::budget::Budget;
use crate::kernel::{Kernel, PerCpu};
use crate::memory::{Dump, Evidence, PhysError, PhysRead};

/// More objects than there are, unless the walk ran on.
const MAX_OBJECTS: usize = 1 << 20;

/// A made-up kernel, and where the objects in its memory are.
struct Prepared {
    image: Arc<KernelImage>,
    ram: Dump,
    objects: Range<u64>,
    tables: Range<u64>,
}

static KERNEL: LazyLock<Prepared> = LazyLock::new(|| {
    let mut bpf = busy();
    // The nodes of the table are made again, so that they are in one piece.
    let nodes = fill_again(&mut bpf);
    let kernel = bpf.fake.kernel;
    Prepared {
        image: Arc::new(kernel.image(&bpf.fake.btf)),
        tables: nodes..kernel.next_object,
        objects: FIRST_OBJECT..kernel.next_object,
        ram: Dump(kernel.ram),
    }
});

/// Fills the table of maps with those that it has; where its nodes begin.
fn fill_again(bpf: &mut FakeBpf) -> u64 {
    let kernel = bpf.fake.attach();
    let maps = Maps::new(&kernel).and_then(|maps| maps.all(&Budget::default()));
    let maps: Vec<u64> = maps.iter().flatten().map(|map| map.address).collect();
    let begin = bpf.fake.kernel.next_object;
    bpf.fill_maps(&maps);
    begin
}

/// Memory with bits flipped.
struct Flipped {
    at: Range<u64>,
    mask: Vec<u8>,
}

impl PhysRead for Flipped {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        KERNEL.ram.read(gpa, into)?;
        for (gpa, byte) in (gpa..).zip(into) {
            let mask = gpa.checked_sub(self.at.start).filter(|_| gpa < self.at.end);
            let mask = mask.and_then(|at| self.mask.get(usize::try_from(at).ok()?));
            *byte ^= mask.copied().unwrap_or(0);
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        KERNEL.ram.end()
    }
}

fn attach(at: &Range<u64>, mask: &[u8]) -> Option<Kernel> {
    let flipped = Flipped {
        at: at.clone(),
        mask: mask.to_vec(),
    };
    let image = Arc::clone(&KERNEL.image);
    Kernel::attach(Arc::new(flipped), image, &Evidence::default()).ok()
}

/// The kernel's tables of ids, with these bits of their nodes flipped.
pub fn xarray(input: &[u8]) {
    let Some(kernel) = attach(&KERNEL.tables, input) else {
        return;
    };
    if let Ok(maps) = Maps::new(&kernel).and_then(|maps| maps.all(&Budget::default())) {
        assert!(maps.len() <= MAX_OBJECTS);
    }
    if let Ok(percpu) = PerCpu::read(&kernel, MAX_CPUS)
        && let Ok(programs) =
            Programs::new(&kernel, &percpu).and_then(|programs| programs.all(&Budget::default()))
    {
        assert!(programs.len() <= MAX_OBJECTS);
    }
}

/// Arrays, hash tables, per-CPU values and global variables with their types, with these bits flipped in all of the
/// kernel's objects.
pub fn map_values(input: &[u8]) {
    if let Some(kernel) = attach(&KERNEL.objects, input) {
        read_all(&kernel);
    }
}
