use ktstr_kernels::{DebianSpec, KernelSpec};
use proptest::prelude::*;

fn parse(text: &str) -> KernelSpec {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn each_form_is_told_from_the_others() {
    let suite = |name: &str| KernelSpec::Debian(DebianSpec::Suite(name.to_owned()));
    let version = |name: &str| KernelSpec::Debian(DebianSpec::Version(name.to_owned()));
    assert_eq!(parse("debian"), KernelSpec::Debian(DebianSpec::Newest));
    assert_eq!(parse("debian/trixie"), suite("trixie"));
    assert_eq!(parse("debian/trixie-backports"), suite("trixie-backports"));
    assert_eq!(parse("debian/7.3"), version("7.3"));
    assert_eq!(parse("debian/6.12.95"), version("6.12.95"));
    assert_eq!(parse("./linux"), KernelSpec::Path("./linux".into()));
    assert_eq!(
        parse("boot/vmlinuz-7.3.4"),
        KernelSpec::Path("boot/vmlinuz-7.3.4".into())
    );
    assert_eq!(parse(".."), KernelSpec::Path("..".into()));
    assert_eq!(parse(".hidden").to_string(), ".hidden");
    assert_eq!(KernelSpec::Path("bare".into()).to_string(), "./bare");
    let key = "debian-7.3.4-1~bpo13+1-cloud-amd64";
    assert_eq!(parse(key), KernelSpec::Key(key.to_owned()));
    assert_eq!(parse("bzImage"), KernelSpec::Key("bzImage".to_owned()));
}

#[test]
fn what_cannot_be_had_is_said() {
    let message = |text: &str| text.parse::<KernelSpec>().unwrap_err().to_string();
    insta::assert_snapshot!(message("7.0"), @"kernel `7.0` is a kernel.org release, which would have to be built; building kernels is not supported yet. What works now: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
    insta::assert_snapshot!(message("6.14.2"), @"kernel `6.14.2` is a kernel.org release, which would have to be built; building kernels is not supported yet. What works now: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
    insta::assert_snapshot!(message("7.1-rc3"), @"kernel `7.1-rc3` is a kernel.org release, which would have to be built; building kernels is not supported yet. What works now: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
    insta::assert_snapshot!(message("6.12..6.14"), @"kernel `6.12..6.14` is a range of kernel.org releases, which would have to be built; building kernels is not supported yet. What works now: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
    insta::assert_snapshot!(message("git+https://git.example/linux.git#tag=v7.0"), @"kernel `git+https://git.example/linux.git#tag=v7.0` is a git repository, which would have to be built; building kernels is not supported yet. What works now: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
    insta::assert_snapshot!(message(" "), @"the kernel is empty; write one of: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
    insta::assert_snapshot!(message("debian/"), @"`` in kernel `debian/` is neither a Debian suite (trixie, trixie-backports, sid) nor the start of a version (7.3, 6.12.95)");
    insta::assert_snapshot!(message("debian/7.x"), @"`7.x` in kernel `debian/7.x` is neither a Debian suite (trixie, trixie-backports, sid) nor the start of a version (7.3, 6.12.95)");
    insta::assert_snapshot!(message("debian/../sid"), @"`../sid` in kernel `debian/../sid` is neither a Debian suite (trixie, trixie-backports, sid) nor the start of a version (7.3, 6.12.95)");
    insta::assert_snapshot!(message("a kernel"), @"kernel `a kernel` has the character ' ', which no kernel name has; write one of: debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`");
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(text in "[ -~]{0,30}") {
        if let Ok(spec) = text.parse::<KernelSpec>() {
            prop_assert_eq!(spec.to_string().parse::<KernelSpec>().unwrap(), spec);
        }
    }

    #[test]
    fn debian_specs_read_back(text in "debian/[a-z0-9.-]{0,20}") {
        if let Ok(spec) = text.parse::<KernelSpec>() {
            prop_assert_eq!(spec.to_string().parse::<KernelSpec>().unwrap(), spec);
        }
    }
}
