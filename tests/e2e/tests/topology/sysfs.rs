//! What the kernel shows of its CPUs and nodes, held against the declaration.

use std::fs;
use std::path::Path;

use ktstr::prelude::*;

/// Memory that a node may lack of what was declared, in MiB: the kernel's own, which is on the first, and
/// what describes the rest.
const FIRST_NODE_OWN_MIB: u64 = 160;
const NODE_OWN_MIB: u64 = 24;

/// Checks of which each names the file it read.
struct Sysfs {
    result: AssertResult,
}

impl Sysfs {
    fn new() -> Self {
        Self {
            result: AssertResult::default(),
        }
    }

    fn equal(&mut self, path: &str, declared: &str) {
        let seen = fs::read_to_string(Path::new("/sys/devices/system").join(path));
        let seen = seen.map_or_else(|error| error.to_string(), |text| text.trim().to_owned());
        self.result
            .push(CheckResult::equal("topology", path, &seen, declared));
    }

    fn exists(&mut self, path: &str) {
        let there = Path::new("/sys/devices/system").join(path).exists();
        let check = CheckResult::equal(
            "topology",
            path,
            if there { "there" } else { "missing" },
            "there",
        );
        self.result.push(check);
    }
}

pub(crate) fn cpus(ctx: &Ctx) -> Result<AssertResult> {
    let topo = &ctx.topo;
    let mut sysfs = Sysfs::new();
    sysfs.equal("cpu/online", &topo.cpus().to_string());
    for cpu in topo.cpus().iter() {
        let llc = topo.llc_of(cpu).context("a CPU without LLC")?;
        let node = topo.node_of(cpu).context("a CPU without node")?;
        let llc_cpus = topo.llc_cpus(llc).to_string();
        let siblings = topo.thread_siblings(cpu).to_string();
        for (file, declared) in [
            ("cache/index3/shared_cpu_list", &llc_cpus),
            ("cache/index3/level", &"3".to_owned()),
            ("topology/thread_siblings_list", &siblings),
            ("topology/core_siblings_list", &llc_cpus),
        ] {
            sysfs.equal(&format!("cpu/cpu{cpu}/{file}"), declared);
        }
        sysfs.exists(&format!("cpu/cpu{cpu}/node{node}"));
    }
    Ok(sysfs.result)
}

pub(crate) fn nodes(ctx: &Ctx) -> Result<AssertResult> {
    let mut sysfs = Sysfs::new();
    let nodes = ctx.numa.nodes();
    let nearest = ctx.numa.nearest_cpu_nodes();
    let all = CpuSet::from_range(0..u32::try_from(nodes.len())?);
    sysfs.equal("node/online", &all.to_string());
    sysfs.equal("node/has_memory", &all.to_string());
    for (node, memory) in (0..).zip(nodes) {
        let cpus = ctx.topo.node_cpus(node).to_string();
        sysfs.equal(&format!("node/node{node}/cpulist"), &cpus);
        let distances: Vec<String> = ctx.numa.distances()[node as usize]
            .iter()
            .map(ToString::to_string)
            .collect();
        sysfs.equal(&format!("node/node{node}/distance"), &distances.join(" "));
        let own_mib = if node == 0 {
            FIRST_NODE_OWN_MIB
        } else {
            NODE_OWN_MIB
        };
        let seen_mib = total_mib(node)?;
        ensure!(
            (memory.memory_mib - own_mib..=memory.memory_mib).contains(&seen_mib),
            "node {node} has {seen_mib} MiB, of {} declared",
            memory.memory_mib
        );
        if ctx.numa.tells_performance() {
            let initiators = format!("node/node{node}/access0/initiators");
            sysfs.exists(&format!("{initiators}/node{}", nearest[node as usize]));
            for (file, declared) in [
                ("read_latency", memory.latency_ns),
                ("write_latency", memory.latency_ns),
                ("read_bandwidth", memory.bandwidth_mb_s),
                ("write_bandwidth", memory.bandwidth_mb_s),
            ] {
                sysfs.equal(&format!("{initiators}/{file}"), &declared.to_string());
            }
        }
    }
    Ok(sysfs.result)
}

/// `MemTotal` of `node`.
fn total_mib(node: u32) -> Result<u64> {
    let file = format!("/sys/devices/system/node/node{node}/meminfo");
    let text = fs::read_to_string(&file).context(file)?;
    let line = text.lines().find(|line| line.contains("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().rev().nth(1));
    Ok(kib.context("no MemTotal")?.parse::<u64>()? / 1024)
}
