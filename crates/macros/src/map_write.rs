//! `bpf_map_write`: what a test has the host write into global variables of its scheduler.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Lit, LitStr, Result, Token};

use crate::arguments::Arguments;

const NAME: &str = "bpf_map_write";

const FORM: &str =
    "say what to write: `bpf_map_write(\"fault\" = 3, \"stats.limit[2]\" = -1, \"strict\" = true)`";

/// One number, and where it goes.
struct MapWrite {
    path: LitStr,
    value: i128,
}

/// The field of `SchedulerOptions`.
pub(crate) fn expand(arguments: &Arguments) -> Result<TokenStream> {
    let Some(argument) = arguments.get(NAME) else {
        return Ok(TokenStream::new());
    };
    let writes =
        argument.in_parentheses(FORM, Punctuated::<MapWrite, Token![,]>::parse_terminated)?;
    if writes.is_empty() {
        return Err(Error::new(argument.name().span(), FORM));
    }
    let writes: Vec<MapWrite> = writes.into_iter().collect();
    for (position, write) in writes.iter().enumerate() {
        let mut earlier = writes[..position].iter();
        if earlier.any(|earlier| earlier.path.value() == write.path.value()) {
            let message = format!("`{}` is written twice", write.path.value());
            return Err(Error::new(write.path.span(), message));
        }
    }
    Ok(quote!(bpf_map_write: &[#(#writes),*],))
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
