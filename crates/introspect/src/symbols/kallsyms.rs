//! The tables behind `/proc/kallsyms`, found in a kernel's read-only data by their structure
//! (`scripts/kallsyms.c`, `kernel/kallsyms.c`).
//!
//! They lie in this order: the number of symbols, the names (each a length and as many tokens), markers (where
//! every 256th name begins), the 256 tokens, where each token begins, the addresses, and the symbols in order
//! of their names. Names stay compressed here; one is expanded when it is asked for.

use std::cmp::Ordering;

use super::Place;
use crate::bytes::{array, u16_at, u32_at, u64_at};

const TOKENS: usize = 256;
/// Symbols per marker.
const MARKER_STEP: usize = 256;
/// `KSYM_NAME_LEN`.
const MAX_NAME_BYTES: usize = 512;
/// Bytes of one entry of the order of names (`kallsyms_seqs_of_names`).
const SEQ_BYTES: usize = 3;
/// Padding between tables is less than this.
const MAX_ALIGN: usize = 8;
/// Kernel text is above this (`__START_KERNEL_map`).
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// Why there are no symbols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KallsymsError {
    /// Nothing looks like the table of tokens.
    #[error("no table of name tokens is there: the kernel was built without CONFIG_KALLSYMS")]
    NoTokens,
    /// The tokens are there, but a table is not where it should be.
    #[error("the kallsyms tables are of a form that is not known here: no {what} around {at:#x}")]
    Form {
        /// Which table.
        what: &'static str,
        /// The address that was looked at.
        at: u64,
    },
}

/// Symbols in a kernel's own, compressed form.
#[derive(Clone)]
pub struct Kallsyms {
    names: Box<[u8]>,
    markers: Box<[u32]>,
    tokens: Box<[u8]>,
    token_starts: Box<[u16]>,
    /// In ascending order.
    addresses: Box<[u64]>,
    /// `SEQ_BYTES` for each symbol, big-endian: the symbols in order of name, then address.
    by_name: Box<[u8]>,
}

impl Kallsyms {
    /// Finds the tables in the kernel's `.rodata`, which is linked at `address`.
    pub fn find_in(rodata: &[u8], address: u64) -> Result<Self, KallsymsError> {
        let mut result = Err(KallsymsError::NoTokens);
        for tokens in find_tokens(rodata) {
            result = Search { rodata, address }.at_tokens(&tokens);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// All symbols in order of address: address, type letter (`nm`) and name.
    pub fn iter(&self) -> impl Iterator<Item = (u64, char, String)> + '_ {
        let mut at = 0;
        self.addresses.iter().map_while(move |&address| {
            let (tokens, next) = entry(&self.names, at)?;
            at = next;
            let mut name = self.expand(tokens);
            let kind = name.next()?;
            Some((address, char::from(kind), text(name)))
        })
    }

    pub(super) fn find(&self, name: &str) -> Option<u64> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.compare(self.seq(middle)?, name)? {
                Ordering::Less => low = middle + 1,
                Ordering::Greater | Ordering::Equal => high = middle,
            }
        }
        let found = self.seq(low)?;
        let is_it = self.compare(found, name)? == Ordering::Equal;
        is_it.then(|| self.addresses.get(found).copied()).flatten()
    }

    pub(super) fn place(&self, address: u64) -> Option<Place> {
        let after = self.addresses.partition_point(|&start| start <= address);
        let found = *self.addresses.get(after.checked_sub(1)?)?;
        let first = self.addresses.partition_point(|&start| start < found);
        let is_global = |&number: &usize| {
            let kind = self.name_of(number).and_then(|mut name| name.next());
            kind.is_some_and(|kind| kind.is_ascii_uppercase())
        };
        let number = (first..after).find(is_global).unwrap_or(first);
        Some(Place {
            name: text(self.name_of(number)?.skip(1)),
            offset: address - found,
        })
    }

    /// The number of the symbol at `place` in the order of names.
    fn seq(&self, place: usize) -> Option<usize> {
        let [high, middle, low] = array(&self.by_name, place.checked_mul(SEQ_BYTES)?)?;
        Some(u32::from_be_bytes([0, high, middle, low]) as usize)
    }

    fn compare(&self, number: usize, name: &str) -> Option<Ordering> {
        let its_name = self.name_of(number)?.skip(1);
        Some(its_name.cmp(name.bytes()))
    }

    /// Type letter and name of a symbol.
    fn name_of(&self, number: usize) -> Option<impl Iterator<Item = u8> + '_> {
        let marker = *self.markers.get(number / MARKER_STEP)?;
        let mut at = marker as usize;
        for _ in 0..number % MARKER_STEP {
            at = entry(&self.names, at)?.1;
        }
        Some(self.expand(entry(&self.names, at)?.0))
    }

    fn expand<'a>(&'a self, tokens: &'a [u8]) -> impl Iterator<Item = u8> + 'a {
        let token = |&number: &u8| {
            let start = self.token_starts[usize::from(number)];
            let rest = self.tokens.get(usize::from(start)..).unwrap_or_default();
            rest.iter().copied().take_while(|&byte| byte != 0)
        };
        tokens.iter().flat_map(token).take(MAX_NAME_BYTES)
    }
}

