//! CPUID: what KVM supports, with the declared topology in it.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::cpu_ids::CpuIds;

/// CPUID leaf 1, ECX: the local APIC's timer can fire at a TSC value. KVM emulates it but doesn't list it.
const TSC_DEADLINE: u32 = 1 << 24;
/// CPUID leaf 1, ECX: x2APIC mode.
const X2APIC: u32 = 1 << 21;
/// CPUID leaf 1, ECX: hardware virtualization of Intel CPUs.
const VMX: u32 = 1 << 5;
/// CPUID leaf 1, ECX: runs on a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// CPUID leaf 1, EDX: the count of ids per package in EBX is valid.
const HTT: u32 = 1 << 28;
/// Leaf 8000_0001h, ECX, AMD: HTT means cores, not threads.
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 8000_0001h, ECX, AMD: hardware virtualization.
const SVM: u32 = 1 << 2;
/// Leaf 8000_0001h, ECX, AMD: leaves 8000_001Dh and 8000_001Eh are there.
const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

/// KVM's leaf of features. EDX has hints from the one who runs the machine.
const KVM_FEATURES: u32 = 0x4000_0001;
/// There, EAX: messages can go to APIC ids of 15 bits (`KVM_FEATURE_MSI_EXT_DEST_ID`). Without it a kernel leaves CPUs
/// with an id above 255 out.
const MSI_EXT_DEST_ID: u32 = 1 << 15;
/// There, EDX: vCPUs are never preempted for long, so the guest needs no paravirtual spinlocks
/// (`KVM_HINTS_REALTIME`, arch/x86/include/uapi/asm/kvm_para.h).
const HINTS_REALTIME: u32 = 1 << 0;

/// Who made the CPU: decides which topology leaves a kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
}

/// One cache, as leaves 4 and 8000_001Dh describe it.
struct Cache {
    level: u32,
    kind: u32,
    ways: u32,
    sets: u32,
    /// Right shift of an APIC id that gives the same value for all CPUs that share it.
    shift: u32,
}

const LINE_BYTES: u32 = 64;
const DATA: u32 = 1;
const INSTRUCTION: u32 = 2;
const UNIFIED: u32 = 3;

/// 32 KiB for data and for instructions, 512 KiB unified, all of a core; 16 MiB of last-level cache.
fn caches(ids: &CpuIds) -> [Cache; 4] {
    let cache = |level, kind, ways, sets, shift| Cache {
        level,
        kind,
        ways,
        sets,
        shift,
    };
    [
        cache(1, DATA, 8, 64, ids.core_shift()),
        cache(1, INSTRUCTION, 8, 64, ids.core_shift()),
        cache(2, UNIFIED, 8, 1024, ids.core_shift()),
        cache(3, UNIFIED, 16, 16384, ids.llc_shift()),
    ]
}

/// The leaves of `cpu`, from those that `KVM_GET_SUPPORTED_CPUID` gave. `dedicated`: whether it has a host
/// CPU for itself.
pub(crate) fn build(
    supported: &[kvm_cpuid_entry2],
    ids: &CpuIds,
    cpu: u32,
    dedicated: bool,
) -> Vec<kvm_cpuid_entry2> {
    let mut leaves = Leaves {
        entries: supported.to_vec(),
    };
    let vendor = leaves.vendor();
    let id = ids.id(cpu);
    leaves.basic(vendor, ids, id);
    leaves.extended_topology(0xb, ids, id);
    match vendor {
        Vendor::Intel => {
            leaves.extended_topology(0x1f, ids, id);
            leaves.caches(0x4, ids, cores_field(ids));
        }
        Vendor::Amd => leaves.amd(ids, id),
    }
    if ids.are_wide() {
        leaves.leaf(KVM_FEATURES).eax |= MSI_EXT_DEST_ID;
    }
    if dedicated {
        leaves.leaf(KVM_FEATURES).edx |= HINTS_REALTIME;
    }
    leaves.entries
}

/// Leaf 4, EAX 31:26: how many core ids a package has, less one.
fn cores_field(ids: &CpuIds) -> u32 {
    let core_ids = 1_u32 << (ids.llc_shift() - ids.core_shift());
    (core_ids - 1).min(0x3f) << 26
}

struct Leaves {
    entries: Vec<kvm_cpuid_entry2>,
}

impl Leaves {
    fn vendor(&self) -> Vendor {
        // EBX of "AuthenticAMD" and "HygonGenuine".
        const AMD: u32 = u32::from_le_bytes(*b"Auth");
        const HYGON: u32 = u32::from_le_bytes(*b"Hygo");
        match self.entries.iter().find(|entry| entry.function == 0) {
            Some(entry) if [AMD, HYGON].contains(&entry.ebx) => Vendor::Amd,
            _ => Vendor::Intel,
        }
    }

