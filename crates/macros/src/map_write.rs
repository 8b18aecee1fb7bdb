//! What a test has the host write into global variables of its scheduler.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, Lit, LitStr, Result, Token, parenthesized};

use crate::attributes::{Argument, Value};

/// The attribute of this file.
pub(crate) const NAME: &str = "bpf_map_write";

const FORM: &str =
    "say what to write: `bpf_map_write(\"fault\" = 3, \"stats.limit[2]\" = -1, \"strict\" = true)`";

/// One number, and where it goes.
#[derive(Clone)]
pub(crate) struct MapWrite {
    path: LitStr,
    value: i128,
}

/// Reads the value of [`NAME`].
pub(crate) fn own_form(name: &Ident, input: ParseStream<'_>) -> Result<Option<Value>> {
    if name != NAME {
        return Ok(None);
    }
    if !input.peek(syn::token::Paren) {
        return Err(Error::new(name.span(), FORM));
    }
    let content;
    parenthesized!(content in input);
    let writes = Punctuated::<MapWrite, Token![,]>::parse_terminated(&content)?;
    if writes.is_empty() {
        return Err(Error::new(name.span(), FORM));
    }
    let writes: Vec<_> = writes.into_iter().collect();
    for (position, write) in writes.iter().enumerate() {
        let earlier = &writes[..position];
        if earlier
            .iter()
            .any(|earlier| earlier.path.value() == write.path.value())
        {
            let message = format!("`{}` is written twice", write.path.value());
            return Err(Error::new(write.path.span(), message));
        }
    }
    Ok(Some(Value::MapWrites(writes)))
}

impl Parse for MapWrite {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let path: LitStr = input
            .parse()
            .map_err(|error| Error::new(error.span(), FORM))?;
        if path.value().trim().is_empty() {
            return Err(Error::new(
                path.span(),
                "a path names a variable, such as \"stats.limit[2]\"",
            ));
        }
        input.parse::<Token![=]>()?;
        let negative = input.parse::<Option<Token![-]>>()?.is_some();
        let literal: Lit = input.parse()?;
        let refused = |message| Err(Error::new(literal.span(), message));
        let value = match &literal {
            Lit::Bool(value) if !negative => i128::from(value.value),
            Lit::Int(number) => match number.base10_parse::<i128>() {
                Ok(value) if negative => -value,
                Ok(value) => value,
                Err(error) => return Err(error),
            },
            _ => return refused("a variable takes a whole number, `true` or `false`"),
        };
        if i64::try_from(value).is_err() && u64::try_from(value).is_err() {
            return refused("a variable has at most 64 bits");
        }
        Ok(Self { path, value })
    }
}

impl ToTokens for MapWrite {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { path, value } = self;
        tokens.extend(quote!((#path, #value)));
    }
}

pub(crate) fn read(given: &BTreeMap<String, Argument>) -> Result<Vec<MapWrite>> {
    match given.get(NAME).map(Argument::value) {
        Some(Value::MapWrites(writes)) => Ok(writes.clone()),
        _ => Ok(Vec::new()),
    }
}
