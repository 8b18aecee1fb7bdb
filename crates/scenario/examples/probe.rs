//! Runs the library as PID 1 by hand.
use ktstr_scenario::cgroup::*;
use ktstr_scenario::checks::*;
use ktstr_scenario::*;
use std::time::Duration;

fn mount(src: &str, to: &str, ty: &str) {
    std::fs::create_dir_all(to).unwrap();
    nix::mount::mount(
        Some(src),
        to,
        Some(ty),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

fn show(what: &str, r: Result<AssertResult, ScenarioError>) {
    match r {
        Err(e) => println!("## {what}: ERROR {e:?} -- {e}"),
        Ok(r) => {
            println!("## {what}: {}", r.outcome());
            for c in &r.checks {
                println!("   {} {}: {}", c.outcome, c.check, c.detail);
            }
            for n in &r.not_checked {
                println!("   - {}: {}", n.check, n.why);
            }
            for n in &r.notes {
                println!("   note: {n}");
            }
            for g in &r.cgroups {
                for w in &g.workers {
                    println!(
                        "   {} {} {:?} it={} units={} wall={}ms cpu={}ms rd={:?} rc={:?} gap={}us mig={} cpus={} wake={:?} vs={} is={}",
                        g.name,
                        w.pid,
                        w.exit,
                        w.iterations,
                        w.work_units,
                        w.wall_time_ns / 1_000_000,
                        w.cpu_time_ns / 1_000_000,
                        w.run_delay_ns,
                        w.run_count,
                        w.max_gap_ns / 1000,
                        w.migrations,
                        w.cpus_used,
                        w.wake_latency,
                        w.voluntary_switches,
                        w.involuntary_switches
                    );
                }
            }
        }
    }
}

fn main() {
    if std::process::id() == 1 {
        mount("proc", "/proc", "proc");
        mount("sysfs", "/sys", "sysfs");
        mount("cgroup2", "/sys/fs/cgroup", "cgroup2");
        let _ = nix::mount::mount(
            Some("dev"),
            "/dev",
            Some("devtmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        );
    }
    let _helper = std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let _ = std::hint::black_box(vec![0u8; 4096]);
        }
    });
    let topo: Topology = std::env::args()
        .nth(1)
        .unwrap_or("1,2,2,1".into())
        .parse()
        .unwrap();
    let m = CgroupManager::new("/sys/fs/cgroup", "ktstr").unwrap();
    let ctx = Ctx::new(
        topo,
        m.clone(),
        Duration::from_secs(2),
        Assert::DEFAULT,
        Timing::default(),
    );
    println!("## machine");
    let r = judge_live_machine(&ctx.assert, &topo);
    for c in &r.checks {
        println!("   {} {}: {}", c.outcome, c.check, c.detail);
    }
    show("steady", scenarios::steady(&ctx));
    show("steady_llc", scenarios::steady_llc(&ctx));
    show("oversubscribed", scenarios::oversubscribed(&ctx));
    let knobs = |d: CgroupDef| {
        d.cpu_weight(200)
            .cpu_quota_pct(50)
            .memory_max(64 << 20)
            .pids_max(100)
            .knob(Knob::MemoryHigh(Limit::At(48 << 20)))
            .knob(Knob::MemoryLow(Limit::At(1 << 20)))
            .knob(Knob::SwapMax(Limit::At(0)))
            .cpuset_mems("0".parse().unwrap())
            .knob(Knob::CpuMax(CpuMax::Quota {
                quota: Duration::from_millis(5),
                period: Duration::from_millis(10),
            }))
    };
    show(
        "nested knobs",
        execute_defs(
            &ctx,
            vec![
                knobs(
                    CgroupDef::named("a/b/c")
                        .cpuset(CpusetSpec::llc(1))
                        .workers(1)
                        .nice(5)
                        .comm("hello"),
                ),
                CgroupDef::named("a/d")
                    .workers(2)
                    .work_type(WorkType::PipeIo),
            ],
        ),
    );
    println!("   names left: {:?}", m.names());
    show(
        "io weight",
        execute_defs(&ctx, vec![CgroupDef::named("io").knob(Knob::IoWeight(50))]),
    );
    let t = |d: CgroupDef| d.clone_mode(CloneMode::Thread);
    show(
        "threads",
        execute_defs(
            &ctx,
            vec![
                t(CgroupDef::named("t0")
                    .workers(2)
                    .cpuset(CpusetSpec::llc(0))
                    .cpu_weight(50)
                    .cpu_quota_pct(100)
                    .pids_max(50)),
                t(CgroupDef::named("t/deep").work_type(WorkType::FutexPingPong)),
                CgroupDef::named("f").work_type(WorkType::bursty()),
            ],
        ),
    );
    show(
        "thread memory",
        execute_defs(&ctx, vec![t(CgroupDef::named("t1").memory_max(1 << 20))]),
    );
    for p in [
        SchedPolicy::Batch,
        SchedPolicy::Idle,
        SchedPolicy::Fifo(10),
        SchedPolicy::RoundRobin(5),
        SchedPolicy::Ext,
        SchedPolicy::Deadline {
            runtime: Duration::from_millis(5),
            deadline: Duration::from_millis(20),
            period: Duration::from_millis(20),
        },
    ] {
        let mut c = ctx.clone();
        c.duration = Duration::from_millis(300);
        show(
            &format!("{p}"),
            execute_defs(&c, vec![CgroupDef::named("p").sched_policy(p)]),
        );
    }
    show(
        "bad llc",
        execute_defs(&ctx, vec![CgroupDef::named("x").cpuset(CpusetSpec::llc(7))]),
    );
    // freeze, then remove
    m.create("frozen", CgroupKind::Domain).unwrap();
    let mut h = WorkloadHandle::spawn(WorkloadConfig::new(WorkType::SpinWait, 1)).unwrap();
    m.move_tasks("frozen", &h.worker_pids_for_cgroup_procs().unwrap())
        .unwrap();
    h.start().unwrap();
    h.wait_running();
    m.freeze("frozen").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let a = h.snapshot_iterations();
    std::thread::sleep(Duration::from_millis(300));
    let b = h.snapshot_iterations();
    println!("## frozen: {a:?} {b:?}");
    println!("   remove: {:?}", m.remove("frozen"));
    std::thread::sleep(Duration::from_millis(300));
    println!("   after: {:?}", h.snapshot_iterations());
    // frozen workers at drop
    drop(h);
    println!(
        "   self move: {:?}",
        {
            m.create("s", CgroupKind::Domain).unwrap();
            m.move_task("s", 1)
        }
        .map_err(|e| e.to_string())
    );
    println!(
        "   unknown: {:?}",
        m.remove("nope").map_err(|e| e.to_string())
    );
    println!(
        "   knob missing: {:?}",
        m.create("s/x", CgroupKind::Domain)
            .and_then(|()| m.set_cpu_max("s/x", CpuMax::Pct(0)))
    );
    m.remove("s/x").unwrap();
    m.remove("s").unwrap();
    println!("   left {:?}", m.names());
    let r = judge_live_machine(&ctx.assert, &topo);
    for c in &r.checks {
        println!("   {} {}: {}", c.outcome, c.check, c.detail);
    }
    println!("## END");
    if std::process::id() == 1 {
        nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF).unwrap();
    }
}
