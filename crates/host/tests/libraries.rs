//! The libraries in the guest are those that the host's loader takes, and the guest's loader finds them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktstr_host::initramfs::{BaseContents, Include, OWN_BINARY};
use tempfile::TempDir;

const CASE: &str = "KTSTR_LIBRARIES_CASE";

/// What was packed.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Packed {
    /// The length of each file, by its path.
    files: BTreeMap<String, usize>,
    library_path: Option<String>,
}

/// What this process is to pack when it is started by [`Case::packed`].
#[derive(serde::Serialize, serde::Deserialize)]
struct Case {
    init: PathBuf,
    includes: Vec<(PathBuf, String)>,
    library_path: Option<String>,
    /// Removed and made again, as by a build, before anything is packed.
    rebuilt: Option<PathBuf>,
}

impl Case {
    fn new(program: &Path, guest: &str) -> Self {
        Self {
            init: "/bin/true".into(),
            includes: vec![(program.to_owned(), guest.to_owned())],
            library_path: None,
            rebuilt: None,
        }
    }

    fn told(self, library_path: &str) -> Self {
        Self {
            library_path: Some(library_path.to_owned()),
            ..self
        }
    }

    /// Packs it in a process whose working folder is `folder`: the loader's relative folders begin there.
    fn packed(&self, folder: &Path) -> Result<Packed, String> {
        self.packed_by(Path::new(OWN_BINARY), folder)
    }

