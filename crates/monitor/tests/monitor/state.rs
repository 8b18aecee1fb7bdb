//! The state of a kernel as people read it.

use std::collections::BTreeMap;

use ktstr_introspect::BudgetExhausted;
use ktstr_monitor::state::{
    CpuState, KernelState, MapContent, MapEntry, MapState, SchedExtExit, ScxState, TaskState,
};
use ktstr_monitor::{Missing, SchedExtSample, SchedExtState, Value};

fn task(pid: i32, runnable_ms: Option<u64>) -> TaskState {
    TaskState {
        pid,
        comm: "worker".to_owned(),
        class: "ext".to_owned(),
        policy: "other".to_owned(),
        cpus: "0-1".to_owned(),
        runnable_ms,
        dsq: runnable_ms.map(|_| "0x2000".to_owned()),
    }
}

fn cpu(cpu: u32, running: Option<TaskState>, waiting: Vec<TaskState>) -> CpuState {
    CpuState {
        cpu,
        online: true,
        active: true,
        nr_running: u32::try_from(waiting.len() + usize::from(running.is_some())).unwrap_or(0),
        clock_ns: 5,
        local_dsq_depth: Some(1),
        running,
        waiting,
    }
}

fn globals(variables: &[(&str, Value)]) -> MapContent {
    let named = |(name, value): &(&str, Value)| ((*name).to_owned(), value.clone());
    MapContent::Globals(Value::Struct(variables.iter().map(named).collect()))
}

fn map(id: u32, name: &str, kind: &str, content: MapContent) -> MapState {
    MapState {
        id,
        name: name.to_owned(),
        kind: kind.to_owned(),
        content: Ok(content),
    }
}

fn state() -> KernelState {
    let waiting = (0..6).map(|at| task(20 + at, Some(3000 - u64::try_from(at).unwrap_or(0) * 500)));
    let entries = MapEntry {
        key: Value::Uint(0),
        values: vec![Value::Uint(7), Value::Uint(9)],
    };
    KernelState {
        cpus: Ok(vec![
            cpu(0, Some(task(10, None)), Vec::new()),
            cpu(1, None, waiting.collect()),
        ]),
        sched_ext: Ok(ScxState {
            sample: SchedExtSample {
                state: SchedExtState::Disabling,
                events: Ok(BTreeMap::from([
                    ("SCX_EV_A".to_owned(), 3),
                    ("SCX_EV_B".to_owned(), 0),
                ])),
            },
            ops: Some("ktstr".to_owned()),
            watchdog_timeout_ms: Some(5000),
            exit: Some(SchedExtExit {
                kind: "SCX_EXIT_ERROR_STALL".to_owned(),
                code: 0,
                reason: "runnable task stall".to_owned(),
                message: "worker[20] failed to run for 5.072s".to_owned(),
                dump: "long".to_owned(),
            }),
        }),
        maps: Ok(vec![
            map(
                6,
                ".bss",
                "array",
                globals(&[
                    ("victim_pid", Value::Int(20)),
                    ("seen", Value::Bool(true)),
                    (
                        "stats",
                        Value::Struct(vec![("hits".to_owned(), Value::Uint(1 << 60))]),
                    ),
                ]),
            ),
            map(
                7,
                "cpu_states",
                "percpu_array",
                MapContent::Entries {
                    entries: vec![entries],
                    cut: true,
                },
            ),
            MapState {
                content: Err(Missing::Unstable),
                ..map(8, "busy", "hash", globals(&[]))
            },
        ]),
        exhausted: None,
    }
}

#[test]
fn a_state_in_lines() {
    let place = |cpu| (cpu == 1).then(|| "default_idle+0xf, asleep".to_owned());
    insta::assert_snapshot!(state().summary(place));
    insta::assert_snapshot!("the_maps_of_a_state_in_lines", state().maps_summary());
}

/// The CPU of a task that was taken offline is nobody's idle CPU.
#[test]
fn fault_g3_an_offline_cpu_is_offline_and_not_idle() {
    let gone = CpuState {
        online: false,
        active: false,
        ..cpu(0, None, Vec::new())
    };
    let going = CpuState {
        active: false,
        ..cpu(1, None, Vec::new())
    };
    let state = KernelState {
        cpus: Ok(vec![gone, going, cpu(2, None, Vec::new())]),
        ..state()
    };
    let text = state.summary(|_| None);
    let of_cpu = |number: u32| {
        let start = format!("CPU {number}: ");
        text.lines().find_map(|line| line.strip_prefix(&start))
    };
    assert_eq!(of_cpu(0), Some("offline"), "{text}");
    let going = of_cpu(1).expect("a line");
    assert!(
        going.starts_with("going offline or coming online"),
        "{text}"
    );
    assert!(of_cpu(2).expect("a line").starts_with("idle"), "{text}");
}

