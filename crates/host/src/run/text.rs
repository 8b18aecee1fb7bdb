//! Text of a guest that may write without end.

const HEAD_BYTES: usize = 256 << 10;
const TAIL_BYTES: usize = 256 << 10;

/// Keeps the beginning and the end of a stream, and counts what fell out between.
#[derive(Debug, Default)]
pub(crate) struct BoundedText {
    head: Vec<u8>,
    tail: Vec<u8>,
    dropped: u64,
}

impl BoundedText {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend_from_slice(rest);
        // Twice the size before cutting, so that the cost of moving bytes stays constant a byte.
        if self.tail.len() > 2 * TAIL_BYTES {
            self.cut_tail();
        }
    }

    /// What is left of it, with a line in place of what fell out.
    pub(crate) fn into_text(mut self) -> String {
        if self.tail.len() > TAIL_BYTES {
            self.cut_tail();
        }
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.dropped > 0 {
            text.push_str(&format!("\n[… {} bytes left out …]\n", self.dropped));
        }
        text.push_str(&String::from_utf8_lossy(&self.tail));
        text
    }

    /// Bytes that fell out so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn cut_tail(&mut self) {
        let excess = self.tail.len() - TAIL_BYTES;
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_both_ends_and_counts_the_rest(pieces in prop::collection::vec(0usize..200_000, 0..12)) {
            let all: Vec<u8> = (0..pieces.iter().sum()).map(|at| b'a' + u8::try_from(at % 26).unwrap()).collect();
            let mut text = BoundedText::default();
            let mut rest = &all[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece);
                text.push(now);
                prop_assert!(text.head.len() + text.tail.len() <= HEAD_BYTES + 2 * TAIL_BYTES + 200_000);
                rest = later;
            }
            let mut kept = text.into_text().into_bytes();
            if all.len() > HEAD_BYTES + TAIL_BYTES {
                prop_assert!(kept.starts_with(&all[..HEAD_BYTES]));
                let dropped = all.len() - HEAD_BYTES - TAIL_BYTES;
                let note = format!("\n[… {dropped} bytes left out …]\n");
                kept.drain(..HEAD_BYTES + note.len());
                prop_assert_eq!(kept, &all[all.len() - TAIL_BYTES..]);
            } else {
                prop_assert_eq!(kept, all);
            }
        }
    }
}
