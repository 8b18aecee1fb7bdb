//! The documentation's tables are those that the rows make. `INSTA_UPDATE=always` writes them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use ktstr_declaration::{Attribute, Bound, Cause, Check, JudgedBy, Preset, Section, Takes};

const NOTE: &str = "<!-- Made from the rows in crates/declaration: INSTA_UPDATE=always cargo nextest run -p \
                    ktstr-declaration -->\n\n";

fn attributes(section: Section) -> String {
    let mut table = "| attribute | takes | meaning | default |\n|---|---|---|---|\n".to_owned();
    for attribute in section.attributes() {
        let Attribute {
            name,
            text,
            default,
            ..
        } = attribute;
        let takes = takes(&attribute.takes);
        _ = writeln!(table, "| `{name}` | {takes} | {text} | {default} |");
    }
    table
}

fn takes(takes: &Takes) -> String {
    match takes {
        Takes::Flag => "`true`, `false`".to_owned(),
        Takes::Whole(range) => format!("{} to {}", range.start(), range.end()),
        Takes::Seconds => "seconds".to_owned(),
        Takes::Text(example) | Takes::Texts(example) | Takes::Form(example) => {
            format!("`{example}`")
        }
    }
}

fn checks(wanted: impl Fn(Check) -> bool) -> String {
    let mut table = "| check | takes | default | holds if |\n|---|---|---|---|\n".to_owned();
    for check in Check::ALL.iter().filter(|check| wanted(**check)) {
        let spec = check.spec();
        let takes = match spec.takes {
            Bound::Fixed => "",
            Bound::Switch => "`true`, `off`",
            Bound::Whole => "a whole number, `off`",
            Bound::Number => "a number, `off`",
        };
        let (unit, space) = match spec.unit {
            "" => ("", ""),
            unit if unit.starts_with('/') => (unit, ""),
            unit => (unit, " "),
        };
        let default = match spec.preset {
            Preset::On => "on".to_owned(),
            Preset::Bound(bound) => format!("{bound}{space}{unit}"),
            Preset::BoundByBuild { optimised, debug } => {
                format!("{optimised}{space}{unit}; {debug}{space}{unit} in a debug build")
            }
            Preset::Off(None) => "off".to_owned(),
            Preset::Off(Some(customary)) => format!("off; customary is {customary}{space}{unit}"),
        };
        let holds = sentence(spec.text);
        _ = writeln!(
            table,
            "| `{}` | {takes} | {default} | {holds} |",
            check.name()
        );
    }
    table
}

fn excuses() -> String {
    let expected = [
        ("`stall`", Cause::Stall),
        ("`scx_error`, `check(scheduler_alive)`", Cause::Gone),
        ("`load_failure`", Cause::NotLoaded),
    ];
    let mut table = "| expected | excused |\n|---|---|\n".to_owned();
    for (what, cause) in expected {
        let all = Check::ALL.iter();
        let excused = all.filter(|check| check.spec().excused_by.contains(&cause));
        let names: Vec<String> = excused.map(|check| format!("`{}`", check.name())).collect();
        _ = writeln!(table, "| {what} | {} |", names.join(", "));
    }
    table + "| another `check(…)` | that check alone; turn off others that can't hold either |\n"
}

/// The row's text without its last full stop and the blanks of doc comments.
fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(char::to_lowercase).into_iter().flatten();
    // A name in code keeps its case, and so do abbreviations.
    match text.chars().nth(1).is_some_and(char::is_uppercase) {
        true => text.trim_end_matches('.').to_owned(),
        false => first.chain(chars).collect(),
    }
}

/// The page about all attributes.
fn page() -> String {
    let mut page = NOTE.to_owned();
    for section in Section::ALL {
        let title = section.title();
        let (first, rest) = title.split_at(1);
        _ = write!(
            page,
            "**{}{rest}**\n\n{}\n",
            first.to_uppercase(),
            attributes(section)
        );
    }
    let settable = |check: Check| check.spec().takes != Bound::Fixed;
    _ = write!(page, "**Checks**\n\n{}", checks(settable));
    page
}

/// Tables of the guide's chapters, by the word in the comment above them.
fn table(word: &str) -> Option<String> {
    let judged_by = |judge: JudgedBy| move |check: Check| check.spec().judged_by == judge;
    Some(match word {
        "checks of workers" => checks(|check| {
            let spec = check.spec();
            spec.judged_by == JudgedBy::Workers && !spec.scheduler_may_ignore
        }),
        "checks of what is declared" => checks(|check| check.spec().scheduler_may_ignore),
        "checks of the guest" => checks(judged_by(JudgedBy::Guest)),
        "checks of the scheduler" => checks(judged_by(JudgedBy::Scheduler)),
        "what an expectation excuses" => excuses(),
        "checks of the monitor" => checks(judged_by(JudgedBy::Monitor)),
        _ => return None,
    })
}

/// The chapter with its tables as they are to be.
fn with_tables(chapter: &str) -> String {
    let mut out = String::new();
    let mut rest = chapter;
    while let Some((before, after)) = rest.split_once("<!-- table: ") {
        let (word, after) = after.split_once(" -->").expect("the end of the comment");
        let (_, after) = after
            .split_once("<!-- end -->")
            .expect("the end of the table");
        let table = table(word).unwrap_or_else(|| panic!("there is no table `{word}`"));
        _ = write!(
            out,
            "{before}<!-- table: {word} -->\n\n{table}\n<!-- end -->"
        );
        rest = after;
    }
    out + rest
}

fn assert_is(path: &Path, wanted: &str) {
    let found = fs::read_to_string(path).unwrap_or_default();
    if found == wanted {
        return;
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        return fs::write(path, wanted).expect("written");
    }
    let differing = found.lines().zip(wanted.lines()).find(|(a, b)| a != b);
    let (is, should) = differing.unwrap_or(("(its length)", "(another)"));
    panic!(
        "{} is not what the rows make of it:\n  is      {is}\n  should  {should}\n\
         INSTA_UPDATE=always cargo nextest run -p ktstr-declaration writes it",
        path.display()
    );
}

#[test]
fn the_tables_of_the_documentation_are_made_from_the_rows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    assert_is(&root.join("crates/ktstr/src/attributes.md"), &page());
    let chapter = format!("# Attributes\n\n{}", page());
    assert_is(&root.join("docs/src/attributes.md"), &chapter);
    for chapter in ["docs/src/checks.md", "docs/src/schedulers.md"] {
        let path = root.join(chapter);
        let text = fs::read_to_string(&path).expect("a chapter");
        assert_is(&path, &with_tables(&text));
    }
}

#[test]
fn rows_are_complete() {
    let mut names: Vec<&str> = ktstr_declaration::attributes()
        .map(|(_, attribute)| attribute.name)
        .chain(Check::ALL.iter().map(|check| check.name()))
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "two rows have one name");
    for check in Check::ALL {
        let spec = check.spec();
        assert!(spec.text.ends_with('.'), "{check:?}");
        let has_bound = matches!(spec.takes, Bound::Whole | Bound::Number);
        assert_eq!(has_bound, spec.preset != Preset::On, "{check:?}");
        assert_eq!(Check::by_name(check.name()), Some(*check));
    }
}