    /// The only entry of `function`, made if it is missing.
    fn leaf(&mut self, function: u32) -> &mut kvm_cpuid_entry2 {
        let found = self.entries.iter().position(|e| e.function == function);
        let at = found.unwrap_or_else(|| {
            self.entries.push(kvm_cpuid_entry2 {
                function,
                ..kvm_cpuid_entry2::default()
            });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    /// Replaces all of `function` by `rows` of EAX, EBX, ECX, EDX, one for each index.
    fn replace(&mut self, function: u32, rows: &[[u32; 4]]) {
        self.entries.retain(|entry| entry.function != function);
        for (index, &[eax, ebx, ecx, edx]) in (0..).zip(rows) {
            self.entries.push(kvm_cpuid_entry2 {
                function,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax,
                ebx,
                ecx,
                edx,
                ..kvm_cpuid_entry2::default()
            });
        }
    }

    /// Leaves 0 and 1.
    fn basic(&mut self, vendor: Vendor, ids: &CpuIds, id: u32) {
        let highest = match vendor {
            Vendor::Intel => 0x1f,
            Vendor::Amd => 0xb,
        };
        let leaf = self.leaf(0);
        leaf.eax = leaf.eax.max(highest);
        let per_package = 1_u32 << ids.llc_shift();
        let leaf = self.leaf(1);
        // 7:0 brand, 15:8 CLFLUSH line in units of 8 bytes, 23:16 ids per package, 31:24 APIC id.
        leaf.ebx = leaf.ebx & 0xff
            | (LINE_BYTES / 8) << 8
            | per_package.min(0xff) << 16
            | (id & 0xff) << 24;
        leaf.ecx = leaf.ecx & !VMX | X2APIC | TSC_DEADLINE | HYPERVISOR;
        leaf.edx = if per_package > 1 {
            leaf.edx | HTT
        } else {
            leaf.edx & !HTT
        };
    }

    /// Leaves Bh and 1Fh (Intel SDM volume 2, CPUID): levels of thread and core.
    fn extended_topology(&mut self, function: u32, ids: &CpuIds, id: u32) {
        const THREAD: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        let topology = ids.topology();
        let rows = [
            [ids.core_shift(), topology.threads_per_core(), THREAD, id],
            [ids.llc_shift(), topology.cpus_per_llc(), CORE | 1, id],
            [0, 0, 2, id],
        ];
        self.replace(function, &rows);
    }

    /// Leaves 4 and 8000_001Dh, which have the same form but for `high` in EAX.
    fn caches(&mut self, function: u32, ids: &CpuIds, high: u32) {
        const SELF_INITIALIZING: u32 = 1 << 8;
        let mut rows: Vec<_> = caches(ids)
            .iter()
            .map(|cache| {
                let sharing = ((1_u32 << cache.shift) - 1).min(0xfff);
                let eax = cache.kind | cache.level << 5 | SELF_INITIALIZING | sharing << 14 | high;
                let ebx = (LINE_BYTES - 1) | (cache.ways - 1) << 22;
                [eax, ebx, cache.sets - 1, 0]
            })
            .collect();
        rows.push([0; 4]);
        self.replace(function, &rows);
    }

    /// The extended leaves by which AMD CPUs tell their topology (AMD APM volume 3, appendix E.4).
    fn amd(&mut self, ids: &CpuIds, id: u32) {
        let leaf = self.leaf(0x8000_0000);
        leaf.eax = leaf.eax.max(0x8000_001e);
        let topology = ids.topology();
        let many = topology.cpus_per_llc() > 1;
        let leaf = self.leaf(0x8000_0001);
        leaf.ecx = leaf.ecx & !(SVM | CMP_LEGACY) | TOPOLOGY_EXTENSIONS;
        if many {
            leaf.ecx |= CMP_LEGACY;
        }
        let leaf = self.leaf(0x8000_0008);
        let threads = (topology.cpus_per_llc() - 1).min(0xff);
        // 7:0 threads per package less one, 15:12 width of the id in a package.
        leaf.ecx = leaf.ecx & !0xf0ff | ids.llc_shift().min(0xf) << 12 | threads;
        self.caches(0x8000_001d, ids, 0);
        let node = (id >> ids.llc_shift()) & 0xff;
        let core = (id >> ids.core_shift()) & 0xff;
        let threads = topology.threads_per_core() - 1;
        self.replace(0x8000_001e, &[[id, threads << 8 | core, node, 0]]);
        self.leaf(0x8000_001e).flags = 0;
    }
}

#[cfg(test)]
mod tests {
    use ktstr_topology::Topology;
    use proptest::prelude::*;

    use super::*;
    use crate::test_topology::any_topology;

    fn host(vendor: &[u8; 4]) -> Vec<kvm_cpuid_entry2> {
        let leaf = |function, ebx| kvm_cpuid_entry2 {
            function,
            eax: 0xd,
            ebx,
            ..kvm_cpuid_entry2::default()
        };
        vec![
            leaf(0, u32::from_le_bytes(*vendor)),
            leaf(1, 0),
            leaf(0xb, 7),
            leaf(0x8000_0000, 0),
        ]
    }

    fn get(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        let mut found = leaves
            .iter()
            .filter(|leaf| leaf.function == function && leaf.index == index);
        let leaf = *found.next().unwrap();
        assert!(found.next().is_none(), "{function:#x}/{index} twice");
        leaf
    }

    /// CPUs that share the cache at `index` with `cpu`, as a kernel computes it from `function`.
    fn sharing(function: u32, index: u32, of: &[Vec<kvm_cpuid_entry2>], cpu: usize) -> Vec<u32> {
        let id = |leaves: &[kvm_cpuid_entry2]| get(leaves, 0xb, 0).edx;
        let num = (get(&of[cpu], function, index).eax >> 14 & 0xfff) + 1;
        let shift = num.next_power_of_two().trailing_zeros();
        (0..)
            .zip(of)
            .filter(|(_, leaves)| id(leaves) >> shift == id(&of[cpu]) >> shift)
            .map(|(cpu, _)| cpu)
            .collect()
    }

    fn check(topology: Topology, vendor: &[u8; 4], cache_leaf: u32) {
        let ids = CpuIds::new(topology);
        let all: Vec<_> = (0..topology.cpu_count())
            .map(|cpu| build(&host(vendor), &ids, cpu, false))
            .collect();
        let stride = (all.len() / 7).max(1);
        for (cpu, leaves) in (0..).zip(&all).step_by(stride) {
            let at = cpu as usize;
            let llc = topology.llc_cpus(topology.llc_of(cpu).unwrap());
            let siblings = topology.thread_siblings(cpu);
            assert_eq!(
                sharing(cache_leaf, 3, &all, at),
                llc.iter().collect::<Vec<_>>()
            );
            for index in 0..3 {
                let shared = sharing(cache_leaf, index, &all, at);
                assert_eq!(shared, siblings.iter().collect::<Vec<_>>());
            }
            assert_eq!(get(leaves, cache_leaf, 4).eax & 0x1f, 0);
            assert_eq!(get(leaves, 0xb, 0).ebx, topology.threads_per_core());
            assert_eq!(get(leaves, 0xb, 1).ebx, topology.cpus_per_llc());
            assert_eq!(get(leaves, 1, 0).ebx >> 24, ids.id(cpu) & 0xff);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn caches_are_shared_as_declared(topology in any_topology()) {
            check(topology, b"Genu", 0x4);
            check(topology, b"Auth", 0x8000_001d);
        }
    }

    #[test]
    fn only_a_dedicated_cpu_is_said_to_be_one() {
        let ids = CpuIds::new(Topology::new(1, 1, 1, 1).unwrap());
        let mut host = host(b"Auth");
        host.push(kvm_cpuid_entry2 {
            function: KVM_FEATURES,
            eax: 0x0100_7efb,
            ..kvm_cpuid_entry2::default()
        });
        for dedicated in [false, true] {
            let leaf = get(&build(&host, &ids, 0, dedicated), KVM_FEATURES, 0);
            assert_eq!((leaf.eax, leaf.edx), (0x0100_7efb, dedicated.into()));
        }
    }

    #[test]
    fn only_a_guest_with_wide_ids_is_told_to_use_them() {
        let ids = CpuIds::new(Topology::new(1, 2, 1, 1).unwrap());
        for (ids, wanted) in [(ids, 0), (ids.with_llc_from_bit(9), MSI_EXT_DEST_ID)] {
            let leaves = build(&host(b"Auth"), &ids, 1, false);
            let eax = leaves.iter().find(|leaf| leaf.function == KVM_FEATURES);
            assert_eq!(eax.map_or(0, |leaf| leaf.eax), wanted);
            assert_eq!(get(&leaves, 0xb, 1).edx, ids.id(1));
            assert_eq!(get(&leaves, 0x8000_001e, 0).eax, ids.id(1));
        }
    }

    #[test]
    fn amd_leaves_agree() {
        let ids = CpuIds::new(Topology::new(1, 5, 3, 2).unwrap());
        let leaves = build(&host(b"Auth"), &ids, 29, false);
        assert_eq!(get(&leaves, 0x8000_001e, 0).eax, 4 << 3 | 2 << 1 | 1);
        assert_eq!(get(&leaves, 0x8000_001e, 0).ecx, 4);
        assert_eq!(get(&leaves, 0x8000_0008, 0).ecx, 3 << 12 | 5);
        assert!(leaves.iter().all(|leaf| leaf.function != 0x1f));
    }
}
