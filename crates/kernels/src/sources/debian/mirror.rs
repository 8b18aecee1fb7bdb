//! Which Debian mirror this machine uses, from its apt sources: the one-line `.list` form and the deb822
//! `.sources` form (sources.list(5)).

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::DebianError;

/// Suite names that are Debian's on any machine. A Debian machine adds its own codename to them.
pub(super) const ROLES: [&str; 7] = [
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "sid",
    "experimental",
];
/// Where Debian's own keys are, when the entry doesn't say which to use.
const KEYRINGS: [&str; 2] = [
    "usr/share/keyrings/debian-archive-keyring.gpg",
    "usr/share/keyrings/debian-archive-keyring.pgp",
];

/// A Debian mirror as the machine's apt knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) uri: String,
    /// The value of `Signed-By`: files, fingerprints, or a key block over several lines.
    signed_by: Option<String>,
    /// The value of `Check-Valid-Until`, which a frozen mirror needs.
    check_valid_until: Option<String>,
}

/// One entry of a sources file, whichever form it had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceEntry {
    pub(super) enabled: bool,
    pub(super) types: Vec<String>,
    pub(super) uris: Vec<String>,
    pub(super) suites: Vec<String>,
    pub(super) components: Vec<String>,
    pub(super) architectures: Vec<String>,
    pub(super) signed_by: Option<String>,
    pub(super) check_valid_until: Option<String>,
}

impl Mirror {
    /// The first mirror among the sources of the machine whose root folder is `root` (`/`).
    pub(crate) fn of_machine(root: &Path) -> Result<Self, DebianError> {
        let etc_apt = root.join("etc/apt");
        let codename = debian_codename(root);
        let entries = read_sources(&etc_apt)?;
        let entry = entries
            .iter()
            .find(|entry| entry.is_debian(codename.as_deref()));
        let Some((entry, uri)) = entry.and_then(|entry| Some((entry, entry.uris.first()?))) else {
            return Err(DebianError::NoMirror { etc_apt });
        };
        let keyring = || {
            let path = KEYRINGS
                .iter()
                .map(|path| root.join(path))
                .find(|path| path.exists())?;
            Some(path.display().to_string())
        };
        Ok(Self {
            uri: uri.clone(),
            signed_by: entry.signed_by.clone().or_else(keyring),
            check_valid_until: entry.check_valid_until.clone(),
        })
    }

    /// The mirror of one entry.
    pub(super) fn of_entry(entry: &SourceEntry) -> Self {
        Self {
            uri: entry.uris.first().cloned().unwrap_or_default(),
            signed_by: entry.signed_by.clone(),
            check_valid_until: entry.check_valid_until.clone(),
        }
    }

    /// The mirror among the sources in one file.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_text(text: &str, is_deb822: bool, codename: Option<&str>) -> Option<Self> {
        let entries = if is_deb822 {
            parse_deb822(text)
        } else {
            parse_list(text)
        };
        let entry = entries.iter().find(|entry| entry.is_debian(codename))?;
        (!entry.uris.is_empty()).then(|| Self::of_entry(entry))
    }

    /// A sources file for these suites. `targets` says which index files are wanted.
    pub(crate) fn stanza(&self, suites: &[String], targets: &str) -> String {
        let entry = SourceEntry {
            uris: vec![self.uri.clone()],
            suites: suites.to_vec(),
            signed_by: self.signed_by.clone(),
            check_valid_until: self.check_valid_until.clone(),
            ..SourceEntry::default()
        };
        entry.stanza(targets)
    }
}

