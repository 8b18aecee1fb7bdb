use ktstr_topology::{NumaSpec, Topology};
use proptest::prelude::*;

use super::*;
use crate::arch::ram::place;
use crate::test_topology::any_topology;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// The table at guest address `at`, its checksum and length checked.
fn table_at(image: &[u8], at: u64) -> &[u8] {
    let at = usize::try_from(at - ACPI).unwrap();
    let len = u32_at(image, at + 4) as usize;
    let table = &image[at..at + len];
    assert_eq!(sum(table), 0);
    table
}

/// All tables as a kernel finds them, from the RSDP on.
fn tables(image: &[u8]) -> Vec<&[u8]> {
    assert_eq!(&image[..8], b"RSD PTR ");
    assert_eq!(sum(&image[..20]), 0);
    assert_eq!(sum(&image[..36]), 0);
    let xsdt = table_at(image, u64_at(image, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    let mut found: Vec<_> = xsdt[36..]
        .chunks(8)
        .map(|entry| table_at(image, u64_at(entry, 0)))
        .collect();
    let fadt = found.iter().find(|table| &table[..4] == b"FACP").unwrap();
    found.push(table_at(image, u64_at(fadt, 140)));
    found
}

/// The structures behind the first `skip` bytes of a table, each with its type and length up front.
fn structures(table: &[u8], skip: usize) -> Vec<&[u8]> {
    let mut rest = &table[skip..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (structure, after) = rest.split_at(rest[1].into());
        found.push(structure);
        rest = after;
    }
    found
}

fn image_of(topology: Topology) -> (CpuIds, Vec<RamRegion>, Vec<u8>) {
    let ids = CpuIds::new(topology);
    let regions = place(&vec![1 << 30; topology.numa_nodes() as usize]).unwrap();
    let numa = NumaMemory::uniform(&topology, 0);
    let image = build(&ids, &numa, &regions).unwrap();
    (ids, regions, image)
}

/// The table `name` of a machine with one CPU in each of two nodes and memory only in a third.
fn table_of_three_nodes(name: &[u8; 4]) -> Vec<u8> {
    let topology = Topology::new(2, 2, 1, 1).unwrap();
    let spec = NumaSpec {
        memory_only_node_mib: vec![1024],
        node_distances: vec![vec![10, 20, 60], vec![20, 10, 30], vec![60, 30, 10]],
        ..NumaSpec::default()
    };
    let numa = spec.resolve(&topology, 2048).unwrap();
    let regions = place(&[1 << 30; 3]).unwrap();
    let image = build(&CpuIds::new(topology), &numa, &regions).unwrap();
    let found = tables(&image).into_iter().find(|table| &table[..4] == name);
    found.unwrap().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_cpu_and_all_ram_is_told(topology in any_topology()) {
        let (ids, regions, image) = image_of(topology);
        let tables = tables(&image);
        let by_name = |name: &[u8]| tables.iter().find(|table| &table[..4] == name);
        let expected: Vec<_> = (0..topology.cpu_count()).map(|cpu| ids.id(cpu)).collect();

        let told: Vec<_> = structures(by_name(b"APIC").unwrap(), 44)
            .iter()
            .filter_map(|s| match s[0] {
                0 => Some(u32::from(s[3])),
                9 => Some(u32_at(s, 4)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(&told, &expected);

        let Some(srat) = by_name(b"SRAT") else {
            prop_assert_eq!(topology.numa_nodes(), 1);
            return Ok(());
        };
        let structures = structures(srat, 48);
        let cpus: Vec<_> = structures
            .iter()
            .filter_map(|s| match s[0] {
                0 => Some((u32::from(s[3]), u32::from_le_bytes([s[2], s[9], s[10], s[11]]))),
                2 => Some((u32_at(s, 8), u32_at(s, 4))),
                _ => None,
            })
            .collect();
        let nodes = (0..).map_while(|cpu| topology.node_of(cpu));
        prop_assert_eq!(cpus, expected.into_iter().zip(nodes).collect::<Vec<_>>());
        let ram: Vec<_> = structures
            .iter()
            .filter(|s| s[0] == 1)
            .map(|s| (u32_at(s, 2), u64_at(s, 8), u64_at(s, 16)))
            .collect();
        let placed: Vec<_> = regions.iter().map(|r| (r.node, r.gpa, r.len_bytes)).collect();
        prop_assert_eq!(ram, placed);
    }
}

#[test]
fn one_node_needs_no_numa_tables() {
    let (_, _, image) = image_of(Topology::SINGLE);
    let names: Vec<_> = tables(&image)
        .iter()
        .map(|table| table[..4].to_vec())
        .collect();
    assert_eq!(names, [b"FACP", b"APIC", b"MCFG", b"DSDT"]);
}

#[test]
fn distances_are_those_of_the_topology() {
    let (_, _, image) = image_of(Topology::new(3, 3, 1, 1).unwrap());
    let tables = tables(&image);
    let slit = tables.iter().find(|table| &table[..4] == b"SLIT").unwrap();
    assert_eq!(&slit[36..44], &3_u64.to_le_bytes());
    assert_eq!(&slit[44..], &[10, 20, 20, 20, 10, 20, 20, 20, 10]);
}

#[test]
fn a_node_without_cpus_is_told_with_its_memory_and_distances() {
    let srat = table_of_three_nodes(b"SRAT");
    let memory: Vec<_> = structures(&srat, 48)
        .iter()
        .filter(|structure| structure[0] == 1)
        .map(|structure| u32_at(structure, 2))
        .collect();
    assert_eq!(memory, [0, 1, 2]);
    let slit = table_of_three_nodes(b"SLIT");
    assert_eq!(&slit[36..44], &3_u64.to_le_bytes());
    assert_eq!(&slit[44..], &[10, 20, 60, 20, 10, 30, 60, 30, 10]);
}

#[test]
fn the_hmat_tells_latency_and_bandwidth_of_each_pair() {
    let hmat = table_of_three_nodes(b"HMAT");
    let u16_at = |at: usize| u16::from_le_bytes(hmat[at..at + 2].try_into().unwrap());
    let mut at = 40;
    for (node, initiator) in [(0, 0), (1, 1), (2, 1)] {
        assert_eq!((u16_at(at), u32_at(&hmat, at + 4)), (0, 40));
        assert_eq!(u16_at(at + 8), 1);
        assert_eq!(
            (u32_at(&hmat, at + 12), u32_at(&hmat, at + 16)),
            (initiator, node)
        );
        at += 40;
    }
    for (kind, unit, expected) in [
        (0, 1000, [100, 200, 600, 200, 100, 300]),
        (3, 1, [51_200, 25_600, 10_240, 25_600, 51_200, 20_480]),
    ] {
        assert_eq!((u16_at(at), u32_at(&hmat, at + 4)), (1, 64));
        assert_eq!(hmat[at + 9], kind);
        assert_eq!((u32_at(&hmat, at + 12), u32_at(&hmat, at + 16)), (2, 3));
        assert_eq!(u64_at(&hmat, at + 24), unit);
        let domains: Vec<_> = (0..5).map(|i| u32_at(&hmat, at + 32 + 4 * i)).collect();
        assert_eq!(domains, [0, 1, 0, 1, 2]);
        let entries: Vec<_> = (0..6).map(|i| u16_at(at + 52 + 2 * i)).collect();
        assert_eq!(entries, expected);
        at += 64;
    }
    assert_eq!(at, hmat.len());
}

#[test]
fn more_cpus_than_the_area_holds_are_refused() {
    let topology = Topology::new(2, 8, 1024, 1).unwrap();
    let regions = place(&[1 << 30; 2]).unwrap();
    let numa = NumaMemory::uniform(&topology, 0);
    assert!(build(&CpuIds::new(topology), &numa, &regions).is_err());
}
