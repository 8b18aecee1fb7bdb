//! Checks that were not judged, put together by reason.

/// The checks under each reason, both in the order in which they first come.
pub(super) fn by_reason<'a>(
    not_checked: impl Iterator<Item = (&'a str, String)>,
) -> Vec<(String, Vec<&'a str>)> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (check, why) in not_checked {
        match groups.iter_mut().find(|(known, _)| *known == why) {
            Some((_, checks)) => checks.push(check),
            None => groups.push((why, vec![check])),
        }
    }
    groups
}
