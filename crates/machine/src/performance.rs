//! Performance mode: what it takes of the host, and what this host lacks of it.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use ktstr_vmm::{ServicePriority, VcpuPlacement};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::spec::{MachineSpec, SpecError};

/// The pages that guest RAM is made of in performance mode, in MiB.
pub const HUGE_PAGE_MIB: u64 = 2;

pub(crate) const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// The host CPUs that this process may use, by number.
pub fn usable_host_cpus() -> Vec<u32> {
    let Ok(cpus) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&cpu| cpus.is_set(cpu).unwrap_or(false))
        .filter_map(|cpu| u32::try_from(cpu).ok())
        .collect()
}

/// Whether this host can ever have all that a machine in performance mode needs, once its `engine` has said
/// what it lacks itself.
pub(crate) fn check(spec: &MachineSpec, engine: Option<String>) -> Result<(), SpecError> {
    if !spec.boot.performance_mode {
        return Ok(());
    }
    let pages = HugePages::read(Path::new(HUGE_PAGES));
    let missing: Vec<String> = [
        engine,
        cpus(spec.topology.cpu_count(), usable_host_cpus().len()),
        huge_pages(&spec.node_memory_mib(), pages),
        priority(try_priority()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(SpecError::NoPerformanceMode { missing })
    }
}

fn cpus(vcpus: u32, usable: usize) -> Option<String> {
    (vcpus as usize > usable).then(|| {
        format!(
            "{vcpus} host CPUs, one for each vCPU, while this process may use {usable}: declare fewer CPUs, or \
             let it use more"
        )
    })
}

/// Pages of this size, of all users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HugePages {
    total: u64,
    /// Neither used nor promised to anybody.
    pub(crate) free: u64,
}

impl HugePages {
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let number = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(folder.join(name))?;
            text.trim().parse().map_err(io::Error::other)
        };
        Ok(Self {
            total: number("nr_hugepages")?,
            free: number("free_hugepages")?.saturating_sub(number("resv_hugepages")?),
        })
    }
}

fn huge_pages(node_mib: &[u64], pages: io::Result<HugePages>) -> Option<String> {
    if let Some(mib) = node_mib.iter().find(|mib| *mib % HUGE_PAGE_MIB > 0) {
        return Some(format!(
            "memory in whole pages of {HUGE_PAGE_MIB} MiB, while a NUMA node has {mib} MiB: declare a memory_mib \
             that gives each node an even number"
        ));
    }
    let needed = node_mib.iter().sum::<u64>() / HUGE_PAGE_MIB;
    match pages {
        Err(error) => Some(format!(
            "{needed} huge pages of {HUGE_PAGE_MIB} MiB, while {HUGE_PAGES} can't be read ({error}): use a host \
             kernel with CONFIG_HUGETLBFS"
        )),
        // Those that others have now are waited for.
        Ok(HugePages { total, .. }) if total < needed => Some(format!(
            "{needed} huge pages of {HUGE_PAGE_MIB} MiB, while this host keeps {total}: as root, \
             `echo {needed} > {HUGE_PAGES}/nr_hugepages`"
        )),
        Ok(_) => None,
    }
}

fn priority(tried: io::Result<()>) -> Option<String> {
    let error = tried.err()?;
    Some(format!(
        "real-time priority (SCHED_FIFO 2), which was refused ({error}): raise the limit with `ulimit -r 2` or \
         `rtprio` in /etc/security/limits.conf, or run with CAP_SYS_NICE"
    ))
}

/// How the vCPUs and the RAM of a machine in performance mode lie, as the host's kernel says.
pub(crate) fn described(
    spec: &MachineSpec,
    vcpus: &[VcpuPlacement],
    page_kib: Option<u64>,
) -> Option<String> {
    if !spec.boot.performance_mode {
        return None;
    }
    let vcpus: Vec<String> = vcpus
        .iter()
        .enumerate()
        .map(|(vcpu, placed)| {
            let VcpuPlacement {
                host_cpus,
                fifo_priority,
            } = placed;
            format!("vCPU {vcpu} on host CPU {host_cpus} at SCHED_FIFO {fifo_priority}")
        })
        .collect();
    let page_kib = page_kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{kib} KiB"));
    Some(format!(
        "performance mode: {}; {} MiB in pages of {page_kib}",
        vcpus.join(", "),
        spec.node_memory_mib().iter().sum::<u64>()
    ))
}

/// On a thread of its own, which has nothing to lose.
fn try_priority() -> io::Result<()> {
    let tried = thread::spawn(|| ServicePriority::take().map(drop)).join();
    tried.unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_that_is_missing_says_what_to_do() {
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        let few = HugePages { total: 10, free: 3 };
        let missing = vec![
            cpus(4, 2).unwrap(),
            huge_pages(&[256, 256], Ok(few)).unwrap(),
            priority(refused()).unwrap(),
        ];
        insta::assert_snapshot!(SpecError::NoPerformanceMode { missing }, @"performance mode needs 4 host CPUs, one for each vCPU, while this process may use 2: declare fewer CPUs, or let it use more; and 256 huge pages of 2 MiB, while this host keeps 10: as root, `echo 256 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`; and real-time priority (SCHED_FIFO 2), which was refused (Operation not permitted (os error 1)): raise the limit with `ulimit -r 2` or `rtprio` in /etc/security/limits.conf, or run with CAP_SYS_NICE");
        insta::assert_snapshot!(huge_pages(&[257, 256], Ok(few)).unwrap(), @"memory in whole pages of 2 MiB, while a NUMA node has 257 MiB: declare a memory_mib that gives each node an even number");
        let none = Err(io::Error::from_raw_os_error(libc::ENOENT));
        insta::assert_snapshot!(huge_pages(&[256], none).unwrap(), @"128 huge pages of 2 MiB, while /sys/kernel/mm/hugepages/hugepages-2048kB can't be read (No such file or directory (os error 2)): use a host kernel with CONFIG_HUGETLBFS");
    }

    #[test]
    fn a_host_that_has_enough_lacks_nothing() {
        assert_eq!(cpus(2, 2), None);
        let enough = HugePages {
            total: 300,
            free: 2,
        };
        assert_eq!(huge_pages(&[256, 256], Ok(enough)), None, "they get free");
        assert_eq!(priority(Ok(())), None);
    }

    #[test]
    fn promised_pages_are_not_free() {
        let folder = tempfile::tempdir().unwrap();
        for (name, count) in [("nr", 8), ("free", 5), ("resv", 2)] {
            let file = folder.path().join(format!("{name}_hugepages"));
            fs::write(file, format!("{count}\n")).unwrap();
        }
        let pages = HugePages::read(folder.path()).unwrap();
        assert_eq!(pages, HugePages { total: 8, free: 3 });
    }
}
