//! Runqueues, tasks, domains and sched_ext.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ktstr_introspect::Budget;
use ktstr_introspect::kernel::{
    DispatchQueues, DsqKind, Kernel, PerCpu, ReadError, Runqueues, SchedClass, SchedDomains,
    SchedExt, SchedExtState, Tasks,
};
use ktstr_introspect::memory::Dump;
use proptest::prelude::*;

use crate::busy_sched::busy_sched;
use crate::fake_kernel::{MAX_CPUS, Noisy};
use crate::fake_sched::{
    CPUS, CPUS_PTR, DSQ_LINK, Era, FakeSched, RQ_LOCAL_DSQ, SCX, TASKS, THREAD_NODE,
};

const ERAS: [Era; 4] = [Era::Bare, Era::Variables, Era::Members, Era::PerCpu];

#[test]
fn runqueues_are_read_with_what_the_kernel_has_of_them() {
    for era in ERAS {
        let mut fake = FakeSched::new(era);
        let rq = fake.rq(1);
        for (at, value) in [
            (0, 3),
            (8, 123_456_789_012),
            (16, 0xaa),
            (32, 9),
            (48, 2 | 1 << 32),
        ] {
            fake.kernel.write_u64(rq + at, value);
        }
        fake.kernel.write_u64(rq + 64, 2 | 5 << 32);
        fake.kernel.write_u64(rq + 160, 1 | 2 << 32);
        fake.kernel.write_u64(rq + 184 + 8, 4_000);
        fake.kernel.write_u64(rq + RQ_LOCAL_DSQ + 16, 6);
        let kernel = fake.attach();
        let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
        assert_eq!(percpu.cpus(), 2);
        assert_eq!(
            percpu.online(&kernel).unwrap().to_string(),
            "0-1",
            "no CPU that can't be"
        );
        let read = Runqueues::new(&kernel, &percpu).unwrap().read().unwrap();
        assert_eq!(read.len() as u64, CPUS);
        let second = &read[1];
        assert_eq!((second.cpu, second.address, second.nr_running), (1, rq, 3));
        assert_eq!(
            (second.clock_ns, second.curr, second.nr_switches),
            (123_456_789_012, 0xaa, 9)
        );
        assert_eq!((second.fair_nr_queued, second.rt_nr_running), (2, 1));
        let has = era != Era::Bare;
        let scx = second
            .scx
            .map(|scx| (scx.nr_running, scx.flags, scx.local_dsq_nr));
        assert_eq!(scx, has.then_some((2, 5, 6)));
        let stat = second
            .schedstat
            .map(|stat| (stat.yld_count, stat.sched_count, stat.run_delay_ns));
        assert_eq!(stat, has.then_some((1, 2, 4_000)));
        assert_eq!(read[0].nr_running, 0);
    }
}

fn tasks(kernel: &Kernel) -> Tasks {
    Tasks::new(kernel, &PerCpu::read(kernel, MAX_CPUS).unwrap()).unwrap()
}

#[test]
fn every_thread_of_every_process_is_found() {
    for era in ERAS {
        let mut fake = FakeSched::new(era);
        let first = fake.process(1, 1);
        let second = fake.process(40, 3);
        fake.link(&[first[0], second[0]]);
        // One is on a mask that is not its own.
        let elsewhere = fake.kernel.object(16);
        fake.kernel.write_u64(elsewhere, 1);
        fake.kernel.write_u64(second[1] + CPUS_PTR, elsewhere);
        let kernel = fake.attach();
        let tasks = tasks(&kernel);
        let all = tasks.all(&Budget::default()).unwrap();
        let ids: Vec<_> = all.iter().map(|task| (task.pid, task.tgid)).collect();
        assert_eq!(ids, [(1, 1), (40, 40), (41, 40), (42, 40)]);
        let last = tasks.by_pid(42, &Budget::default()).unwrap().unwrap();
        assert_eq!(last, all[3]);
        assert_eq!(
            (last.comm.as_str(), last.state, last.cpu),
            ("task 42", 'R', 1)
        );
        assert_eq!((last.policy, last.prio, last.static_prio), (7, -1, 125));
        assert_eq!(
            (last.class, last.sum_exec_runtime_ns),
            (SchedClass::Ext, 1_000_000)
        );
        assert_eq!(last.cpus.to_string(), "1");
        assert_eq!(all[2].cpus.to_string(), "0");
        let has = era != Era::Bare;
        assert_eq!(last.run_delay_ns, has.then_some(77));
        assert_eq!(last.scx.map(|scx| scx.slice_ns), has.then_some(5_000));
        assert_eq!(tasks.by_pid(7, &Budget::default()).unwrap(), None);
    }
}

