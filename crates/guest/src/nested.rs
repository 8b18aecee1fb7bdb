//! The guest as a host: running a test in a machine inside this one.

use std::sync::Arc;

use anyhow::Context as _;
use ktstr_wire::{Message, NestedTest, Phase};

use crate::crash;
use crate::link::Link;
use crate::output::OutputPump;

/// Runs a test as a host does, and gives its sidecar as JSON.
pub type NestedRun = fn(&NestedTest) -> anyhow::Result<Vec<u8>>;

/// Runs `test` and sends its sidecar.
pub(crate) fn run(test: &NestedTest, link: Link, nested: NestedRun) -> anyhow::Result<()> {
    crash::install_in_test_process();
    let link = Arc::new(link);
    let pump = OutputPump::start(Arc::clone(&link)).context("redirecting the output")?;
    link.send(&Message::Phase(Phase::Nested))?;
    let sidecar = nested(test);
    pump.finish()?;
    match sidecar {
        Ok(json) => link.send(&Message::Sidecar(json))?,
        Err(error) => {
            let chain = error.chain().map(ToString::to_string).collect();
            link.send(&Message::SetupFailed(chain))?;
        }
    }
    Ok(link.send(&Message::Bye)?)
}
