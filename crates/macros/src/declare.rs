//! `declare_scheduler!`.

use std::collections::BTreeMap;

use ktstr_declaration::Check;
use ktstr_topology::Topology;
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Attribute, Error, Expr, Ident, Lit, LitStr, Result, Token, Visibility, braced};

const FIELDS: [&str; 11] = [
    "name",
    "binary",
    "binary_path",
    "enable",
    "disable",
    "is_enabled",
    "topology",
    "sched_args",
    "ops",
    "kernels",
    CHECKS,
];

/// The field with a form of its own.
const CHECKS: &str = "checks";

struct Declaration {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    ident: Ident,
    fields: BTreeMap<String, Field>,
}

struct Field {
    name: Ident,
    value: Value,
}

enum Value {
    Expr(Box<Expr>),
    /// Variants of `Check` that are turned off.
    ChecksOff(Vec<Ident>),
}

impl Field {
    /// The value of any field but [`CHECKS`].
    fn expr(&self) -> Result<&Expr> {
        match &self.value {
            Value::Expr(value) => Ok(value),
            Value::ChecksOff(_) => Err(Error::new(self.name.span(), "takes a value")),
        }
    }
}

/// `{ cpu_share = off, cpu_quota = off }`.
fn checks_off(input: ParseStream<'_>) -> Result<Vec<Ident>> {
    let form = "`checks` takes checks that are off, in braces: `{ cpu_share = off }`";
    if !input.peek(syn::token::Brace) {
        return Err(input.error(form));
    }
    let content;
    braced!(content in input);
    let mut off: Vec<Ident> = Vec::new();
    while !content.is_empty() {
        let name: Ident = content.parse()?;
        let may_ignore = |check: &Check| check.spec().scheduler_may_ignore;
        let mut ignorable = Check::settable().filter(may_ignore);
        let Some(check) = ignorable.find(|check| name == check.name()) else {
            let names: Vec<&str> = Check::settable()
                .filter(may_ignore)
                .map(Check::name)
                .collect();
            let message = format!(
                "a scheduler can't turn `{name}` off; it can turn off what it ignores by design: {}",
                names.join(", ")
            );
            return Err(Error::new(name.span(), message));
        };
        content.parse::<Token![=]>()?;
        let value: Ident = content
            .parse()
            .map_err(|error| Error::new(error.span(), form))?;
        if value != "off" {
            return Err(Error::new(value.span(), form));
        }
        let variant = format_ident!("{check:?}", span = name.span());
        if off.contains(&variant) {
            return Err(Error::new(name.span(), format!("`{name}` is given twice")));
        }
        off.push(variant);
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(off)
}

impl Parse for Field {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name: Ident = input.parse()?;
        input.parse::<Token![=]>()?;
        let value = if name == CHECKS {
            Value::ChecksOff(checks_off(input)?)
        } else {
            Value::Expr(Box::new(input.parse()?))
        };
        Ok(Self { name, value })
    }
}

