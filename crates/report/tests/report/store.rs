//! Sidecars on disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::thread;

use ktstr_report::{
    RunId, RunStore, RunSummary, SCHEMA_VERSION, Sidecar, SidecarError, StoreError,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::samples;

fn store() -> (TempDir, RunStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = RunStore::new(dir.path().join("runs"));
    (dir, store)
}

#[test]
fn what_is_written_is_read_back() {
    let (_dir, store) = store();
    let sidecars = [samples::check_failed("steady::a"), samples::skipped("b")];
    for sidecar in &sidecars {
        store.write(sidecar).unwrap();
    }
    let run = store.latest_run().unwrap().unwrap();
    assert_eq!(run.id.as_str(), samples::RUN);
    assert!(run.unreadable.is_empty());
    for sidecar in &sidecars {
        assert!(run.sidecars.iter().any(|stored| stored.sidecar == *sidecar));
    }
    let path = run.dir.join("steady.a.json");
    assert_eq!(Sidecar::read(&path).unwrap(), sidecars[0]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o444, 0o444, "others can read it");
}

#[test]
fn the_same_test_again_gets_the_next_number() {
    let (_dir, store) = store();
    let mut sidecar = samples::pass("a");
    let first = store.write(&sidecar).unwrap();
    sidecar.started_unix_ms += 1;
    let second = store.write(&sidecar).unwrap();
    assert!(first.ends_with("a.json") && second.ends_with("a+2.json"));
    let run = store.latest_run().unwrap().unwrap();
    let paths: Vec<_> = run.sidecars.iter().map(|stored| &stored.path).collect();
    assert_eq!(paths, [&first, &second], "in the order of their starts");
}

#[test]
fn fault_e6_a_test_whose_name_ends_in_dump_has_its_row() {
    let (_dir, store) = store();
    let tests = ["a", "a::dump", "core_dump", "dump", "a.dump", "a+dump"];
    let written = tests.map(|test| store.write(&samples::pass(test)).unwrap());
    for sidecar in written {
        fs::write(Sidecar::dump_path(&sidecar), "{}").unwrap();
    }
    let run = store.latest_run().unwrap().unwrap();
    assert!(run.unreadable.is_empty(), "{:?}", run.unreadable);
    let summary = RunSummary::of_run(&run);
    let rows: HashSet<&str> = summary.tests.iter().map(|row| row.test.as_str()).collect();
    assert_eq!(rows, HashSet::from(tests));
    assert_eq!(fs::read_dir(&run.dir).unwrap().count(), 2 * tests.len());
}

#[test]
fn fault_e6_a_second_attempt_is_not_another_tests_first() {
    let (_dir, store) = store();
    for test in ["a", "a::2", "a", "a::2"] {
        let sidecar = store.write(&samples::pass(test)).unwrap();
        let dump = Sidecar::dump_path(&sidecar);
        assert!(!dump.exists(), "{}", dump.display());
        fs::write(dump, "{}").unwrap();
    }
    let run = store.latest_run().unwrap().unwrap();
    let summary = RunSummary::of_run(&run);
    let attempts: Vec<_> = summary.tests.iter().map(|row| row.attempts).collect();
    assert_eq!(attempts, [2, 2]);
}

#[test]
fn a_run_that_goes_on_is_not_removed() {
    let (_dir, store) = store();
    let id = samples::RUN.parse().unwrap();
    let held = store.hold_run(&id).unwrap();
    store.write(&samples::pass("a")).unwrap();
    assert!(store.run_bytes(&id) > 0 && store.bytes() >= store.run_bytes(&id));
    assert!(!store.remove_run(&id).unwrap());
    drop(held);
    assert!(store.latest_run().unwrap().is_some(), "it has a result");
    assert!(store.remove_run(&id).unwrap());
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);

    drop(store.hold_run(&id).unwrap());
    assert!(
        store.list_runs().unwrap().is_empty(),
        "a run without results"
    );
    let half = store.root().join(".removing-x/y");
    fs::create_dir_all(&half).unwrap();
    store.sweep().unwrap();
    assert!(!half.exists());
}

#[test]
fn writers_at_once_overwrite_nothing() {
    const WRITERS: usize = 8;
    let (_dir, store) = store();
    let store = Arc::new(store);
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = Arc::clone(&store);
            thread::spawn(move || store.write(&samples::pass("a")).unwrap())
        })
        .collect();
    let paths: HashSet<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    assert_eq!(paths.len(), WRITERS);
    let run = store.latest_run().unwrap().unwrap();
    assert_eq!(run.sidecars.len(), WRITERS);
    let files = fs::read_dir(&run.dir).unwrap().count();
    assert_eq!(files, WRITERS, "no temporary file stays");
}

