//! Reads QEMU's answer to `query-cpus-fast`.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cpu {
    cpu_index: u32,
    thread_id: i32,
}

/// The threads that run the vCPUs, by CPU number. The error is the place that is not as expected.
pub(crate) fn parse(answer: &Value, cpu_count: u32) -> Result<Vec<i32>, String> {
    let mut cpus = Vec::<Cpu>::deserialize(answer).map_err(|error| error.to_string())?;
    cpus.sort_by_key(|cpu| cpu.cpu_index);
    if !cpus.iter().map(|cpu| cpu.cpu_index).eq(0..cpu_count) {
        return Err(format!("the numbers of {cpu_count} CPUs"));
    }
    Ok(cpus.into_iter().map(|cpu| cpu.thread_id).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn threads_are_in_the_order_of_their_cpus() {
        // QEMU 7.2.
        let answer = json!([
            {"thread-id": 12, "props": {"core-id": 0}, "qom-path": "/machine/a", "cpu-index": 1, "target": "x86_64"},
            {"thread-id": 11, "props": {"core-id": 0}, "qom-path": "/machine/b", "cpu-index": 0, "target": "x86_64"},
        ]);
        assert_eq!(parse(&answer, 2).unwrap(), [11, 12]);
        assert_eq!(parse(&answer, 3).unwrap_err(), "the numbers of 3 CPUs");
        assert!(parse(&json!({"thread-id": 1}), 1).is_err());
    }
}