impl Parse for Declaration {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let ident = input.parse()?;
        input.parse::<Token![,]>()?;
        let content;
        braced!(content in input);
        input.parse::<Option<Token![,]>>()?;
        let mut fields = BTreeMap::new();
        for field in Punctuated::<Field, Token![,]>::parse_terminated(&content)? {
            let name = field.name.to_string();
            if !FIELDS.contains(&name.as_str()) {
                let message = format!("there is no `{name}`; there are: {}", FIELDS.join(", "));
                return Err(Error::new(field.name.span(), message));
            }
            let span = field.name.span();
            if fields.insert(name.clone(), field).is_some() {
                return Err(Error::new(span, format!("`{name}` is given twice")));
            }
        }
        Ok(Self {
            attributes,
            visibility,
            ident,
            fields,
        })
    }
}

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let declaration: Declaration = syn::parse2(input)?;
    let Declaration {
        attributes,
        visibility,
        ident,
        fields,
    } = &declaration;
    let name = text(fields, "name")?
        .ok_or_else(|| Error::new(ident.span(), "a scheduler needs a `name`"))?;
    let source = source(&declaration)?;
    let topology = match fields.get("topology") {
        Some(field) => topology(field)?,
        None => TokenStream::new(),
    };
    let mut calls = TokenStream::new();
    for (list, may_be_empty) in [("sched_args", true), ("kernels", false)] {
        if let Some(field) = fields.get(list) {
            let (method, texts) = (&field.name, texts(field, may_be_empty)?);
            calls.extend(quote!(.#method(&[#(#texts),*])));
        }
    }
    if let Some(Field {
        value: Value::ChecksOff(off),
        ..
    }) = fields.get(CHECKS)
    {
        calls.extend(quote!(.checks_off(&[#(::ktstr::scenario::Check::#off),*])));
    }
    if let Some(ops) = text(fields, "ops")? {
        calls.extend(quote!(.ops(#ops)));
    }
    Ok(quote! {
        #(#attributes)*
        #visibility static #ident: ::ktstr::Scheduler = ::ktstr::Scheduler::named(#name)
            #source #topology #calls
            .declared_in(::core::env!("CARGO_MANIFEST_DIR"));
    })
}

fn source(declaration: &Declaration) -> Result<TokenStream> {
    let fields = &declaration.fields;
    let (binary, path) = (text(fields, "binary")?, text(fields, "binary_path")?);
    let is_enabled = text(fields, "is_enabled")?;
    if let (Some(command), None) = (&is_enabled, fields.get("enable")) {
        let message = "`is_enabled` goes with `enable` and `disable`: a program's scheduler is named by the kernel";
        return Err(Error::new(command.span(), message));
    }
    let is_enabled = is_enabled.map(|command| quote!(.is_enabled(#command)));
    match (
        binary,
        path,
        text(fields, "enable")?,
        text(fields, "disable")?,
    ) {
        (Some(binary), None, None, None) => Ok(quote!(.binary_discover(#binary))),
        (None, Some(path), None, None) => Ok(quote!(.binary_path(#path))),
        (None, None, Some(enable), Some(disable)) => {
            Ok(quote!(.kernel_builtin(#enable, #disable) #is_enabled))
        }
        _ => Err(Error::new(
            declaration.ident.span(),
            "a scheduler needs one of `binary`, `binary_path`, or `enable` with `disable`",
        )),
    }
}

fn topology(field: &Field) -> Result<TokenStream> {
    let value = field.expr()?;
    let wrong = || {
        let message = "`topology` takes four numbers: (numa_nodes, llcs, cores, threads)";
        Error::new(value.span(), message)
    };
    let Expr::Tuple(tuple) = value else {
        return Err(wrong());
    };
    let mut counts = Vec::new();
    for element in &tuple.elems {
        match element {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(number) => counts.push(number.base10_parse::<u32>()?),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
    }
    let [numa_nodes, llcs, cores, threads] = counts[..] else {
        return Err(wrong());
    };
    Topology::new(numa_nodes, llcs, cores, threads)
        .map_err(|error| Error::new(value.span(), error))?;
    Ok(quote!(.topology(#numa_nodes, #llcs, #cores, #threads)))
}

fn text(fields: &BTreeMap<String, Field>, name: &str) -> Result<Option<LitStr>> {
    fields
        .get(name)
        .map(|field| {
            let value = field.expr()?;
            literal(value).ok_or_else(|| wants(&value.span(), &field.name, "a text"))
        })
        .transpose()
}

/// The texts of a list. Only arguments of a program may be empty.
fn texts(field: &Field, may_be_empty: bool) -> Result<Vec<LitStr>> {
    let value = field.expr()?;
    let wrong = || wants(&value.span(), &field.name, "a list of texts");
    let literal =
        |element| any_text(element).filter(|text| may_be_empty || !text.value().is_empty());
    match value {
        Expr::Array(array) => array
            .elems
            .iter()
            .map(literal)
            .collect::<Option<_>>()
            .ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

fn literal(expression: &Expr) -> Option<LitStr> {
    any_text(expression).filter(|text| !text.value().is_empty())
}

fn any_text(expression: &Expr) -> Option<LitStr> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn wants(span: &Span, name: &Ident, what: &str) -> Error {
    Error::new(*span, format!("`{name}` takes {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &str) -> String {
        let code = expand(input.parse().expect("tokens")).expect("fine");
        code.to_string().replace(' ', "")
    }

    #[test]
    fn fault_f12_an_argument_may_be_empty_and_a_release_may_not() {
        let declared = |list: &str| format!(r#"S, {{ name = "x", binary = "x", {list} }}"#);
        let code = expanded(&declared(r#"sched_args = ["--cpus", ""]"#));
        assert!(code.contains(r#".sched_args(&["--cpus",""])"#), "{code}");
        let (error, _) = refused(&declared(r#"kernels = [""]"#));
        assert_eq!(error, "`kernels` takes a list of texts");
    }

    /// The error's text, and the part of the source that it points at.
    fn refused(input: &str) -> (String, String) {
        let error = expand(input.parse().expect("tokens")).expect_err("must be refused");
        let place = error.span().source_text().unwrap_or_default();
        (error.to_string(), place)
    }

    #[test]
    fn a_declaration_becomes_a_static() {
        let code = expanded(
            "pub MINE, { name = \"mine\", binary = \"scx_mine\", topology = (1, 2, 4, 1), \
             sched_args = [\"-v\"], kernels = [\"7.3\"], ops = \"m\", \
             checks = { cpu_share = off, cpu_quota = off } }",
        );
        assert!(
            code.starts_with(
                "pubstaticMINE:::ktstr::Scheduler=::ktstr::Scheduler::named(\"mine\")"
            ),
            "{code}"
        );
        for part in [
            ".binary_discover(\"scx_mine\")",
            ".topology(1u32,2u32,4u32,1u32)",
            ".sched_args(&[\"-v\"])",
            ".kernels(&[\"7.3\"])",
            ".ops(\"m\")",
            ".checks_off(&[::ktstr::scenario::Check::CpuShare,\
             ::ktstr::scenario::Check::CpuQuota])",
            ".declared_in(::core::env!(\"CARGO_MANIFEST_DIR\"))",
        ] {
            assert!(code.contains(part), "no {part} in {code}");
        }
        let builtin = expanded(
            "B, { name = \"b\", enable = \"on\", disable = \"off\", is_enabled = \"is\" }",
        );
        assert!(
            builtin.contains(".kernel_builtin(\"on\",\"off\").is_enabled(\"is\")"),
            "{builtin}"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_where_it_stands() {
        for (input, part, at) in [
            ("M, { binary = \"x\" }", "needs a `name`", "M"),
            ("M, { name = \"x\" }", "needs one of `binary`", "M"),
            (
                "M, { name = \"x\", binary = \"x\", binary_path = \"y\" }",
                "needs one of",
                "M",
            ),
            ("M, { name = \"x\", enable = \"on\" }", "needs one of", "M"),
            (
                "M, { name = \"x\", binary = \"x\", is_enabled = \"is\" }",
                "goes with `enable`",
                "\"is\"",
            ),
            ("M, { nam = \"x\" }", "there is no `nam`", "nam"),
            ("M, { name = \"x\", name = \"y\" }", "given twice", "name"),
            ("M, { name = 3 }", "`name` takes a text", "3"),
            (
                "M, { name = \"x\", binary = \"x\", topology = (1, 3) }",
                "four numbers",
                "(1, 3)",
            ),
            (
                "M, { name = \"x\", binary = \"x\", topology = (2, 3, 1, 1) }",
                "multiple of",
                "(2, 3, 1, 1)",
            ),
            (
                "M, { name = \"x\", checks = { kernel_log = off } }",
                "can't turn `kernel_log` off; it can turn off what it ignores by design: cpu_quota",
                "kernel_log",
            ),
            (
                "M, { name = \"x\", checks = { cpu_share = true } }",
                "takes checks that are off",
                "true",
            ),
            ("M, { name = \"x\", checks = off }", "in braces", "off"),
            (
                "M, { name = \"x\", checks = { affinity = off, affinity = off } }",
                "given twice",
                "affinity",
            ),
            (
                "M, { name = \"x\", binary = \"x\", kernels = \"7.3\" }",
                "a list of texts",
                "\"7.3\"",
            ),
        ] {
            let (error, place) = refused(input);
            assert!(error.contains(part), "{input}: {error}");
            assert_eq!(place, at, "{input}");
        }
    }
}
