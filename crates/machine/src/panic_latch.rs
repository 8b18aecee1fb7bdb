//! Finds a kernel panic in the bytes of a console.

use ktstr_report::KERNEL_PANIC;

/// What the kernel prints when it can't go on, and the reason that kernel/exit.c gives when PID 1 dies.
const MARKS: [&[u8]; 2] = [KERNEL_PANIC.as_bytes(), b"Attempted to kill init"];

/// A line is judged at its newline, or when it is this long. A guest that never ends its lines is bounded
/// by this.
const LINE_BYTES: usize = 256;

/// What is kept of a long line, so that a mark across the bound is still found.
const OVERLAP_BYTES: usize = 32;

/// Text kept from the panic line on: the kernel's report with a call trace takes 2 to 5 KiB.
const TEXT_BYTES: usize = 16 << 10;

/// Watches a stream for the first panic line, and keeps what follows it.
#[derive(Debug, Default)]
pub(crate) struct PanicLatch {
    line: Vec<u8>,
    text: Option<Vec<u8>>,
}

impl PanicLatch {
    /// Looks at the next bytes of the stream, however they are split.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for (at, &byte) in bytes.iter().enumerate() {
            if let Some(text) = &mut self.text {
                let room = TEXT_BYTES.saturating_sub(text.len());
                let rest = &bytes[at..];
                text.extend_from_slice(&rest[..room.min(rest.len())]);
                return;
            }
            self.line.push(byte);
            if byte == b'\n' || self.line.len() >= LINE_BYTES {
                self.judge(byte == b'\n');
            }
        }
    }

    /// Judges a last line that has no end, once no more bytes will come.
    pub(crate) fn finish(&mut self) {
        if self.text.is_none() {
            self.judge(true);
        }
    }

    /// Whether a panic was seen.
    pub(crate) fn is_set(&self) -> bool {
        self.text.is_some()
    }

    /// The panic line and what came after it.
    pub(crate) fn text(&self) -> Option<String> {
        let text = self.text.as_ref()?;
        let text = String::from_utf8_lossy(text).replace('\r', "");
        Some(text.trim_end().to_owned())
    }

    fn judge(&mut self, line_ended: bool) {
        let has_mark = MARKS
            .iter()
            .any(|mark| self.line.windows(mark.len()).any(|window| &window == mark));
        if has_mark {
            self.text = Some(std::mem::take(&mut self.line));
        } else if line_ended {
            self.line.clear();
        } else {
            self.line.drain(..self.line.len() - OVERLAP_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PANIC: &str = "[    1.5] Kernel panic - not syncing: sysrq triggered crash";

    fn latch(chunks: &[&[u8]]) -> PanicLatch {
        let mut latch = PanicLatch::default();
        for chunk in chunks {
            latch.feed(chunk);
        }
        latch
    }

    #[test]
    fn a_line_is_judged_at_its_end() {
        assert!(!latch(&[PANIC.as_bytes()]).is_set());
        let set = latch(&[PANIC.as_bytes(), b"\r\nCall Trace:\r\n"]);
        assert_eq!(set.text().unwrap(), format!("{PANIC}\nCall Trace:"));
    }

    #[test]
    fn a_last_line_without_end_is_judged_at_finish() {
        let mut latch = latch(&[b"init: \n", PANIC.as_bytes()]);
        latch.finish();
        assert_eq!(latch.text().unwrap(), PANIC);
    }

    proptest! {
        #[test]
        fn found_whatever_the_splits_and_what_stands_before(
            before in proptest::collection::vec(any::<u8>(), 0..700),
            split in 1usize..64,
        ) {
            let mut stream = before;
            stream.extend_from_slice(PANIC.as_bytes());
            stream.extend_from_slice(b"\nafter");
            let latch = latch(&stream.chunks(split).collect::<Vec<_>>());
            prop_assert!(latch.is_set());
            prop_assert!(latch.text().unwrap().contains("sysrq triggered crash\nafter"));
        }

        #[test]
        fn memory_is_bounded(chunks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..5000), 0..20,
        ), panics in any::<bool>()) {
            let mut latch = latch(&if panics { vec![PANIC.as_bytes(), b"\n"] } else { vec![] });
            for chunk in &chunks {
                latch.feed(chunk);
                prop_assert!(latch.line.len() < LINE_BYTES);
                prop_assert!(latch.text.as_ref().map_or(0, Vec::len) <= TEXT_BYTES);
            }
        }
    }
}
