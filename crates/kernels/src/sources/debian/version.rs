//! Debian's order of package versions (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions as dpkg does: epoch, upstream version, revision.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a_epoch, a_upstream, a_revision) = split(a);
    let (b_epoch, b_upstream, b_revision) = split(b);
    a_epoch
        .cmp(&b_epoch)
        .then_with(|| compare_part(a_upstream, b_upstream))
        .then_with(|| compare_part(a_revision, b_revision))
}

/// The upstream part of a version: `7.3.4` of `7.3.4-1~bpo13+1`.
pub(crate) fn upstream(version: &str) -> &str {
    split(version).1
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Alternates between runs of non-digits, compared by [`rank`], and runs of digits, compared as numbers.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (a_text, a_rest) = a.split_at(a.find(|c: char| c.is_ascii_digit()).unwrap_or(a.len()));
        let (b_text, b_rest) = b.split_at(b.find(|c: char| c.is_ascii_digit()).unwrap_or(b.len()));
        let order = compare_text(a_text, b_text);
        if order != Ordering::Equal {
            return order;
        }
        let (a_number, a_rest) = a_rest.split_at(
            a_rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(a_rest.len()),
        );
        let (b_number, b_rest) = b_rest.split_at(
            b_rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(b_rest.len()),
        );
        let (a_number, b_number) = (
            a_number.trim_start_matches('0'),
            b_number.trim_start_matches('0'),
        );
        let order = a_number
            .len()
            .cmp(&b_number.len())
            .then_with(|| a_number.cmp(b_number));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

fn compare_text(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.bytes(), b.bytes());
    loop {
        let (next_a, next_b) = (a.next(), b.next());
        let order = rank(next_a).cmp(&rank(next_b));
        if order != Ordering::Equal || next_a.is_none() {
            return order;
        }
    }
}

/// `~` sorts before the end, the end before letters, letters before all else.
fn rank(byte: Option<u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => u16::from(letter),
        Some(other) => 256 + u16::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_as_dpkg_does() {
        // Each is older than the next; checked with `dpkg --compare-versions`.
        let rising = [
            "6.12.9-1",
            "6.12.95-1~bpo12+1",
            "6.12.95-1",
            "6.12.117-1",
            "7.2.12-1",
            "7.3~rc4-1~exp1",
            "7.3-1",
            "7.3.4-1~bpo13+1",
            "7.3.4-1",
            "7.3.4-1+b1",
            "7.3.4-2",
            "7.10-1",
            "1:1.0",
        ];
        for (index, a) in rising.iter().enumerate() {
            for (other, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), index.cmp(&other), "{a} against {b}");
            }
        }
        assert_eq!(compare("7.03-1", "7.3-1"), Ordering::Equal);
    }
}
