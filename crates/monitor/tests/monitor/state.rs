//! The state of a kernel as people read it.

use std::collections::BTreeMap;

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
    }
}

#[test]
fn a_state_in_lines() {
    let place = |cpu| (cpu == 1).then(|| "default_idle+0xf, asleep".to_owned());
    insta::assert_snapshot!(state().summary(place));
}

#[test]
fn a_state_that_can_not_be_read_in_lines() {
    let state = KernelState {
        cpus: Err(Missing::Unstable),
        sched_ext: Err(Missing::Absent("sched_ext".to_owned())),
        maps: Err(Missing::Failed("no table of maps".to_owned())),
    };
    insta::assert_snapshot!(state.summary(|_| None), @r"
    sched_ext: this kernel has no sched_ext
    runqueues: it changed while it was read
    BPF maps: no table of maps
    ");
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
