//! What the fuzz target for apt looks at here.

use super::apt::{Release, missing_suite};
use super::mirror::Mirror;
use super::packages::Index;
use super::version;

/// A list of packages: the kernel that is chosen is one that was offered, and all its packages are in the list.
pub(crate) fn packages(version: &str, list: &[u8]) {
    let Ok(index) = Index::read(list) else {
        return;
    };
    let offered = index.series();
    for prefix in [None, Some(version)] {
        let Some(choice) = index.newest(prefix) else {
            continue;
        };
        let upstream = version::upstream(&choice.version);
        assert!(offered.iter().any(|version| version == upstream));
        assert!(!choice.packages.is_empty());
        for package in &choice.packages {
            assert!(index.contains(package));
        }
    }
    assert!(!offered.is_empty() || index.newest(None).is_none());
}

/// A Release file's names are used to ask for more.
pub(crate) fn release(text: &str) {
    if let Some(release) = Release::parse(text) {
        assert!(!release.codename.contains(char::is_whitespace) && !release.codename.is_empty());
        assert!(!release.role.contains(char::is_whitespace));
    }
}

/// Sources of a machine: what is written for apt has the fields that are meant, and no others.
pub(crate) fn sources(text: &str, is_deb822: bool) {
    let Some(mirror) = Mirror::of_text(text, is_deb822, Some("trixie")) else {
        return;
    };
    let stanza = mirror.stanza(&["sid".to_owned()], "Packages");
    let fields: Vec<&str> = stanza
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    let always = [
        "Types",
        "URIs",
        "Suites",
        "Components",
        "Architectures",
        "Targets",
        "Languages",
    ];
    assert_eq!(fields[..always.len()], always, "{stanza:?}");
    let more = ["Check-Valid-Until", "Signed-By"];
    assert!(
        fields[always.len()..]
            .iter()
            .all(|name| more.contains(name)),
        "{stanza:?}"
    );
    assert!(
        stanza.lines().all(|line| !line.trim().is_empty()),
        "{stanza:?}"
    );
}

/// What apt wrote on its way out.
pub(crate) fn messages(text: &str) {
    for line in text.lines() {
        if let Some(suite) = missing_suite(line) {
            assert!(line.contains(&suite) && !suite.contains(' '));
        }
    }
}