impl SourceEntry {
    /// The entry for a sources file of ours: binary packages of `main` for amd64. `targets` says which index files
    /// are wanted.
    pub(super) fn stanza(&self, targets: &str) -> String {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: amd64\nTargets: {targets}\nLanguages: none\n",
            self.uris.join(" "),
            self.suites.join(" "),
        );
        // Writing to a String can't fail.
        if let Some(value) = &self.check_valid_until {
            let _ = writeln!(text, "Check-Valid-Until: {value}");
        }
        if let Some(value) = &self.signed_by {
            let _ = writeln!(text, "Signed-By: {value}");
        }
        text
    }

    /// Whether it offers binary packages of `main` for amd64 that can be fetched.
    pub(super) fn offers_main(&self) -> bool {
        let has = |list: &[String], what: &str| list.iter().any(|item| item == what);
        self.enabled
            && has(&self.types, "deb")
            && has(&self.components, "main")
            && (self.architectures.is_empty() || has(&self.architectures, "amd64"))
            && self
                .uris
                .first()
                .is_some_and(|uri| !uri.starts_with("cdrom:"))
    }

    /// Whether it is the main archive of Debian, not its security updates nor somebody else's packages.
    fn is_debian(&self, codename: Option<&str>) -> bool {
        self.offers_main()
            && self
                .suites
                .iter()
                .any(|suite| ROLES.contains(&suite.as_str()) || Some(suite.as_str()) == codename)
    }

    fn set(&mut self, field: &str, value: &str) {
        let words = || value.split_whitespace().map(str::to_owned).collect();
        let is_no =
            || ["no", "false", "0", "off"].contains(&value.trim().to_ascii_lowercase().as_str());
        match field.to_ascii_lowercase().as_str() {
            "enabled" => self.enabled = !is_no(),
            "types" => self.types = words(),
            "uris" => self.uris = words(),
            "suites" => self.suites = words(),
            "components" => self.components = words(),
            "architectures" | "arch" => self.architectures = words(),
            "signed-by" if !value.trim().is_empty() => self.signed_by = Some(value.to_owned()),
            "check-valid-until" => self.check_valid_until = Some(value.trim().to_owned()),
            _ => {}
        }
    }
}

/// The codename of a Debian machine, from os-release(5). Derivatives have their own, which Debian's mirrors
/// don't know.
fn debian_codename(root: &Path) -> Option<String> {
    let text = os_release(root)?;
    (os_release_value(&text, "ID")? == "debian")
        .then(|| os_release_value(&text, "VERSION_CODENAME"))
        .flatten()
}

/// The text of os-release(5).
pub(super) fn os_release(root: &Path) -> Option<String> {
    let places = ["etc/os-release", "usr/lib/os-release"];
    places
        .iter()
        .find_map(|place| fs::read_to_string(root.join(place)).ok())
}

pub(super) fn os_release_value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches(['"', '\'']).to_owned())
    })
}

pub(super) fn read_sources(etc_apt: &Path) -> Result<Vec<SourceEntry>, DebianError> {
    let mut paths = vec![etc_apt.join("sources.list")];
    let parts = etc_apt.join("sources.list.d");
    if let Ok(entries) = fs::read_dir(&parts) {
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        found.sort();
        paths.extend(found);
    }
    let mut sources = Vec::new();
    for path in paths {
        let parse = match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        match fs::read_to_string(&path) {
            Ok(text) => sources.extend(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DebianError::Sources { path, source }),
        }
    }
    Ok(sources)
}

/// `deb [options] uri suite component…`, one a line.
fn parse_list(text: &str) -> Vec<SourceEntry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<SourceEntry> {
    let line = line.split('#').next()?.trim();
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let mut entry = SourceEntry {
        enabled: true,
        types: vec![kind.to_owned()],
        ..SourceEntry::default()
    };
    let mut rest = rest.trim_start();
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        for option in options.split_whitespace() {
            let (name, value) = option.split_once('=')?;
            // A list is written with commas here and with spaces in the other form.
            entry.set(name, &value.replace(',', " "));
        }
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    entry.uris = vec![words.next()?];
    entry.suites = vec![words.next()?];
    entry.components = words.collect();
    Some(entry)
}

