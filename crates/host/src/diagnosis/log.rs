//! What the last words of a scheduler's program say.

/// Longest text that is quoted, in bytes: enough for a sentence.
const MAX_QUOTE_BYTES: usize = 300;

/// Message and place of a Rust panic, as the standard library's hook prints it.
pub(super) fn panic(log: &str) -> Option<String> {
    let mut lines = log.lines();
    let head = lines.find(|line| line.starts_with("thread '") && line.contains(" panicked at "))?;
    let (_, place) = head.split_once(" panicked at ")?;
    let message = lines.map(str::trim).find(|line| !line.is_empty())?;
    let place = place.trim_end_matches(':');
    // `src/main.rs:1254:51`: the line is enough.
    let place = place
        .rsplit_once(':')
        .map_or(place, |(place, _column)| place);
    Some(quote(&format!("{message} ({})", short(place))))
}

/// Why libbpf, or the kernel's verifier, refused the program, in words for who does not know libbpf's.
pub(super) fn refusal(log: &str, release: Option<&str>) -> Option<String> {
    let kernel = release.map_or("this kernel".to_owned(), |release| {
        format!("kernel {release}")
    });
    let libbpf: Vec<&str> = log.lines().filter_map(libbpf_line).collect();
    libbpf.iter().find_map(|line| {
        // bpf_object__resolve_ksym_func_btf_id() and load_kernel_program of libbpf.c.
        if let Some(symbol) = between(line, "extern (func ksym) '", "': not found in kernel") {
            return Some(format!(
                "{kernel} has no kernel function `{symbol}`, which its BPF program calls: it was made for another \
                 kernel"
            ));
        }
        if let Some(symbol) = between(line, "extern (var ksym) '", "': not found in kernel") {
            return Some(format!("{kernel} has no variable `{symbol}`, which its BPF program uses"));
        }
        let program = between(line, "prog '", "': BPF program load failed: ")?;
        let (_, error) = line.split_once("BPF program load failed: ")?;
        Some(match verifier(log) {
            Some(why) => format!("{kernel}'s verifier refused `{program}`: {why}"),
            None => format!("{kernel} refused `{program}`: {}", quote(error)),
        })
    })
}

/// The last line in which the program speaks of an error, with the root of the causes that anyhow lists below it.
pub(super) fn last_error(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().collect();
    let at = lines.iter().rposition(|line| is_error(line))?;
    let mut text = lines[at].trim().to_owned();
    let rest = lines[at + 1..].iter().map(|line| line.trim());
    let causes = rest
        .skip_while(|line| line.is_empty())
        .skip_while(|line| *line == "Caused by:");
    let listed = lines[at + 1..]
        .iter()
        .any(|line| line.trim() == "Caused by:");
    if let Some(root) = causes
        .take_while(|line| !line.is_empty())
        .last()
        .filter(|_| listed)
    {
        // Several causes are numbered.
        let root = root
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start_matches(": ");
        text.push_str(": ");
        text.push_str(root);
    }
    Some(quote(&text))
}

fn is_error(line: &str) -> bool {
    let line = line.trim_start();
    ["Error:", "error:", "ERROR:", "FATAL", "fatal:"]
        .iter()
        .any(|start| line.starts_with(start))
        || line.contains(" ERROR ")
        || line.contains("[ERROR]")
}

/// What follows `libbpf: `, wherever the program's logger puts it.
fn libbpf_line(line: &str) -> Option<&str> {
    Some(line.split_once("libbpf: ")?.1)
}

/// The verifier's last word: libbpf prints its log between two marks.
fn verifier(log: &str) -> Option<String> {
    let (_, text) = log.split_once("-- BEGIN PROG LOAD LOG --")?;
    let (text, _) = text.split_once("-- END PROG LOAD LOG --")?;
    let statistics = |line: &&str| {
        line.starts_with("processed ")
            || line.starts_with("verification time")
            || line.starts_with("stack depth")
            || line.is_empty()
    };
    let mut lines = text.lines().map(str::trim).rev();
    lines.find(|line| !statistics(line)).map(quote)
}

/// A path without the folders of cargo's registry.
fn short(path: &str) -> &str {
    match path.split_once("/registry/src/") {
        Some((_, rest)) => rest.split_once('/').map_or(rest, |(_index, rest)| rest),
        None => path,
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

fn quote(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_QUOTE_BYTES);
    let cut = if end < text.len() { "…" } else { "" };
    format!("{}{cut}", text[..end].trim_end())
}
