//! What apt would do, as `apt-get --simulate` prints it.

/// What installing packages would change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulation {
    /// Packages that would be installed.
    pub installs: Vec<Install>,
    /// Packages that would be removed, by name.
    pub removes: Vec<String>,
}

/// A package that would be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    pub name: String,
    /// The version that would be there.
    pub version: String,
    /// The version that is there now.
    pub replaces: Option<String>,
}

impl Simulation {
    /// Reads apt's lines: `Inst NAME [OLD] (NEW ORIGIN [ARCHITECTURE])`, `Remv NAME [OLD]`, `Purg NAME [OLD]`. All
    /// others are for people, or repeat these (`Conf`).
    pub fn parse(text: &str) -> Self {
        let mut simulation = Self::default();
        for line in text.lines() {
            let Some((what, rest)) = line.split_once(' ') else {
                continue;
            };
            let name = rest.split(' ').next().unwrap_or_default();
            match what {
                "Inst" => simulation.installs.extend(install(name, rest)),
                "Remv" | "Purg" => simulation.removes.push(name.to_owned()),
                _ => {}
            }
        }
        simulation
    }

    /// What would become of packages that are installed now, a clause for each: nothing where packages are only
    /// added.
    pub fn changes(&self) -> Vec<String> {
        let removed = self.removes.iter().map(|name| format!("remove {name}"));
        let replaced = self.installs.iter().filter_map(|install| {
            let Install { name, version, .. } = install;
            let old = install.replaces.as_ref()?;
            Some(format!("replace {name} {old} by {version}"))
        });
        removed.chain(replaced).collect()
    }
}

fn install(name: &str, rest: &str) -> Option<Install> {
    let (before, after) = rest.split_once(" (")?;
    let version = after.split([' ', ')']).next()?;
    let replaces = before
        .split_once(" [")
        .and_then(|(_, old)| old.strip_suffix(']'));
    Some(Install {
        name: name.to_owned(),
        version: version.to_owned(),
        replaces: replaces.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a Debian 12 with qemu-utils of the backports.
    const REMOVES: &str = "\
Reading package lists...
The following packages will be REMOVED:
  qemu-utils
Remv qemu-utils [1:10.0.2+ds-2+deb13u1~bpo12+1]
Inst ipxe-qemu (1.0.0+git-20190125.36a4c85-5.1 Debian:12.15/oldstable [all])
Inst libssl3 [3.0.15-1] (3.0.17-1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64]) []
Inst qemu-system-x86 (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
Conf ipxe-qemu (1.0.0+git-20190125.36a4c85-5.1 Debian:12.15/oldstable [all])
";

    #[test]
    fn fault_f9_what_apt_would_remove_or_replace_is_found() {
        let simulation = Simulation::parse(REMOVES);
        assert_eq!(
            simulation.changes(),
            ["remove qemu-utils", "replace libssl3 3.0.15-1 by 3.0.17-1"]
        );
        let names: Vec<&str> = simulation
            .installs
            .iter()
            .map(|install| install.name.as_str())
            .collect();
        assert_eq!(names, ["ipxe-qemu", "libssl3", "qemu-system-x86"]);
        assert_eq!(simulation.installs[2].version, "1:7.2+dfsg-7+deb12u18+b3");
    }

    #[test]
    fn packages_that_are_only_added_change_nothing() {
        let text = "Inst a (1.0 Debian:12/stable [all])\nConf a (1.0 Debian:12/stable [all])\n";
        let simulation = Simulation::parse(text);
        assert_eq!(simulation.changes(), [""; 0]);
        assert_eq!(simulation.installs[0].replaces, None);
        assert_eq!(
            Simulation::parse("Purg a:i386 [1.0] [b ]\n").removes,
            ["a:i386"]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(Inst|Remv|Conf| |\\[|\\]|\\(|\\)|a|1|\n){0,40}") {
            let _ = Simulation::parse(&text).changes();
        }
    }
}
