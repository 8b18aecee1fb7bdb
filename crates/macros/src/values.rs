//! Values of attributes: literals, since they are checked at compile time.

use std::ops::RangeInclusive;

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::Parser as _;
use syn::{Error, Expr, Lit, LitInt, LitStr, Path, Result};

use crate::arguments::Argument;

/// A value without its parts.
pub(crate) enum Value {
    Bool(bool),
    Int(LitInt),
    /// A number with a fraction.
    Float(f64),
    /// The word `off`.
    Off,
    /// Anything else.
    Other,
}

/// What stands after the name; the name alone is `true`. Fails on what can't be read at compile time.
pub(crate) fn value(argument: &Argument) -> Result<Value> {
    if argument.is_bare() {
        return Ok(Value::Bool(true));
    }
    Ok(match expression(argument)? {
        Expr::Lit(literal) => match literal.lit {
            Lit::Bool(value) => Value::Bool(value.value),
            Lit::Int(value) => Value::Int(value),
            Lit::Float(value) => Value::Float(value.base10_parse()?),
            _ => Value::Other,
        },
        Expr::Path(path) if path.path.is_ident("off") => Value::Off,
        _ => Value::Other,
    })
}

fn expression(argument: &Argument) -> Result<Expr> {
    let Some(value) = argument.value().filter(|value| !value.is_empty()) else {
        return Err(argument.error(format!("`{0}` takes a value: `{0} = …`", argument.name())));
    };
    let expression: Expr = syn::parse2(value)?;
    if is_literal(&expression) {
        return Ok(expression);
    }
    Err(argument.error(format!(
        "the value of `{}` must be a literal (a number, `true`, `false`, or a list of texts or numbers) or `off`: \
         it is checked at compile time",
        argument.name()
    )))
}

fn is_literal(expression: &Expr) -> bool {
    match expression {
        Expr::Lit(_) | Expr::Unary(_) => true,
        Expr::Array(array) => array.elems.iter().all(is_literal),
        Expr::Path(path) => path.path.is_ident("off"),
        _ => false,
    }
}

pub(crate) fn flag(argument: &Argument) -> Result<bool> {
    match value(argument)? {
        Value::Bool(value) => Ok(value),
        _ => Err(argument.wants("`true` or `false`")),
    }
}

pub(crate) fn whole(argument: &Argument, range: &RangeInclusive<u64>) -> Result<u64> {
    let number = match value(argument)? {
        Value::Int(number) => number.base10_parse().ok(),
        _ => None,
    };
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            argument.wants(&format!("a whole number from {least} to {most}"))
        })
}

pub(crate) fn seconds_as_ms(argument: &Argument) -> Result<u64> {
    let seconds = match value(argument)? {
        Value::Int(number) => number.base10_parse().ok(),
        Value::Float(number) => Some(number),
        _ => None,
    };
    seconds
        .filter(|seconds| (0.001..=86_400.0).contains(seconds))
        .and_then(|seconds| {
            let duration = std::time::Duration::from_secs_f64(seconds);
            u64::try_from(duration.as_millis()).ok()
        })
        .ok_or_else(|| argument.wants("a number of seconds above 0 and up to 86400"))
}

pub(crate) fn text(argument: &Argument, example: &str) -> Result<LitStr> {
    match expression(argument)? {
        Expr::Lit(literal) => match literal.lit {
            Lit::Str(text) => Ok(text),
            _ => Err(argument.wants(&format!("a text, such as {example}"))),
        },
        _ => Err(argument.wants(&format!("a text, such as {example}"))),
    }
}

pub(crate) fn texts(argument: &Argument, example: &str) -> Result<Vec<LitStr>> {
    let text = |expression: Expr| match expression {
        Expr::Lit(literal) => match literal.lit {
            Lit::Str(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    list(&expression(argument)?, text)
        .ok_or_else(|| argument.wants(&format!("a list of texts, such as {example}")))
}

/// A list of whole numbers; `what` says so with more detail.
pub(crate) fn numbers(argument: &Argument, what: &str) -> Result<Vec<LitInt>> {
    list(&expression(argument)?, number).ok_or_else(|| argument.wants(what))
}

/// A list of lists of whole numbers.
pub(crate) fn rows(argument: &Argument, what: &str) -> Result<Vec<Vec<LitInt>>> {
    let row = |expression: Expr| list(&expression, number);
    list(&expression(argument)?, row).ok_or_else(|| argument.wants(what))
}

fn number(expression: Expr) -> Option<LitInt> {
    match expression {
        Expr::Lit(literal) => match literal.lit {
            Lit::Int(number) => Some(number),
            _ => None,
        },
        _ => None,
    }
}

/// All elements, if `expression` is a list and each is what `read` wants.
fn list<T>(expression: &Expr, read: impl Fn(Expr) -> Option<T>) -> Option<Vec<T>> {
    match expression {
        Expr::Array(array) => array.elems.iter().cloned().map(read).collect(),
        _ => None,
    }
}

/// The path of an item; `what` says of which.
pub(crate) fn path(argument: &Argument, what: &str) -> Result<Path> {
    let path = argument.value();
    let path = path.and_then(|value| Path::parse_mod_style.parse2(value).ok());
    path.ok_or_else(|| argument.wants(what))
}

/// The number that a literal says, if it is of `range`; else the error at the literal.
pub(crate) fn element<T: TryFrom<u64>>(
    name: &str,
    literal: &LitInt,
    range: &RangeInclusive<u64>,
) -> Result<T> {
    let number = literal.base10_parse::<u64>().ok();
    let number = number.filter(|number| range.contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        let message = format!("`{name}` takes whole numbers from {least} to {most}");
        Error::new(literal.span(), message)
    })
}

/// `Option` as code.
pub(crate) fn option(value: Option<impl quote::ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
