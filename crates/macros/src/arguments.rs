//! The attribute's arguments by name, each with its tokens. What the tokens mean is for the section that the
//! attribute belongs to.

use std::collections::BTreeMap;

use ktstr_declaration::{Check, Needs, Section, attribute, attributes};
use proc_macro2::{Span, TokenStream, TokenTree};
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, Result, Token};

/// One argument: a name, and what stands after it up to the next comma.
pub(crate) struct Argument {
    name: Ident,
    tokens: TokenStream,
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        let mut tokens = TokenStream::new();
        while !input.is_empty() && !input.peek(Token![,]) {
            tokens.extend([input.parse::<TokenTree>()?]);
        }
        Ok(Self { name, tokens })
    }
}

impl Argument {
    pub(crate) fn name(&self) -> &Ident {
        &self.name
    }

    /// Whether it is a name alone.
    pub(crate) fn is_bare(&self) -> bool {
        self.tokens.is_empty()
    }

    /// What stands after the `=`, if there is one.
    pub(crate) fn value(&self) -> Option<TokenStream> {
        let mut tokens = self.tokens.clone().into_iter();
        match tokens.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => Some(tokens.collect()),
            _ => None,
        }
    }

    /// Parses what stands in parentheses after the name; `form` says how it is written.
    pub(crate) fn in_parentheses<T>(
        &self,
        form: &str,
        parse: impl FnOnce(ParseStream<'_>) -> Result<T>,
    ) -> Result<T> {
        let parenthesized = |input: ParseStream<'_>| {
            if !input.peek(syn::token::Paren) {
                return Err(Error::new(self.name.span(), form));
            }
            let content;
            syn::parenthesized!(content in input);
            let parsed = parse(&content)?;
            match content.is_empty() && input.is_empty() {
                true => Ok(parsed),
                false => Err(content.error(form)),
            }
        };
        parenthesized.parse2(self.tokens.clone())
    }

    /// An error that points at the value, or at the name where there is none.
    pub(crate) fn error(&self, message: impl std::fmt::Display) -> Error {
        match self.value() {
            Some(value) if !value.is_empty() => Error::new_spanned(value, message),
            _ => Error::new(self.name.span(), message),
        }
    }

    /// An error that says what the attribute takes.
    pub(crate) fn wants(&self, what: &str) -> Error {
        self.error(format!("`{}` takes {what}", self.name))
    }
}

/// All arguments of one attribute: known ones, each given once, none beside `host_only` that needs a machine.
pub(crate) struct Arguments(BTreeMap<String, Argument>);

impl Arguments {
    pub(crate) fn parse(attributes: TokenStream) -> Result<Self> {
        let list = Punctuated::<Argument, Token![,]>::parse_terminated.parse2(attributes)?;
        let mut arguments = BTreeMap::new();
        for argument in list {
            let name = argument.name.to_string();
            let span = argument.name.span();
            if needs(&name).is_none() {
                return Err(Error::new(span, unknown(&name)));
            }
            if arguments.insert(name.clone(), argument).is_some() {
                return Err(Error::new(span, format!("`{name}` is given twice")));
            }
        }
        Ok(Self(arguments))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Argument> {
        self.0.get(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Where an error of the attribute `name` belongs.
    pub(crate) fn span(&self, name: &str) -> Option<Span> {
        self.get(name).map(|argument| argument.error("").span())
    }

    /// The first argument that needs `what`.
    pub(crate) fn first_that_needs(&self, what: impl Fn(Needs) -> bool) -> Option<&Argument> {
        let mut arguments = self.0.iter();
        let found = arguments.find(|(name, _)| needs(name).is_some_and(&what));
        found.map(|(_, argument)| argument)
    }
}

/// What a test needs to declare `name`; `None` if nothing is called so.
fn needs(name: &str) -> Option<Needs> {
    if let Some(attribute) = attribute(name) {
        return Some(attribute.needs);
    }
    let check = Check::settable().find(|check| check.name() == name)?;
    Some(match check.spec().judged_by.needs_machine() {
        true => Needs::Machine,
        false => Needs::Nothing,
    })
}

fn unknown(name: &str) -> String {
    let checks: Vec<&str> = Check::settable().map(Check::name).collect();
    let all = attributes().map(|(_, attribute)| attribute.name);
    let all: Vec<&str> = all.chain(checks.iter().copied()).collect();
    let meant = match closest(name, &all) {
        Some(known) => format!(", did you mean `{known}`?"),
        None => ".".to_owned(),
    };
    let sections = Section::ALL.map(|section| {
        let names = section.attributes().iter().map(|attribute| attribute.name);
        format!(
            "{}: {}",
            section.title(),
            names.collect::<Vec<_>>().join(", ")
        )
    });
    format!(
        "there is no attribute `{name}`{meant} There are, for {}; and the checks: {}",
        sections.join("; for "),
        checks.join(", ")
    )
}

/// The name that is at most two edits away, if `name` may be a slip of it.
fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let by_distance = known.iter().map(|known| (distance(name, known), *known));
    let (distance, known) = by_distance.min()?;
    (distance <= 2 && distance < name.len()).then_some(known)
}

/// Characters to insert, remove or replace (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
