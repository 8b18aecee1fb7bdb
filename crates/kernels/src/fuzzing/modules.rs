//! Fuzz target: what must hold of any module, and of any list of modules.

use std::collections::{HashMap, HashSet};

use super::assert_message;
use crate::modules::{OrderError, load_order, modinfo_depends, parse_builtin, parse_dep};

/// A module's file; or a modules.dep, after it a NUL and a modules.builtin, as the first byte says.
pub fn modules(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        match modinfo_depends(bytes) {
            Ok(names) => assert!(names.iter().all(|name| is_name(name))),
            Err(why) => assert_message(&why),
        }
    } else {
        let text = String::from_utf8_lossy(bytes);
        let (dep, builtin) = text.split_once('\0').unwrap_or((&text, ""));
        order(&parse_dep(dep), &parse_builtin(builtin));
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '-']) && !name.contains(char::is_control)
}

/// Every module after those it depends on and none twice, or a circle that is one.
fn order(depends: &HashMap<String, Vec<String>>, built_in: &HashSet<String>) {
    let mut wanted: Vec<String> = depends.keys().cloned().collect();
    wanted.sort();
    let of = |name: &str| depends.get(name).cloned().unwrap_or_default();
    match load_order(&wanted, built_in, |name, _| Ok::<_, ()>(of(name))) {
        Ok(order) => {
            let mut loaded = HashSet::new();
            for name in &order {
                assert!(!built_in.contains(name));
                for needed in of(name) {
                    assert!(built_in.contains(&needed) || loaded.contains(&needed));
                }
                assert!(loaded.insert(name.clone()));
            }
            let all = |name: &String| built_in.contains(name) || loaded.contains(name);
            assert!(wanted.iter().all(all));
        }
        Err(OrderError::Cycle(names)) => {
            let next = names.iter().cycle().skip(1);
            for (name, next) in names.iter().zip(next) {
                assert!(of(name).contains(next), "{names:?}");
            }
            assert!(!names.is_empty());
        }
        Err(OrderError::Depends(())) => unreachable!("every name has dependencies here"),
    }
}
