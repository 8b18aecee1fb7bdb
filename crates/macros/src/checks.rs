//! The checks, by their rows: method calls on `Assert`.

use ktstr_declaration::{Bound, Check, attribute};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Path, Result};

use crate::arguments::{Argument, Arguments};
use crate::values::{self, Value};

/// `Assert`, as the library presets it, the scheduler changes it, and the test sets it.
pub(crate) fn expand(arguments: &Arguments, scheduler: Option<&Path>) -> Result<TokenStream> {
    let preset = match scheduler {
        Some(scheduler) => quote!(::ktstr::__private::assert_under(&#scheduler)),
        None => quote!(::ktstr::Assert::DEFAULT),
    };
    let mut calls = TokenStream::new();
    for check in Check::settable() {
        if let Some(argument) = arguments.get(check.name()) {
            calls.extend(call(check, argument)?);
        }
    }
    calls.extend(sustained_samples(arguments)?);
    Ok(quote!(#preset #calls))
}

fn call(check: Check, argument: &Argument) -> Result<TokenStream> {
    let method = argument.name();
    let (takes, value) = (check.spec().takes, values::value(argument)?);
    Ok(match (takes, value) {
        (Bound::Switch, Value::Bool(on)) => quote!(.#method(#on)),
        (Bound::Switch, Value::Off) => quote!(.#method(false)),
        (Bound::Whole | Bound::Number, Value::Off | Value::Bool(false)) => {
            let method = format_ident!("no_{method}");
            quote!(.#method())
        }
        (Bound::Whole, Value::Int(bound)) => {
            let bound = bound.base10_parse::<u64>()?;
            quote!(.#method(#bound))
        }
        (Bound::Number, Value::Int(bound)) => {
            let bound = bound.base10_parse::<f64>()?;
            quote!(.#method(#bound))
        }
        (Bound::Number, Value::Float(bound)) => quote!(.#method(#bound)),
        (Bound::Switch, _) => return Err(argument.wants("`true`, `false` or `off`")),
        (Bound::Whole, _) => return Err(argument.wants("a whole number or `off`")),
        (Bound::Number, _) => return Err(argument.wants("a number or `off`")),
        (Bound::Fixed, _) => return Err(argument.error("this check can't be set")),
    })
}

fn sustained_samples(arguments: &Arguments) -> Result<TokenStream> {
    let name = "sustained_samples";
    let (Some(argument), Some(row)) = (arguments.get(name), attribute(name)) else {
        return Ok(TokenStream::new());
    };
    let ktstr_declaration::Takes::Whole(range) = &row.takes else {
        return Err(argument.error("is not a number by its row"));
    };
    let samples = values::whole(argument, range)?;
    let samples = u32::try_from(samples).unwrap_or(u32::MAX);
    Ok(quote!(.sustained_samples(#samples)))
}
