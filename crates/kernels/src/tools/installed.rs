//! What counts as installed when packages are chosen for the cache: the machine's own packages, as far as what is
//! fetched can use them.

/// Fields of dpkg's status file that say what is there. Those that say what goes with what (`Depends`, `Breaks`,
/// `Essential`) are left out: nothing is installed beside these packages, so nothing can harm them.
const FIELDS: [&str; 6] = [
    "Package",
    "Status",
    "Architecture",
    "Version",
    "Multi-Arch",
    "Provides",
];

/// The installed packages of a machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Installed {
    packages: Vec<Package>,
}

#[derive(Clone, Debug)]
struct Package {
    name: String,
    /// Its stanza, with [`FIELDS`] alone.
    stanza: String,
}

impl Installed {
    /// Reads dpkg's status file. Packages whose name starts with one of `own` don't count, nor those of other
    /// architectures, whose libraries are of no use.
    pub(super) fn read(status: &str, own: &[&str]) -> Self {
        let stanzas = status.split("\n\n").filter_map(Package::read);
        Self {
            packages: stanzas
                .filter(|package| !own.iter().any(|own| package.name.starts_with(own)))
                .collect(),
        }
    }

    /// Lets these packages count no longer.
    pub(super) fn forget(&mut self, names: &[String]) {
        let bare = |name: &String| name.split(':').next().unwrap_or_default().to_owned();
        let names: Vec<String> = names.iter().map(bare).collect();
        self.packages
            .retain(|package| !names.contains(&package.name));
    }

    /// The text of a status file with them.
    pub(super) fn status(&self) -> String {
        let stanzas: Vec<&str> = self
            .packages
            .iter()
            .map(|package| package.stanza.as_str())
            .collect();
        stanzas.join("\n")
    }
}

impl Package {
    fn read(stanza: &str) -> Option<Self> {
        let mut kept = String::new();
        let (mut name, mut installed, mut usable) = (None, false, false);
        // No field that is kept is continued on a second line (deb822(5) calls them simple).
        for (field, value) in stanza.lines().filter_map(|line| line.split_once(':')) {
            if !FIELDS.contains(&field) {
                continue;
            }
            let value = value.trim();
            match field {
                "Package" => name = Some(value.to_owned()),
                "Status" => installed = value.ends_with(" installed"),
                "Architecture" => usable = matches!(value, "amd64" | "all"),
                _ => {}
            }
            kept.extend([field, ": ", value, "\n"]);
        }
        (installed && usable).then_some(Self {
            name: name?,
            stanza: kept,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: libc6
Status: install ok installed
Priority: optional
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u10
Provides: libc6-2.36
Depends: libgcc-s1
Breaks: busybox (<< 1.30.1-6)
Conffiles:
 /etc/ld.so.conf.d/x86_64-linux-gnu.conf d4e7
Description: GNU C Library
 Package: not a field

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36-9+deb12u10

Package: qemu-utils
Status: install ok installed
Architecture: amd64
Version: 1:10.0.2

Package: libgone1
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: tzdata
Status: hold ok installed
Architecture: all
Version: 2025b
";

    #[test]
    fn what_the_fetched_program_can_use_is_kept_without_ties_to_others() {
        let installed = Installed::read(STATUS, &["qemu", "seabios"]);
        insta::assert_snapshot!(installed.status(), @r"
        Package: libc6
        Status: install ok installed
        Architecture: amd64
        Multi-Arch: same
        Version: 2.36-9+deb12u10
        Provides: libc6-2.36

        Package: tzdata
        Status: hold ok installed
        Architecture: all
        Version: 2025b
        ");
    }

    #[test]
    fn what_stands_in_the_way_is_forgotten() {
        let mut installed = Installed::read(STATUS, &[]);
        installed.forget(&["qemu-utils".to_owned(), "tzdata:amd64".to_owned()]);
        assert!(!installed.status().contains("qemu-utils"));
        assert!(!installed.status().contains("tzdata"));
        assert!(installed.status().contains("libc6"));
    }

    proptest::proptest! {
        #[test]
        fn any_status_file_is_survived(text in "(Package: a|Status: x installed|Architecture: all|:| |\n){0,30}") {
            let _ = Installed::read(&text, &["b"]).status();
        }
    }
}
