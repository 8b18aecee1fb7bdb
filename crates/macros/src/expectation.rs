//! `expect_err`: what a test expects to go wrong.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitStr, Result, Token, parenthesized};

use crate::arguments::Arguments;
use crate::values::option;

const NAME: &str = "expect_err";

const FORMS: &str = "say what is expected: `expect_err(stall)`, `expect_err(scx_error)`, \
     `expect_err(scx_error(contains = \"text\"))`, `expect_err(check(max_gap_ms))`, `expect_err(load_failure)` or \
     `expect_err(load_failure(contains = \"text\"))`";

/// What stands in `expect_err(…)`.
enum Expectation {
    Stall,
    ScxError(Option<LitStr>),
    Check(LitStr),
    LoadFailure(Option<LitStr>),
}

/// `Option<Expectation>`.
pub(crate) fn expand(arguments: &Arguments) -> Result<TokenStream> {
    let Some(argument) = arguments.get(NAME) else {
        return Ok(option(None::<TokenStream>));
    };
    let expectation = argument.in_parentheses(FORMS, |content| {
        let expectation: Expectation = content.parse()?;
        match content.is_empty() {
            true => Ok(expectation),
            false => Err(content.error("one expectation is enough")),
        }
    })?;
    let is_of_check = matches!(expectation, Expectation::Check(_));
    if !is_of_check && !arguments.has("scheduler") {
        let message = format!("`{NAME}` needs a `scheduler`");
        return Err(Error::new(argument.name().span(), message));
    }
    let expectation = expectation.to_tokens();
    let expectation = quote!(::ktstr::__private::Expectation::#expectation);
    Ok(option(Some(expectation)))
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

impl Expectation {
    fn to_tokens(&self) -> TokenStream {
        let borrowed = |text: &LitStr| quote!(::std::borrow::Cow::Borrowed(#text));
        match self {
            Self::Stall => quote!(Stall),
            Self::ScxError(text) => {
                let contains = option(text.as_ref().map(borrowed));
                quote!(ScxError { contains: #contains })
            }
            Self::Check(name) => {
                let name = borrowed(name);
                quote!(Check(#name))
            }
            Self::LoadFailure(None) => quote!(LoadFailure),
            Self::LoadFailure(Some(text)) => {
                let text = borrowed(text);
                quote!(LoadFailureWith(#text))
            }
        }
    }
}
