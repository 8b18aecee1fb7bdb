//! The kernel command line.

use crate::spec::{MachineSpec, SpecError};

/// `COMMAND_LINE_SIZE` on x86 (arch/x86/include/asm/setup.h), which counts the final zero.
const CMDLINE_MAX_BYTES: usize = 2047;

/// The kernel command line: the engine's options, then the machine's own.
pub(crate) fn join(base: &[&str], spec: &MachineSpec) -> Result<String, SpecError> {
    let mut options: Vec<String> = base.iter().map(|&option| option.into()).collect();
    for option in &spec.cmdline {
        if option.is_empty() || option.chars().any(char::is_control) {
            return Err(SpecError::BadOption {
                option: option.clone(),
            });
        }
        options.push(option.clone());
    }
    let cmdline = options.join(" ");
    if cmdline.len() > CMDLINE_MAX_BYTES {
        return Err(SpecError::CmdlineTooLong {
            len_bytes: cmdline.len(),
            max_bytes: CMDLINE_MAX_BYTES,
        });
    }
    Ok(cmdline)
}
