//! Reading the attribute's arguments, and refusing what makes no sense at the place where it stands.

use std::collections::BTreeMap;

use ktstr_topology::{NumaSpec, Topology};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned as _;
use syn::{Error, Expr, ExprArray, Ident, Lit, LitFloat, LitInt, LitStr, Result, Token};

use crate::map_write::{self, MapWrite};
use crate::numa;
use crate::scheduler::{self, Under};
use crate::watch::{self, Watch};

/// One `name = value`, or a bare `name` for `name = true`.
pub(crate) struct Argument {
    name: Ident,
    value: Value,
}

pub(crate) enum Value {
    Bool(bool),
    Int(LitInt),
    Float(LitFloat),
    /// The word `off`.
    Off,
    Texts(Vec<LitStr>),
    Numbers(Vec<LitInt>),
    Rows(Vec<Vec<LitInt>>),
    /// A scheduler, or a function.
    Path(syn::Path),
    Expectation(scheduler::Expectation),
    MapWrites(Vec<MapWrite>),
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name: Ident = input.parse()?;
        for own_form in [scheduler::own_form, map_write::own_form, watch::own_form] {
            if let Some(value) = own_form(&name, input)? {
                return Ok(Self { name, value });
            }
        }
        if !input.peek(Token![=]) {
            return Ok(Self {
                name,
                value: Value::Bool(true),
            });
        }
        input.parse::<Token![=]>()?;
        let expression: Expr = input.parse()?;
        let value = Value::read(&expression).ok_or_else(|| {
            let message = format!(
                "the value of `{name}` must be a literal (a number, `true`, `false`, or a list of texts or numbers) or `off`: \
                 it is checked at compile time"
            );
            Error::new(expression.span(), message)
        })?;
        Ok(Self { name, value })
    }
}

impl Value {
    fn read(expression: &Expr) -> Option<Self> {
        match expression {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Bool(value) => Some(Self::Bool(value.value)),
                Lit::Int(value) => Some(Self::Int(value.clone())),
                Lit::Float(value) => Some(Self::Float(value.clone())),
                _ => None,
            },
            Expr::Path(path) if path.path.is_ident("off") => Some(Self::Off),
            Expr::Array(array) => list(array, text)
                .map(Self::Texts)
                .or_else(|| list(array, number).map(Self::Numbers))
                .or_else(|| list(array, row).map(Self::Rows)),
            _ => None,
        }
    }
}

/// All elements, if each is what `read` wants.
fn list<T>(array: &ExprArray, read: impl Fn(&Expr) -> Option<T>) -> Option<Vec<T>> {
    array.elems.iter().map(read).collect()
}

fn row(expression: &Expr) -> Option<Vec<LitInt>> {
    match expression {
        Expr::Array(array) => list(array, number),
        _ => None,
    }
}

fn number(expression: &Expr) -> Option<LitInt> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => Some(number.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn text(expression: &Expr) -> Option<LitStr> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// What a check's attribute takes.
#[derive(Clone, Copy)]
enum Bound {
    /// `true` or `false`.
    Switch,
    /// A whole number, or `off`.
    Whole,
    /// A number, or `off`.
    Number,
}

/// Checks by name, as `Assert` spells them.
const CHECKS: [(&str, Bound); 21] = [
    ("progress", Bound::Switch),
    ("isolation", Bound::Switch),
    ("cpus_online", Bound::Switch),
    ("kernel_log", Bound::Switch),
    ("cpu_quota", Bound::Switch),
    ("cpu_share", Bound::Switch),
    ("affinity", Bound::Switch),
    ("nice_share", Bound::Switch),
    ("sched_policy", Bound::Switch),
    ("mem_binding", Bound::Switch),
    ("max_gap_ms", Bound::Whole),
    ("max_spread_pct", Bound::Number),
    ("max_p99_wake_latency_ns", Bound::Whole),
    ("min_iteration_rate", Bound::Number),
    ("max_migration_ratio", Bound::Number),
    ("max_throughput_cv", Bound::Number),
    ("max_imbalance_ratio", Bound::Number),
    ("max_local_dsq_depth", Bound::Whole),
    ("fail_on_rq_clock_stuck", Bound::Switch),
    ("max_fallback_rate", Bound::Number),
    ("max_keep_last_rate", Bound::Number),
];

/// Checks with a bound that hold without being asked for.
const ON_BY_DEFAULT: [&str; 4] = [
    "max_gap_ms",
    "max_spread_pct",
    "max_local_dsq_depth",
    "max_fallback_rate",
];

const SETTINGS: [&str; 24] = [
    "numa_nodes",
    "llcs",
    "cores",
    "threads",
    "memory_mib",
    numa::NAMES[0],
    numa::NAMES[1],
    numa::NAMES[2],
    numa::NAMES[3],
    numa::NAMES[4],
    "performance_mode",
    "duration_s",
    "timeout_s",
    "modules",
    "sustained_samples",
    scheduler::NAMES[0],
    scheduler::NAMES[1],
    scheduler::NAMES[2],
    scheduler::NAMES[3],
    scheduler::NAMES[4],
    "host_only",
    "kaslr",
    watch::NAMES[0],
    watch::NAMES[1],
];

/// What a test without a machine can't have.
const OF_THE_MACHINE: [&str; 28] = [
    "numa_nodes",
    "llcs",
    "cores",
    "threads",
    "memory_mib",
    "performance_mode",
    numa::NAMES[0],
    numa::NAMES[1],
    numa::NAMES[2],
    numa::NAMES[3],
    numa::NAMES[4],
    "modules",
    "cpus_online",
    "kernel_log",
    "max_imbalance_ratio",
    "max_local_dsq_depth",
    "fail_on_rq_clock_stuck",
    "max_fallback_rate",
    "max_keep_last_rate",
    "sustained_samples",
    scheduler::NAMES[0],
    scheduler::NAMES[1],
    scheduler::NAMES[2],
    scheduler::NAMES[3],
    scheduler::NAMES[4],
    "kaslr",
    watch::NAMES[0],
    watch::NAMES[1],
];

/// The arguments, read and checked.
pub(crate) struct Attributes {
    /// `(numa_nodes, llcs, cores, threads)`, known to be possible.
    pub(crate) topology: [u32; 4],
    /// Known to be possible with it.
    pub(crate) numa: NumaSpec,
    /// Which of them the test declares itself.
    pub(crate) declared: [bool; 4],
    pub(crate) under: Under,
    pub(crate) watch: Watch,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) performance_mode: bool,
    pub(crate) duration_ms: u64,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) modules: Vec<LitStr>,
    pub(crate) host_only: bool,
    pub(crate) kaslr: bool,
    /// Method calls on `Assert::DEFAULT`.
    pub(crate) assert: TokenStream,
}

