//! What a test says of its scheduler, and what it expects to go wrong.

use std::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitStr, Path, Result, Token, parenthesized};

use crate::attributes::{Argument, Value, seconds};
use crate::map_write::{self, MapWrite};

/// The attributes of this file.
pub(crate) const NAMES: [&str; 5] = [
    "scheduler",
    "extra_sched_args",
    "watchdog_timeout_s",
    map_write::NAME,
    "expect_err",
];

/// They, read and checked.
pub(crate) struct Under {
    pub(crate) scheduler: Option<Path>,
    extra_args: Vec<LitStr>,
    watchdog_timeout_ms: Option<u64>,
    map_writes: Vec<MapWrite>,
    expect: Option<Expectation>,
}

/// What stands in `expect_err(…)`.
#[derive(Clone)]
pub(crate) enum Expectation {
    Stall,
    ScxError(Option<LitStr>),
    Check(LitStr),
    LoadFailure(Option<LitStr>),
}

const FORMS: &str = "say what is expected: `expect_err(stall)`, `expect_err(scx_error)`, \
     `expect_err(scx_error(contains = \"text\"))`, `expect_err(check(max_gap_ms))`, `expect_err(load_failure)` or \
     `expect_err(load_failure(contains = \"text\"))`";

/// Reads the value of one of [`NAMES`] that has a form of its own.
pub(crate) fn own_form(name: &Ident, input: ParseStream<'_>) -> Result<Option<Value>> {
    if name == "scheduler" && input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        let what = "`scheduler` takes the name of a scheduler, as `declare_scheduler!` gave it";
        let path = input.call(Path::parse_mod_style);
        return Ok(Some(Value::Path(
            path.map_err(|error| Error::new(error.span(), what))?,
        )));
    }
    if name == "expect_err" {
        if !input.peek(syn::token::Paren) {
            return Err(Error::new(name.span(), FORMS));
        }
        let content;
        parenthesized!(content in input);
        let expectation = content.parse()?;
        if !content.is_empty() {
            return Err(content.error("one expectation is enough"));
        }
        return Ok(Some(Value::Expectation(expectation)));
    }
    Ok(None)
}

impl Parse for Expectation {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let what: Ident = input
            .parse()
            .map_err(|error| Error::new(error.span(), FORMS))?;
        match what.to_string().as_str() {
            "stall" => Ok(Self::Stall),
            "load_failure" => Ok(Self::LoadFailure(contained_text(input)?)),
            "scx_error" => Ok(Self::ScxError(contained_text(input)?)),
            "check" => {
                let content;
                parenthesized!(content in input);
                let name = if content.peek(LitStr) {
                    content.parse()?
                } else {
                    let name: Ident = content.parse()?;
                    LitStr::new(&name.to_string(), name.span())
                };
                Ok(Self::Check(name))
            }
            _ => Err(Error::new(what.span(), FORMS)),
        }
    }
}

/// `(contains = "text")`, if it is there.
fn contained_text(input: ParseStream<'_>) -> Result<Option<LitStr>> {
    if !input.peek(syn::token::Paren) {
        return Ok(None);
    }
    let content;
    parenthesized!(content in input);
    let name: Ident = content.parse()?;
    if name != "contains" {
        return Err(Error::new(name.span(), FORMS));
    }
    content.parse::<Token![=]>()?;
    let text: LitStr = content.parse()?;
    if text.value().trim().is_empty() {
        let message = "every error contains an empty text: give one that tells it apart";
        return Err(Error::new(text.span(), message));
    }
    Ok(Some(text))
}

pub(crate) fn read(given: &BTreeMap<String, Argument>) -> Result<Under> {
    let scheduler = match given.get("scheduler").map(Argument::value) {
        None => None,
        Some(Value::Path(path)) => Some(path.clone()),
        Some(_) => return Err(given["scheduler"].wants("the name of a declared scheduler")),
    };
    let extra_args = match given.get("extra_sched_args").map(Argument::value) {
        None => Vec::new(),
        Some(Value::Texts(texts)) => texts.clone(),
        Some(_) => {
            return Err(given["extra_sched_args"].wants("a list of texts, such as [\"--verbose\"]"));
        }
    };
    let expect = match given.get("expect_err").map(Argument::value) {
        Some(Value::Expectation(expectation)) => Some(expectation.clone()),
        _ => None,
    };
    if scheduler.is_none() {
        let of_scheduler = match &expect {
            None | Some(Expectation::Check(_)) => &NAMES[1..4],
            Some(_) => &NAMES[1..],
        };
        if let Some(argument) = of_scheduler.iter().find_map(|name| given.get(*name)) {
            let message = format!("`{}` needs a `scheduler`", argument.name());
            return Err(Error::new(argument.name().span(), message));
        }
    }
    Ok(Under {
        scheduler,
        extra_args,
        watchdog_timeout_ms: seconds(given, "watchdog_timeout_s")?,
        map_writes: map_write::read(given)?,
        expect,
    })
}

impl Under {
    /// `Option<SchedulerUse>`.
    pub(crate) fn scheduler_tokens(&self) -> TokenStream {
        let Some(path) = &self.scheduler else {
            return quote!(::core::option::Option::None);
        };
        let extra_args = &self.extra_args;
        let watchdog_timeout_ms = match self.watchdog_timeout_ms {
            Some(timeout) => quote!(::core::option::Option::Some(#timeout)),
            None => quote!(::core::option::Option::None),
        };
        quote! {
            ::core::option::Option::Some(::ktstr::__private::SchedulerUse {
                scheduler: &#path,
                extra_args: &[#(#extra_args),*],
                watchdog_timeout_ms: #watchdog_timeout_ms,
                manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
            })
        }
    }

    /// The field of a `TestEntry`.
    pub(crate) fn map_write_tokens(&self) -> TokenStream {
        let writes = &self.map_writes;
        quote!(bpf_map_write: &[#(#writes),*],)
    }

    /// `Option<Expectation>`.
    pub(crate) fn expect_tokens(&self) -> TokenStream {
        let borrowed = |text: &LitStr| quote!(::std::borrow::Cow::Borrowed(#text));
        let expectation = match &self.expect {
            None => return quote!(::core::option::Option::None),
            Some(Expectation::Stall) => quote!(Stall),
            Some(Expectation::ScxError(None)) => {
                quote!(ScxError {
                    contains: ::core::option::Option::None
                })
            }
            Some(Expectation::ScxError(Some(text))) => {
                let text = borrowed(text);
                quote!(ScxError { contains: ::core::option::Option::Some(#text) })
            }
            Some(Expectation::Check(name)) => {
                let name = borrowed(name);
                quote!(Check(#name))
            }
            Some(Expectation::LoadFailure(None)) => quote!(LoadFailure),
            Some(Expectation::LoadFailure(Some(text))) => {
                let text = borrowed(text);
                quote!(LoadFailureWith(#text))
            }
        };
        quote!(::core::option::Option::Some(::ktstr::__private::Expectation::#expectation))
    }
}
