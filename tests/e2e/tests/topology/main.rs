//! The guest's own view of its CPUs and memory equals what the test declared: on the engine that was chosen,
//! and on our own microVM.

mod kernel_log;
mod sysfs;
mod tables;

use ktstr::prelude::*;

/// Looks at everything in one boot.
fn machine_equals_declaration(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = sysfs::cpus(ctx)?;
    result.merge(sysfs::nodes(ctx)?);
    tables::print_own()?;
    kernel_log::print_complaints()?;
    Ok(result)
}

macro_rules! shapes {
    ($($name:ident($($attribute:tt)*);)*) => {
        $(#[ktstr_test($($attribute)*)]
        fn $name(ctx: &Ctx) -> Result<AssertResult> {
            machine_equals_declaration(ctx)
        })*

        /// The same shapes on our own microVM.
        mod nested {
            $(#[test]
            fn $name() {
                super::is_right_on_our_own_microvm(stringify!($name));
            })*
        }
    };
}

shapes! {
    one_cpu();
    two_cores(cores = 2);
    two_llcs(llcs = 2, cores = 2);
    smt(cores = 2, threads = 2);
    two_nodes(numa_nodes = 2, llcs = 2, cores = 2, memory_mib = 1024);
    three_llcs_of_three_cores(llcs = 3, cores = 3);
    five_llcs_of_three_cores(llcs = 5, cores = 3);
    seven_llcs_of_two_cores(llcs = 7, cores = 2);
    sixteen_cpus_on_four_llcs_and_two_nodes(numa_nodes = 2, llcs = 4, cores = 2, threads = 2, memory_mib = 1024);
    sixteen_cpus_on_four_llcs(llcs = 4, cores = 4);
    unequal_nodes(numa_nodes = 2, node_memory_mib = [640, 256], node_distances = [[10, 31], [31, 10]]);
    node_without_cpus(
        numa_nodes = 2,
        node_memory_mib = [512, 192],
        memory_only_node_mib = [128],
        node_distances = [[10, 20, 50], [20, 10, 25], [50, 25, 10]],
        node_latency_ns = [100, 105, 350],
        node_bandwidth_mb_s = [52_000, 51_200, 12_345],
    );
    node_without_cpus_beside_one_cpu(memory_only_node_mib = [128]);
}

/// Runs the test `name` on the `nested` engine. Beside its own checks, the ACPI tables that the guest read
/// back are sound, and its kernel complained of nothing that we told it.
fn is_right_on_our_own_microvm(name: &str) {
    let sidecar = e2e::run_nested(name);
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
    let complaints = kernel_log::printed_complaints(&sidecar.output);
    assert_eq!(complaints, Some(Vec::new()), "{}", sidecar.output);
    let tables = tables::printed(&sidecar.output);
    let mut names: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
    names.sort_unstable();
    let mut expected = vec!["APIC", "DSDT", "FACP", "MCFG"];
    if sidecar.topology.numa_nodes() > 1 || sidecar.numa.is_some() {
        expected.extend(["SLIT", "SRAT"]);
    }
    if sidecar
        .numa
        .as_ref()
        .is_some_and(NumaMemory::tells_performance)
    {
        expected.push("HMAT");
    }
    expected.sort_unstable();
    assert_eq!(names, expected);
    for table in &tables {
        table.assert_sound();
    }
}
