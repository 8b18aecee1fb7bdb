//! Workers and the harness's panic hook. A test program of its own, since the hook is one for a whole
//! process and the library takes it over at the first spawn.

use std::panic;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_scenario::{CloneMode, WorkType, WorkerExit, WorkloadConfig, WorkloadHandle};

/// Name of the thread whose panic keeps the hook busy.
const SLOW: &str = "panics-slowly";

static IN_HOOK: AtomicBool = AtomicBool::new(false);
static LEAVE_HOOK: AtomicBool = AtomicBool::new(false);
/// Made by the hook for any other panic: also seen when it runs in a forked worker.
static TOLD: OnceLock<PathBuf> = OnceLock::new();

fn wait_for(flag: &AtomicBool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !flag.load(Ordering::Acquire) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    flag.load(Ordering::Acquire)
}

fn spawn(work_type: WorkType, mode: CloneMode) -> WorkloadHandle {
    let mut config = WorkloadConfig::new(work_type, 1);
    config.clone_mode = mode;
    WorkloadHandle::spawn(config).expect("a worker can be spawned")
}

#[test]
fn the_hook_neither_hears_of_workers_nor_holds_them_up() {
    let folder = tempfile::tempdir().unwrap();
    let told = TOLD.get_or_init(|| folder.path().join("told"));
    panic::set_hook(Box::new(|_| {
        if thread::current().name() == Some(SLOW) {
            IN_HOOK.store(true, Ordering::Release);
            wait_for(&LEAVE_HOOK);
        } else if let Some(path) = TOLD.get() {
            let _ = std::fs::write(path, "");
        }
    }));

    for mode in [CloneMode::Fork, CloneMode::Thread] {
        let panics = WorkType::Custom {
            name: "Panics",
            run: |_| panic!("of the work"),
        };
        let reports = spawn(panics, mode).stop_and_collect().unwrap();
        assert_eq!(reports[0].exit, WorkerExit::Panicked("of the work".into()));
        assert!(!told.exists(), "the hook ran for a worker ({mode:?})");
    }

    let slow = thread::Builder::new().name(SLOW.to_owned());
    let slow = slow.spawn(|| -> () { panic!("slowly") }).unwrap();
    assert!(wait_for(&IN_HOOK));
    let mut handle = spawn(WorkType::SpinWait, CloneMode::Fork);
    handle.start().unwrap();
    let not_begun = handle.wait_running();
    LEAVE_HOOK.store(true, Ordering::Release);
    assert!(slow.join().is_err());
    assert_eq!(
        not_begun, 0,
        "a fork while the hook runs gives a worker that runs"
    );
    assert!(handle.stop_and_collect().unwrap()[0].completed());

    assert!(
        thread::spawn(|| -> () { panic!("of the harness") })
            .join()
            .is_err()
    );
    assert!(told.exists(), "the hook still hears of the harness");
}
