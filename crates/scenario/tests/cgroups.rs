//! Cgroups on the machine that the tests run on. They need a writable cgroup v2 hierarchy whose root holds
//! this process; where there is none, only the errors that need no kernel are tested here, and the rest by
//! the end-to-end tests in machines.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ktstr_scenario::cgroup::{CgroupKind, CgroupOps as _, Knob};
use ktstr_scenario::{
    CgroupError, CgroupGroup, CgroupManager, CloneMode, Limit, WorkType, WorkerReport,
    WorkloadConfig, WorkloadHandle,
};

/// A workload root of this test's own, removed at the end.
struct Home {
    mount: PathBuf,
    root: String,
    cgroups: CgroupManager,
}

impl Home {
    fn find() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = format!("ktstr-test-{}-{number}", std::process::id());
        let probe = mount.join(&root);
        if !own.lines().any(|line| line == "0::/") || fs::create_dir(&probe).is_err() {
            eprintln!("no writable cgroup v2 root with this process in it: not tested here");
            return None;
        }
        let cgroups = CgroupManager::new(&mount, &root).unwrap();
        Some(Self {
            mount,
            root,
            cgroups,
        })
    }

    fn of(&self, task: i32) -> String {
        let text = fs::read_to_string(format!("/proc/{task}/cgroup")).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::"));
        path.unwrap().to_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for suffix in ["", ".threads"] {
            let _ = fs::remove_dir(self.mount.join(format!("{}{suffix}", self.root)));
        }
    }
}

fn workload(mode: CloneMode, workers: usize) -> WorkloadHandle {
    let mut config = WorkloadConfig::new(WorkType::SpinWait, workers);
    config.clone_mode = mode;
    WorkloadHandle::spawn(config).unwrap()
}

#[test]
fn processes_go_where_they_are_put_and_leave_when_it_goes() {
    let Some(home) = Home::find() else { return };
    let cgroups = &home.cgroups;
    cgroups.create("outer/inner", CgroupKind::Domain).unwrap();
    assert_eq!(cgroups.names(), ["outer", "outer/inner"]);
    let mut handle = workload(CloneMode::Fork, 2);
    let pids = handle.worker_pids_for_cgroup_procs().unwrap();
    cgroups.move_tasks("outer/inner", &pids).unwrap();
    for &pid in &pids {
        assert_eq!(home.of(pid), format!("/{}/outer/inner", home.root));
    }
    handle.start().unwrap();
    assert_eq!(handle.wait_running(), 0);
    cgroups.freeze("outer/inner").unwrap();
    // Frozen tasks are let go, and the tasks live on in the root.
    cgroups.remove("outer/inner").unwrap();
    assert_eq!(home.of(pids[0]), "/");
    assert!(
        cgroups.names().is_empty(),
        "the outer one was made for its sake"
    );
    assert!(!home.mount.join(&home.root).join("outer").exists());
    assert!(
        handle
            .stop_and_collect()
            .unwrap()
            .iter()
            .all(WorkerReport::completed)
    );
}

#[test]
fn threads_go_to_threaded_cgroups_only_and_the_harness_stays() {
    let Some(home) = Home::find() else { return };
    let cgroups = &home.cgroups;
    cgroups.create("t/deep", CgroupKind::Threaded).unwrap();
    cgroups.create("p", CgroupKind::Domain).unwrap();
    let handle = workload(CloneMode::Thread, 2);
    let tids = handle.worker_tids();
    cgroups.move_threads("t/deep", &tids).unwrap();
    for &tid in &tids {
        assert_eq!(home.of(tid), format!("/{}.threads/t/deep", home.root));
    }
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(home.of(own), "/");
    for pid in [tids[0], own] {
        let error = cgroups.move_task("p", pid).unwrap_err();
        assert!(matches!(error, CgroupError::Refused { .. }), "{error}");
    }
    assert!(matches!(
        cgroups.move_task("t/deep", own),
        Err(CgroupError::WrongKind { .. })
    ));
    assert!(matches!(
        cgroups.move_thread("p", tids[0]),
        Err(CgroupError::WrongKind { .. })
    ));
    assert!(matches!(
        cgroups.move_thread("t/deep", own),
        Err(CgroupError::Refused { .. })
    ));
    let memory = Knob::MemoryMax(Limit::At(1 << 20));
    let error = cgroups.set("t/deep", &memory).unwrap_err();
    assert!(
        error.to_string().contains("which has no memory.max"),
        "{error}"
    );
    assert!(
        handle
            .stop_and_collect()
            .unwrap()
            .iter()
            .all(WorkerReport::completed)
    );
    cgroups.remove("t/deep").unwrap();
    cgroups.remove("p").unwrap();
}

