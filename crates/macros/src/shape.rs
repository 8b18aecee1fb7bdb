//! The machine's shape: counts that go together, and the memory of NUMA nodes.

use ktstr_declaration::Section;
use ktstr_topology::{Count, NumaSpec, Topology};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, Path, Result};

use crate::arguments::Arguments;
use crate::values::{option, whole};
use crate::{fields, numa};

/// `MachineShape`, under a scheduler or none.
pub(crate) fn expand(arguments: &Arguments, scheduler: Option<&Path>) -> Result<TokenStream> {
    let counts = counts(arguments)?;
    // A scheduler may have declared the rest: then the compiler evaluates what they make together.
    let topology = match scheduler {
        Some(_) => Topology::declared([counts[0], None, None, None], None),
        None => Topology::declared(counts, None),
    };
    let topology = match (topology, scheduler) {
        (Ok(topology), _) => topology,
        (Err(_), Some(_)) => Topology::SINGLE,
        (Err(error), None) => return Err(Error::new(culprit(arguments, error.count()), error)),
    };
    let numa = numa::read(arguments, &topology)?;
    let numa = match numa == NumaSpec::default() {
        true => TokenStream::new(),
        false => {
            let numa = numa::to_tokens(&numa);
            quote!(numa: #numa,)
        }
    };
    let counts = counts.map(option);
    let topology = match scheduler {
        Some(scheduler) => {
            quote!(::ktstr::__private::topology_under(&#scheduler, [#(#counts),*]))
        }
        None => quote!(::ktstr::__private::topology([#(#counts),*])),
    };
    let more = quote!(topology: #topology, #numa);
    fields::section(Section::Shape, "MachineShape", arguments, &more)
}

fn counts(arguments: &Arguments) -> Result<[Option<u32>; 4]> {
    let mut counts = [None; 4];
    for (count, attribute) in counts.iter_mut().zip(Count::ALL) {
        if let Some(argument) = arguments.get(attribute.name()) {
            let value = whole(argument, &(0..=u64::from(u32::MAX)))?;
            *count = u32::try_from(value).ok();
        }
    }
    Ok(counts)
}

/// Where an impossible shape is reported: at the count that is at fault, or at the last one.
fn culprit(arguments: &Arguments, count: Option<Count>) -> Span {
    let at_fault = count.and_then(|count| arguments.span(count.name()));
    let last = || {
        let mut given = Count::ALL.iter().rev();
        given.find_map(|count| arguments.span(count.name()))
    };
    at_fault.or_else(last).unwrap_or_else(Span::call_site)
}
