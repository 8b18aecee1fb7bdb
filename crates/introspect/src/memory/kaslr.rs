//! Where the kernel is, virtually and physically.
//!
//! A kernel with KASLR is moved by two distances that have nothing to do with each other. Both are in its own
//! memory: it is known there by its banner at a multiple of [`KERNEL_ALIGN`], its variable `phys_base` tells
//! the virtual distance, and its page tables must agree. What else is known of it must agree too.

use super::{
    KERNEL_ALIGN, KERNEL_IMAGE_BYTES, PageTables, PagingError, PagingLevels, PhysRead,
    START_KERNEL_MAP,
};
use crate::image::KernelImage;

/// Where a kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kaslr {
    /// What is added to the addresses of the image to have those of the running kernel.
    pub slide: u64,
    /// The kernel's `phys_base`: what is added to an address of the image, less [`START_KERNEL_MAP`], to have
    /// its physical address. It wraps.
    pub phys_base: u64,
}

/// What is known of where a kernel runs beside its memory. All of it is optional, and all that is given must
/// agree.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The address of `_text` that the guest read from its /proc/kallsyms.
    pub guest_text: Option<u64>,
    /// MSR_LSTAR of any vCPU: the entry of system calls. Not to be given for a kernel that uses FRED.
    pub lstar: Option<u64>,
    /// CR3 of any vCPU while it is in the kernel.
    pub kernel_cr3: Option<u64>,
}

/// Which source says where the kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its own `phys_base`, in memory.
    PhysBase,
    /// The page tables that it built (`init_top_pgt`).
    InitPageTables,
    /// The page tables that a vCPU uses.
    Cr3,
    /// The guest's /proc/kallsyms.
    Guest,
    /// A vCPU's system call entry.
    Lstar,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PhysBase => "`phys_base` in its memory",
            Self::InitPageTables => "its page tables",
            Self::Cr3 => "a vCPU's page tables",
            Self::Guest => "its /proc/kallsyms",
            Self::Lstar => "a vCPU's system call entry",
        })
    }
}

/// Why it can't be told where the kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KaslrError {
    /// It is nowhere in memory.
    #[error(
        "the kernel was not found in the guest's memory: it has not come far enough in its boot, or the image \
         is of another kernel"
    )]
    NotFound,
    /// It is in memory, but has not set up its page tables, or they make no sense.
    #[error(
        "a kernel at guest-physical {text_gpa:#x} does not map itself: it has not come far enough in its boot"
    )]
    NotMapped {
        /// Where its text begins.
        text_gpa: u64,
        #[source]
        source: PagingError,
    },
    /// The image lacks a symbol.
    #[error("the kernel's image has no symbol `{name}`")]
    NoSymbol { name: &'static str },
    /// Two sources contradict each other.
    #[error(
        "{one} says that the kernel's text is at {one_says:#x}, but {other} says {other_says:#x}: the image \
         is of another kernel, or the guest's memory is not read where it is"
    )]
    Mismatch {
        one: Source,
        /// Where that has `_text`.
        one_says: u64,
        other: Source,
        /// Where that has it.
        other_says: u64,
    },
}

impl Kaslr {
    /// Finds out where the kernel of `image` runs.
    pub fn find(
        phys: &(impl PhysRead + ?Sized),
        image: &KernelImage,
        evidence: &Evidence,
    ) -> Result<Self, KaslrError> {
        let search = Search::new(phys, image)?;
        let mut result = Err(KaslrError::NotFound);
        // More than one place looks like the kernel if its file is in memory too.
        let mut text_gpa = 0;
        while text_gpa < phys.end() {
            if search.has_banner(text_gpa) {
                match search.at(text_gpa) {
                    Ok(found) => return search.cross_check(found, evidence).map(|()| found),
                    error => result = error,
                }
            }
            text_gpa += KERNEL_ALIGN;
        }
        result
    }

    /// The address in the running kernel of what is linked at `address`. Addresses below the image are places
    /// in the per-CPU area, which do not slide.
    pub fn slid(&self, address: u64) -> u64 {
        if address < START_KERNEL_MAP {
            address
        } else {
            address.wrapping_add(self.slide)
        }
    }

