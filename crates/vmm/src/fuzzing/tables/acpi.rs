//! The tables, read as a kernel reads them.

use std::collections::{BTreeMap, BTreeSet};

use ktstr_topology::{LOCAL_DISTANCE, NumaMemory};

use crate::acpi;
use crate::arch::cpu_ids::CpuIds;
use crate::arch::layout::{ACPI, ACPI_BYTES};
use crate::memory::RamRegion;

/// Nodes and CPUs up to here must find room.
const SURELY_FITS: (usize, u32) = (64, 1024);

pub(super) fn check(ids: &CpuIds, numa: &NumaMemory, regions: &[RamRegion]) {
    let topology = ids.topology();
    let image = match acpi::build(ids, numa, regions) {
        Ok(image) => image,
        Err(refused) => {
            assert!(refused.len_bytes > ACPI_BYTES);
            let (nodes, cpus) = SURELY_FITS;
            assert!(numa.nodes().len() > nodes || topology.cpu_count() > cpus);
            return;
        }
    };
    let tables = tables_of(&image);
    let expected: Vec<u32> = (0..topology.cpu_count()).map(|cpu| ids.id(cpu)).collect();
    let unique: BTreeSet<u32> = expected.iter().copied().collect();
    assert_eq!(unique.len(), expected.len());
    assert_eq!(local_apics(tables[b"APIC"]), expected);

    let performance = numa.tells_performance();
    let affine = numa.nodes().len() > 1 || performance;
    let found = [b"SRAT", b"SLIT", b"HMAT"].map(|name| tables.contains_key(name));
    assert_eq!(found, [affine, affine, performance]);
    if affine {
        let nodes = (0..).map_while(|cpu| topology.node_of(cpu));
        let (cpus, ram) = affinities(tables[b"SRAT"]);
        assert_eq!(cpus, expected.into_iter().zip(nodes).collect::<Vec<_>>());
        let placed = regions.iter().map(|r| (r.node, r.gpa, r.len_bytes));
        assert_eq!(ram, placed.collect::<Vec<_>>());
        check_slit(tables[b"SLIT"], numa);
    }
    if performance {
        check_hmat(tables[b"HMAT"], numa);
    }
}