#[test]
fn states_are_the_letters_of_proc() {
    let states = [
        (0_u32, 0_u32, 'R'),
        (1, 0, 'S'),
        (2, 0, 'D'),
        (0x402, 0, 'I'),
        (4, 0, 'T'),
        (8, 0, 't'),
        (0x80, 0x10, 'X'),
        (0x80, 0x20, 'Z'),
        (0x40, 0, 'P'),
        (0x1000, 0, 'D'),
        (0x8000, 0, 'D'),
    ];
    let mut fake = FakeSched::new(Era::Bare);
    let all = fake.process(1, u32::try_from(states.len()).unwrap());
    fake.link(&all[..1]);
    for (task, (state, exit_state, _)) in all.iter().zip(states) {
        fake.kernel.write(task + 8, &state.to_le_bytes());
        fake.kernel.write(task + 12, &exit_state.to_le_bytes());
    }
    let read = tasks(&fake.attach()).all(&Budget::default()).unwrap();
    let letters: String = read.iter().map(|task| task.state).collect();
    assert_eq!(
        letters,
        states.map(|(.., letter)| letter).iter().collect::<String>()
    );
}

#[test]
fn a_list_that_does_not_fit_together_is_unstable() {
    let build = || {
        let mut fake = FakeSched::new(Era::Bare);
        let leaders: Vec<u64> = (1..=4).map(|pid| fake.process(pid, 1)[0]).collect();
        fake.link(&leaders);
        (fake, leaders)
    };
    let error = |fake: &FakeSched| tasks(&fake.attach()).all(&Budget::default()).unwrap_err();
    // A circle that does not lead back to the head.
    let (mut fake, leaders) = build();
    fake.kernel
        .write_u64(leaders[2] + TASKS, leaders[0] + TASKS);
    let what = "the list of tasks";
    assert_eq!(error(&fake), ReadError::Unstable { what });
    // Two that point to each other rightly, but nobody points to.
    fake.kernel
        .write_u64(leaders[0] + TASKS + 8, leaders[2] + TASKS);
    assert_eq!(error(&fake), ReadError::Unstable { what });
    // A pointer to nowhere.
    let (mut fake, leaders) = build();
    fake.kernel.write_u64(leaders[1] + TASKS, 0xdead);
    assert_eq!(error(&fake), ReadError::Unstable { what });
    let (mut fake, leaders) = build();
    fake.kernel
        .write_u64(leaders[3] + THREAD_NODE, leaders[3] + THREAD_NODE);
    let what = "the list of a process's threads";
    assert_eq!(error(&fake), ReadError::Unstable { what });
}

#[test]
fn the_state_of_sched_ext_is_read_in_every_layout() {
    for era in [Era::Variables, Era::Members, Era::PerCpu] {
        let fake = FakeSched::new(era);
        let kernel = fake.attach();
        let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
        let scx = SchedExt::new(&kernel, &percpu).unwrap().unwrap();
        assert_eq!(scx.state().unwrap(), SchedExtState::Enabled);
        assert_eq!(scx.ops_name().unwrap().as_deref(), Some("faulty"));
        assert_eq!(scx.event_names(), ["SCX_EV_A", "SCX_EV_B"]);
        assert_eq!(scx.events().unwrap().unwrap(), [30, -2], "{era:?}");
        let exit = scx.exit_info().unwrap().unwrap();
        assert_eq!((exit.kind, exit.code), (1026, -5));
        assert_eq!(exit.kind_name.as_deref(), Some("SCX_EXIT_ERROR_STALL"));
        assert_eq!(
            (exit.reason.as_str(), exit.message.as_str()),
            ("stalled", "")
        );
    }
    let bare = FakeSched::new(Era::Bare).attach();
    let percpu = PerCpu::read(&bare, MAX_CPUS).unwrap();
    assert!(SchedExt::new(&bare, &percpu).unwrap().is_none());
    assert!(DispatchQueues::new(&bare, &percpu).unwrap().is_none());
}