    fn packed_by(&self, program: &Path, folder: &Path) -> Result<Packed, String> {
        let output = Command::new(program)
            .args(["--exact", "a_case_is_packed", "--nocapture", "--ignored"])
            .env(CASE, serde_json::to_string(self).expect("JSON"))
            .current_dir(folder)
            .output()
            .expect("this binary runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.split_once("packed: "));
        let Some((_, json)) = line else {
            panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
        };
        serde_json::from_str(json).expect("JSON")
    }
}

#[test]
#[ignore = "a process of other tests"]
fn a_case_is_packed() {
    let Ok(case) = std::env::var(CASE) else {
        return;
    };
    let case: Case = serde_json::from_str(&case).expect("JSON");
    if let Some(path) = &case.rebuilt {
        fs::remove_file(path).expect("ours");
        fs::copy("/bin/true", path).expect("ours");
    }
    let contents = BaseContents {
        init: case.init,
        programs: Vec::new(),
        includes: case
            .includes
            .into_iter()
            .map(|(host, guest)| Include { host, guest })
            .collect(),
        modules: Vec::new(),
        library_path: case.library_path,
    };
    let packed = contents.pack().map_err(|error| error.to_string());
    let packed = packed.map(|base| Packed {
        files: unpack(&base.archive),
        library_path: base.library_path,
    });
    println!("packed: {}", serde_json::to_string(&packed).expect("JSON"));
}

fn unpack(mut archive: &[u8]) -> BTreeMap<String, usize> {
    let mut files = BTreeMap::new();
    loop {
        let mut reader = cpio::newc::Reader::new(archive).expect("an entry");
        if reader.entry().is_trailer() {
            return files;
        }
        let name = format!("/{}", reader.entry().name());
        let is_file = reader.entry().mode() & 0o170_000 == 0o100_000;
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("its content");
        if is_file {
            assert!(files.insert(name, content.len()).is_none(), "twice");
        }
        archive = reader.finish().expect("the next entry");
    }
}

fn cc(args: &[&dyn AsRef<OsStr>]) {
    let made = Command::new("cc").args(args).output().expect("cc");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
}

/// A folder with `libx.so.1` in `lib`, and a program `bin/program` that needs it and is linked with `options`.
fn built(options: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("there");
    for name in ["lib", "bin"] {
        fs::create_dir(root.join(name)).expect("ours");
    }
    fs::write(root.join("x.c"), "int x(void) { return 7; }").expect("ours");
    fs::write(
        root.join("main.c"),
        "int x(void); int main(void) { return x(); }",
    )
    .expect("ours");
    library(&root, &root.join("lib/libx.so.1"));
    let mut args: Vec<&dyn AsRef<OsStr>> = vec![&"-o"];
    let paths = ["bin/program", "main.c", "lib/libx.so.1"].map(|name| root.join(name));
    args.extend(paths.iter().map(|path| -> &dyn AsRef<OsStr> { path }));
    args.extend(options.iter().map(|option| -> &dyn AsRef<OsStr> { option }));
    cc(&args);
    (folder, root)
}

fn library(root: &Path, path: &Path) {
    let source = root.join("x.c");
    cc(&[
        &"-shared",
        &"-fPIC",
        &"-Wl,-soname,libx.so.1",
        &"-o",
        &path,
        &source,
    ]);
}

#[test]
fn fault_f4_every_library_is_the_one_that_ldd_names() {
    let mut num_compared = 0;
    for program in [
        "bash", "ls", "ldd", "git", "python3", "perl", "ssh", "cc1", "curl", "gdb",
    ] {
        let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
        let Some(program) = found.iter().find(|path| path.is_file()) else {
            continue;
        };
        let ldd = Command::new("ldd").arg(program).output().expect("ldd");
        let ldd = String::from_utf8_lossy(&ldd.stdout);
        let lines = ldd
            .lines()
            .filter_map(|line| line.trim().rsplit_once(" (0x"));
        let paths = lines.filter_map(|(line, _)| line.rsplit(" => ").next());
        let named: Vec<&str> = paths.filter(|path| path.starts_with('/')).collect();
        let guest = "/root/program";
        let packed = Case::new(program, guest)
            .packed(Path::new("/"))
            .expect("packs");
        let others = ["/init", guest, "/etc/ld.so.cache", "/ktstr/modules.list"];
        let is_library = |path: &&String| !others.contains(&path.as_str());
        let mut libraries: Vec<&str> = packed
            .files
            .keys()
            .filter(is_library)
            .map(String::as_str)
            .collect();
        // Of /init.
        libraries.retain(|path| {
            named.contains(path) || !(path.contains("/libc.so") || path.contains("/ld-linux"))
        });
        let mut named = named;
        named.sort_unstable();
        assert_eq!(libraries, named, "{}", program.display());
        num_compared += 1;
    }
    assert!(num_compared >= 2, "ls and bash are everywhere");
}

#[test]
fn fault_f4_the_loaders_own_cache_decides_as_ldconfig_made_it() {
    // A loader whose cache is elsewhere, made by a configuration with all that ld.so.conf may have.
    let folder = tempfile::Builder::new()
        .prefix("k")
        .rand_bytes(4)
        .tempdir_in("/tmp")
        .expect("a folder");
    let cache = format!("{}/c", folder.path().display());
    let (host_cache, loader) = ("/etc/ld.so.cache", Path::new("/lib64/ld-linux-x86-64.so.2"));
    assert!(cache.len() <= host_cache.len(), "{cache}");
    let mut bytes = fs::read(loader).expect("glibc's loader");
    let at = |bytes: &[u8]| {
        bytes
            .windows(host_cache.len())
            .position(|found| found == host_cache.as_bytes())
    };
    let place = at(&bytes).expect("the cache's path");
    let mut path = cache.clone().into_bytes();
    path.resize(host_cache.len(), 0);
    bytes[place..place + path.len()].copy_from_slice(&path);
    let own_loader = folder.path().join("ld-linux-own.so.2");
    fs::write(&own_loader, bytes).expect("ours");
    fs::set_permissions(&own_loader, loader.metadata().expect("there").permissions())
        .expect("ours");

    let option = format!("-Wl,--dynamic-linker={}", own_loader.display());
    let (_built, root) = built(&[&option]);
    let wanted = root.join("a/one/lib");
    fs::create_dir_all(&wanted).expect("ours");
    library(&root, &wanted.join("libx.so.1"));
    fs::create_dir(root.join("conf.d")).expect("ours");
    fs::write(
        root.join("ld.so.conf"),
        "# first\n\tinclude conf.d/*.conf\n",
    )
    .expect("ours");
    let first = format!(
        "\t{}/a/one/lib\t# before the distribution's\n{}/lib\n",
        root.display(),
        root.display()
    );
    fs::write(root.join("conf.d/first.conf"), first).expect("ours");
    let made = Command::new("/sbin/ldconfig")
        .args(["-X", "-C", &cache, "-f"])
        .arg(root.join("ld.so.conf"))
        .output()
        .expect("ldconfig");
    assert!(
        Path::new(&cache).is_file(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    let packed = Case::new(&root.join("bin/program"), "/root/program")
        .packed(&root)
        .expect("packs");
    let library = wanted.join("libx.so.1").display().to_string();
    assert!(packed.files.contains_key(&library), "{packed:?}");
    assert!(
        !packed
            .files
            .contains_key(&root.join("lib/libx.so.1").display().to_string())
    );
    // The guest's loader has a cache too.
    assert!(packed.files.contains_key(host_cache));
}

#[test]
fn fault_f4_a_library_of_another_machine_is_passed_over() {
    let (_folder, root) = built(&[]);
    let first = root.join("first");
    fs::create_dir(&first).expect("ours");
    let mut bytes = fs::read(root.join("lib/libx.so.1")).expect("there");
    // ELFCLASS32, EM_386.
    bytes[4] = 1;
    bytes[18] = 3;
    fs::write(first.join("libx.so.1"), bytes).expect("ours");
    let (first, lib) = (
        first.display().to_string(),
        root.join("lib").display().to_string(),
    );
    let case =
        Case::new(&root.join("bin/program"), "/root/program").told(&format!("{first}:{lib}"));
    let packed = case.packed(&root).expect("packs");
    assert!(
        packed.files.contains_key(&format!("{lib}/libx.so.1")),
        "{packed:?}"
    );
    assert_eq!(packed.library_path, Some(lib));
}

#[test]
fn fault_f4_relative_and_empty_parts_of_the_library_path_begin_in_the_working_folder() {
    let (_folder, root) = built(&[]);
    let program = root.join("bin/program");
    let lib = root.join("lib").display().to_string();
    for (told, folder) in [
        ("lib", root.clone()),
        ("/nowhere:", root.join("lib")),
        ("../lib", root.join("bin")),
    ] {
        let packed = Case::new(&program, "/root/program")
            .told(told)
            .packed(&folder);
        let packed = packed.expect("packs");
        assert!(
            packed.files.contains_key(&format!("{lib}/libx.so.1")),
            "{told}: {packed:?}"
        );
        assert_eq!(packed.library_path.as_ref(), Some(&lib), "{told}");
    }
}

#[test]
fn fault_f4_an_origin_with_a_folder_above_it_is_understood() {
    for option in [
        "-Wl,-rpath,$ORIGIN/../lib",
        "-Wl,--disable-new-dtags,-rpath,$ORIGIN/../lib",
    ] {
        let (_folder, root) = built(&[option]);
        let program = root.join("bin/program");
        let lib = root.join("lib").display().to_string();
        // At its own place the guest's loader does as the host's; elsewhere it must be told.
        for (guest, told) in [
            (program.display().to_string(), None),
            ("/root/program".to_owned(), Some(lib.clone())),
        ] {
            let packed = Case::new(&program, &guest)
                .packed(Path::new("/"))
                .expect("packs");
            assert!(
                packed.files.contains_key(&format!("{lib}/libx.so.1")),
                "{packed:?}"
            );
            assert_eq!(packed.library_path, told, "{option} {guest}");
        }
    }
}

#[test]
fn fault_f4_two_libraries_of_one_name_are_never_mixed_up() {
    let (_first, first) = built(&["-Wl,-rpath,$ORIGIN/../lib"]);
    let (_second, second) = built(&["-Wl,-rpath,$ORIGIN/../lib"]);
    let programs = [&first, &second].map(|root| root.join("bin/program"));
    let mut case = Case::new(&programs[0], "/root/one");
    case.includes
        .push((programs[1].clone(), "/root/two".to_owned()));
    let error = case.packed(&first).expect_err("one would get the other's");
    assert!(
        error.contains("have the same name") && error.contains("FILE:/SAME/PATH"),
        "{error}"
    );
    for (host, guest) in &mut case.includes {
        *guest = host.display().to_string();
    }
    let packed = case.packed(&first).expect("packs");
    for root in [&first, &second] {
        assert!(
            packed
                .files
                .contains_key(&root.join("lib/libx.so.1").display().to_string())
        );
    }
}

#[test]
fn fault_f4_variants_for_other_cpus_come_along() {
    let (_folder, root) = built(&[]);
    let lib = root.join("lib");
    let mut wanted = vec![lib.join("libx.so.1")];
    for level in ["x86-64-v2", "x86-64-v3", "x86-64-v4"] {
        let variant = lib.join("glibc-hwcaps").join(level).join("libx.so.1");
        fs::create_dir_all(variant.parent().expect("a folder")).expect("ours");
        library(&root, &variant);
        wanted.push(variant);
    }
    let lib = lib.display().to_string();
    let case = Case::new(&root.join("bin/program"), "/root/program").told(&lib);
    let packed = case.packed(&root).expect("packs");
    for library in wanted {
        assert!(
            packed.files.contains_key(&library.display().to_string()),
            "{packed:?}"
        );
    }
    assert_eq!(packed.library_path, Some(lib));
}

#[test]
fn a_library_that_is_missing_and_a_loader_that_is_none_are_named() {
    let (_folder, root) = built(&[]);
    let program = root.join("bin/program");
    let error = Case::new(&program, "/root/program")
        .packed(&root)
        .expect_err("missing");
    let named = format!("{} needs the shared library libx.so.1", program.display());
    assert!(
        error.starts_with(&named) && error.contains("LD_LIBRARY_PATH"),
        "{error}"
    );

    let (_folder, root) = built(&["-Wl,--dynamic-linker=/bin/echo"]);
    let program = root.join("bin/program");
    let error = Case::new(&program, "/root/program")
        .packed(&root)
        .expect_err("no loader");
    assert!(error.contains("names /bin/echo as its loader"), "{error}");
}

#[test]
fn fault_e4_a_test_that_is_rebuilt_while_it_runs_packs_what_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("own");
    fs::copy(OWN_BINARY, &own).expect("copied");
    let case = |rebuilt| Case {
        init: OWN_BINARY.into(),
        includes: Vec::new(),
        library_path: None,
        rebuilt,
    };
    let before = case(None).packed_by(&own, folder.path()).expect("packs");
    let after = case(Some(own.clone()))
        .packed_by(&own, folder.path())
        .expect("packs");
    assert_eq!(after.files, before.files);
    let rebuilt = fs::read(&own).expect("there");
    assert!(after.files["/init"] > 10 * rebuilt.len());
}
