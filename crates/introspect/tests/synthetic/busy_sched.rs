//! A made-up kernel in which something runs.

use super::fake_sched::{Era, FakeSched, RQ_LOCAL_DSQ};

/// Two processes, whose threads are on the queues of two CPUs.
pub(crate) fn busy_sched(era: Era) -> FakeSched {
    let mut fake = FakeSched::new(era);
    populate(&mut fake);
    fake
}

pub(crate) fn populate(fake: &mut FakeSched) {
    let first = fake.process(1, 2);
    let second = fake.process(20, 3);
    fake.link(&[first[0], second[0]]);
    let domain = fake.kernel.object(64);
    for (cpu, all) in [first, second].iter().enumerate() {
        let rq = fake.rq(cpu);
        fake.queue(rq + RQ_LOCAL_DSQ, 1, all);
        fake.kernel.write_u64(rq + 40, domain);
        fake.kernel.write_u64(rq + 16, all[0]);
    }
}
