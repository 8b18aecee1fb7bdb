//! How the scheduler ended, as the kernel told its ops.exit.

use std::fmt;
use std::mem::offset_of;

use anyhow::{Context as _, Result};
use libbpf_rs::{MapCore, MapFlags};

use crate::skeleton::types;

/// `SCX_EXIT_ERROR` in kernel/sched/ext_internal.h: from here on it was not on purpose.
const FIRST_ERROR: i32 = 1024;

/// `SCX_ECODE_ACT_RESTART` there: the scheduler is asked to load itself again.
const ACT_RESTART: i64 = 1 << 48;

/// What the kernel said.
#[derive(Debug)]
pub(crate) struct ExitRecord {
    kind: i32,
    exit_code: i64,
    reason: String,
    message: String,
    dump: String,
}

impl ExitRecord {
    /// Nothing as long as the scheduler has not ended.
    pub(crate) fn read(section: &impl MapCore) -> Result<Option<Self>> {
        let bytes = section.lookup(&[0; 4], MapFlags::ANY)?;
        let bytes = bytes.context("the object has no exit record")?;
        let kind =
            number(&bytes, offset_of!(types::exit_record, kind)).map_or(0, i32::from_ne_bytes);
        if kind == 0 {
            return Ok(None);
        }
        let exit_code = number(&bytes, offset_of!(types::exit_record, exit_code));
        Ok(Some(Self {
            kind,
            exit_code: exit_code.map_or(0, i64::from_ne_bytes),
            reason: text(&bytes, offset_of!(types::exit_record, reason)),
            message: text(&bytes, offset_of!(types::exit_record, message)),
            dump: text(&bytes, offset_of!(types::exit_record, dump)),
        }))
    }

    /// Whether the kernel disabled the scheduler for an error.
    pub(crate) fn is_error(&self) -> bool {
        self.kind >= FIRST_ERROR
    }

    /// Whether the kernel asks for the scheduler to be loaded again.
    pub(crate) fn asks_for_restart(&self) -> bool {
        !self.is_error() && self.exit_code & ACT_RESTART != 0
    }
}

impl fmt::Display for ExitRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scx_ktstr: ended, kind {}: {}", self.kind, self.reason)?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        if self.exit_code != 0 {
            write!(f, ", exit code {:#x}", self.exit_code)?;
        }
        if !self.dump.is_empty() {
            write!(f, "\n{}", self.dump.trim_end())?;
        }
        Ok(())
    }
}

fn number<const SIZE: usize>(bytes: &[u8], at: usize) -> Option<[u8; SIZE]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A text that ends with a zero.
fn text(bytes: &[u8], at: usize) -> String {
    let bytes = bytes.get(at..).unwrap_or_default();
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}
