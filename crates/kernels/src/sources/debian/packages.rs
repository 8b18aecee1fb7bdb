//! Debian's package index: which kernels there are, and which packages make up one.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read};

use super::version;

/// Flavours that boot in a virtual machine, the preferred first. `rt-amd64` is another scheduler's kernel.
const FLAVOURS: [&str; 2] = ["cloud-amd64", "amd64"];
const UNSIGNED: &str = "-unsigned";
/// The package with the image of a kernel that is split: `linux-binary-V`.
const BINARY: &str = "linux-binary-";
/// A longer line of an index is read in pieces, which no field of interest is.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// One package of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) size_bytes: u64,
    depends: String,
}

/// The `linux-*` packages of one suite, the newest of each name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    packages: HashMap<String, Package>,
}

/// A kernel that can be fetched: the packages that have its image, base files and modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) flavour: &'static str,
    /// Version of the image package.
    pub(crate) version: String,
    /// The image package first.
    pub(crate) packages: Vec<Package>,
    /// Packages of this kernel that are not in the archive, though one of the others depends on them. An archive
    /// that drops an old kernel may keep what was signed of it for years.
    pub(crate) missing: Vec<String>,
}

impl Choice {
    /// A complete kernel first, then the preferred flavour, then the newest version.
    pub(crate) fn is_better_than(&self, other: &Self) -> bool {
        let rank = |choice: &Self| {
            FLAVOURS
                .iter()
                .position(|flavour| *flavour == choice.flavour)
        };
        let is_complete = |choice: &Self| choice.missing.is_empty();
        is_complete(self)
            .cmp(&is_complete(other))
            .then_with(|| rank(other).cmp(&rank(self)))
            .then_with(|| version::compare(&self.version, &other.version))
            .is_gt()
    }
}