fn text(bytes: impl Iterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The tokens of the name at `at`, and where the next name begins.
fn entry(names: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let first = *names.get(at)?;
    let (len, start) = if first & 0x80 == 0 {
        (usize::from(first), at + 1)
    } else {
        let second = *names.get(at + 1)?;
        (usize::from(first & 0x7f) | usize::from(second) << 7, at + 2)
    };
    let end = start.checked_add(len)?;
    Some((names.get(start..end)?, end))
}

/// Where tokens may be, and where the table of their beginnings is.
struct TokenTable {
    start: usize,
    end: usize,
    starts: Vec<u16>,
    starts_at: usize,
}

/// The places at which 256 texts are followed by the table of where each begins.
///
/// Every character that occurs in a name is its own token, and digits do: so the tokens 0x30 to 0x39 are
/// `0` to `9`.
fn find_tokens(rodata: &[u8]) -> impl Iterator<Item = TokenTable> + '_ {
    const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
    memchr::memmem::find_iter(rodata, DIGITS).filter_map(|at| token_table(rodata, at))
}

fn token_table(rodata: &[u8], digits_at: usize) -> Option<TokenTable> {
    // Tokens are short: 256 of them have not even twice as many bytes, a symbol's length is far.
    let mut start = digits_at;
    for _ in 0..b'0' {
        let before = rodata.get(start.saturating_sub(MAX_NAME_BYTES)..start.checked_sub(1)?)?;
        let previous = before.iter().rposition(|&byte| byte == 0)?;
        start -= before.len() - previous;
    }
    let mut starts = Vec::with_capacity(TOKENS);
    let mut end = start;
    for _ in 0..TOKENS {
        starts.push(u16::try_from(end - start).ok()?);
        let rest = rodata.get(end..)?;
        let len = rest
            .iter()
            .take(MAX_NAME_BYTES)
            .position(|&byte| byte == 0)?;
        end += len + 1;
    }
    let is_it = |&at: &usize| {
        let mut found = (at..).step_by(2).map(|at| u16_at(rodata, at));
        starts
            .iter()
            .all(|&start| found.next() == Some(Some(start)))
    };
    let starts_at = (end..end + MAX_ALIGN).find(is_it)?;
    Some(TokenTable {
        start,
        end,
        starts,
        starts_at,
    })
}

/// How addresses are written, newest first.
#[derive(Clone, Copy)]
enum Encoding {
    /// As the distance from the entry itself.
    Itself,
    /// As the distance from a base, which follows.
    Base,
    /// Negative ones from the base downwards; others are places in the per-CPU area
    /// (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`).
    BaseOrPerCpu,
}

impl Encoding {
    const ALL: [Self; 3] = [Self::Itself, Self::Base, Self::BaseOrPerCpu];
}

struct Search<'a> {
    rodata: &'a [u8],
    address: u64,
}