#[test]
fn without_a_scheduler_there_is_nothing_of_it() {
    let mut fake = FakeSched::new(Era::PerCpu);
    let root = fake.address("scx_root");
    fake.kernel.write_u64(root, 0);
    let state = fake.address("scx_enable_state_var");
    fake.kernel.write(state, &3_u32.to_le_bytes());
    let kernel = fake.attach();
    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let scx = SchedExt::new(&kernel, &percpu).unwrap().unwrap();
    assert_eq!(scx.state().unwrap(), SchedExtState::Disabled);
    assert_eq!(scx.ops_name().unwrap(), None);
    assert_eq!(scx.events().unwrap(), None);
    assert_eq!(scx.exit_info().unwrap(), None);
    let queues = DispatchQueues::new(&kernel, &percpu).unwrap().unwrap();
    assert_eq!(
        (
            queues.global(&Budget::default()).unwrap(),
            queues.user(&Budget::default()).unwrap()
        ),
        (vec![], vec![])
    );
    assert_eq!(queues.local(&Budget::default()).unwrap().len(), 2);
}

#[test]
fn dispatch_queues_are_read_with_their_tasks() {
    for era in [Era::Variables, Era::Members, Era::PerCpu] {
        let mut fake = FakeSched::new(era);
        let all = fake.process(1, 3);
        let dsq = fake.rq(1) + RQ_LOCAL_DSQ;
        fake.queue(dsq, 0x8000_0000_0000_0002, &all);
        // The second is not a task, but the cursor of one who looks at the queue.
        fake.kernel
            .write(all[1] + DSQ_LINK + 16, &1_u32.to_le_bytes());
        fake.kernel.write_u64(all[0] + SCX, dsq);
        let kernel = fake.attach();
        let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
        let queues = DispatchQueues::new(&kernel, &percpu).unwrap().unwrap();
        let local = queues.local(&Budget::default()).unwrap();
        assert_eq!(local[0].tasks, [0; 0]);
        assert_eq!(local[1].kind, DsqKind::Local { cpu: 1 });
        assert_eq!((local[1].address, local[1].nr), (dsq, 3));
        assert_eq!(local[1].tasks, [all[0], all[2]]);
        let ids = |queues: Vec<_>| -> Vec<u64> {
            queues
                .iter()
                .map(|queue: &ktstr_introspect::kernel::DispatchQueue| queue.id)
                .collect()
        };
        assert_eq!(
            ids(queues.global(&Budget::default()).unwrap()),
            [1],
            "{era:?}"
        );
        assert_eq!(ids(queues.user(&Budget::default()).unwrap()), [2, 3]);
    }
}

#[test]
fn domains_are_followed_to_the_top_but_not_in_circles() {
    let mut fake = FakeSched::new(Era::PerCpu);
    let [low, high] = [0; 2].map(|_| fake.kernel.object(64));
    let name = fake.kernel.object(16);
    fake.kernel.write(name, b"PKG\0");
    fake.kernel.write_u64(low, high);
    fake.kernel.write_u64(high + 8, 1 | 0x1017 << 32);
    fake.kernel.write_u64(high + 16, name);
    fake.kernel.write_u64(high + 24, 8 | 2 << 32);
    fake.kernel.write_u64(high + 32, 11 | 12 << 32);
    fake.kernel.write_u64(high + 40, 13 | 14 << 32);
    fake.kernel.write_u64(high + 48, 0b11);
    fake.kernel.write_u64(low + 48, 0b01);
    fake.kernel.write_u64(fake.rq(0) + 40, low);
    let read = |fake: &FakeSched| {
        let kernel = fake.attach();
        let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
        let domains = SchedDomains::new(&kernel, &percpu).unwrap();
        let names: Vec<String> = domains.counter_names().map(str::to_owned).collect();
        let runqueues = Runqueues::new(&kernel, &percpu).unwrap().read().unwrap();
        (names, domains.of(&runqueues[0]), domains.of(&runqueues[1]))
    };
    let (names, first, second) = read(&fake);
    assert_eq!(
        names,
        [
            "lb_count[0]",
            "lb_count[1]",
            "lb_count[2]",
            "ttwu_wake_remote"
        ]
    );
    assert_eq!(second.unwrap(), []);
    let first = first.unwrap();
    let spans: Vec<String> = first.iter().map(|domain| domain.span.to_string()).collect();
    assert_eq!(spans, ["0", "0-1"]);
    let top = &first[1];
    assert_eq!(
        (top.level, top.flags, top.name.as_str()),
        (1, 0x1017, "PKG")
    );
    assert_eq!((top.balance_interval_ms, top.nr_balance_failed), (8, 2));
    assert_eq!(top.counters, [11, 12, 13, 14]);

    fake.kernel.write_u64(high, low);
    let error = read(&fake).1.unwrap_err();
    assert!(matches!(error, ReadError::TooMany { .. }), "{error}");
}

