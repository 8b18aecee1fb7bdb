//! What is read of a kernel from outside equals what the guest says of itself.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test, as the test itself does"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktstr_introspect::bpf::{Maps, Programs};
use ktstr_introspect::kernel::{
    Kernel, PerCpu, Runqueues, SchedDomains, SchedExt, SchedExtState, Task, Tasks,
};
use ktstr_introspect::memory::{Evidence, PhysError, PhysRead};
use ktstr_introspect::{Budget, KernelImage};
use ktstr_kernels::tools::{self, Tool};
use ktstr_kernels::{Cache, KernelSpec, Lines, OptionState, ResolveOptions, resolve};
use ktstr_machine::{
    BootKernel, EngineKind, EngineOptions, GuestMemory, InitrdPart, Machine, MachineSpec,
    StopReason, choose, on_end,
};
use ktstr_topology::Topology;

/// A boot takes a tenth of this on an idle host.
const DEADLINE: Duration = Duration::from_secs(180);
const SAMPLES: usize = 50;
const BETWEEN_SAMPLES: Duration = Duration::from_millis(10);
const CPUS: u32 = 4;

/// Tells everything, then leaves one task that runs, and others that sleep.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t debugfs debug /sys/kernel/debug
exec > /dev/console 2>&1
named() {
    until [ "$(cat /proc/$1/comm)" = $2 ]; do sleep 0.1; done
}
taskset 4 sh -c 'while :; do :; done' &
named $! sh
taskset 3 sleep 100000 &
named $! sleep
sleep 100000 &
named $! sleep
renice -n 7 -p $! > /dev/null
while read -r address kind name; do
    [ "$name" = _text ] && echo "TEXT $address" && break
done < /proc/kallsyms
for cpu in /sys/kernel/debug/sched/domains/cpu*; do
    for domain in $cpu/domain*; do
        read -r name < $domain/name
        echo "DOMAIN ${cpu##*/cpu} ${domain##*/domain} $name"
    done
done
echo "SCX $(cat /sys/kernel/sched_ext/state)"
for task in /proc/[0-9]*; do
    read -r stat < $task/stat && echo "TASK $(grep Cpus_allowed_list $task/status) $stat"
done
echo "ALL TOLD"
while :; do sleep 1000; done
"#;

struct Memory(GuestMemory);

impl PhysRead for Memory {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), PhysError> {
        let read = self.0.read(gpa, into);
        read.map_err(|error| PhysError { gpa: error.gpa })
    }

    fn end(&self) -> u64 {
        self.0.ranges().map(|range| range.end).max().unwrap_or(0)
    }
}

fn initramfs() -> Vec<u8> {
    let busybox = tools::static_busybox(
        &Cache::open_default(std::env::var_os).unwrap(),
        std::env::var_os("PATH").as_deref(),
    );
    let busybox = std::fs::read(busybox.expect("`cargo ktstr setup` was run")).unwrap();
    let mut archive = Vec::new();
    let folders = ["bin", "dev", "proc", "sys"].map(|name| (name, 0o040_755, &b""[..]));
    let files = [
        ("bin/busybox", 0o100_755, &busybox[..]),
        ("init", 0o100_755, INIT.as_bytes()),
    ];
    for (name, mode, content) in folders.into_iter().chain(files) {
        let size = u32::try_from(content.len()).unwrap();
        let mut file = cpio::newc::Builder::new(name)
            .mode(mode)
            .nlink(1)
            .write(archive, size);
        file.write_all(content).unwrap();
        archive = file.finish().unwrap();
    }
    let mut archive = cpio::newc::trailer(archive).unwrap();
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive
}

/// A guest that has told everything, and its kernel from outside.
struct Guest {
    machine: Box<dyn Machine>,
    told: String,
    kernel: Kernel,
    has_sched_ext: bool,
}

