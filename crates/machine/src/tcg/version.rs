//! Which QEMU it is.

use std::fmt;
use std::str::FromStr;

/// A QEMU release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) micro: u32,
}

/// Oldest QEMU the arguments are written for.
pub(crate) const OLDEST: Version = Version {
    major: 7,
    minor: 2,
    micro: 0,
};

/// The text is not what `qemu --version` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAVersion;

impl Version {
    /// Whether one host thread per vCPU is sound. With QEMU 7.2 it is not: a vCPU sometimes runs into the
    /// `int3` of a kernel static key that another is patching, and the guest panics at boot.
    pub(crate) const fn threads_vcpus_soundly(self) -> bool {
        self.major >= 10
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Reads the first line of `qemu --version`: `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)`.
impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let number = text
            .strip_prefix("QEMU emulator version ")
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit() && c != '.').next())
            .ok_or(NotAVersion)?;
        let mut parts = number.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(micro)), None) => Ok(Self {
                major,
                minor,
                micro,
            }),
            _ => Err(NotAVersion),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn released_and_development_versions_are_read() {
        let read = |text: &str| text.parse::<Version>().map(|version| version.to_string());
        assert_eq!(
            read("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c)"),
            Ok("7.2.22".to_owned())
        );
        assert_eq!(
            read("QEMU emulator version 10.0.2\n"),
            Ok("10.0.2".to_owned())
        );
        assert_eq!(
            read("QEMU emulator version 9.2.50-dirty"),
            Ok("9.2.50".to_owned())
        );
        assert_eq!(read("qemu-img version 7.2.22"), Err(NotAVersion));
        assert_eq!(read("QEMU emulator version 7"), Err(NotAVersion));
    }

    #[test]
    fn vcpu_threads_are_trusted_from_10_on() {
        let sound = |text: &str| {
            let version: Version = text.parse().unwrap();
            version.threads_vcpus_soundly()
        };
        assert!(!sound("QEMU emulator version 7.2.22"));
        assert!(!sound("QEMU emulator version 9.2.4"));
        assert!(sound("QEMU emulator version 10.0.2"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(QEMU emulator version )?[0-9. a-z\n]{0,40}") {
            let _ = text.parse::<Version>();
        }
    }
}
