//! `cargo ktstr kernel`.

use std::process::ExitCode;
use std::time::SystemTime;

use ktstr_kernels::{Cache, CacheError, Entry, Listed, ResolveOptions};
use ktstr_report::ExitCode as Code;
use serde_json::json;

use crate::args::{CleanArgs, GetArgs, KernelArgs, KernelCommand};
use crate::edge::{OrExit as _, Refusal};
use crate::progress::Talk;
use crate::{environment, format, output, progress, session};

/// Runs one of the commands on kernels.
pub(crate) fn run(args: &KernelArgs) -> Result<ExitCode, Refusal> {
    let cache = environment::cache().or_exit(Code::HostUnfit)?;
    match &args.command {
        KernelCommand::Get(args) => get(args, &cache)?,
        KernelCommand::List { json } => list(*json, &cache)?,
        KernelCommand::Clean(args) => clean(args, &cache)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn get(args: &GetArgs, cache: &Cache) -> Result<(), Refusal> {
    let progress = progress::for_stderr(Talk::All);
    let options = ResolveOptions {
        refresh: args.refresh,
        ..ResolveOptions::default()
    };
    let kernel = ktstr_kernels::resolve(Some(&args.spec), cache, &options, progress.as_ref());
    let kernel = kernel.map_err(|error| Refusal::new(session::of_kernel(&error), error))?;
    drop(progress);
    let requirements = kernel.requirements().or_exit(Code::HarnessFailed)?;
    output::say(&format!(
        "Linux {}, {}, in {}",
        kernel.release(),
        kernel.source(),
        kernel.dir().display()
    ));
    for missing in &requirements.missing {
        output::say(&format!(
            "warning: no test can run on it, for it lacks {missing}"
        ));
    }
    for warning in &requirements.warnings {
        output::say(&format!("warning: it lacks {warning}"));
    }
    output::print(&format!("{}\n", kernel.key()))
}

fn list(as_json: bool, cache: &Cache) -> Result<(), Refusal> {
    let stored = cache.list().or_exit(Code::HarnessFailed)?;
    if as_json {
        let kernels: Vec<_> = stored.iter().map(described).collect();
        return output::print(&format!(
            "{:#}\n",
            json!({ "cache": cache.root(), "kernels": kernels })
        ));
    }
    if stored.is_empty() {
        output::say(&format!(
            "no kernel in {}: `cargo ktstr kernel get debian` fetches one",
            cache.root().display()
        ));
        return Ok(());
    }
    let now = SystemTime::now();
    let rows: Vec<_> = stored.iter().map(|kernel| row(kernel, now)).collect();
    output::print(&format::table(
        &["KEY", "RELEASE", "SIZE", "STORED", "STATE", "SOURCE"],
        &rows,
    ))
}

fn row(listed: &Listed, now: SystemTime) -> Vec<String> {
    let readable = listed.entry.as_ref().ok().and_then(|entry| {
        let size_bytes = entry.size_bytes().ok()?;
        Some((entry.metadata(), size_bytes))
    });
    let cells = match (readable, &listed.entry) {
        (Some((metadata, size_bytes)), _) => [
            metadata.release.clone(),
            format::size(size_bytes),
            format::age(now, metadata.stored_unix_s),
            "ok".to_owned(),
            metadata.source.clone(),
        ],
        (None, entry) => {
            let why = entry
                .as_ref()
                .err()
                .map_or("its list of modules can't be read".to_owned(), damage);
            [
                "-".to_owned(),
                "-".to_owned(),
                "-".to_owned(),
                "damaged".to_owned(),
                why,
            ]
        }
    };
    std::iter::once(listed.key.clone()).chain(cells).collect()
}

fn described(listed: &Listed) -> serde_json::Value {
    let key = &listed.key;
    match &listed.entry {
        Ok(entry) => {
            let metadata = entry.metadata();
            let size_bytes = entry.size_bytes();
            json!({
                "key": key,
                "state": if size_bytes.is_ok() { "ok" } else { "damaged" },
                "release": metadata.release,
                "source": metadata.source,
                "size_bytes": size_bytes.ok(),
                "stored_unix_s": metadata.stored_unix_s,
                "dir": entry.dir(),
            })
        }
        Err(error) => json!({ "key": key, "state": "damaged", "damage": damage(error) }),
    }
}

/// What is wrong with an entry, without the advice that stands beside it.
fn damage(error: &CacheError) -> String {
    match error {
        CacheError::Damaged { damage, .. } => damage.to_string(),
        other => other.to_string(),
    }
}

fn clean(args: &CleanArgs, cache: &Cache) -> Result<(), Refusal> {
    let stored = cache.list().or_exit(Code::HarnessFailed)?;
    let doomed = chosen(args, &stored)?;
    let mut freed_bytes = 0;
    for (key, why) in &doomed {
        let listed = stored.iter().find(|listed| listed.key == *key);
        let size = listed.and_then(|listed| listed.entry.as_ref().ok()?.size_bytes().ok());
        cache.remove(key).or_exit(Code::HarnessFailed)?;
        freed_bytes += size.unwrap_or(0);
        output::say(&format!("removed {key} ({why})"));
    }
    let left = stored.len() - doomed.len();
    let kernels = if left == 1 { "kernel" } else { "kernels" };
    output::say(&format!(
        "{} freed, {left} {kernels} left in {}",
        format::size(freed_bytes),
        cache.root().display()
    ));
    Ok(())
}

/// The keys to be removed, each with the reason. `stored` has the most recently stored first.
fn chosen(args: &CleanArgs, stored: &[Listed]) -> Result<Vec<(String, String)>, Refusal> {
    if !args.keys.is_empty() {
        return by_key(&args.keys, stored);
    }
    let mut usable = 0;
    let mut doomed = Vec::new();
    for Listed { key, entry } in stored {
        let damage = match entry {
            // Only here it is worth reading every byte.
            Ok(entry) if args.corrupt_only => entry.verify().err().map(|error| damage(&error)),
            Ok(_) => None,
            Err(error) => Some(damage(error)),
        };
        usable += usize::from(damage.is_none());
        let why = match (damage, args.keep) {
            (Some(damage), _) => Some(format!("damaged: {damage}")),
            (None, Some(keep)) if usable > keep => Some(format!("not among the newest {keep}")),
            (None, _) if args.given => {
                let is_given = entry.as_ref().is_ok_and(Entry::is_given);
                is_given.then(|| "given as a file".to_owned())
            }
            (None, _) => args.all.then(|| "all".to_owned()),
        };
        doomed.extend(why.map(|why| (key.clone(), why)));
    }
    Ok(doomed)
}

/// All of them must be there before any is removed.
fn by_key(keys: &[String], stored: &[Listed]) -> Result<Vec<(String, String)>, Refusal> {
    let mut doomed: Vec<(String, String)> = Vec::new();
    for key in keys {
        if !stored.iter().any(|listed| listed.key == *key) {
            let known = stored.iter().map(|listed| listed.key.clone()).collect();
            return Err(Refusal::new(
                Code::Usage,
                CacheError::NoSuchKey {
                    key: key.clone(),
                    known,
                },
            ));
        }
        if !doomed.iter().any(|(named, _)| named == key) {
            doomed.push((key.clone(), "as asked".to_owned()));
        }
    }
    Ok(doomed)
}