/// Stanzas of `Field: value`, continued by lines that start with a space.
fn parse_deb822(text: &str) -> Vec<SourceEntry> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    // The empty line at the end closes the last stanza.
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if !fields.is_empty() {
                entries.push(entry_of(&fields));
                fields.clear();
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    entries
}

fn entry_of(fields: &[(String, String)]) -> SourceEntry {
    let mut entry = SourceEntry {
        enabled: true,
        ..SourceEntry::default()
    };
    for (name, value) in fields {
        entry.set(name, value);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's root folder with these files in it.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const BOOKWORM: (&str, &str) = ("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");

    #[test]
    fn one_line_form_with_options() {
        let root = machine(&[
            BOOKWORM,
            (
                "etc/apt/sources.list",
                "# deb https://off.example/debian bookworm main\n\
                 deb-src https://mirror.example/debian bookworm main\n\
                 deb https://mirror.example/debian-security bookworm-security main\n\
                 deb [arch=amd64,arm64 signed-by=/k/a.gpg,/k/b.gpg trusted=yes] https://mirror.example/debian bookworm main contrib # ours\n",
            ),
        ]);
        let mirror = Mirror::of_machine(root.path()).unwrap();
        insta::assert_snapshot!(mirror.stanza(&["trixie".to_owned(), "sid".to_owned()], "Packages"), @r"
        Types: deb
        URIs: https://mirror.example/debian
        Suites: trixie sid
        Components: main
        Architectures: amd64
        Targets: Packages
        Languages: none
        Signed-By: /k/a.gpg /k/b.gpg
        ");
    }

    #[test]
    fn deb822_form_with_an_embedded_key_and_a_disabled_entry() {
        let root = machine(&[
            BOOKWORM,
            (
                "etc/apt/sources.list.d/a.sources",
                "Types: deb\nURIs: https://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n\n\
                 # a comment\nTypes: deb deb-src\nURIs: https://one.example/debian https://two.example/debian\n\
                 Suites: bookworm bookworm-updates\nComponents: main\nCheck-Valid-Until: no\nTrusted: yes\n\
                 Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n",
            ),
            (
                "etc/apt/sources.list.d/b.sources.disabled",
                "Types: deb\nURIs: https://b.example\nSuites: sid\nComponents: main\n",
            ),
        ]);
        let mirror = Mirror::of_machine(root.path()).unwrap();
        insta::assert_snapshot!(mirror.stanza(&["sid".to_owned()], "Packages"), @r"
        Types: deb
        URIs: https://one.example/debian
        Suites: sid
        Components: main
        Architectures: amd64
        Targets: Packages
        Languages: none
        Check-Valid-Until: no
        Signed-By: 
         -----BEGIN PGP PUBLIC KEY BLOCK-----
         .
         abc
         -----END PGP PUBLIC KEY BLOCK-----
        ");
    }

    #[test]
    fn an_entry_without_a_key_gets_the_machines_keyring() {
        let root = machine(&[
            (
                "etc/apt/sources.list",
                "deb https://mirror.example/debian stable main\n",
            ),
            ("usr/share/keyrings/debian-archive-keyring.gpg", ""),
        ]);
        let mirror = Mirror::of_machine(root.path()).unwrap();
        let keyring = root
            .path()
            .join("usr/share/keyrings/debian-archive-keyring.gpg");
        assert_eq!(mirror.signed_by, Some(keyring.display().to_string()));
    }

    #[test]
    fn a_derivative_without_a_debian_mirror_is_told_so() {
        let root = machine(&[
            ("etc/os-release", "ID=ubuntu\nVERSION_CODENAME=noble\n"),
            (
                "etc/apt/sources.list",
                "deb https://archive.example/ubuntu noble main\n",
            ),
        ]);
        let error = Mirror::of_machine(root.path()).unwrap_err().to_string();
        assert!(
            error.contains("no Debian mirror") && error.contains("etc/apt"),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[ -~\n\t\\[\\]=:#]{0,400}") {
            parse_list(&text);
            parse_deb822(&text);
        }
    }
}