impl Index {
    /// Reads the text of a `Packages` file. Stanzas of other packages are skipped line by line.
    pub(crate) fn read(mut text: impl BufRead) -> io::Result<Self> {
        let mut index = Self::default();
        let mut line = Vec::new();
        let mut current: Option<Package> = None;
        loop {
            line.clear();
            let end = (&mut text)
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)?
                == 0;
            if end || line == b"\n" {
                if let Some(package) = current.take() {
                    index.add(package);
                }
                if end {
                    return Ok(index);
                }
            } else if line.starts_with(b"Package: linux-") {
                current = Some(Package {
                    name: value(&line),
                    version: String::new(),
                    size_bytes: 0,
                    depends: String::new(),
                });
            } else if let Some(package) = &mut current {
                if line.starts_with(b"Version:") {
                    package.version = value(&line);
                } else if line.starts_with(b"Size:") {
                    package.size_bytes = value(&line).parse().unwrap_or(0);
                } else if line.starts_with(b"Depends:") {
                    package.depends = value(&line);
                }
            }
        }
    }

    fn add(&mut self, package: Package) {
        let newer = self
            .packages
            .get(&package.name)
            .is_none_or(|known| version::compare(&package.version, &known.version).is_gt());
        if newer {
            self.packages.insert(package.name.clone(), package);
        }
    }

    /// The newest kernel whose upstream version starts with `prefix`, in the preferred flavour that has one. If no
    /// complete one does, the newest that has an image; without a prefix only a complete one will do.
    pub(crate) fn newest(&self, prefix: Option<&str>) -> Option<Choice> {
        let complete = |choice: &Choice| choice.missing.is_empty();
        let newest = FLAVOURS
            .into_iter()
            .find_map(|flavour| self.choices(flavour, prefix).find(complete));
        newest.or_else(|| {
            prefix?;
            FLAVOURS
                .into_iter()
                .find_map(|flavour| self.choices(flavour, prefix).next())
        })
    }

    /// The kernels of a flavour that can be fetched, the newest first. A suite in the middle of an update may lack
    /// parts of its newest.
    fn choices(
        &self,
        flavour: &'static str,
        prefix: Option<&str>,
    ) -> impl Iterator<Item = Choice> + '_ {
        let mut images: Vec<_> = self
            .packages
            .values()
            .filter(|package| is_image(&package.name, flavour))
            .filter(|package| {
                prefix.is_none_or(|prefix| starts_with(version::upstream(&package.version), prefix))
            })
            .collect();
        // Of one version the signed before the unsigned, whose name is longer.
        images.sort_by(|a, b| {
            version::compare(&b.version, &a.version).then_with(|| a.name.len().cmp(&b.name.len()))
        });
        images
            .into_iter()
            .filter_map(move |image| self.choice_of(image, flavour))
    }

    /// The image package and the packages of the same kernel that it depends on; nothing when none of those that are
    /// there has the image.
    fn choice_of(&self, image: &Package, flavour: &'static str) -> Option<Choice> {
        let abi = image
            .name
            .strip_prefix("linux-image-")?
            .trim_end_matches(UNSIGNED);
        let mut packages = vec![image.clone()];
        let mut missing = Vec::new();
        let mut seen = HashSet::from([image.name.clone()]);
        let mut next = 0;
        while let Some(part) = packages.get(next) {
            for name in same_kernel_depends(&part.depends, abi) {
                match self.get_part(&name) {
                    Some(found) if seen.insert(found.name.clone()) => packages.push(found.clone()),
                    None if seen.insert(name.clone()) => missing.push(name),
                    _ => {}
                }
            }
            next += 1;
        }
        // The image package of a kernel that is split has no image of its own.
        let has_image = !missing.iter().any(|name| name.starts_with(BINARY));
        has_image.then(|| Choice {
            flavour,
            version: image.version.clone(),
            packages,
            missing,
        })
    }

    /// A part by name, or its unsigned form: `linux-binary-unsigned-V` for `linux-binary-V`.
    fn get_part(&self, name: &str) -> Option<&Package> {
        self.packages.get(name).or_else(|| {
            let rest = name.strip_prefix(BINARY)?;
            self.packages.get(&format!("linux-binary-unsigned-{rest}"))
        })
    }

    /// The versions of the kernels here that can be fetched, for messages.
    pub(crate) fn series(&self) -> Vec<String> {
        let mut versions: Vec<String> = FLAVOURS
            .into_iter()
            .flat_map(|flavour| self.choices(flavour, None))
            .map(|choice| version::upstream(&choice.version).to_owned())
            .collect();
        versions.sort_by(|a, b| version::compare(b, a));
        versions.dedup();
        versions
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn contains(&self, package: &Package) -> bool {
        self.packages.get(&package.name) == Some(package)
    }
}

/// `linux-image-<a digit…>-<flavour>`, signed or not; not the metapackage, nor debug symbols.
fn is_image(name: &str, flavour: &str) -> bool {
    let Some(abi) = name.strip_prefix("linux-image-") else {
        return false;
    };
    let abi = abi.strip_suffix(UNSIGNED).unwrap_or(abi);
    let Some(release) = abi
        .strip_suffix(flavour)
        .and_then(|release| release.strip_suffix('-'))
    else {
        return false;
    };
    // `…-cloud-amd64` also ends in `amd64`.
    release.starts_with(|c: char| c.is_ascii_digit())
        && !release.ends_with("-cloud")
        && !release.ends_with("-rt")
}

