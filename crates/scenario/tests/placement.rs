//! Which CPUs cgroups and workers get.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use ktstr_scenario::{AffinityIntent, CpuSet, CpusetSpec, CpusetSpecError, Topology};
use proptest::prelude::*;

fn topologies() -> impl Strategy<Value = Topology> {
    (1..=3_u32, 1..=3_u32, 1..=6_u32, 1..=2_u32).prop_map(|(nodes, llcs, cores, threads)| {
        Topology::new(nodes, nodes * llcs, cores, threads).unwrap()
    })
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

fn resolve(spec: &CpusetSpec) -> String {
    // Two nodes, four LLCs of two cores with two threads: 16 CPUs.
    let topology = Topology::new(2, 4, 2, 2).unwrap();
    spec.resolve(&topology).unwrap().to_string()
}

#[test]
fn specs_name_cpus_by_the_machines_shape() {
    assert_eq!(resolve(&CpusetSpec::llc(1)), "4-7");
    assert_eq!(resolve(&CpusetSpec::numa(1)), "8-15");
    assert_eq!(resolve(&CpusetSpec::range(0.25, 0.5)), "4-7");
    assert_eq!(resolve(&CpusetSpec::range(0.0, 1.0)), "0-15");
    assert_eq!(resolve(&CpusetSpec::disjoint(1, 3)), "6-10");
    assert_eq!(resolve(&CpusetSpec::overlap(1, 4, 0.5)), "2-9");
    assert_eq!(resolve(&CpusetSpec::overlap(0, 2, 0.25)), "0-9");
    assert_eq!(resolve(&CpusetSpec::exact(cpus("3,5"))), "3,5");
}

#[test]
fn what_the_machine_lacks_is_named() {
    let topology = Topology::new(1, 2, 2, 1).unwrap();
    let told = |spec: CpusetSpec| spec.resolve(&topology).unwrap_err().to_string();
    assert!(told(CpusetSpec::llc(2)).starts_with("there is no LLC 2: the machine has 2"));
    assert!(told(CpusetSpec::numa(1)).starts_with("there is no NUMA node 1: the machine has 1"));
    assert!(told(CpusetSpec::exact(cpus("2-5"))).starts_with("CPUs 4-5 are not on this machine"));
    assert!(told(CpusetSpec::disjoint(2, 2)).starts_with("there is no part 2 of 2"));
    assert!(told(CpusetSpec::disjoint(7, 8)).contains("holds no CPU on this machine"));
    assert!(told(CpusetSpec::exact(CpuSet::new())).contains("holds no CPU on this machine"));
    for range in [
        (0.5, 0.25),
        (-0.1, 1.0),
        (0.0, 1.5),
        (f64::NAN, 1.0),
        (0.0, f64::NAN),
    ] {
        let error = CpusetSpec::range(range.0, range.1).resolve(&topology);
        assert!(
            matches!(error, Err(CpusetSpecError::BadRange { .. })),
            "{range:?}"
        );
    }
}

proptest! {
    #[test]
    fn disjoint_parts_cover_the_machine_and_share_nothing(topology in topologies(), n in 1..8_u32) {
        prop_assume!(n <= topology.cpu_count());
        let mut all = CpuSet::new();
        for i in 0..n {
            let part = CpusetSpec::disjoint(i, n).resolve(&topology).unwrap();
            prop_assert!(part.intersection(&all).is_empty());
            all = all.union(&part);
        }
        prop_assert_eq!(all, topology.cpus());
    }

    #[test]
    fn overlapping_parts_hold_their_own_and_more(topology in topologies(), n in 1..8_u32, frac in 0.01..=1.0) {
        prop_assume!(n > 1 && n <= topology.cpu_count());
        for i in 0..n {
            let own = CpusetSpec::disjoint(i, n).resolve(&topology).unwrap();
            let wide = CpusetSpec::overlap(i, n, frac).resolve(&topology).unwrap();
            prop_assert!(own.is_subset(&wide) && own != wide);
            prop_assert!(wide.is_subset(&topology.cpus()));
        }
    }

    #[test]
    fn no_spec_panics_or_leaves_the_machine(
        topology in topologies(), i in any::<u32>(), n in any::<u32>(), a in any::<f64>(), b in any::<f64>()
    ) {
        for spec in [
            CpusetSpec::llc(i), CpusetSpec::numa(i), CpusetSpec::range(a, b), CpusetSpec::disjoint(i, n),
            CpusetSpec::overlap(i, n, a),
        ] {
            if let Ok(cpus) = spec.resolve(&topology) {
                prop_assert!(!cpus.is_empty() && cpus.is_subset(&topology.cpus()));
            }
        }
    }

    #[test]
    fn bindings_stay_within_the_cgroup(topology in topologies(), workers in 1..20_usize, llc in 0..3_u32) {
        let allowed = topology.llc_cpus(llc % topology.llcs());
        for intent in [AffinityIntent::SingleCpu, AffinityIntent::LlcAligned, AffinityIntent::SmtSiblingPair] {
            let Ok(bindings) = intent.resolve(&topology, &allowed, workers) else {
                prop_assert!(intent == AffinityIntent::SmtSiblingPair && topology.threads_per_core() == 1);
                continue;
            };
            prop_assert_eq!(bindings.len(), workers);
            for cpus in bindings {
                let cpus = cpus.unwrap();
                prop_assert!(!cpus.is_empty() && cpus.is_subset(&allowed));
            }
        }
    }
}

#[test]
fn bindings_go_through_the_cpus_in_turn() {
    let topology = Topology::new(1, 2, 2, 2).unwrap();
    let bound = |intent: AffinityIntent, workers| {
        let bindings = intent
            .resolve(&topology, &topology.cpus(), workers)
            .unwrap();
        bindings
            .into_iter()
            .map(|cpus| cpus.unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(bound(AffinityIntent::SingleCpu, 3), ["0", "1", "2"]);
    assert_eq!(bound(AffinityIntent::LlcAligned, 3), ["0-3", "4-7", "0-3"]);
    assert_eq!(
        bound(AffinityIntent::SmtSiblingPair, 4),
        ["0-1", "0-1", "2-3", "2-3"]
    );
    assert_eq!(bound(AffinityIntent::Exact(cpus("1,6")), 2), ["1,6", "1,6"]);
    let outside = AffinityIntent::Exact(cpus("7-8")).resolve(&topology, &topology.cpus(), 1);
    assert!(
        outside
            .unwrap_err()
            .to_string()
            .starts_with("CPUs 8 are not among the cgroup's CPUs 0-7")
    );
}