impl Guest {
    /// With `slides`, the kernel is entered by its boot image, which moves it.
    fn boot(spec: &str, slides: bool) -> Self {
        let cache = Cache::open_default(std::env::var_os).unwrap();
        let spec: KernelSpec = spec.parse().unwrap();
        let options = ResolveOptions::default();
        let kernel = resolve(Some(&spec), &cache, &options, &Lines::default()).unwrap();
        let boot = BootKernel {
            pvh: kernel.pvh_entry().is_some() && !slides,
            bzimage: kernel.bzimage().map(Into::into),
            vmlinux: (!slides).then(|| kernel.vmlinux().into()),
        };
        let topology = Topology::new(1, 2, 2, 1).unwrap();
        let mut spec = MachineSpec::new(topology, 512, boot);
        spec.initrd = vec![InitrdPart::Bytes(initramfs().into())];
        spec.cmdline = vec!["sched_verbose".to_owned()];
        let fetched = tools::find(&Cache::open_default(std::env::var_os).unwrap(), Tool::Qemu);
        let options = EngineOptions {
            fetched_qemu: fetched.map(|qemu| qemu.program()),
            qemu: std::env::var_os("KTSTR_QEMU").map(Into::into),
            ..EngineOptions::default()
        };
        let tcg = choose(EngineKind::Tcg, &options).unwrap();
        let machine = tcg.engine.launch(&spec, on_end(|_| ())).unwrap();
        // While it boots.
        let image = KernelImage::from_vmlinux(&std::fs::read(kernel.vmlinux()).unwrap()).unwrap();
        let told = wait_until_told(&*machine);
        let text = told
            .lines()
            .find_map(|line| line.strip_prefix("TEXT "))
            .unwrap();
        let evidence = Evidence {
            guest_text: Some(u64::from_str_radix(text.trim(), 16).unwrap()),
            ..Evidence::default()
        };
        let memory = Arc::new(Memory(machine.memory().clone()));
        let found = Kernel::attach(memory, Arc::new(image), &evidence).unwrap();
        if !slides {
            assert_eq!(found.memory().kaslr().slide, 0);
        }
        let config = kernel.config().unwrap().unwrap();
        Self {
            machine,
            told,
            kernel: found,
            has_sched_ext: config.state("CONFIG_SCHED_CLASS_EXT") == OptionState::BuiltIn,
        }
    }

    fn lines<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.told.lines();
        lines.filter_map(move |line| line.trim().strip_prefix(start))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.machine.stop(StopReason::Done);
    }
}

fn wait_until_told(machine: &dyn Machine) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let said = machine.com1().contents();
        if said.contains("ALL TOLD") {
            return said;
        }
        assert!(
            Instant::now() < deadline && machine.end().is_none(),
            "{said}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a line of `/proc/PID/stat` and the task's CPUs say: name, priority, nice value, policy, CPUs.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    comm: String,
    prio: i32,
    nice: i32,
    policy: u32,
    cpus: String,
}

fn told_tasks(guest: &Guest) -> BTreeMap<i32, Told> {
    let tasks = guest.lines("TASK Cpus_allowed_list:").map(|line| {
        let (cpus, stat) = line.trim().split_once(' ').unwrap();
        let (pid, rest) = stat.split_once(" (").unwrap();
        let (comm, rest) = rest.rsplit_once(") ").unwrap();
        // From the third field on, the state (proc_pid_stat(5)).
        let fields: Vec<&str> = rest.split(' ').collect();
        let told = Told {
            comm: comm.to_owned(),
            prio: fields[18 - 3].parse().unwrap(),
            nice: fields[19 - 3].parse().unwrap(),
            policy: fields[41 - 3].parse().unwrap(),
            cpus: cpus.to_owned(),
        };
        (pid.parse().unwrap(), told)
    });
    tasks.collect()
}

/// The guest shows the whole name of a kernel thread, where the task itself has 15 bytes of it.
fn agrees(task: &Task, told: &Told) -> bool {
    let comm = if task.kernel_thread {
        told.comm.starts_with(&task.comm)
    } else {
        told.comm == task.comm
    };
    comm && told.prio == task.prio - 100
        && told.nice == task.static_prio - 120
        && told.policy == task.policy
        && told.cpus == task.cpus.to_string()
}