    /// The physical address of `address` in the image of the running kernel; nothing if it is not in the
    /// image.
    pub fn image_gpa(&self, address: u64) -> Option<u64> {
        let into = address.checked_sub(START_KERNEL_MAP)?;
        (into < KERNEL_IMAGE_BYTES).then(|| into.wrapping_add(self.phys_base))
    }
}

struct Search<'a, P: ?Sized> {
    phys: &'a P,
    image: &'a KernelImage,
    text: u64,
    banner: u64,
    phys_base: u64,
    init_top_pgt: u64,
}

impl<'a, P: PhysRead + ?Sized> Search<'a, P> {
    fn new(phys: &'a P, image: &'a KernelImage) -> Result<Self, KaslrError> {
        let find = |name| {
            let address = image.symbols.find(name);
            address.ok_or(KaslrError::NoSymbol { name })
        };
        Ok(Self {
            phys,
            image,
            text: find("_text")?,
            banner: find("linux_banner")?,
            phys_base: find("phys_base")?,
            init_top_pgt: find("init_top_pgt")?,
        })
    }

    fn gpa(&self, text_gpa: u64, symbol: u64) -> u64 {
        text_gpa.wrapping_add(symbol.wrapping_sub(self.text))
    }

    fn has_banner(&self, text_gpa: u64) -> bool {
        let wanted = self.image.banner.as_bytes();
        let mut found = vec![0; wanted.len()];
        let read = self.phys.read(self.gpa(text_gpa, self.banner), &mut found);
        read.is_ok() && found == wanted
    }

    /// What the kernel whose text is at `text_gpa` says itself.
    fn at(&self, text_gpa: u64) -> Result<Kaslr, KaslrError> {
        let mut phys_base = [0; 8];
        self.phys
            .read(self.gpa(text_gpa, self.phys_base), &mut phys_base)
            .map_err(|_| KaslrError::NotFound)?;
        let phys_base = u64::from_le_bytes(phys_base);
        let text = text_gpa
            .wrapping_sub(phys_base)
            .wrapping_add(START_KERNEL_MAP);
        self.agrees(
            (Source::PhysBase, text, text_gpa),
            Source::InitPageTables,
            self.gpa(text_gpa, self.init_top_pgt),
        )?;
        Ok(Kaslr {
            slide: text.wrapping_sub(self.text),
            phys_base,
        })
    }

    /// Whether the page tables at `root` have `text`, which `one` says, at `text_gpa`. They may be of either
    /// depth: in tables of the other one the way ends elsewhere.
    fn agrees(
        &self,
        (one, text, text_gpa): (Source, u64, u64),
        other: Source,
        root: u64,
    ) -> Result<(), KaslrError> {
        let translate = |levels| PageTables::new(root, levels).translate(self.phys, text);
        let found = [PagingLevels::Four, PagingLevels::Five].map(translate);
        if found.iter().flatten().any(|found| found.gpa == text_gpa) {
            return Ok(());
        }
        match found[0].or(found[1]) {
            Err(source) => Err(KaslrError::NotMapped { text_gpa, source }),
            Ok(elsewhere) => Err(KaslrError::Mismatch {
                one,
                one_says: text,
                other,
                // Seen from where it really is.
                other_says: text.wrapping_add(text_gpa.wrapping_sub(elsewhere.gpa)),
            }),
        }
    }

    fn cross_check(&self, found: Kaslr, evidence: &Evidence) -> Result<(), KaslrError> {
        let text = found.slid(self.text);
        let says = |other, other_says: u64| {
            if other_says == text {
                return Ok(());
            }
            Err(KaslrError::Mismatch {
                one: Source::PhysBase,
                one_says: text,
                other,
                other_says,
            })
        };
        if let Some(guest_text) = evidence.guest_text {
            says(Source::Guest, guest_text)?;
        }
        if let Some(lstar) = evidence.lstar {
            let name = "entry_SYSCALL_64";
            let entry = self.image.symbols.find(name);
            let entry = entry.ok_or(KaslrError::NoSymbol { name })?;
            says(
                Source::Lstar,
                lstar.wrapping_sub(entry.wrapping_sub(self.text)),
            )?;
        }
        if let Some(cr3) = evidence.kernel_cr3 {
            let text_gpa = found.image_gpa(text).unwrap_or_default();
            self.agrees((Source::PhysBase, text, text_gpa), Source::Cr3, cr3)?;
        }
        Ok(())
    }
}
