//! Virtual addresses, and where the kernel is.

use ktstr_introspect::memory::{
    AttachError, Dump, Evidence, Kaslr, KaslrError, KernelMemory, MemoryError, PageTables,
    PagingError, PagingLevels, PhysRead, START_KERNEL_MAP, Source,
};
use proptest::prelude::*;

use crate::btf_builder::BtfBuilder;
use crate::fake_kernel::{FakeKernel, HUGE, HUGE_PAGE, MOVED, PAGE, PLAIN, PRESENT};

const VMALLOC: u64 = 0xffff_c900_0000_0000;

#[test]
fn a_kernel_is_found_where_it_was_put() {
    for placement in [PLAIN, MOVED] {
        let mut kernel = FakeKernel::new(placement);
        let variable = kernel.symbol("variable", 8);
        kernel.write_u64(variable, 0x1122_3344_5566_7788);
        let object = kernel.object(16);
        kernel.write(object, b"in the heap\0....");
        let memory = kernel.attach();
        assert_eq!(memory.kaslr().slide, placement.slide);
        assert_eq!(memory.page_tables().levels(), placement.levels);
        assert_eq!(memory.u64(variable), Ok(0x1122_3344_5566_7788));
        assert_eq!(memory.text(object, 16).as_deref(), Ok("in the heap"));
        assert_eq!(memory.text(object, 4).as_deref(), Ok("in t"));
        assert_eq!(
            memory.kaslr().slid(0x1c000),
            0x1c000,
            "places in the per-CPU area stay"
        );
    }
}

#[test]
fn pages_of_all_sizes_are_walked_and_read_across() {
    for placement in [PLAIN, MOVED] {
        let mut kernel = FakeKernel::new(placement);
        // Three small pages in reverse order, then a huge one.
        let start = VMALLOC + HUGE_PAGE - 3 * PAGE;
        let pages: Vec<u64> = (0..3).map(|_| kernel.page()).collect();
        for (at, page) in (0..).zip(pages.iter().rev()) {
            kernel.map(start + at * PAGE, *page, PAGE);
            kernel.write_phys(*page, &[u8::try_from(at).unwrap() + 1; 4096]);
        }
        kernel.map(VMALLOC + HUGE_PAGE, 10 << 20, HUGE_PAGE);
        let huge = vec![9; usize::try_from(HUGE_PAGE).unwrap()];
        kernel.write_phys(10 << 20, &huge);
        let memory = kernel.attach();
        let bytes = memory.bytes(start + 4000, 3 * PAGE).unwrap();
        let runs: Vec<(u8, usize)> = bytes
            .chunk_by(|a, b| a == b)
            .map(|run| (run[0], run.len()))
            .collect();
        assert_eq!(runs, [(1, 96), (2, 4096), (3, 4096), (9, 4000)]);
        assert_eq!(
            memory.text(start + 4000, 4 << 20).unwrap_err(),
            MemoryError::Unmapped {
                address: VMALLOC + 2 * HUGE_PAGE,
                source: PagingError::NotPresent {
                    address: VMALLOC + 2 * HUGE_PAGE,
                    level: 2
                },
            }
        );
        let tables = memory.page_tables();
        let found = tables
            .translate(&*kernel.phys(), placement.page_offset + 5)
            .unwrap();
        assert_eq!((found.gpa, found.page_bytes), (5, 1 << 30));
    }
}

#[test]
fn addresses_that_lead_nowhere_are_told_apart() {
    let mut kernel = FakeKernel::new(PLAIN);
    let reserved = VMALLOC + 5 * HUGE_PAGE;
    let entry = kernel.entry(reserved, 2);
    kernel.write_phys(entry, &(HUGE_PAGE | 1 << 14 | PRESENT | HUGE).to_le_bytes());
    let outside = VMALLOC + 6 * HUGE_PAGE;
    let entry = kernel.entry(outside, 2);
    kernel.write_phys(entry, &(1_u64 << 50 | PRESENT).to_le_bytes());
    let too_huge = 0xffff_d000_0000_0000;
    let entry = kernel.entry(too_huge, 4);
    kernel.write_phys(entry, &(PRESENT | HUGE).to_le_bytes());
    let memory = kernel.attach();
    let source = |address| match memory.u64(address).unwrap_err() {
        MemoryError::Unmapped { source, .. } => source,
        other => panic!("{other}"),
    };
    assert!(matches!(
        source(0x0000_8000_0000_0000),
        PagingError::NonCanonical { .. }
    ));
    assert!(matches!(
        source(0),
        PagingError::NotPresent { level: 4, .. }
    ));
    assert!(matches!(
        source(reserved),
        PagingError::Reserved { level: 2, .. }
    ));
    assert!(matches!(
        source(too_huge),
        PagingError::Reserved { level: 4, .. }
    ));
    assert!(matches!(
        source(outside),
        PagingError::Outside { level: 1, .. }
    ));
    assert!(matches!(
        memory.bytes(PLAIN.page_offset + (11 << 20), 2 << 20),
        Err(MemoryError::Outside { .. })
    ));
    assert!(matches!(
        memory.bytes(PLAIN.page_offset, u64::MAX),
        Err(MemoryError::TooLong { .. })
    ));
    let end = memory.bytes(u64::MAX - 3, 8).unwrap_err();
    assert!(matches!(end, MemoryError::Unmapped { .. }), "{end}");
}