/// How long a scenario holds unless the test says otherwise.
const DEFAULT_DURATION_MS: u64 = 2_000;

impl Attributes {
    pub(crate) fn read(arguments: impl IntoIterator<Item = Argument>) -> Result<Self> {
        let mut given: BTreeMap<String, Argument> = BTreeMap::new();
        for argument in arguments {
            let name = argument.name.to_string();
            if !known(&name) {
                return Err(Error::new(argument.name.span(), unknown(&name)));
            }
            if let Some(earlier) = given.insert(name, argument) {
                let name = earlier.name.to_string();
                let span = given
                    .get(&name)
                    .map_or_else(Span::call_site, |again| again.name.span());
                return Err(Error::new(span, format!("`{name}` is given twice")));
            }
        }
        let (counts, topology) = topology(&given)?;
        Ok(Self {
            topology: counts,
            numa: numa::read(&given, &topology)?,
            declared: COUNTS.map(|name| given.contains_key(name)),
            under: scheduler::read(&given)?,
            watch: watch::read(&given)?,
            memory_mib: whole(&given, "memory_mib", 64..=1 << 20)?,
            performance_mode: switch(&given, "performance_mode")?,
            duration_ms: seconds(&given, "duration_s")?.unwrap_or(DEFAULT_DURATION_MS),
            timeout_ms: seconds(&given, "timeout_s")?,
            modules: modules(&given)?,
            host_only: host_only(&given)?,
            kaslr: switch(&given, "kaslr")?,
            assert: assert(&given)?,
        })
    }
}

fn known(name: &str) -> bool {
    SETTINGS.contains(&name) || CHECKS.iter().any(|(check, _)| *check == name)
}

fn unknown(name: &str) -> String {
    let checks: Vec<&str> = CHECKS.iter().map(|(check, _)| *check).collect();
    format!(
        "there is no attribute `{name}`. The machine: {}. The checks: {}",
        SETTINGS.join(", "),
        checks.join(", ")
    )
}

const COUNTS: [&str; 4] = ["numa_nodes", "llcs", "cores", "threads"];

fn topology(given: &BTreeMap<String, Argument>) -> Result<([u32; 4], Topology)> {
    let mut counts = [1; 4];
    for (count, name) in counts.iter_mut().zip(COUNTS) {
        if let Some(value) = whole(given, name, 0..=u64::from(u32::MAX))? {
            *count = u32::try_from(value).unwrap_or(u32::MAX);
        }
    }
    // As many LLCs as nodes is the least that a machine of several nodes can have.
    if !given.contains_key("llcs") {
        counts[1] = counts[0];
    }
    // A scheduler may have declared the rest: then the compiler evaluates what they come to together.
    if given.contains_key("scheduler") {
        let nodes = Topology::new(counts[0], counts[0], 1, 1);
        return Ok((counts, nodes.unwrap_or(Topology::SINGLE)));
    }
    match Topology::new(counts[0], counts[1], counts[2], counts[3]) {
        Ok(topology) => Ok((counts, topology)),
        Err(error) => {
            let text = error.to_string();
            let culprit = COUNTS
                .iter()
                .find(|name| text.contains(&format!("`{name}`")) && given.contains_key(**name));
            let culprit =
                culprit.or_else(|| COUNTS.iter().rev().find(|name| given.contains_key(**name)));
            let span = culprit
                .and_then(|name| given.get(*name))
                .map_or_else(Span::call_site, Argument::value_span);
            Err(Error::new(span, text))
        }
    }
}