/// `7.3` is the start of `7.3` and `7.3.4`, but not of `7.30`.
pub(crate) fn starts_with(version: &str, prefix: &str) -> bool {
    version
        .strip_prefix(prefix)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The packages of this same kernel in a `Depends` line: `linux-modules-V (= …)` and the like.
fn same_kernel_depends(depends: &str, abi: &str) -> Vec<String> {
    let alternatives = depends
        .split([',', '|'])
        .filter_map(|item| item.split_whitespace().next());
    alternatives
        .filter(|name| name.starts_with("linux-") && name.ends_with(abi))
        .map(str::to_owned)
        .collect()
}

fn value(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.split_once(':')
        .map_or("", |(_, value)| value)
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(stanzas: &[(&str, &str, &str)]) -> Index {
        let text: String = stanzas
            .iter()
            .map(|(name, version, depends)| {
                format!("Package: {name}\nVersion: {version}\nDepends: {depends}\nDescription: x\n more\nSize: 10\n\n")
            })
            .collect();
        Index::read(format!("Package: bash\nVersion: 5\n\n{text}").as_bytes()).unwrap()
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice
            .packages
            .iter()
            .map(|package| package.name.as_str())
            .collect()
    }

    #[test]
    fn one_package_has_all() {
        let index = index(&[
            (
                "linux-image-cloud-amd64",
                "6.12.117-1",
                "linux-image-6.12.117+deb13-cloud-amd64 (= 6.12.117-1)",
            ),
            (
                "linux-image-6.12.117+deb13-cloud-amd64",
                "6.12.117-1",
                "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool",
            ),
            ("linux-image-6.12.94+deb13-cloud-amd64", "6.12.94-1", "kmod"),
            (
                "linux-image-6.12.117+deb13-cloud-amd64-dbg",
                "6.12.117-1",
                "",
            ),
            (
                "linux-image-6.12.117+deb13-cloud-amd64-unsigned",
                "6.12.117-1",
                "",
            ),
            ("linux-image-6.12.118+deb13-amd64", "6.12.118-1", ""),
        ]);
        let choice = index.newest(None).unwrap();
        assert_eq!(names(&choice), ["linux-image-6.12.117+deb13-cloud-amd64"]);
        assert_eq!(
            (choice.version.as_str(), choice.flavour),
            ("6.12.117-1", "cloud-amd64")
        );
    }

    #[test]
    fn image_and_modules_are_split() {
        let v = "7.3.4+deb13-cloud-amd64";
        let index = index(&[
            (
                &format!("linux-image-{v}"),
                "7.3.4-1~bpo13+1",
                &format!(
                    "dracut | linux-initramfs-tool, linux-base-{v} (= 1), linux-binary-{v} (= 1), linux-modules-{v} (= 1)"
                ),
            ),
            (
                &format!("linux-base-{v}"),
                "7.3.4-1~bpo13+1",
                "linux-base (>= 4)",
            ),
            (
                &format!("linux-binary-unsigned-{v}"),
                "7.3.4-1~bpo13+1",
                &format!("linux-base-{v}"),
            ),
            (
                &format!("linux-modules-{v}"),
                "7.3.4-1~bpo13+1",
                &format!("kmod, linux-base-{v}"),
            ),
        ]);
        let choice = index.newest(Some("7.3")).unwrap();
        assert_eq!(
            names(&choice),
            [
                "linux-image-7.3.4+deb13-cloud-amd64",
                "linux-base-7.3.4+deb13-cloud-amd64",
                "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
                "linux-modules-7.3.4+deb13-cloud-amd64"
            ]
        );
        assert_eq!(index.newest(Some("7")).unwrap(), choice);
        assert_eq!(index.newest(Some("7.30")), None);
        assert_eq!(index.newest(Some("7.3.40")), None);
    }

    #[test]
    fn a_prefix_ends_between_numbers() {
        let index = index(&[
            ("linux-image-7.30.1-cloud-amd64", "7.30.1-1", ""),
            ("linux-image-7.3-cloud-amd64", "7.3-1", ""),
        ]);
        assert_eq!(index.newest(Some("7.3")).unwrap().version, "7.3-1");
        assert_eq!(index.newest(Some("7")).unwrap().version, "7.30.1-1");
    }

    #[test]
    fn a_kernel_whose_parts_have_not_arrived_is_passed_over() {
        let index = index(&[
            (
                "linux-image-7.4-cloud-amd64",
                "7.4-1",
                "linux-binary-7.4-cloud-amd64 (= 7.4-1)",
            ),
            (
                "linux-image-7.3.4-cloud-amd64",
                "7.3.4-1",
                "linux-binary-7.3.4-cloud-amd64 (= 7.3.4-1)",
            ),
            ("linux-binary-7.3.4-cloud-amd64", "7.3.4-1", ""),
        ]);
        assert_eq!(index.newest(None).unwrap().version, "7.3.4-1");
    }

    /// As the archive is today: signed packages of old kernels stay, the others of the same source went.
    fn archive() -> Index {
        let v = |version: &str| format!("{version}+deb13-cloud-amd64");
        let split = |version: &str| {
            let v = v(version);
            format!("kmod, linux-base-{v} (= 1), linux-binary-{v} (= 1), linux-modules-{v} (= 1)")
        };
        let old = format!("kmod, linux-base-{} (= 1)", v("6.18.15"));
        let image = |version: &str| format!("linux-image-{}", v(version));
        let binary = |version: &str| format!("linux-binary-{}", v(version));
        index(&[
            (&image("6.17.13"), "6.17.13-1", "kmod"),
            (&image("6.18.15"), "6.18.15-1", &old),
            (&image("6.19.14"), "6.19.14-1", &split("6.19.14")),
            (&binary("6.19.14"), "6.19.14-1", ""),
            (&image("7.0.13"), "7.0.13-1", &split("7.0.13")),
            (&binary("7.0.13"), "7.0.13-1", ""),
            // Its image went too.
            (&image("7.1.13"), "7.1.13-1", &split("7.1.13")),
        ])
    }

    #[test]
    fn fault_f10_a_kernel_whose_image_is_there_can_be_fetched() {
        let index = archive();
        let choice = index.newest(Some("6.18")).unwrap();
        assert_eq!(names(&choice), ["linux-image-6.18.15+deb13-cloud-amd64"]);
        assert_eq!(choice.missing, ["linux-base-6.18.15+deb13-cloud-amd64"]);
        let choice = index.newest(Some("7.0")).unwrap();
        assert_eq!(
            names(&choice),
            [
                "linux-image-7.0.13+deb13-cloud-amd64",
                "linux-binary-7.0.13+deb13-cloud-amd64"
            ]
        );
        assert_eq!(
            choice.missing,
            [
                "linux-base-7.0.13+deb13-cloud-amd64",
                "linux-modules-7.0.13+deb13-cloud-amd64"
            ]
        );
        // A complete one comes first, and is the only one that is taken unasked.
        assert_eq!(index.newest(Some("6")).unwrap().version, "6.17.13-1");
        assert_eq!(index.newest(None).unwrap().version, "6.17.13-1");
        let complete = index.newest(Some("6.17")).unwrap();
        assert!(complete.is_better_than(&choice) && !choice.is_better_than(&complete));
    }

    #[test]
    fn fault_f10_what_is_offered_can_be_fetched() {
        let index = archive();
        assert_eq!(index.series(), ["7.0.13", "6.19.14", "6.18.15", "6.17.13"]);
        for version in index.series() {
            let choice = index.newest(Some(&version)).unwrap();
            assert_eq!(version::upstream(&choice.version), version);
        }
        assert_eq!(index.newest(Some("7.1")), None);
    }

    #[test]
    fn without_a_cloud_kernel_the_generic_one_is_taken() {
        let index = index(&[
            ("linux-image-6.12-amd64", "6.12-1", ""),
            ("linux-image-6.12-rt-amd64", "6.12-2", ""),
        ]);
        assert_eq!(
            names(&index.newest(None).unwrap()),
            ["linux-image-6.12-amd64"]
        );
    }

    #[test]
    fn of_one_version_the_signed_is_preferred_and_the_unsigned_accepted() {
        let unsigned = ("linux-image-6.12-cloud-amd64-unsigned", "6.12-1", "");
        let both = index(&[unsigned, ("linux-image-6.12-cloud-amd64", "6.12-1", "")]);
        assert_eq!(
            names(&both.newest(None).unwrap()),
            ["linux-image-6.12-cloud-amd64"]
        );
        let one = index(&[unsigned]);
        assert_eq!(
            names(&one.newest(None).unwrap()),
            ["linux-image-6.12-cloud-amd64-unsigned"]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_index_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            let mut text = b"Package: linux-image-1-amd64\n".to_vec();
            text.extend(bytes);
            let _ = Index::read(&text[..]).unwrap().newest(None);
        }
    }
}
