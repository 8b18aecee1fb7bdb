//! Every CPU belongs to exactly one group of each level, and the text forms read back.

use ktstr_topology::{Count, CpuSet, Topology, TopologyError};
use proptest::prelude::*;

fn shapes() -> impl Strategy<Value = Topology> {
    (1u32..5, 1u32..5, 1u32..9, 1u32..3).prop_map(|(nodes, llcs_per_node, cores, threads)| {
        Topology::new(nodes, nodes * llcs_per_node, cores, threads).expect("in range")
    })
}

proptest! {
    #[test]
    fn llcs_and_nodes_partition_the_cpus(topology in shapes()) {
        for (groups, cpus_of) in [
            (topology.llcs(), Topology::llc_cpus as fn(&Topology, u32) -> CpuSet),
            (topology.numa_nodes(), Topology::node_cpus),
        ] {
            let mut seen = CpuSet::new();
            for group in 0..groups {
                let cpus = cpus_of(&topology, group);
                prop_assert!(!cpus.is_empty());
                prop_assert!(cpus.intersection(&seen).is_empty());
                seen = seen.union(&cpus);
            }
            prop_assert_eq!(seen, topology.cpus());
            prop_assert!(cpus_of(&topology, groups).is_empty());
        }
    }

    #[test]
    fn membership_agrees_in_both_directions(topology in shapes()) {
        for cpu in topology.cpus().iter() {
            let llc = topology.llc_of(cpu).unwrap();
            prop_assert!(topology.llc_cpus(llc).contains(cpu));
            prop_assert!(topology.node_cpus(topology.node_of(cpu).unwrap()).contains(cpu));
            let siblings = topology.thread_siblings(cpu);
            prop_assert!(siblings.contains(cpu));
            prop_assert_eq!(siblings.len(), topology.threads_per_core() as usize);
            prop_assert!(siblings.is_subset(&topology.llc_cpus(llc)));
        }
        prop_assert_eq!(topology.llc_of(topology.cpu_count()), None);
        prop_assert!(topology.thread_siblings(topology.cpu_count()).is_empty());
    }

    #[test]
    fn cpu_lists_read_back(cpus in proptest::collection::btree_set(0u32..300, 0..40)) {
        let set: CpuSet = cpus.iter().copied().collect();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), cpus.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.to_string().parse::<CpuSet>().unwrap(), set);
    }

    #[test]
    fn any_text_is_a_list_or_an_error(text in ".{0,40}") {
        let _ = text.parse::<CpuSet>();
        let _ = text.parse::<Topology>();
    }

    #[test]
    fn removing_what_was_added_leaves_nothing(cpus in proptest::collection::vec(0u32..300, 0..40)) {
        let mut set: CpuSet = cpus.iter().copied().collect();
        for cpu in cpus {
            set.remove(cpu);
        }
        prop_assert_eq!(set, CpuSet::new());
    }
}

#[test]
fn lists_use_the_kernels_notation() {
    let set: CpuSet = [0, 1, 2, 3, 8, 10, 11].into_iter().collect();
    assert_eq!(set.to_string(), "0-3,8,10-11");
    assert_eq!("0-3,8,10-11\n".parse::<CpuSet>().unwrap(), set);
    assert_eq!("".parse::<CpuSet>().unwrap(), CpuSet::new());
}

#[test]
fn a_bad_list_names_its_part() {
    let error = "0-3,x".parse::<CpuSet>().unwrap_err();
    assert_eq!(error.part, "x");
    for text in ["3-1", "1-", "-1", ",", "0-9999", "4294967296"] {
        text.parse::<CpuSet>().expect_err(text);
    }
}

#[test]
fn impossible_shapes_say_why() {
    use TopologyError::{Syntax, Threads, TooManyCpus, UnevenLlcs, Zero};
    let none = Zero { count: Count::Llcs };
    assert_eq!(Topology::new(1, 0, 1, 1), Err(none));
    assert!(none.to_string().starts_with("`llcs` is 0"), "{none}");
    assert_eq!(
        Topology::new(2, 3, 1, 1),
        Err(UnevenLlcs {
            llcs: 3,
            numa_nodes: 2
        })
    );
    assert_eq!(Topology::new(1, 1, 1, 4), Err(Threads { threads: 4 }));
    assert_eq!(Topology::new(1, u32::MAX, u32::MAX, 2), Err(TooManyCpus));
    for text in ["", "1,1,1", "1,1,1,1,1", "1,1,1,x", "1,1,1,1,"] {
        assert_eq!(text.parse::<Topology>(), Err(Syntax), "{text}");
    }
    assert_eq!("1, 2,4,1".parse(), Topology::new(1, 2, 4, 1));
}

#[test]
fn errors_name_the_count_that_is_at_fault() {
    let at_fault = |nodes, llcs, cores, threads| {
        let error = Topology::new(nodes, llcs, cores, threads).unwrap_err();
        error.count()
    };
    assert_eq!(at_fault(1, 1, 0, 1), Some(Count::Cores));
    assert_eq!(at_fault(2, 3, 1, 1), Some(Count::Llcs));
    assert_eq!(at_fault(1, 1, 1, 4), Some(Count::Threads));
    assert_eq!(at_fault(1, u32::MAX, u32::MAX, 2), None);
}

#[test]
fn counts_that_are_left_out_are_inherited_or_the_least() {
    let inherited = Topology::new(1, 4, 2, 1).ok();
    let declared = |counts, from| Topology::declared(counts, from);
    assert_eq!(
        declared([None, Some(2), None, Some(2)], inherited),
        Topology::new(1, 2, 2, 2)
    );
    assert_eq!(
        declared([Some(2), None, None, None], None),
        Topology::new(2, 2, 1, 1)
    );
    assert_eq!(declared([None; 4], None), Ok(Topology::SINGLE));
}

#[test]
fn what_travels_is_checked_on_arrival() {
    let bytes = postcard::to_stdvec(&(1u32, 0u32, 1u32, 1u32)).unwrap();
    postcard::from_bytes::<Topology>(&bytes).expect_err("no LLCs");
    let topology = Topology::new(2, 4, 2, 2).unwrap();
    let bytes = postcard::to_stdvec(&topology).unwrap();
    assert_eq!(postcard::from_bytes::<Topology>(&bytes).unwrap(), topology);
}