impl Argument {
    pub(crate) fn name(&self) -> &Ident {
        &self.name
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    pub(crate) fn value_span(&self) -> Span {
        match &self.value {
            Value::Int(value) => value.span(),
            Value::Float(value) => value.span(),
            _ => self.name.span(),
        }
    }

    pub(crate) fn wants(&self, what: &str) -> Error {
        Error::new(self.value_span(), format!("`{}` takes {what}", self.name))
    }
}

pub(crate) fn whole(
    given: &BTreeMap<String, Argument>,
    name: &str,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>> {
    let Some(argument) = given.get(name) else {
        return Ok(None);
    };
    let what = format!("a whole number from {} to {}", range.start(), range.end());
    match &argument.value {
        Value::Int(value) => match value.base10_parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(argument.wants(&what)),
        },
        _ => Err(argument.wants(&what)),
    }
}

fn switch(given: &BTreeMap<String, Argument>, name: &str) -> Result<bool> {
    match given.get(name) {
        None => Ok(false),
        Some(Argument {
            value: Value::Bool(value),
            ..
        }) => Ok(*value),
        Some(argument) => Err(argument.wants("`true` or `false`")),
    }
}

pub(crate) fn seconds(given: &BTreeMap<String, Argument>, name: &str) -> Result<Option<u64>> {
    let Some(argument) = given.get(name) else {
        return Ok(None);
    };
    let wrong = || argument.wants("a number of seconds above 0 and up to 86400");
    let seconds = match &argument.value {
        Value::Int(value) => value.base10_parse::<f64>(),
        Value::Float(value) => value.base10_parse::<f64>(),
        _ => return Err(wrong()),
    };
    match seconds {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => {
            let duration = std::time::Duration::from_secs_f64(seconds);
            Ok(u64::try_from(duration.as_millis()).ok())
        }
        _ => Err(wrong()),
    }
}

fn modules(given: &BTreeMap<String, Argument>) -> Result<Vec<LitStr>> {
    match given.get("modules") {
        None => Ok(Vec::new()),
        Some(Argument {
            value: Value::Texts(names),
            ..
        }) => Ok(names.clone()),
        Some(argument) => Err(argument.wants("a list of module names, such as [\"veth\"]")),
    }
}

fn host_only(given: &BTreeMap<String, Argument>) -> Result<bool> {
    let host_only = switch(given, "host_only")?;
    let contradiction = OF_THE_MACHINE.iter().find_map(|name| given.get(*name));
    match contradiction.filter(|_| host_only) {
        Some(other) => Err(Error::new(
            other.name.span(),
            format!(
                "`{}` is of the machine, and a `host_only` test has none",
                other.name
            ),
        )),
        None => Ok(host_only),
    }
}

fn assert(given: &BTreeMap<String, Argument>) -> Result<TokenStream> {
    let mut calls = TokenStream::new();
    for (name, bound) in CHECKS {
        let Some(argument) = given.get(name) else {
            continue;
        };
        let method = &argument.name;
        calls.extend(match (bound, &argument.value) {
            (Bound::Switch, Value::Bool(value)) => quote!(.#method(#value)),
            (Bound::Switch, Value::Off) => quote!(.#method(false)),
            (Bound::Switch, _) => return Err(argument.wants("`true`, `false` or `off`")),
            // These are off unless they are set.
            (_, Value::Off | Value::Bool(false)) if !ON_BY_DEFAULT.contains(&name) => {
                TokenStream::new()
            }
            (_, Value::Off | Value::Bool(false)) => {
                let method = Ident::new(&format!("no_{name}"), method.span());
                quote!(.#method())
            }
            (Bound::Whole, Value::Int(value)) => {
                let value = value.base10_parse::<u64>()?;
                quote!(.#method(#value))
            }
            (Bound::Number, Value::Int(value)) => {
                let value = value.base10_parse::<f64>()?;
                quote!(.#method(#value))
            }
            (Bound::Number, Value::Float(value)) => {
                let value = value.base10_parse::<f64>()?;
                quote!(.#method(#value))
            }
            (Bound::Whole, _) => return Err(argument.wants("a whole number or `off`")),
            (Bound::Number, _) => return Err(argument.wants("a number or `off`")),
        });
    }
    if let Some(samples) = whole(given, "sustained_samples", 1..=1000)? {
        let samples = u32::try_from(samples).unwrap_or(u32::MAX);
        calls.extend(quote!(.sustained_samples(#samples)));
    }
    Ok(calls)
}