/// What the build put into a program says nothing of the run; maps that can't be read share a line.
#[test]
fn fault_g4_constants_of_the_build_are_left_out_of_the_terminal() {
    let rodata = globals(&[
        ("__SCX_SLICE_DFL", Value::Uint(20_000_000)),
        ("mine_init.___fmt", Value::Text("failed: %d".to_owned())),
        ("not_set", Value::Bool(false)),
        ("slice_ns", Value::Uint(5_000_000)),
    ]);
    let unread = |id: u32, name: &str, kind: &str| MapState {
        content: Err(Missing::Failed("it can't be read from outside".to_owned())),
        ..map(id, name, kind, globals(&[]))
    };
    let state = KernelState {
        maps: Ok(vec![
            map(3, ".rodata", "array", rodata),
            map(
                4,
                ".rodata",
                "array",
                globals(&[("nothing", Value::Uint(0))]),
            ),
            unread(5, "task_ctx", "task_storage"),
            unread(6, "mine_ops", "struct_ops"),
        ]),
        ..state()
    };
    insta::assert_snapshot!(state.maps_summary(), @r"
    .rodata (map 3):
      slice_ns = 5000000
    not read: task_ctx (task_storage), mine_ops (struct_ops): it can't be read from outside
    ");
}

#[test]
fn a_state_that_can_not_be_read_in_lines() {
    let state = KernelState {
        cpus: Err(Missing::Unstable),
        sched_ext: Err(Missing::Absent("sched_ext".to_owned())),
        maps: Err(Missing::Failed("no table of maps".to_owned())),
        exhausted: None,
    };
    let text = state.summary(|_| None) + &state.maps_summary();
    insta::assert_snapshot!(text, @r"
    sched_ext: this kernel has no sched_ext
    runqueues: it changed while it was read
    BPF maps: no table of maps
    ");
}

#[test]
fn a_state_of_which_not_all_was_read_says_so_and_shows_few_of_very_many_maps() {
    let exhausted = BudgetExhausted::Nodes { limit: 1 << 20 };
    let map = MapState {
        content: Err(Missing::Budget(exhausted.to_string())),
        ..map(8, "many", "hash", globals(&[]))
    };
    let state = KernelState {
        cpus: Ok(Vec::new()),
        sched_ext: Err(Missing::Absent("sched_ext".to_owned())),
        maps: Ok(vec![map; 70]),
        exhausted: Some(exhausted.to_string()),
    };
    insta::assert_snapshot!(state.summary(|_| None), @r"
    sched_ext: this kernel has no sched_ext
    not all was read: the look at the guest's memory ended: its lists, tables and types have more than 1048576 nodes
    ");
    let maps = state.maps_summary();
    assert_eq!(maps.matches("many (hash)").count(), 64);
    assert!(maps.ends_with("  … and 6 more\n"), "{maps}");
    assert_eq!(
        serde_json::to_value(&state).expect("JSON")["exhausted"],
        exhausted.to_string()
    );
}

#[test]
fn the_memory_of_a_state_is_about_that_of_what_it_holds() {
    let small = state().memory_bytes();
    assert!((1000..20_000).contains(&small), "{small}");
    let mut big = state();
    let value = Value::Array(vec![Value::Bytes(vec![7; 1000]); 1000]);
    let content = MapContent::Globals(value);
    big.maps = Ok(vec![map(9, ".data", "array", content)]);
    let bytes = big.memory_bytes();
    assert!((1_000_000..1_200_000).contains(&bytes), "{bytes}");
}

#[test]
fn variables_are_found_by_their_path() {
    let state = state();
    assert_eq!(state.global("victim_pid"), Some(&Value::Int(20)));
    assert_eq!(state.global("stats.hits"), Some(&Value::Uint(1 << 60)));
    assert_eq!(state.global("nothing"), None);
    let (cpu, task) = state.longest_waiting().expect("a task waits");
    assert_eq!((cpu, task.pid), (1, 20));
}

#[test]
fn values_are_numbers_and_objects_in_json() {
    let json = serde_json::to_value(state()).expect("JSON");
    let globals = &json["maps"]["Ok"][0]["content"]["Ok"]["globals"];
    assert_eq!(globals["victim_pid"], 20);
    assert_eq!(globals["seen"], true);
    assert_eq!(globals["stats"]["hits"], 1_u64 << 60);
    let entries = &json["maps"]["Ok"][1]["content"]["Ok"]["entries"];
    assert_eq!(entries["entries"][0]["values"], serde_json::json!([7, 9]));
    assert_eq!(json["sched_ext"]["Ok"]["state"], "disabling");
}
