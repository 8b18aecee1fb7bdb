//! The console log keeps the start and the end, and counts the rest.

use ktstr_machine::ConsoleLog;
use proptest::prelude::*;

const HEAD: usize = 64 << 10;
const TAIL: usize = 256 << 10;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_pieces(pieces in proptest::collection::vec((any::<u8>(), 0usize..200_000), 0..8)) {
        let log = ConsoleLog::new();
        let mut all = Vec::new();
        for (byte, len) in pieces {
            let piece: Vec<u8> = (0..len).map(|at| b'a' + u8::try_from((usize::from(byte) + at / 7) % 26).expect("below 26")).collect();
            log.push(&piece);
            all.extend_from_slice(&piece);
        }
        let dropped = all.len().saturating_sub(HEAD + TAIL);
        prop_assert_eq!(log.seen_bytes(), all.len() as u64);
        prop_assert_eq!(log.dropped_bytes(), dropped as u64);
        let mut expected = all.clone();
        if dropped > 0 {
            let gap = format!("\n[… {dropped} bytes left out …]\n");
            expected.splice(HEAD..HEAD + dropped, gap.bytes());
        }
        // Not prop_assert_eq, which would print both.
        prop_assert!(log.contents().into_bytes() == expected);
    }
}