/// All tables as a kernel finds them, from the RSDP on: each whole, and within the image.
fn tables_of(image: &[u8]) -> BTreeMap<[u8; 4], &[u8]> {
    assert_eq!(&image[..8], b"RSD PTR ");
    assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
    let xsdt = table_at(image, u64_at(image, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    assert!(xsdt[36..].len().is_multiple_of(8));
    let mut tables: BTreeMap<[u8; 4], &[u8]> = BTreeMap::new();
    for entry in xsdt[36..].chunks(8) {
        let table = table_at(image, u64_at(entry, 0));
        let signature = table[..4].try_into().expect("4 bytes");
        assert!(tables.insert(signature, table).is_none(), "a table twice");
    }
    let dsdt = table_at(image, u64_at(tables[b"FACP"], 140));
    assert_eq!(&dsdt[..4], b"DSDT");
    tables
}

fn table_at(image: &[u8], gpa: u64) -> &[u8] {
    assert!(gpa.is_multiple_of(4));
    let at = usize::try_from(gpa - ACPI).expect("it lies in the image");
    let len = u32_at(image, at + 4) as usize;
    let table = &image[at..at + len];
    assert_eq!(sum(table), 0, "the checksum of {:?}", &table[..4]);
    table
}

/// The structures of a table, each with its type and length up front, which fill it to the end.
fn structures(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (structure, after) = rest.split_at(rest[1].into());
        found.push(structure);
        rest = after;
    }
    found
}

/// APIC ids of the MADT in its order, which is that of the CPUs' numbers.
fn local_apics(madt: &[u8]) -> Vec<u32> {
    let mut ids = Vec::new();
    for s in structures(&madt[44..]) {
        let (uid, id) = match (s[0], s.len()) {
            (0, 8) => {
                assert_ne!(s[3], 0xff, "the broadcast id");
                (u32::from(s[2]), u32::from(s[3]))
            }
            (9, 16) => (u32_at(s, 12), u32_at(s, 4)),
            (1, 12) | (4, 6) | (10, 12) => continue,
            _ => panic!("an unknown structure: {s:?}"),
        };
        assert_eq!(uid as usize, ids.len());
        ids.push(id);
    }
    ids
}

type Affinities = (Vec<(u32, u32)>, Vec<(u32, u64, u64)>);

/// CPUs by APIC id and node, RAM by node, start and length.
fn affinities(srat: &[u8]) -> Affinities {
    let (mut cpus, mut ram) = (Vec::new(), Vec::new());
    for s in structures(&srat[48..]) {
        match (s[0], s.len()) {
            (0, 16) => cpus.push((
                u32::from(s[3]),
                u32::from_le_bytes([s[2], s[9], s[10], s[11]]),
            )),
            (1, 40) => ram.push((u32_at(s, 2), u64_at(s, 8), u64_at(s, 16))),
            (2, 24) => cpus.push((u32_at(s, 8), u32_at(s, 4))),
            _ => panic!("an unknown structure: {s:?}"),
        }
    }
    (cpus, ram)
}

fn check_slit(slit: &[u8], numa: &NumaMemory) {
    let nodes = numa.nodes().len();
    assert_eq!(u64_at(slit, 36), nodes as u64);
    let rows: Vec<&[u8]> = slit[44..].chunks(nodes).collect();
    assert_eq!(rows, numa.distances());
    // What the kernel takes (`slit_valid` of drivers/acpi/numa/srat.c).
    for (from, row) in rows.iter().enumerate() {
        assert_eq!(row[from], LOCAL_DISTANCE);
        assert!(
            row.iter()
                .filter(|distance| **distance > LOCAL_DISTANCE)
                .count()
                == nodes - 1
        );
    }
}

/// Every node has a node with CPUs that it is nearest to, whose entry is what was declared; and every pair has
/// an entry that says something.
fn check_hmat(hmat: &[u8], numa: &NumaMemory) {
    let (cpu_nodes, nodes) = (numa.cpu_nodes() as usize, numa.nodes().len());
    let mut rest = &hmat[40..];
    let mut nearest = Vec::new();
    let mut matrices = Vec::new();
    while !rest.is_empty() {
        let (structure, after) = rest.split_at(u32_at(rest, 4) as usize);
        rest = after;
        match structure[0] {
            0 => {
                assert_eq!((structure.len(), structure[8]), (40, 1));
                assert_eq!(u32_at(structure, 16) as usize, nearest.len());
                nearest.push(u32_at(structure, 12) as usize);
            }
            1 => {
                let counts = (
                    u32_at(structure, 12) as usize,
                    u32_at(structure, 16) as usize,
                );
                assert_eq!(counts, (cpu_nodes, nodes));
                let entries = &structure[32 + 4 * (cpu_nodes + nodes)..][..2 * cpu_nodes * nodes];
                let word = |entry: &[u8]| u32::from(u16::from_le_bytes([entry[0], entry[1]]));
                matrices.push(entries.chunks(2).map(word).collect::<Vec<_>>());
            }
            kind => panic!("an unknown structure of type {kind}"),
        }
    }
    assert_eq!((nearest.len(), matrices.len()), (nodes, 2));
    for (node, (memory, nearest)) in numa.nodes().iter().zip(nearest).enumerate() {
        assert!(nearest < cpu_nodes && (node >= cpu_nodes || nearest == node));
        let at = nearest * nodes + node;
        assert_eq!(matrices[0][at], memory.latency_ns);
        assert_eq!(matrices[1][at], memory.bandwidth_mb_s);
    }
    // 0 and all ones say nothing (ACPI 6.5, section 5.2.28.4).
    let said = |entry: &u32| (1..0xffff).contains(entry);
    assert!(matrices.iter().flatten().all(said));
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
