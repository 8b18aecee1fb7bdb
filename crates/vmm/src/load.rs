//! The second step of a machine's start: giving it something to run.

use std::fs::File;

use vm_memory::{Bytes, GuestAddress};

use crate::acpi;
use crate::arch::boot::{self, BootError, Images, InitrdPart};
use crate::arch::{layout, vcpu};
use crate::create::CreatedVm;
use crate::setup_times::StepClock;
use crate::start_error::StartError;

/// What a machine boots.
#[derive(Debug)]
pub struct BootSource {
    kernel: File,
    initrd: Vec<InitrdPart>,
    cmdline: String,
    images: Images,
}

impl BootSource {
    /// A kernel, a bzImage or an ELF vmlinux: they are told apart by their content.
    pub fn new(kernel: File) -> Self {
        Self {
            kernel,
            initrd: Vec::new(),
            cmdline: String::new(),
            images: Images::default(),
        }
    }

    /// Appends a part of the initramfs.
    #[must_use]
    pub fn initrd(mut self, part: InitrdPart) -> Self {
        self.initrd.push(part);
        self
    }

    /// The kernel command line, as it is: none of our own is added.
    #[must_use]
    pub fn cmdline(mut self, cmdline: impl Into<String>) -> Self {
        self.cmdline = cmdline.into();
        self
    }

    /// Promises that the files of kernel and initramfs are not changed, shortened least of all, while the
    /// machine lives or its RAM is read. Then guest RAM is made of their pages where it can be, instead of
    /// copies: a start costs less, and what the guest never touches is never read. Were the promise broken, the
    /// guest would see the change, and this process could be killed (SIGBUS) for reading where the file has ended.
    #[must_use]
    pub fn immutable_images(mut self) -> Self {
        self.images = Images::Immutable;
        self
    }
}

/// A machine whose memory and vCPUs hold what it is to run. What comes next is [`Self::run`].
#[derive(Debug)]
pub struct LoadedVm(pub(crate) CreatedVm);

impl CreatedVm {
    /// Puts a kernel, its parameters and the machine's tables into RAM, and has the boot CPU start there.
    pub fn load(mut self, mut source: BootSource) -> Result<LoadedVm, StartError> {
        let mut clock = StepClock::start();
        let entry = boot::load(
            &self.ram,
            &self.regions,
            &mut source.kernel,
            &mut source.initrd,
            source.images,
            &source.cmdline,
        )?;
        if let Some(boot_cpu) = self.vcpus.first() {
            vcpu::set_entry(boot_cpu, entry)?;
        }
        self.times.load = clock.lap();

        let tables = acpi::build(&self.ids, &self.numa, &self.regions)?;
        self.ram
            .write_slice(&tables, GuestAddress(layout::ACPI))
            .map_err(BootError::Parameters)?;
        self.times.tables = clock.lap();
        Ok(LoadedVm(self))
    }
}
