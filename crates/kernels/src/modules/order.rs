//! In what order modules load: each after those it depends on.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};

/// Why there is no order.
#[derive(Debug)]
pub(crate) enum OrderError<E> {
    /// What a module depends on can't be found out.
    Depends(E),
    /// These depend on each other, the last on the first.
    Cycle(Vec<String>),
}

/// Where the walk is with a module.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Entered,
    Done,
}

/// A module that was entered, and which of its dependencies are left to look at.
struct Step {
    name: String,
    depends: std::vec::IntoIter<String>,
}

/// The names of `wanted` and of all they depend on, without those that are built in. `depends_of` gets a name and
/// who wants it.
///
/// Depth first, with a list of its own instead of recursion: a chain is as long as who wrote it likes.
pub(crate) fn load_order<E>(
    wanted: &[String],
    built_in: &HashSet<String>,
    mut depends_of: impl FnMut(&str, Option<&str>) -> Result<Vec<String>, E>,
) -> Result<Vec<String>, OrderError<E>> {
    let mut states = HashMap::new();
    let mut order = Vec::new();
    for name in wanted {
        let mut path: Vec<Step> = Vec::new();
        let mut next = Some(name.clone());
        loop {
            if let Some(name) = next.take().filter(|name| !built_in.contains(name)) {
                match states.entry(name.clone()) {
                    Entry::Vacant(state) => {
                        state.insert(State::Entered);
                        let wanted_by = path.last().map(|step| &*step.name);
                        let depends = depends_of(&name, wanted_by).map_err(OrderError::Depends)?;
                        let depends = depends.into_iter();
                        path.push(Step { name, depends });
                    }
                    Entry::Occupied(state) if *state.get() == State::Entered => {
                        let cycle = path.iter().map(|step| step.name.clone());
                        return Err(OrderError::Cycle(
                            cycle.skip_while(|step| *step != name).collect(),
                        ));
                    }
                    Entry::Occupied(_) => {}
                }
            }
            let Some(step) = path.last_mut() else {
                break;
            };
            next = step.depends.next();
            if next.is_none()
                && let Some(Step { name, .. }) = path.pop()
            {
                states.insert(name.clone(), State::Done);
                order.push(name);
            }
        }
    }
    Ok(order)
}
