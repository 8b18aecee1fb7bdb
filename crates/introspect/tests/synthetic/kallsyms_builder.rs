//! Writes the tables of kallsyms as `scripts/kallsyms.c` does, without compression beyond single characters.

/// How addresses are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// As the distance from the entry itself.
    FromItself,
    /// As the distance from a base.
    FromBase,
    /// As the distance from a base downwards; small ones as they are.
    WithPerCpu,
}

/// Symbols: address, type letter and name, in order of address.
pub(crate) type Symbol = (u64, char, String);

/// Read-only data that is linked at `address`, with the tables at some place in it.
pub(crate) fn rodata(symbols: &[Symbol], address: u64, form: Form) -> Vec<u8> {
    let mut out = b"what is before it\0".to_vec();
    let align = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(8), 0);
    align(&mut out);
    out.extend(u32::try_from(symbols.len()).unwrap().to_le_bytes());
    align(&mut out);
    let names_at = out.len();
    let mut markers = Vec::new();
    for (number, (_, kind, name)) in symbols.iter().enumerate() {
        if number % 256 == 0 {
            markers.push(u32::try_from(out.len() - names_at).unwrap());
        }
        let name = [&[u8::try_from(*kind).unwrap()], name.as_bytes()].concat();
        match u8::try_from(name.len()).unwrap() {
            len @ ..0x80 => out.push(len),
            len => out.extend([(len & 0x7f) | 0x80, len >> 7]),
        }
        out.extend(name);
    }
    align(&mut out);
    out.extend(markers.iter().flat_map(|marker| marker.to_le_bytes()));
    align(&mut out);
    let tokens_at = out.len();
    let mut starts = Vec::new();
    for token in 0..=255_u8 {
        starts.push(u16::try_from(out.len() - tokens_at).unwrap());
        let text: &[u8] = match &token {
            0x21..=0x7e => &[token],
            // As the compression leaves it: a few long ones.
            0 => b"__pfx_",
            _ => b"a_token_of_many",
        };
        out.extend(text);
        out.push(0);
    }
    align(&mut out);
    out.extend(starts.iter().flat_map(|start| start.to_le_bytes()));
    align(&mut out);
    let base = 0xffff_ffff_8100_0000;
    for (symbol, ..) in symbols {
        let here = address + out.len() as u64;
        let distance = match form {
            Form::FromItself => symbol.wrapping_sub(here),
            Form::FromBase => symbol.wrapping_sub(base),
            Form::WithPerCpu if *symbol < base => *symbol,
            Form::WithPerCpu => (base - 1).wrapping_sub(*symbol),
        };
        out.extend(&distance.to_le_bytes()[..4]);
    }
    if !matches!(form, Form::FromItself) {
        align(&mut out);
        out.extend(base.to_le_bytes());
    }
    let mut order: Vec<u32> = (0..).take(symbols.len()).collect();
    order.sort_by_key(|&number| (&symbols[number as usize].2, number));
    out.extend(
        order
            .iter()
            .flat_map(|number| number.to_be_bytes()[1..].to_vec()),
    );
    out.extend(b"what is after it");
    out
}
