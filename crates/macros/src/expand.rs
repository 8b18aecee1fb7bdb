//! What a test function becomes.

use ktstr_declaration::{Needs, Section};
use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, ItemFn, Result};

use crate::arguments::Arguments;
use crate::values::{flag, option, path};
use crate::{checks, expectation, fields, scheduler, shape};

pub(crate) fn expand(attributes: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let arguments = Arguments::parse(attributes)?;
    let mut function: ItemFn = syn::parse2(item)?;
    check_signature(&function)?;

    let name = function.sig.ident.clone();
    // `#[ignore]`, `#[cfg]` and documentation belong to the test, lints to its body.
    let outer = std::mem::take(&mut function.attrs);
    let full_name = quote!(::core::concat!(
        ::core::module_path!(),
        "::",
        ::core::stringify!(#name)
    ));
    let body = quote_spanned!(function.sig.span()=> #name);
    let entry = entry(&arguments, &full_name, &body)?;
    Ok(quote! {
        #(#outer)*
        #[::core::prelude::v1::test]
        fn #name() {
            ::ktstr::__private::run(#full_name);
        }

        const _: () = {
            #function
            // In scope of the body, so by a name that the body won't use.
            #[::ktstr::__private::linkme::distributed_slice(::ktstr::__private::TESTS)]
            #[linkme(crate = ::ktstr::__private::linkme)]
            #[allow(clippy::needless_update)]
            static __KTSTR_TEST: ::ktstr::__private::TestEntry = #entry;
        };
    })
}

/// The `TestEntry`: the struct of each section, and what is of the test itself.
fn entry(
    arguments: &Arguments,
    full_name: &TokenStream,
    body: &TokenStream,
) -> Result<TokenStream> {
    let plain = |section, name| fields::section(section, name, arguments, &TokenStream::new());
    let boot = plain(Section::Boot, "Boot")?;
    let packed = plain(Section::Packed, "Packed")?;
    let run = plain(Section::Run, "Run")?;
    let watch = plain(Section::Watch, "Watch")?;
    let host_only = host_only(arguments)?;
    let post_vm = post_vm(arguments)?;
    let named = scheduler::named(arguments)?;
    let shape = shape::expand(arguments, named.as_ref())?;
    let scheduler = scheduler::expand(arguments, named.as_ref())?;
    let expect = expectation::expand(arguments)?;
    let assert = checks::expand(arguments, named.as_ref())?;
    Ok(quote! {
        ::ktstr::__private::TestEntry {
            name: #full_name,
            shape: #shape,
            boot: #boot,
            packed: #packed,
            run: #run,
            watch: #watch,
            scheduler: #scheduler,
            expect: #expect,
            assert: #assert,
            host_only: #host_only,
            post_vm: #post_vm,
            body: #body,
        }
    })
}

fn host_only(arguments: &Arguments) -> Result<bool> {
    let host_only = arguments.get("host_only").map(flag).transpose()?;
    let of_machine = arguments.first_that_needs(Needs::machine);
    match of_machine.filter(|_| host_only == Some(true)) {
        Some(other) => {
            let message = format!(
                "`{}` needs a machine; a `host_only` test has none",
                other.name()
            );
            Err(Error::new(other.name().span(), message))
        }
        None => Ok(host_only.unwrap_or(false)),
    }
}

fn post_vm(arguments: &Arguments) -> Result<TokenStream> {
    let what = "the name of a function `fn(&VmResult) -> Result<()>`";
    let function = arguments
        .get("post_vm")
        .map(|argument| path(argument, what))
        .transpose()?;
    Ok(option(function.map(
        |function| quote!(|vm| ::ktstr::__private::post_vm_result(#function(vm))),
    )))
}

fn check_signature(function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let form = "a test is `fn name(ctx: &Ctx) -> Result<AssertResult>`";
    let refuse = |span, why: &str| Err(Error::new(span, format!("{why}: {form}")));
    if let Some(token) = &signature.asyncness {
        return refuse(token.span(), "a test body can't be async");
    }
    if !signature.generics.params.is_empty() {
        return refuse(signature.generics.span(), "a test body can't be generic");
    }
    if signature.inputs.len() != 1 {
        return refuse(
            signature.paren_token.span.join(),
            "a test body takes one argument",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "fn t(ctx: &Ctx) -> Result<AssertResult> { todo(ctx) }";

    /// The error's text, and the part of the source that it points at.
    fn refused(attributes: &str, item: &str) -> (String, String) {
        let parse = |text: &str| text.parse::<TokenStream>().expect("tokens");
        let error = expand(parse(attributes), parse(item)).expect_err("must be refused");
        let place = error.span().source_text().unwrap_or_default();
        (error.to_string(), place)
    }

    fn expanded(attributes: &str) -> String {
        let parse = |text: &str| text.parse::<TokenStream>().expect("tokens");
        expand(parse(attributes), parse(BODY))
            .expect("fine")
            .to_string()
    }

    #[test]
    fn an_unknown_attribute_is_refused_where_it_stands() {
        let (error, place) = refused("llcs = 2, llc = 3", BODY);
        let words = "there is no attribute `llc`, did you mean `llcs`? There are, for the machine's shape: numa_nodes, ";
        assert!(error.starts_with(words), "{error}");
        assert!(
            error.contains("; for the scheduler: scheduler, "),
            "{error}"
        );
        assert!(error.contains("; and the checks: progress, "), "{error}");
        assert_eq!(place, "llc");
        let (error, _) = refused("colour = 3", BODY);
        assert!(
            error.starts_with("there is no attribute `colour`. There"),
            "{error}"
        );
    }

    #[test]
    fn every_row_declares_something() {
        use ktstr_declaration::{Check, Takes, attributes};

        let shape = "scheduler = X, numa_nodes = 2";
        for (section, attribute) in attributes() {
            let argument = match &attribute.takes {
                Takes::Flag => attribute.name.to_owned(),
                Takes::Whole(range) => format!("{} = {}", attribute.name, range.end()),
                Takes::Seconds => format!("{} = 7", attribute.name),
                Takes::Form(form) if form.starts_with('(') => format!("{}{form}", attribute.name),
                Takes::Text(example) | Takes::Texts(example) | Takes::Form(example) => {
                    format!("{} = {example}", attribute.name)
                }
            };
            let (without, with) = match attribute.name {
                "scheduler" | "numa_nodes" => (String::new(), argument),
                "host_only" => (String::new(), argument),
                _ => (shape.to_owned(), format!("{shape}, {argument}")),
            };
            assert_ne!(expanded(&with), expanded(&without), "{section:?}: {with}");
        }
        for check in Check::settable() {
            let code = expanded(&format!("{} = off", check.name())).replace(' ', "");
            let preset = expanded("").replace(' ', "");
            assert_ne!(code, preset, "{check:?}");
        }
    }

    #[test]
    fn an_impossible_topology_is_refused_at_its_culprit() {
        let (error, place) = refused("cores = 2, threads = 4", BODY);
        assert_eq!(
            (error.as_str(), place.as_str()),
            ("4 threads per core: x86 cores have 1 or 2", "4")
        );
        let (error, place) = refused("numa_nodes = 2, llcs = 3, cores = 1", BODY);
        assert!(error.contains("multiple of `numa_nodes`"), "{error}");
        assert_eq!(place, "3");
        let (error, place) = refused("llcs = 0", BODY);
        assert!(error.starts_with("`llcs` is 0"), "{error}");
        assert_eq!(place, "0");
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused_where_they_stand() {
        for (attributes, part, at) in [
            ("memory_mib = 1.5", "whole number from 64", "1.5"),
            ("memory_mib = 1", "whole number from 64", "1"),
            ("kaslr = 1", "`true` or `false`", "1"),
            ("duration_s = 0", "seconds above 0", "0"),
            ("isolation = 3", "`true`, `false` or `off`", "3"),
            ("max_gap_ms = 1.5", "a whole number or `off`", "1.5"),
            ("cores = N", "must be a literal", "N"),
            ("modules = [N]", "must be a literal", "[N]"),
            (
                "modules = [1]",
                "a list of texts, such as [\"veth\"]",
                "[1]",
            ),
            ("modules = 1", "a list of texts, such as [\"veth\"]", "1"),
            ("cores", "takes a whole number", "cores"),
            ("cores =", "takes a value", "cores"),
            ("max_gap_ms(5)", "takes a value", "max_gap_ms"),
            ("host_only = 1", "`true` or `false`", "1"),
        ] {
            let (error, place) = refused(attributes, BODY);
            assert!(error.contains(part), "{attributes}: {error}");
            assert_eq!(place, at, "{attributes}");
        }
    }

    #[test]
    fn a_test_without_a_machine_declares_none() {
        let (error, place) = refused("host_only, cores = 2", BODY);
        assert!(error.contains("a `host_only` test has none"), "{error}");
        assert_eq!(place, "cores");
        assert!(expanded("host_only").contains("host_only : true"));
        assert!(expanded("host_only = false, cores = 2").contains("host_only : false"));
    }

    #[test]
    fn an_attribute_given_twice_is_refused_at_the_second() {
        let (error, place) = refused("cores = 1, cores = 2", BODY);
        assert_eq!(
            (error.as_str(), place.as_str()),
            ("`cores` is given twice", "cores")
        );
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        for item in [
            "async fn t(ctx: &Ctx) {}",
            "fn t<T>(ctx: &Ctx) {}",
            "fn t() {}",
            "fn t(a: u8, b: u8) {}",
        ] {
            let (error, _) = refused("", item);
            assert!(
                error.ends_with("`fn name(ctx: &Ctx) -> Result<AssertResult>`"),
                "{item}: {error}"
            );
        }
    }

    #[test]
    fn impossible_nodes_are_refused_where_they_stand() {
        for (attributes, part, at) in [
            (
                "numa_nodes = 2, node_distances = [[10, 30], [21, 10]]",
                "asymmetric: 30 from NUMA node 0 to node 1, but 21 from node 1 to node 0",
                "30",
            ),
            (
                "numa_nodes = 2, node_distances = [[10, 30], [30, 11]]",
                "from NUMA node 1 to itself is 11",
                "11",
            ),
            (
                "numa_nodes = 2, node_distances = [[10, 9], [9, 10]]",
                "from NUMA node 0 to node 1 is 9",
                "9",
            ),
            (
                "numa_nodes = 2, node_distances = [[10, 256], [256, 10]]",
                "whole numbers from 10 to 254",
                "256",
            ),
            (
                "memory_only_node_mib = [64], node_distances = [[10, 20], [20]]",
                "row 1 of `node_distances` has 1 entries, but 2 are needed",
                "20",
            ),
            ("node_distances = [10]", "a row for each", "[10]"),
            (
                "numa_nodes = 2, node_memory_mib = [64]",
                "`node_memory_mib` has 1 entries, but 2 are needed",
                "[64]",
            ),
            ("node_memory_mib = [8]", "from 16 to 1048576", "8"),
            (
                "memory_mib = 512, node_memory_mib = [512]",
                "leave out `memory_mib`",
                "[512]",
            ),
            (
                "memory_only_node_mib = [64], node_latency_ns = [100, 65535]",
                "`node_latency_ns` of NUMA node 1 is 65535",
                "65535",
            ),
        ] {
            let (error, place) = refused(attributes, BODY);
            assert!(error.contains(part), "{attributes}: {error}");
            assert_eq!(place, at, "{attributes}");
        }
    }

    #[test]
    fn nodes_are_declared_as_given() {
        let code = expanded(
            "numa_nodes = 2, node_memory_mib = [768, 256], memory_only_node_mib = [128], \
             node_distances = [[10, 30, 40], [30, 10, 50], [40, 50, 10]], node_latency_ns = [90, 110, 350]",
        )
        .replace(' ', "");
        for part in [
            "node_memory_mib:&[768u64,256u64]",
            "memory_only_node_mib:&[128u64]",
            "node_distances:&[&[10u8,30u8,40u8],&[30u8,10u8,50u8],&[40u8,50u8,10u8]]",
            "node_latency_ns:&[90u32,110u32,350u32]",
            "node_bandwidth_mb_s:&[]",
        ] {
            assert!(code.contains(part), "{code}");
        }
    }

    #[test]
    fn what_comes_after_the_machine_is_a_function() {
        let code = expanded("num_snapshots = 7, post_vm = judges::first").replace(' ', "");
        assert!(code.contains("num_snapshots:7,"), "{code}");
        assert!(code.contains("post_vm_result(judges::first(vm))"), "{code}");
        assert!(
            expanded("")
                .replace(' ', "")
                .contains("post_vm:::core::option::Option::None")
        );
        for (attributes, part, at) in [
            ("num_snapshots = 1001", "from 0 to 1000", "1001"),
            ("post_vm = 3", "takes the name of a function", "3"),
            ("post_vm", "takes the name of a function", "post_vm"),
        ] {
            let (error, place) = refused(attributes, BODY);
            assert!(error.contains(part), "{attributes}: {error}");
            assert_eq!(place, at, "{attributes}");
        }
    }

    #[test]
    fn writes_into_maps_are_paths_and_numbers() {
        let code = expanded(
            "scheduler = X, bpf_map_write(\"fault\" = 3, \"a.b[2]\" = -5, \"strict\" = true)",
        )
        .replace(' ', "");
        let writes = "bpf_map_write:&[(\"fault\",3i128),(\"a.b[2]\",-5i128),(\"strict\",1i128)],";
        assert!(code.contains(writes), "{code}");
        let none = expanded("scheduler = X").replace(' ', "");
        assert!(!none.contains("bpf_map_write"), "{none}");
        for (attributes, part, at) in [
            ("bpf_map_write", "say what to write", "bpf_map_write"),
            ("bpf_map_write = 3", "say what to write", "bpf_map_write"),
            ("bpf_map_write(\"\" = 3)", "names a variable", "\"\""),
            ("bpf_map_write(fault = 3)", "say what to write", "fault"),
            ("bpf_map_write(\"fault\" = 0.5)", "whole number", "0.5"),
            (
                "bpf_map_write(\"x\" = 0x1_0000_0000_0000_0000)",
                "64 bits",
                "0x1_0000_0000_0000_0000",
            ),
            (
                "bpf_map_write(\"x\" = 1, \"x\" = 2)",
                "written twice",
                "\"x\"",
            ),
        ] {
            let (error, place) = refused(&format!("scheduler = X, {attributes}"), BODY);
            assert!(error.contains(part), "{attributes}: {error}");
            assert_eq!(place, at, "{attributes}");
        }
        let (error, _) = refused("bpf_map_write(\"x\" = 1)", BODY);
        assert!(error.contains("needs a `scheduler`"), "{error}");
    }

    #[test]
    fn checks_become_calls() {
        let code = expanded("max_gap_ms = 500, max_spread_pct = off, isolation = false, progress")
            .replace(' ', "");
        assert!(
            code.contains(
                "DEFAULT.progress(true).isolation(false).max_gap_ms(500u64).no_max_spread_pct()"
            ),
            "{code}"
        );
    }

    #[test]
    fn a_tests_own_setting_of_a_check_comes_after_its_schedulers() {
        let code = expanded("scheduler = my::X, cpu_quota = true, affinity = off").replace(' ', "");
        let calls = "assert_under(&my::X).cpu_quota(true).affinity(false)";
        assert!(code.contains(calls), "{code}");
    }

    #[test]
    fn a_scheduler_has_the_counts_that_the_test_lacks() {
        let code =
            expanded("scheduler = my::X, llcs = 2, extra_sched_args = [\"-v\"]").replace(' ', "");
        let none = "::core::option::Option::None";
        let call = format!(
            "topology_under(&my::X,[{none},::core::option::Option::Some(2u32),{none},{none}])"
        );
        assert!(code.contains(&call), "{code}");
        assert!(code.contains("extra_args:&[\"-v\"]"), "{code}");
    }

    #[test]
    fn an_expectation_says_what() {
        for (attributes, part) in [
            ("expect_err(stall)", "Expectation::Stall"),
            ("expect_err(load_failure)", "Expectation::LoadFailure"),
            (
                "expect_err(scx_error(contains = \"x\"))",
                "contains:::core::option::Option::Some(::std::borrow::Cow::Borrowed(\"x\"))",
            ),
            (
                "expect_err(check(max_gap_ms))",
                "Expectation::Check(::std::borrow::Cow::Borrowed(\"max_gap_ms\"))",
            ),
        ] {
            let code = expanded(&format!("scheduler = X, {attributes}")).replace(' ', "");
            assert!(code.contains(part), "{attributes}: {code}");
        }
    }

    #[test]
    fn an_expectation_without_sense_is_refused_where_it_stands() {
        for (attributes, part, at) in [
            (
                "scheduler = X, expect_err",
                "say what is expected",
                "expect_err",
            ),
            (
                "scheduler = X, expect_err(hang)",
                "say what is expected",
                "hang",
            ),
            (
                "scheduler = X, expect_err(scx_error(contains = \" \"))",
                "every error contains",
                "\" \"",
            ),
            ("expect_err(stall)", "needs a `scheduler`", "expect_err"),
            (
                "watchdog_timeout_s = 5",
                "needs a `scheduler`",
                "watchdog_timeout_s",
            ),
            ("scheduler = 3", "takes the name of a scheduler", "3"),
            (
                "scheduler = X, extra_sched_args = 3",
                "a list of texts",
                "3",
            ),
        ] {
            let (error, place) = refused(attributes, BODY);
            assert!(error.contains(part), "{attributes}: {error}");
            assert_eq!(place, at, "{attributes}");
        }
        expanded("expect_err(check(progress))");
    }

    #[test]
    fn counts_that_the_test_lacks_are_left_to_the_library() {
        let code = expanded("numa_nodes = 2").replace(' ', "");
        let none = "::core::option::Option::None";
        let call = format!("topology([::core::option::Option::Some(2u32),{none},{none},{none}])");
        assert!(code.contains(&call), "{code}");
    }
}