#[test]
fn a_damaged_or_newer_sidecar_is_named_and_the_others_are_read() {
    let (_dir, store) = store();
    let good = store.write(&samples::pass("good")).unwrap();
    let whole = fs::read(&good).unwrap();
    let dir = good.parent().unwrap();
    fs::write(dir.join("cut.json"), &whole[..whole.len() / 2]).unwrap();
    let newer = format!("{{\"schema\": {}, \"other\": 1}}", SCHEMA_VERSION + 1);
    fs::write(dir.join("newer.json"), newer).unwrap();
    fs::write(dir.join(".writing-x.json"), "{").unwrap();

    let run = store.latest_run().unwrap().unwrap();
    assert_eq!(run.sidecars.len(), 1);
    let [cut, newer] = &run.unreadable[..] else {
        panic!("two are unreadable, not {:?}", run.unreadable);
    };
    assert!(matches!(cut, SidecarError::Damaged { .. }) && cut.path().ends_with("cut.json"));
    let SidecarError::NewerSchema { found, .. } = newer else {
        panic!("{newer:?}");
    };
    assert_eq!(*found, SCHEMA_VERSION + 1);
    assert!(
        newer.to_string().contains("newer.json has schema 2"),
        "{newer}"
    );
}

#[test]
fn runs_are_listed_oldest_first_and_only_runs() {
    let (_dir, store) = store();
    assert!(store.list_runs().unwrap().is_empty());
    assert!(store.latest_run().unwrap().is_none());
    let ids = [
        "20260103T000000.000Z-2",
        "20260101T000000.000Z-9",
        "20260102T000000.000Z-1",
    ];
    for id in ids {
        let mut sidecar = samples::pass("a");
        sidecar.run_id = id.to_owned();
        store.write(&sidecar).unwrap();
    }
    fs::write(store.root().join("notes.txt"), "x").unwrap();
    fs::create_dir(store.root().join(".tmp")).unwrap();
    let listed = store.list_runs().unwrap();
    let listed: Vec<_> = listed.iter().map(RunId::as_str).collect();
    assert_eq!(listed, [ids[1], ids[2], ids[0]]);
    assert_eq!(store.latest_run().unwrap().unwrap().id.as_str(), ids[0]);
}

#[test]
fn what_is_wrong_with_the_store_is_said() {
    let (dir, store) = store();
    let missing = store.load_run(&samples::RUN.parse().unwrap()).unwrap_err();
    assert!(matches!(missing, StoreError::NoSuchRun { .. }));
    assert!(missing.to_string().contains(samples::RUN), "{missing}");

    let mut stray = samples::pass("a");
    stray.run_id = "../elsewhere".to_owned();
    assert!(matches!(store.write(&stray), Err(StoreError::RunId(_))));

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let unwritable = RunStore::new(&file);
    let error = unwritable.write(&samples::pass("a")).unwrap_err();
    assert!(error.to_string().contains("KTSTR_RUNS_DIR"), "{error}");
    assert!(matches!(
        unwritable.list_runs(),
        Err(StoreError::List { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_in_a_sidecar_are_an_error_not_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, &bytes).unwrap();
        prop_assert!(Sidecar::read(&path).is_err());

        let whole = samples::check_failed("a").to_json().unwrap();
        let cut = cut.index(whole.len() - 2);
        fs::write(&path, &whole[..cut]).unwrap();
        prop_assert!(Sidecar::read(&path).is_err());
    }

    /// A measured value comes back as the same number, and a name as the same text.
    #[test]
    fn a_sidecar_survives_the_disk(value in prop::num::f64::NORMAL, name in any::<String>()) {
        let (_dir, store) = store();
        let mut sidecar = samples::check_failed("a");
        sidecar.result.checks[2].value = Some(value);
        sidecar.result.checks[2].check = name.clone();
        sidecar.test = name;
        let path = store.write(&sidecar).unwrap();
        prop_assert_eq!(Sidecar::read(&path).unwrap(), sidecar);
    }
}

#[test]
fn fault_f6_a_result_without_room_in_the_store_goes_elsewhere_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let no_folder = folder.path().join("file");
    fs::write(&no_folder, "").unwrap();
    let full = RunStore::new(&no_folder);
    let instead = RunStore::new(folder.path().join("unstored"));
    let mut sidecar = samples::pass("a::test");

    let error = sidecar.leave(&full, None).unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    let path = sidecar.leave(&full, Some(&instead)).unwrap();
    let written = Sidecar::read(&path).unwrap();
    assert_eq!(
        written.remarks.last(),
        Some(&format!(
            "can't write to {}: Not a directory (os error 20)",
            no_folder.display()
        ))
    );
    assert!(sidecar.leave(&full, Some(&full)).is_err());

    // The reason doesn't name a file that only this result had.
    let gone = RunStore::new("/proc/no/such/folder");
    sidecar.leave(&gone, Some(&instead)).unwrap();
    let reason = "can't write to /proc/no/such/folder: No such file or directory (os error 2)";
    assert_eq!(sidecar.remarks.last().map(String::as_str), Some(reason));
}