fn find(kernel: &FakeKernel, evidence: &Evidence) -> Result<Kaslr, KaslrError> {
    Kaslr::find(&*kernel.phys(), &kernel.image(&BtfBuilder::new()), evidence)
}

#[test]
fn what_else_is_known_must_agree() {
    let mut kernel = FakeKernel::new(MOVED);
    let entry = kernel.symbol("entry_SYSCALL_64", 16);
    let text = START_KERNEL_MAP + (16 << 20) + MOVED.slide;
    let right = Evidence {
        guest_text: Some(text),
        lstar: Some(entry),
        kernel_cr3: Some(kernel.root | 0x7),
    };
    assert_eq!(find(&kernel, &right).unwrap().slide, MOVED.slide);
    let wrong_text = Evidence {
        guest_text: Some(text - HUGE_PAGE),
        ..right
    };
    assert_eq!(
        find(&kernel, &wrong_text).unwrap_err(),
        KaslrError::Mismatch {
            one: Source::PhysBase,
            one_says: text,
            other: Source::Guest,
            other_says: text - HUGE_PAGE,
        }
    );
    let wrong_lstar = Evidence {
        lstar: Some(entry + HUGE_PAGE),
        ..right
    };
    let error = find(&kernel, &wrong_lstar).unwrap_err();
    assert!(
        matches!(
            error,
            KaslrError::Mismatch {
                other: Source::Lstar,
                ..
            }
        ),
        "{error}"
    );
    // Tables of another kernel: they have the text elsewhere, or not at all.
    let other = kernel.page();
    let wrong_root = Evidence {
        kernel_cr3: Some(other),
        ..right
    };
    let error = find(&kernel, &wrong_root).unwrap_err();
    assert!(matches!(error, KaslrError::NotMapped { .. }), "{error}");
    kernel.map(text, 6 << 20, HUGE_PAGE);
    let error = find(&kernel, &Evidence::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`phys_base` in its memory says that the kernel's text is at {text:#x}, but its page tables says \
             {:#x}: the image is of another kernel, or the guest's memory is not read where it is",
            text - (4 << 20)
        )
    );
}

#[test]
fn a_kernel_that_has_not_begun_is_not_found() {
    let image = FakeKernel::new(PLAIN).image(&BtfBuilder::new());
    let empty = Dump(vec![0; 8 << 20]);
    let error = Kaslr::find(&empty, &image, &Evidence::default()).unwrap_err();
    assert_eq!(error, KaslrError::NotFound);

    // The image is loaded, but nothing is mapped.
    let mut kernel = FakeKernel::new(PLAIN);
    kernel.write_phys(kernel.root, &[0; 4096]);
    let error = find(&kernel, &Evidence::default()).unwrap_err();
    assert!(matches!(error, KaslrError::NotMapped { text_gpa, .. } if text_gpa == PLAIN.text_gpa));

    // The direct map is not where it will be.
    let mut kernel = FakeKernel::new(PLAIN);
    let entry = kernel.entry(PLAIN.page_offset, 4);
    kernel.write_phys(entry, &[0; 8]);
    let error = KernelMemory::attach(kernel.phys(), &image, &Evidence::default()).unwrap_err();
    assert!(matches!(error, AttachError::DirectMap { .. }), "{error}");
}

#[test]
fn a_copy_of_the_image_is_not_taken_for_the_kernel() {
    let mut kernel = FakeKernel::new(PLAIN);
    let at = usize::try_from(PLAIN.text_gpa).unwrap();
    // As far as the variables go, and before the real one.
    let copy = kernel.ram[at..at + 0x2000].to_vec();
    kernel.write_phys(2 << 20, &copy);
    assert_eq!(find(&kernel, &Evidence::default()).unwrap().slide, 0);
}

proptest! {
    #[test]
    fn any_tables_are_walked_without_harm(
        words in prop::collection::vec(prop_oneof![
            (0_u64..16, 0_u64..0x100).prop_map(|(page, flags)| page << 12 | flags | PRESENT),
            any::<u64>(),
        ], 1..60),
        cr3: u64,
        addresses in prop::collection::vec(any::<u64>(), 20),
    ) {
        let phys = Dump(words.iter().cycle().take(8 * 512).flat_map(|word| word.to_le_bytes()).collect());
        for levels in [PagingLevels::Four, PagingLevels::Five] {
            for root in [0, cr3 % phys.end(), cr3] {
                let tables = PageTables::new(root, levels);
                for address in &addresses {
                    // Canonical more often than not.
                    for address in [*address, address >> 20, !(address >> 20)] {
                        if let Ok(found) = tables.translate(&phys, address) {
                            prop_assert!(found.left_in_page <= found.page_bytes);
                            prop_assert_eq!(found.gpa % found.page_bytes, address % found.page_bytes);
                        }
                    }
                }
            }
        }
    }
}
