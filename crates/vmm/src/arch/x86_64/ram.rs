//! Where RAM lies.

use super::layout::{GAP_END, GAP_START, PAGE_BYTES};
use crate::memory::{MemoryError, RamRegion};

/// Most RAM of a machine: x86-64 with 4-level paging has 46 bits of physical addresses.
const MAX_BYTES: u64 = 1 << 46;

/// Where the RAM of nodes of `lens` bytes lies: node after node from address 0 on, skipping the gap.
pub fn place(lens: &[u64]) -> Result<Vec<RamRegion>, MemoryError> {
    let mut regions = Vec::new();
    let mut gpa = 0;
    for (node, &len_bytes) in lens.iter().enumerate() {
        if len_bytes == 0 || !len_bytes.is_multiple_of(PAGE_BYTES) {
            return Err(MemoryError::Size { node, len_bytes });
        }
        if len_bytes > MAX_BYTES - gpa.min(MAX_BYTES) {
            return Err(MemoryError::TooMuch);
        }
        let mut offset_bytes = 0;
        while offset_bytes < len_bytes {
            if gpa == GAP_START {
                gpa = GAP_END;
            }
            let left = len_bytes - offset_bytes;
            let room = if gpa < GAP_START {
                GAP_START - gpa
            } else {
                left
            };
            let now = left.min(room);
            regions.push(RamRegion {
                gpa,
                len_bytes: now,
                node: u32::try_from(node).map_err(|_| MemoryError::TooMuch)?,
                offset_bytes,
            });
            gpa += now;
            offset_bytes += now;
        }
    }
    if regions.is_empty() {
        return Err(MemoryError::Size {
            node: 0,
            len_bytes: 0,
        });
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn regions_hold_all_ram_outside_the_gap(
            pages in prop::collection::vec(1_u64..3 << 20, 1..6),
        ) {
            let lens: Vec<_> = pages.iter().map(|pages| pages * PAGE_BYTES).collect();
            let regions = place(&lens).unwrap();
            let mut end = 0;
            for region in &regions {
                prop_assert!(region.gpa >= end);
                end = region.gpa + region.len_bytes;
                prop_assert!(end <= GAP_START || region.gpa >= GAP_END);
            }
            for (node, len) in (0..).zip(&lens) {
                let of_node = regions.iter().filter(|region| region.node == node);
                let mut offset = 0;
                for region in of_node {
                    prop_assert_eq!(region.offset_bytes, offset);
                    offset += region.len_bytes;
                }
                prop_assert_eq!(offset, *len);
            }
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for lens in [
            &[][..],
            &[0],
            &[4096, 0],
            &[4095],
            &[u64::MAX - 4095],
            &[1 << 46, 4096],
        ] {
            assert!(place(lens).is_err(), "{lens:?}");
        }
    }
}
