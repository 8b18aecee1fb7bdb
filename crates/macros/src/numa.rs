//! The attributes about NUMA nodes' memory: lists of numbers, checked by the code that builds machines.

use std::ops::RangeInclusive;

use ktstr_topology::{NumaError, NumaSpec, Topology};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, LitInt, Result};

use crate::arguments::Arguments;
use crate::values;

/// Memory of a node in MiB: from what a kernel boots in to a TiB.
const MEMORY_MIB: RangeInclusive<u64> = 16..=1 << 20;

const ANY: RangeInclusive<u64> = 0..=u32::MAX as u64;

const ONE_EACH: &str = "a list of whole numbers, one for each NUMA node";
const ROW_EACH: &str = "a row for each NUMA node, such as [[10, 30], [30, 10]]";

/// What the attributes declare for a machine of shape `topology`, known to be possible.
pub(crate) fn read(arguments: &Arguments, topology: &Topology) -> Result<NumaSpec> {
    if let (Some(nodes), true) = (
        arguments.get("node_memory_mib"),
        arguments.has("memory_mib"),
    ) {
        let message =
            "`node_memory_mib` says it all: leave out `memory_mib`, which is shared evenly";
        return Err(nodes.error(message));
    }
    let spec = NumaSpec {
        node_memory_mib: numbers(arguments, "node_memory_mib", &MEMORY_MIB)?,
        memory_only_node_mib: numbers(arguments, "memory_only_node_mib", &MEMORY_MIB)?,
        node_distances: distances(arguments)?,
        node_latency_ns: numbers(arguments, "node_latency_ns", &ANY)?,
        node_bandwidth_mb_s: numbers(arguments, "node_bandwidth_mb_s", &ANY)?,
    };
    match spec.resolve(topology, *MEMORY_MIB.start()) {
        Ok(_) => Ok(spec),
        Err(error) => Err(Error::new(culprit(arguments, &error), error)),
    }
}

/// The declaration as the constructor of a `NumaEntry`.
pub(crate) fn to_tokens(spec: &NumaSpec) -> TokenStream {
    let NumaSpec {
        node_memory_mib,
        memory_only_node_mib,
        node_distances,
        node_latency_ns,
        node_bandwidth_mb_s,
    } = spec;
    let rows = node_distances.iter().map(|row| quote!(&[#(#row),*]));
    quote! {
        ::ktstr::__private::NumaEntry {
            node_memory_mib: &[#(#node_memory_mib),*],
            memory_only_node_mib: &[#(#memory_only_node_mib),*],
            node_distances: &[#(#rows),*],
            node_latency_ns: &[#(#node_latency_ns),*],
            node_bandwidth_mb_s: &[#(#node_bandwidth_mb_s),*],
        }
    }
}

fn numbers<T: TryFrom<u64>>(
    arguments: &Arguments,
    name: &str,
    range: &RangeInclusive<u64>,
) -> Result<Vec<T>> {
    let Some(argument) = arguments.get(name) else {
        return Ok(Vec::new());
    };
    let literals = values::numbers(argument, ONE_EACH)?;
    let numbers = literals.iter();
    numbers
        .map(|literal| values::element(name, literal, range))
        .collect()
}

fn distances(arguments: &Arguments) -> Result<Vec<Vec<u8>>> {
    let name = "node_distances";
    let Some(argument) = arguments.get(name) else {
        return Ok(Vec::new());
    };
    // What is below 10 has its own message, which names the nodes.
    let distance = |literal: &LitInt| {
        let message = format!("`{name}` are whole numbers from 10 to 254");
        let number = literal.base10_parse::<u8>();
        number.map_err(|_| Error::new(literal.span(), message))
    };
    let rows = values::rows(argument, ROW_EACH)?;
    let rows = rows.iter();
    rows.map(|row| row.iter().map(distance).collect()).collect()
}

/// Where what is wrong stands.
fn culprit(arguments: &Arguments, error: &NumaError) -> Span {
    let number = |attribute: &str, at: usize| {
        let numbers = values::numbers(arguments.get(attribute)?, ONE_EACH).ok()?;
        numbers.get(at).map(LitInt::span)
    };
    let distance = |row: usize, column: usize| {
        let rows = values::rows(arguments.get("node_distances")?, ROW_EACH).ok()?;
        rows.get(row)?.get(column).map(LitInt::span)
    };
    let (attribute, at) = match *error {
        NumaError::Count { attribute, .. } => (attribute, None),
        NumaError::Performance {
            attribute, node, ..
        } => (attribute, number(attribute, node)),
        NumaError::DistanceRow { from, .. } => ("node_distances", distance(from, 0)),
        NumaError::LocalDistance { node, .. } => ("node_distances", distance(node, node)),
        NumaError::RemoteDistance { from, to, .. } | NumaError::Asymmetric { from, to, .. } => {
            ("node_distances", distance(from, to))
        }
        _ => ("node_distances", None),
    };
    at.or_else(|| arguments.span(attribute))
        .unwrap_or_else(Span::call_site)
}