#[test]
fn a_task_that_ended_is_passed_over_unless_all_have() {
    let Some(home) = Home::find() else { return };
    home.cgroups.create("a", CgroupKind::Domain).unwrap();
    let ended = workload(CloneMode::Fork, 1);
    let gone = ended.worker_tids()[0];
    ended.stop_and_collect().unwrap();
    let handle = workload(CloneMode::Fork, 1);
    let here = handle.worker_tids()[0];
    home.cgroups.move_tasks("a", &[gone, here]).unwrap();
    assert!(home.of(here).ends_with("/a"));
    let error = home.cgroups.move_task("a", gone).unwrap_err();
    assert!(
        matches!(error, CgroupError::AllGone { count: 1, .. }),
        "{error}"
    );
    drop(handle);
    home.cgroups.remove("a").unwrap();
}

#[test]
fn only_innermost_cgroups_hold_tasks_or_can_be_removed() {
    let Some(home) = Home::find() else { return };
    home.cgroups.create("a", CgroupKind::Domain).unwrap();
    home.cgroups.create("a/b", CgroupKind::Domain).unwrap();
    let handle = workload(CloneMode::Fork, 1);
    let pids = handle.worker_tids();
    for result in [
        home.cgroups.move_tasks("a", &pids),
        home.cgroups.remove("a"),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, CgroupError::HasChildren { .. }), "{error}");
    }
    let error = home
        .cgroups
        .create("a/t", CgroupKind::Threaded)
        .unwrap_err();
    assert!(matches!(error, CgroupError::MixedKinds { .. }), "{error}");
    home.cgroups.remove("a/b").unwrap();
    // It was asked for itself, so it stays until it is removed itself.
    assert_eq!(home.cgroups.names(), ["a"]);
    home.cgroups.remove("a").unwrap();
}

#[test]
fn a_wrong_name_is_an_error_that_lists_the_right_ones() {
    let Some(home) = Home::find() else { return };
    home.cgroups.create("right", CgroupKind::Domain).unwrap();
    home.cgroups.create("also", CgroupKind::Domain).unwrap();
    let told = "there is no cgroup `wrong`; the test has made: also, right";
    for error in [
        home.cgroups.remove("wrong").unwrap_err(),
        home.cgroups.freeze("wrong").unwrap_err(),
        home.cgroups.move_task("wrong", 1).unwrap_err(),
        home.cgroups.effective_cpuset("wrong").unwrap_err(),
    ] {
        assert_eq!(error.to_string(), told);
    }
    let error = home
        .cgroups
        .create("right", CgroupKind::Domain)
        .unwrap_err();
    assert!(matches!(error, CgroupError::Exists { .. }), "{error}");
    home.cgroups.remove("right").unwrap();
    home.cgroups.remove("also").unwrap();
}

#[test]
fn a_group_removes_its_cgroups_innermost_first_even_with_tasks_in_them() {
    let Some(home) = Home::find() else { return };
    let handle = workload(CloneMode::Fork, 1);
    let mut group = CgroupGroup::new(&home.cgroups);
    group.create("g", CgroupKind::Domain).unwrap();
    group.create("g/h", CgroupKind::Domain).unwrap();
    home.cgroups
        .move_tasks("g/h", &handle.worker_tids())
        .unwrap();
    drop(group);
    assert!(home.cgroups.names().is_empty());
    assert!(!home.mount.join(&home.root).join("g").exists());
    assert_eq!(home.of(handle.worker_tids()[0]), "/");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let cgroups = CgroupManager::new("/nonexistent", "ktstr").unwrap();
    for name in [
        "",
        "/",
        "a//b",
        "/a",
        "a/",
        "..",
        "a/../b",
        ".",
        "cgroup.procs",
        "a/cpu.max",
        "a\nb",
    ] {
        let error = cgroups.create(name, CgroupKind::Domain).unwrap_err();
        assert!(
            matches!(error, CgroupError::BadName { .. }),
            "{name:?}: {error}"
        );
    }
    assert!(CgroupManager::new("/nonexistent", "../x").is_err());
}

#[test]
fn without_a_hierarchy_the_missing_file_is_named() {
    let cgroups = CgroupManager::new("/nonexistent", "ktstr").unwrap();
    let error = cgroups.create("a", CgroupKind::Domain).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("can't read /nonexistent/cgroup.controllers"),
        "{error}"
    );
    assert!(!Path::new("/nonexistent").exists());
}
