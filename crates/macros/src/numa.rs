//! The attributes about NUMA nodes' memory: lists of numbers, checked by the code that builds machines.

use std::collections::BTreeMap;

use ktstr_topology::{NumaError, NumaSpec, Topology};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, LitInt, Result};

use crate::attributes::{Argument, Value};

/// Of the attributes.
pub(crate) const NAMES: [&str; 5] = [
    "node_memory_mib",
    "memory_only_node_mib",
    "node_distances",
    "node_latency_ns",
    "node_bandwidth_mb_s",
];

/// Memory of a node in MiB: from what a kernel boots in to a TiB.
const MEMORY_MIB: std::ops::RangeInclusive<u64> = 16..=1 << 20;

/// What the attributes declare for a machine of shape `topology`, known to be possible.
pub(crate) fn read(given: &BTreeMap<String, Argument>, topology: &Topology) -> Result<NumaSpec> {
    if let (Some(nodes), true) = (
        given.get("node_memory_mib"),
        given.contains_key("memory_mib"),
    ) {
        let message =
            "`node_memory_mib` says it all: leave out `memory_mib`, which is shared evenly";
        return Err(Error::new(nodes.value_span(), message));
    }
    let spec = NumaSpec {
        node_memory_mib: numbers(given, "node_memory_mib", &MEMORY_MIB)?,
        memory_only_node_mib: numbers(given, "memory_only_node_mib", &MEMORY_MIB)?,
        node_distances: distances(given)?,
        node_latency_ns: numbers(given, "node_latency_ns", &(0..=u64::from(u32::MAX)))?,
        node_bandwidth_mb_s: numbers(given, "node_bandwidth_mb_s", &(0..=u64::from(u32::MAX)))?,
    };
    match spec.resolve(topology, *MEMORY_MIB.start()) {
        Ok(_) => Ok(spec),
        Err(error) => Err(Error::new(culprit(given, &error), error)),
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
    given: &BTreeMap<String, Argument>,
    name: &str,
    range: &std::ops::RangeInclusive<u64>,
) -> Result<Vec<T>> {
    let Some(argument) = given.get(name) else {
        return Ok(Vec::new());
    };
    let Value::Numbers(values) = argument.value() else {
        return Err(argument.wants("a list of whole numbers, one for each NUMA node"));
    };
    let number = |value: &LitInt| {
        let number = value.base10_parse::<u64>().ok();
        let number = number.filter(|number| range.contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (start, end) = (range.start(), range.end());
                let message = format!("`{name}` takes whole numbers from {start} to {end}");
                Error::new(value.span(), message)
            })
    };
    values.iter().map(number).collect()
}

fn distances(given: &BTreeMap<String, Argument>) -> Result<Vec<Vec<u8>>> {
    let name = "node_distances";
    let Some(argument) = given.get(name) else {
        return Ok(Vec::new());
    };
    let Value::Rows(rows) = argument.value() else {
        return Err(argument.wants("a row for each NUMA node, such as [[10, 30], [30, 10]]"));
    };
    let distance = |value: &LitInt| {
        let message = format!("`{name}` are whole numbers from 10 to 254");
        value
            .base10_parse::<u8>()
            .map_err(|_| Error::new(value.span(), message))
    };
    rows.iter()
        .map(|row| row.iter().map(distance).collect())
        .collect()
}

/// Where what is wrong stands.
fn culprit(given: &BTreeMap<String, Argument>, error: &NumaError) -> Span {
    let cell = |attribute: &str, row: usize, column: Option<usize>| {
        let argument = given.get(attribute)?;
        let literal = match (argument.value(), column) {
            (Value::Numbers(values), _) => values.get(row),
            (Value::Rows(rows), Some(column)) => rows.get(row)?.get(column),
            (Value::Rows(rows), None) => rows.get(row)?.first(),
            _ => None,
        };
        literal.map(LitInt::span)
    };
    let (attribute, at) = match *error {
        NumaError::Count { attribute, .. } => (attribute, None),
        NumaError::Performance {
            attribute, node, ..
        } => (attribute, cell(attribute, node, None)),
        NumaError::DistanceRow { from, .. } => {
            ("node_distances", cell("node_distances", from, None))
        }
        NumaError::LocalDistance { node, .. } => {
            ("node_distances", cell("node_distances", node, Some(node)))
        }
        NumaError::RemoteDistance { from, to, .. } | NumaError::Asymmetric { from, to, .. } => {
            ("node_distances", cell("node_distances", from, Some(to)))
        }
        _ => ("node_distances", None),
    };
    at.or_else(|| given.get(attribute).map(Argument::value_span))
        .unwrap_or_else(Span::call_site)
}