impl Search<'_> {
    fn at_tokens(&self, tokens: &TokenTable) -> Result<Kallsyms, KallsymsError> {
        let form = |what, at: usize| KallsymsError::Form {
            what,
            at: self.address.wrapping_add(at as u64),
        };
        let (markers_at, markers) = self
            .markers(tokens.start)
            .ok_or(form("markers", tokens.start))?;
        let (names, count) = self
            .names(markers_at, &markers)
            .ok_or(form("names", markers_at))?;
        let after = tokens.starts_at + TOKENS * size_of::<u16>();
        let mut kallsyms = Kallsyms {
            names: names.into(),
            markers: markers.into(),
            tokens: self.rodata[tokens.start..tokens.end].into(),
            token_starts: tokens.starts.clone().into(),
            addresses: Box::default(),
            by_name: Box::default(),
        };
        for at in (after..after + MAX_ALIGN).filter(|&at| self.is_aligned(at, 4)) {
            for encoding in Encoding::ALL {
                let Some((addresses, end)) = self.addresses(encoding, at, count) else {
                    continue;
                };
                let Some(by_name) = self.rodata.get(end..end + count * SEQ_BYTES) else {
                    continue;
                };
                kallsyms.addresses = addresses.into();
                kallsyms.by_name = by_name.into();
                if self.has_text(&kallsyms) {
                    return Ok(kallsyms);
                }
            }
        }
        Err(form("addresses", after))
    }

    fn is_aligned(&self, at: usize, align: u64) -> bool {
        self.address.wrapping_add(at as u64).is_multiple_of(align)
    }

    /// The markers, which end where the tokens begin, but for padding. They ascend from 0.
    fn markers(&self, tokens_at: usize) -> Option<(usize, Vec<u32>)> {
        let ends = (tokens_at.saturating_sub(MAX_ALIGN - 1)..=tokens_at).rev();
        ends.filter(|&end| self.is_aligned(end, 4)).find_map(|end| {
            let mut markers = Vec::new();
            let mut at = end;
            let mut above = u32::MAX;
            while above > 0 {
                at = at.checked_sub(4)?;
                let marker = u32_at(self.rodata, at)?;
                if marker >= above {
                    return None;
                }
                markers.push(marker);
                above = marker;
            }
            markers.reverse();
            // A single 0 is padding.
            (markers.len() > 1).then_some((at, markers))
        })
    }

    /// The names, which end where the markers begin, but for padding; and how many there are.
    fn names(&self, markers_at: usize, markers: &[u32]) -> Option<(&[u8], usize)> {
        let last = *markers.last()? as usize;
        let most = markers.len() * MARKER_STEP;
        let counts = most - MARKER_STEP + 1..=most;
        let latest = markers_at.checked_sub(last)?;
        let earliest = latest.saturating_sub(MARKER_STEP * MAX_NAME_BYTES);
        (earliest..=latest)
            .rev()
            .filter(|&at| self.is_aligned(at, 4))
            .find_map(|at| {
                // The count is a word of 4 bytes, after which there may be padding.
                let count = [4, MAX_ALIGN].into_iter().find_map(|before| {
                    let count = u32_at(self.rodata, at.checked_sub(before)?)? as usize;
                    counts.contains(&count).then_some(count)
                })?;
                let names = self.rodata.get(at..markers_at)?;
                let end = walk(names, markers, count)?;
                (names.len() - end < MAX_ALIGN).then_some((&names[..end], count))
            })
    }

    /// The addresses, and where they end; nothing if they make no sense in this encoding.
    fn addresses(&self, encoding: Encoding, at: usize, count: usize) -> Option<(Vec<u64>, usize)> {
        let mut end = at + count * 4;
        let (words, _) = self.rodata.get(at..end)?.as_chunks::<4>();
        let base = match encoding {
            Encoding::Itself => self.address.wrapping_add(at as u64),
            Encoding::Base | Encoding::BaseOrPerCpu => {
                let base_at = (end..end + MAX_ALIGN).find(|&at| self.is_aligned(at, 8))?;
                end = base_at + 8;
                u64_at(self.rodata, base_at)?
            }
        };
        let mut addresses = Vec::with_capacity(count);
        let (mut here, mut last) = (base, 0);
        for &word in words {
            let offset = i32::from_le_bytes(word);
            let address = match encoding {
                Encoding::Itself => here.wrapping_add_signed(offset.into()),
                Encoding::Base => base.wrapping_add(offset.cast_unsigned().into()),
                Encoding::BaseOrPerCpu => match u64::try_from(offset) {
                    Ok(absolute) => absolute,
                    Err(_) => base.wrapping_sub(1).wrapping_add_signed(-i64::from(offset)),
                },
            };
            if address < last {
                return None;
            }
            last = address;
            here = here.wrapping_add(4);
            addresses.push(address);
        }
        Some((addresses, end))
    }

    /// Whether the kernel's text comes out where it can be: below its read-only data.
    fn has_text(&self, kallsyms: &Kallsyms) -> bool {
        let text = kallsyms.find("_text").or_else(|| kallsyms.find("_stext"));
        text.is_some_and(|text| (KERNEL_MAP..self.address).contains(&text))
    }
}

/// Where `count` names end, if every marker points to the name it should.
fn walk(names: &[u8], markers: &[u32], count: usize) -> Option<usize> {
    let mut at = 0;
    for number in 0..count {
        if number % MARKER_STEP == 0 && *markers.get(number / MARKER_STEP)? as usize != at {
            return None;
        }
        at = entry(names, at)?.1;
    }
    Some(at)
}

impl std::fmt::Debug for Kallsyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kallsyms")
            .field("symbols", &self.len())
            .finish_non_exhaustive()
    }
}
