//! The sources of the machine's own release: what its libraries come from, and so what else runs with them.

use std::path::Path;

use super::DebianError;
use super::mirror::{Mirror, ROLES, SourceEntry, os_release, os_release_value, read_sources};

/// The entries of the machine's apt sources that belong to its release: the release itself, its updates, its security
/// updates and its backports. What others offer is left out, even if they have packages of the same names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReleaseSources {
    entries: Vec<SourceEntry>,
}

impl ReleaseSources {
    /// Reads the apt sources of the machine whose root folder is `root` (`/`).
    pub(crate) fn of_machine(root: &Path) -> Result<Self, DebianError> {
        let etc_apt = root.join("etc/apt");
        let offered: Vec<SourceEntry> = read_sources(&etc_apt)?
            .into_iter()
            .filter(SourceEntry::offers_main)
            .collect();
        let os_release = os_release(root).unwrap_or_default();
        let value = |name| os_release_value(&os_release, name);
        let codenames: Vec<String> = ["VERSION_CODENAME", "UBUNTU_CODENAME"]
            .into_iter()
            .filter_map(value)
            .filter(|name| !name.is_empty())
            .collect();
        let mut entries = of_releases(&offered, &codenames);
        if entries.is_empty() && value("ID").as_deref() == Some("debian") {
            entries = of_releases(&offered, &ROLES.map(str::to_owned));
        }
        if entries.is_empty() {
            return Err(DebianError::NoMirror { etc_apt });
        }
        Ok(Self { entries })
    }

    /// A sources file with them.
    pub(crate) fn file(&self) -> String {
        let stanzas: Vec<String> = self
            .entries
            .iter()
            .map(|entry| entry.stanza("Packages"))
            .collect();
        stanzas.join("\n")
    }

    /// All suites, for messages.
    pub(crate) fn suites(&self) -> Vec<String> {
        let mut suites: Vec<String> = Vec::new();
        for suite in self.entries.iter().flat_map(|entry| &entry.suites) {
            if !suites.contains(suite) {
                suites.push(suite.clone());
            }
        }
        suites
    }

    /// The first mirror, for messages.
    pub(crate) fn mirror(&self) -> Mirror {
        let first = self.entries.first().cloned().unwrap_or_default();
        Mirror::of_entry(&first)
    }
}

/// The entries that have suites of these releases, with no others.
fn of_releases(entries: &[SourceEntry], names: &[String]) -> Vec<SourceEntry> {
    // `bookworm`, `bookworm-updates`, and `buster/updates`, as security updates were once called.
    let belongs = |suite: &String| {
        names.iter().any(|name| {
            suite
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '/']))
        })
    };
    let own = entries.iter().map(|entry| SourceEntry {
        suites: entry
            .suites
            .iter()
            .filter(|s| belongs(s))
            .cloned()
            .collect(),
        ..entry.clone()
    });
    own.filter(|entry| !entry.suites.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(os_release: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let files = files.iter().copied();
        for (path, text) in files.chain([("etc/os-release", os_release)]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn file_of(os_release: &str, files: &[(&str, &str)]) -> String {
        let machine = machine(os_release, files);
        ReleaseSources::of_machine(machine.path()).unwrap().file()
    }

    #[test]
    fn updates_belong_to_the_release_and_strangers_do_not() {
        let text = file_of(
            "ID=debian\nVERSION_CODENAME=bookworm\n",
            &[
                (
                    "etc/apt/sources.list",
                    "deb http://mirror.example/debian bookworm main contrib\n\
                     deb http://mirror.example/debian bookworm-updates main\n\
                     deb http://mirror.example/debian trixie main\n\
                     deb [signed-by=/k.gpg] http://security.example bookworm-security main\n",
                ),
                (
                    "etc/apt/sources.list.d/strangers.list",
                    "deb https://browser.example stable main\n\
                     deb https://node.example nodistro main\n\
                     deb https://docker.example bookworm stable\n",
                ),
            ],
        );
        insta::assert_snapshot!(text, @r"
        Types: deb
        URIs: http://mirror.example/debian
        Suites: bookworm
        Components: main
        Architectures: amd64
        Targets: Packages
        Languages: none

        Types: deb
        URIs: http://mirror.example/debian
        Suites: bookworm-updates
        Components: main
        Architectures: amd64
        Targets: Packages
        Languages: none

        Types: deb
        URIs: http://security.example
        Suites: bookworm-security
        Components: main
        Architectures: amd64
        Targets: Packages
        Languages: none
        Signed-By: /k.gpg
        ");
    }

    #[test]
    fn a_relative_of_debian_has_its_own_names() {
        let text = file_of(
            "ID=linuxmint\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=\"noble\"\n",
            &[(
                "etc/apt/sources.list.d/a.sources",
                "Types: deb\nURIs: http://ubuntu.example/ubuntu\nSuites: noble noble-updates stable\n\
                 Components: main universe\nSigned-By: /k.gpg\n",
            )],
        );
        insta::assert_snapshot!(text, @r"
        Types: deb
        URIs: http://ubuntu.example/ubuntu
        Suites: noble noble-updates
        Components: main
        Architectures: amd64
        Targets: Packages
        Languages: none
        Signed-By: /k.gpg
        ");
    }

    #[test]
    fn a_debian_machine_may_name_its_release_by_its_role() {
        let sources = (
            "etc/apt/sources.list",
            "deb http://mirror.example testing main\n",
        );
        let text = file_of("ID=debian\nVERSION_CODENAME=forky\n", &[sources]);
        assert!(text.contains("Suites: testing\n"), "{text}");
        let stranger = machine("ID=ubuntu\nVERSION_CODENAME=noble\n", &[sources]);
        let error = ReleaseSources::of_machine(stranger.path()).unwrap_err();
        assert!(matches!(error, DebianError::NoMirror { .. }), "{error:?}");
    }
}
