//! Symbols.

use ktstr_introspect::symbols::{Kallsyms, KallsymsError, Symbols, TextError};
use proptest::prelude::*;

use crate::kallsyms_builder::{Form, Symbol, rodata};

const RODATA: u64 = 0xffff_ffff_8220_0000;

fn symbols(count: usize) -> Vec<Symbol> {
    let text = 0xffff_ffff_8100_0000;
    let mut symbols: Vec<Symbol> = vec![(text, 'T', "_text".to_owned())];
    symbols.extend((1..count).map(|number| {
        let kind = if number % 3 == 0 { 'd' } else { 'T' };
        // Names of all lengths, in an order of their own; some shared.
        let name = format!("{}{}", (number * 7919) % 1009, "x".repeat(number % 140));
        (text + number as u64 * 16, kind, name)
    }));
    symbols
}

#[test]
fn tables_of_every_form_are_found_and_read() {
    for form in [Form::FromItself, Form::FromBase, Form::WithPerCpu] {
        for count in [257, 512, 513, 1500] {
            let mut symbols = symbols(count);
            if matches!(form, Form::WithPerCpu) {
                symbols.insert(0, (0x1c000, 'A', "this_cpu_off".to_owned()));
            }
            let rodata = rodata(&symbols, RODATA, form);
            let kallsyms = Kallsyms::find_in(&rodata, RODATA)
                .unwrap_or_else(|error| panic!("{form:?} {count}: {error}"));
            let read: Vec<Symbol> = kallsyms.iter().collect();
            assert_eq!(read, symbols);
            let kallsyms = Symbols::from(kallsyms);
            for (_, _, name) in &symbols {
                let lowest = symbols.iter().find(|other| other.2 == *name).unwrap().0;
                assert_eq!(kallsyms.find(name), Some(lowest), "{name}");
            }
            assert_eq!(kallsyms.find("zzz"), None);
        }
    }
}

#[test]
fn an_address_lies_in_the_symbol_before_it() {
    let mut symbols = symbols(300);
    let at = symbols[100].0;
    symbols[101].0 = at;
    symbols[102].0 = at;
    symbols[100].1 = 't';
    symbols[101].1 = 'T';
    symbols[102].1 = 't';
    let text: String = symbols
        .iter()
        .map(|(address, kind, name)| format!("{address:016x} {kind} {name}\t[module]\n"))
        .collect();
    let rodata = rodata(&symbols, RODATA, Form::FromItself);
    let compressed = Symbols::from(Kallsyms::find_in(&rodata, RODATA).unwrap());
    let text = Symbols::from_proc_kallsyms(&text).unwrap();
    for symbols_of in [compressed, text] {
        assert_eq!(symbols_of.len(), 300);
        let place = symbols_of.place(at + 5).unwrap();
        assert_eq!(place.name, symbols[101].2, "the global one of several");
        assert_eq!(place.offset, 5);
        assert_eq!(symbols_of.place(symbols[0].0 - 1), None);
        assert_eq!(symbols_of.place(symbols[0].0).unwrap().to_string(), "_text");
    }
}

#[test]
fn text_without_addresses_or_of_another_form_is_refused() {
    let error = |text| Symbols::from_proc_kallsyms(text).unwrap_err();
    assert_eq!(
        error("0000000000000000 T _text\n0000000000000000 T x\n"),
        TextError::Hidden
    );
    assert_eq!(
        error("ffffffff81000000 T _text\n\nffffffff81000000 x\n").to_string(),
        "line 3 of the kernel's symbols is not `ADDRESS TYPE NAME`: \"ffffffff81000000 x\""
    );
    assert!(Symbols::from_proc_kallsyms("").unwrap().is_empty());
}

#[test]
fn data_without_tables_is_told_from_tables_of_another_form() {
    assert_eq!(
        Kallsyms::find_in(&[0; 5000], RODATA).unwrap_err(),
        KallsymsError::NoTokens
    );
    let symbols = symbols(600);
    let bytes = rodata(&symbols, RODATA, Form::FromItself);
    // Cut off in the addresses.
    let error = Kallsyms::find_in(&bytes[..bytes.len() - 3000], RODATA).unwrap_err();
    assert!(
        matches!(
            error,
            KallsymsError::Form {
                what: "addresses",
                ..
            }
        ),
        "{error}"
    );
}

proptest! {
    #[test]
    fn damaged_tables_are_refused_or_read_without_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        start in 0_usize..64,
        form in prop_oneof![Just(Form::FromItself), Just(Form::FromBase), Just(Form::WithPerCpu)],
    ) {
        let mut bytes = rodata(&symbols(300), RODATA, form);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(kallsyms) = Kallsyms::find_in(&bytes[start..], RODATA + start as u64) {
            let len = kallsyms.len();
            prop_assert!(kallsyms.iter().count() <= len);
            let symbols = Symbols::from(kallsyms);
            for name in ["_text", "this_cpu_off", "7", "zzz", ""] {
                symbols.find(name);
            }
            for address in [0, RODATA - 16 * 1000, RODATA - (0x20_0000 * 9), u64::MAX] {
                symbols.place(address);
            }
        }
    }

    #[test]
    fn any_text_is_refused_or_read(text in "([0-9a-f]{1,17}| |[a-zA-Z_]{1,3}|\n|\t|é){0,40}") {
        if let Ok(symbols) = Symbols::from_proc_kallsyms(&text) {
            symbols.place(u64::MAX);
        }
    }
}