#[test]
fn a_reader_whose_member_is_gone_says_which() {
    let mut fake = FakeSched::new(Era::Bare);
    fake.btf = crate::btf_builder::BtfBuilder::new();
    fake.btf.structure("rq", 8, &[]);
    let kernel = fake.attach();
    let percpu = PerCpu::read(&kernel, MAX_CPUS).unwrap();
    let error = Runqueues::new(&kernel, &percpu).unwrap_err().to_string();
    assert_eq!(
        error,
        "`struct rq` of this kernel has no member `nr_running`"
    );
    let error = Tasks::new(&kernel, &percpu).unwrap_err().to_string();
    assert!(
        error.starts_with("this kernel has no `struct task_struct`"),
        "{error}"
    );
}

/// Reads everything that there is, and passes over what can't be read.
fn read_all(kernel: &Kernel) -> Option<usize> {
    let percpu = PerCpu::read(kernel, MAX_CPUS).ok()?;
    let runqueues = Runqueues::new(kernel, &percpu).ok()?;
    let tasks = Tasks::new(kernel, &percpu).ok()?;
    let domains = SchedDomains::new(kernel, &percpu).ok()?;
    let mut read = tasks.all(&Budget::default()).map_or(0, |all| all.len());
    for runqueue in runqueues.read().unwrap_or_default() {
        read += domains.of(&runqueue).map_or(0, |all| all.len());
        read += usize::from(tasks.read(runqueue.curr, &Budget::default()).is_ok());
    }
    if let Ok(Some(scx)) = SchedExt::new(kernel, &percpu) {
        let _ = (scx.state(), scx.ops_name(), scx.events(), scx.exit_info());
    }
    if let Ok(Some(queues)) = DispatchQueues::new(kernel, &percpu) {
        read += queues.user(&Budget::default()).map_or(0, |all| all.len());
        read += queues.local(&Budget::default()).map_or(0, |all| all.len());
        read += queues.global(&Budget::default()).map_or(0, |all| all.len());
    }
    Some(read)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn memory_that_changes_all_the_time_does_no_harm(seed: u64, rarity in 1_u64..40) {
        for era in [Era::Variables, Era::PerCpu] {
            let fake = busy_sched(era);
            // Attached before it goes bad, as a monitor is.
            let quiet = fake.attach();
            prop_assert!(read_all(&quiet).unwrap() >= 12);
            let noisy = Noisy {
                ram: Dump(fake.kernel.ram.clone()),
                seed: AtomicU64::new(seed),
                rarity,
                quiet: AtomicU64::new(60),
            };
            if let Some(kernel) = fake.attach_to(Arc::new(noisy)) {
                read_all(&kernel);
            }
        }
    }

    #[test]
    fn pointers_to_anything_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30),
    ) {
        let mut fake = busy_sched(Era::PerCpu);
        // Words that hold something, exchanged for each other: pointers stay pointers.
        let words: Vec<u64> = (9 << 20..10 << 20)
            .step_by(8)
            .filter(|&gpa| fake.kernel.read_phys(gpa) != 0)
            .collect();
        for (from, to) in changes {
            let value = fake.kernel.read_phys(words[from.index(words.len())]);
            fake.kernel.write_phys(words[to.index(words.len())], &value.to_le_bytes());
        }
        read_all(&fake.attach());
    }
}