fn assert_tasks(guest: &Guest, tasks: &Tasks) {
    let told = told_tasks(guest);
    assert!(told.len() > 30, "{}", told.len());
    let all = tasks.all(&Budget::default()).unwrap();
    let mut agreed = 0;
    for task in &all {
        // Those that came since, as kernel threads do, are only known from outside.
        if let Some(told) = told.get(&task.pid) {
            assert!(agrees(task, told), "{task:?}\n{told:?}");
            agreed += 1;
        }
    }
    // And workers of the kernel go.
    assert!(agreed + 5 > told.len(), "{agreed} of {}", told.len());
    let runs = all
        .iter()
        .find(|task| task.cpus.to_string() == "2" && !task.kernel_thread);
    let runs = runs.map(|task| (task.comm.as_str(), task.state, task.cpu));
    assert_eq!(runs, Some(("sh", 'R', 2)));
    let sleeps: Vec<_> = all
        .iter()
        .filter(|task| task.comm == "sleep")
        .map(|task| (task.state, task.cpus.to_string(), task.static_prio))
        .collect();
    for wanted in [('S', "0-1".to_owned(), 120), ('S', "0-3".to_owned(), 127)] {
        assert!(sleeps.contains(&wanted), "{sleeps:?}");
    }
}

fn assert_domains(guest: &Guest, runqueues: &Runqueues, domains: &SchedDomains) {
    let told: Vec<&str> = guest.lines("DOMAIN ").collect();
    assert_eq!(told.len(), 8, "two domains of four CPUs");
    let mut read = Vec::new();
    for runqueue in runqueues.read().unwrap() {
        let of = domains.of(&runqueue).unwrap();
        for (number, domain) in of.iter().enumerate() {
            read.push(format!("{} {number} {}", runqueue.cpu, domain.name));
            assert!(domain.span.contains(runqueue.cpu));
        }
        let spans: Vec<u32> = of.iter().map(|domain| domain.span.len()).collect();
        assert_eq!(spans, [2, 4], "an LLC, then all");
    }
    assert_eq!(read, told);
}

fn assert_sched_ext(guest: &Guest, percpu: &PerCpu) {
    let scx = SchedExt::new(&guest.kernel, percpu).unwrap();
    assert_eq!(scx.is_some(), guest.has_sched_ext);
    if let Some(scx) = scx {
        assert_eq!(guest.lines("SCX ").next(), Some("disabled"));
        assert_eq!(scx.state().unwrap(), SchedExtState::Disabled);
        assert_eq!(scx.ops_name().unwrap(), None);
    }
    // Nobody loaded any.
    assert_eq!(
        Maps::new(&guest.kernel)
            .unwrap()
            .all(&Budget::default())
            .unwrap(),
        []
    );
    assert_eq!(
        Programs::new(&guest.kernel, percpu)
            .unwrap()
            .all(&Budget::default())
            .unwrap(),
        []
    );
}

fn outside_equals_inside(spec: &str, slides: bool) {
    let guest = Guest::boot(spec, slides);
    let kernel = &guest.kernel;
    // The kernel has no more than the machine.
    let percpu = PerCpu::read(kernel, u32::MAX).unwrap();
    assert_eq!(percpu.cpus(), CPUS);
    assert_eq!(percpu.online(kernel).unwrap().len(), CPUS);
    let runqueues = Runqueues::new(kernel, &percpu).unwrap();
    let tasks = Tasks::new(kernel, &percpu).unwrap();
    let domains = SchedDomains::new(kernel, &percpu).unwrap();
    assert_domains(&guest, &runqueues, &domains);
    assert_sched_ext(&guest, &percpu);
    let mut clock_ns = 0;
    for _ in 0..SAMPLES {
        assert_tasks(&guest, &tasks);
        let read = runqueues.read().unwrap();
        let busy = &read[2];
        assert!(busy.nr_running >= 1, "{busy:?}");
        assert!(busy.clock_ns >= clock_ns, "{busy:?}");
        clock_ns = busy.clock_ns;
        for runqueue in &read {
            let idle = tasks.read(runqueue.idle, &Budget::default()).unwrap();
            assert_eq!(idle.comm, format!("swapper/{}", runqueue.cpu));
        }
        std::thread::sleep(BETWEEN_SAMPLES);
    }
}

#[test]
fn the_newest_kernel_is_read_as_it_says() {
    outside_equals_inside("debian", false);
}

#[test]
fn the_newest_kernel_is_read_as_it_says_where_kaslr_put_it() {
    outside_equals_inside("debian", true);
}

#[test]
fn the_oldest_kernel_is_read_as_it_says_where_kaslr_put_it() {
    outside_equals_inside("debian/trixie", true);
}
