//! The guest's own view of its CPUs equals what the test declared.

use std::fs;
use std::path::Path;

use ktstr::prelude::*;

/// Checks of which each names the file it read.
struct Sysfs {
    result: AssertResult,
}

impl Sysfs {
    fn equal(&mut self, path: &str, declared: &str) {
        let seen = fs::read_to_string(Path::new("/sys/devices/system").join(path));
        let seen = seen.map_or_else(|error| error.to_string(), |text| text.trim().to_owned());
        self.result
            .push(CheckResult::equal("topology", path, &seen, declared));
    }
}

fn sysfs_equals_declaration(ctx: &Ctx) -> Result<AssertResult> {
    let topo = &ctx.topo;
    let mut sysfs = Sysfs {
        result: AssertResult::default(),
    };
    sysfs.equal("cpu/online", &topo.cpus().to_string());
    for cpu in topo.cpus().iter() {
        let llc = topo.llc_of(cpu).context("a CPU without LLC")?;
        let node = topo.node_of(cpu).context("a CPU without node")?;
        sysfs.equal(
            &format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"),
            &topo.llc_cpus(llc).to_string(),
        );
        let siblings = topo.thread_siblings(cpu).to_string();
        sysfs.equal(
            &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
            &siblings,
        );
        let link = format!("/sys/devices/system/cpu/cpu{cpu}/node{node}");
        ensure!(
            Path::new(&link).exists(),
            "{link} is missing: CPU {cpu} should be in node {node}"
        );
    }
    for node in 0..topo.numa_nodes() {
        sysfs.equal(
            &format!("node/node{node}/cpulist"),
            &topo.node_cpus(node).to_string(),
        );
        let distances: Vec<String> = (0..topo.numa_nodes())
            .map(|to| topo.distance(node, to).to_string())
            .collect();
        sysfs.equal(&format!("node/node{node}/distance"), &distances.join(" "));
        let memory = fs::read_to_string(format!("/sys/devices/system/node/node{node}/meminfo"))?;
        ensure!(
            memory.contains("MemTotal"),
            "node {node} has no memory: {memory}"
        );
    }
    Ok(sysfs.result)
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident($($attribute:tt)*);)*) => {
        $($(#[$doc])* #[ktstr_test($($attribute)*)]
        fn $name(ctx: &Ctx) -> Result<AssertResult> {
            sysfs_equals_declaration(ctx)
        })*
    };
}

shapes! {
    one_cpu();
    two_cores(cores = 2);
    two_llcs(llcs = 2, cores = 2);
    smt(cores = 2, threads = 2);
    two_nodes(numa_nodes = 2, llcs = 2, cores = 2, memory_mib = 1024);
    three_llcs_of_three_cores(llcs = 3, cores = 3);
    sixteen_cpus_on_four_llcs_and_two_nodes(numa_nodes = 2, llcs = 4, cores = 2, threads = 2, memory_mib = 1024);
    sixteen_cpus_on_four_llcs(llcs = 4, cores = 4);
}
