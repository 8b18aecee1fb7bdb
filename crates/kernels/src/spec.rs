//! What a person may write after `--kernel`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The forms that work, for error messages.
const WORKS_NOW: &str = "debian, debian/SUITE (debian/sid), debian/VERSION (debian/7.3), a path to a bzImage, vmlinux, .deb \
     or a directory with vmlinuz and modules, or a cache key from `cargo ktstr kernel list`";

/// Which kernel is meant. Parsing looks at the text only: whether a suite, a version or a path exists is
/// found out by [`crate::resolve`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KernelSpec {
    /// A prebuilt Debian kernel.
    Debian(DebianSpec),
    /// A file or a directory: the text has a `/` in it, or starts with `.` or `~/`.
    Path(PathBuf),
    /// A cache key as `kernel list` prints it. A file of this name in the working directory is taken when
    /// the cache has no such key.
    Key(String),
}

/// Which of Debian's kernels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DebianSpec {
    /// The newest in the backports suite of the current stable release.
    Newest,
    /// The newest in this suite: a codename (`trixie`, `trixie-backports`, `sid`) or a role (`stable`).
    Suite(String),
    /// The newest whose version starts with these numbers, in any of the suites that carry kernels.
    Version(String),
}

/// Why a text does not name a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Nothing was written.
    #[error("the kernel is empty; write one of: {WORKS_NOW}")]
    Empty,
    /// A form of the grammar that names a kernel to be built, which can't be done yet.
    #[error(
        "kernel `{spec}` is {form}, which would have to be built; building kernels is not supported yet. \
         What works now: {WORKS_NOW}"
    )]
    NeedsBuild {
        spec: String,
        /// What it means, in words.
        form: &'static str,
    },
    /// The part after `debian/` is neither a suite name nor a version.
    #[error(
        "`{part}` in kernel `{spec}` is neither a Debian suite (trixie, trixie-backports, sid) nor the \
         start of a version (7.3, 6.12.95)"
    )]
    BadDebian {
        spec: String,
        /// The part that is wrong.
        part: String,
    },
    /// It has a character that no form has.
    #[error(
        "kernel `{spec}` has the character {character:?}, which no kernel name has; write one of: {WORKS_NOW}"
    )]
    BadCharacter {
        spec: String,
        /// The first such character.
        character: char,
    },
}

impl FromStr for KernelSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        if text == "debian" {
            return Ok(Self::Debian(DebianSpec::Newest));
        }
        if let Some(part) = text.strip_prefix("debian/") {
            return debian(text, part).map(Self::Debian);
        }
        if let Some(form) = needs_build(text) {
            return Err(SpecError::NeedsBuild {
                spec: text.to_owned(),
                form,
            });
        }
        if let Some(rest) = text.strip_prefix("~/")
            && let Some(home) = std::env::home_dir()
        {
            return Ok(Self::Path(home.join(rest)));
        }
        if text.contains('/') || text.starts_with('.') {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        match text.chars().find(|&c| !is_key_char(c)) {
            Some(character) => Err(SpecError::BadCharacter {
                spec: text.to_owned(),
                character,
            }),
            None => Ok(Self::Key(text.to_owned())),
        }
    }
}

/// Characters of a cache key: those of Debian versions and kernel releases, all safe in a file name.
pub(crate) fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._+~-".contains(c)
}

fn debian(spec: &str, part: &str) -> Result<DebianSpec, SpecError> {
    let bad = || SpecError::BadDebian {
        spec: spec.to_owned(),
        part: part.to_owned(),
    };
    let first = part.chars().next().ok_or_else(bad)?;
    if first.is_ascii_digit() {
        let version = part.trim_end_matches('.');
        let numbers = version
            .split('.')
            .all(|n| !n.is_empty() && n.len() <= 5 && n.chars().all(|c| c.is_ascii_digit()));
        return if numbers {
            Ok(DebianSpec::Version(version.to_owned()))
        } else {
            Err(bad())
        };
    }
    let name = part
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if name && first.is_ascii_lowercase() {
        Ok(DebianSpec::Suite(part.to_owned()))
    } else {
        Err(bad())
    }
}

/// Recognises the forms of the grammar that name sources instead of a built kernel.
fn needs_build(text: &str) -> Option<&'static str> {
    if text.starts_with("git+") {
        return Some("a git repository");
    }
    if let Some((from, to)) = text.split_once("..")
        && is_release(from)
        && is_release(to.trim_start_matches('='))
    {
        return Some("a range of kernel.org releases");
    }
    is_release(text).then_some("a kernel.org release")
}

/// `7.0`, `6.14.2`, `7.1-rc3`.
fn is_release(text: &str) -> bool {
    let (numbers, rc) = text
        .split_once("-rc")
        .map_or((text, None), |(n, rc)| (n, Some(rc)));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    (2..=3).contains(&numbers.split('.').count())
        && numbers.split('.').all(digits)
        && rc.is_none_or(digits)
}

fn is_bare(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    !bytes.contains(&b'/') && !bytes.starts_with(b".")
}

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(debian) => debian.fmt(f),
            // A bare file name would read back as a key.
            Self::Path(path) if is_bare(path) => write!(f, "./{}", path.display()),
            Self::Path(path) => path.display().fmt(f),
            Self::Key(key) => f.write_str(key),
        }
    }
}

impl fmt::Display for DebianSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("debian"),
            Self::Suite(name) | Self::Version(name) => write!(f, "debian/{name}"),
        }
    }
}
