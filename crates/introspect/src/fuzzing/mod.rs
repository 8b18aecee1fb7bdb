//! Fuzz targets: what must hold of all that is read from a kernel's image and out of a guest's memory.
//!
//! `fuzz/` runs them under libFuzzer, the test here with the seeds and what was once found. Not public API: it is
//! there only for tests and with the feature `fuzzing`.

mod bpf_memory;
mod guest;
mod map_memory;
mod page_walk;
mod rendered;
mod sched_memory;

use std::str;

pub use bpf_memory::{map_values, xarray};
pub use map_memory::map_memory;
pub use page_walk::page_tables;
pub use sched_memory::{dispatch_queues, tasks};

use crate::btf::{Btf, TypeId};
use crate::symbols::{Kallsyms, Symbols};
use rendered::render_bounded;

/// What the readers' own tests are made with.
#[path = "../../tests/synthetic"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "the tests use more of it, and stop where they can't go on"
)]
mod synthetic {
    pub(super) mod btf_builder;
    pub(super) mod busy_bpf;
    pub(super) mod busy_sched;
    pub(super) mod fake_bpf;
    pub(super) mod fake_kernel;
    pub(super) mod fake_sched;
    pub(super) mod patched;
}

/// Splits off a number of two bytes; 0 if there are none.
fn u16_of(input: &[u8]) -> (u16, &[u8]) {
    match input.split_first_chunk() {
        Some((number, rest)) => (u16::from_le_bytes(*number), rest),
        None => (0, input),
    }
}

/// Splits off a number of eight bytes; 0 if there are none.
fn u64_of(input: &[u8]) -> (u64, &[u8]) {
    match input.split_first_chunk() {
        Some((number, rest)) => (u64::from_le_bytes(*number), rest),
        None => (0, input),
    }
}

/// So many types are rendered.
const RENDERED: usize = 64;

/// The types of an object, and those of one that continues it: the first two bytes say how long the first is. The input
/// is also the value that is rendered with each.
pub fn btf(input: &[u8]) {
    let value = input;
    let (base_bytes, input) = u16_of(input);
    let (base, split) = input.split_at(usize::from(base_bytes).min(input.len()));
    let Ok(base) = Btf::parse(base) else {
        return;
    };
    synthetic::btf_builder::read_all(&base);
    render_all(&base, value);
    if let Ok(split) = Btf::parse_split(split, &base) {
        assert!(split.end_id() >= base.end_id());
        synthetic::btf_builder::read_all(&split);
        render_all(&split, value);
    }
}

fn render_all(btf: &Btf, value: &[u8]) {
    for id in (0..btf.end_id()).rev().take(RENDERED) {
        render_bounded(btf, TypeId(id), value);
    }
}

/// Symbols, as tables in a kernel's read-only data at some address, or as text: the first byte says which.
pub fn kallsyms(input: &[u8]) {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        let (address, rodata) = u64_of(input);
        let Ok(symbols) = Kallsyms::find_in(rodata, address) else {
            return;
        };
        let listed: Vec<_> = symbols.iter().collect();
        assert!(listed.len() <= symbols.len() && symbols.len() <= rodata.len());
        assert!(listed.is_sorted_by_key(|(address, ..)| *address));
        let symbols = Symbols::from(symbols);
        for (address, _, name) in listed.iter().take(64) {
            let _ = (symbols.find(name), symbols.place(*address));
        }
    } else if let Ok(text) = str::from_utf8(input)
        && let Ok(symbols) = Symbols::from_proc_kallsyms(text)
    {
        assert!(symbols.len() <= text.len());
        for line in text.lines().take(64) {
            let name = line.rsplit(' ').next().unwrap_or_default();
            if let Some(place) = symbols
                .find(name)
                .and_then(|address| symbols.place(address))
            {
                assert!(!place.to_string().is_empty());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    type Target = fn(&[u8]);

    #[test]
    fn kept_inputs_hold() {
        let targets: [(&str, Target); 8] = [
            ("btf", super::btf),
            ("kallsyms", super::kallsyms),
            ("page_tables", super::page_tables),
            ("xarray", super::xarray),
            ("map_values", super::map_values),
            ("map_memory", super::map_memory),
            ("tasks", super::tasks),
            ("dispatch_queues", super::dispatch_queues),
        ];
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        for (name, target) in targets {
            let mut inputs = 0;
            for kept in ["seeds", "regressions"] {
                let Ok(folder) = fs::read_dir(fuzz.join(kept).join(name)) else {
                    continue;
                };
                for file in folder {
                    let path = file.unwrap().path();
                    eprintln!("{}", path.display());
                    target(&fs::read(path).unwrap());
                    inputs += 1;
                }
            }
            assert!(inputs > 0, "there is no input for {name}");
            target(&[]);
        }
    }
}
