//! The guest as a host: running a test in a machine inside this one.

use std::sync::Arc;

use anyhow::Context as _;
use ktstr_wire::{GuestStage, InnerTest, Message};

use crate::crash;
use crate::link::{Link, LinkError};
use crate::output::OutputPump;

/// What a host has of a test.
#[derive(Clone, Debug, Default)]
pub struct InnerOutcome {
    /// Its sidecar as JSON.
    pub sidecar: Vec<u8>,
    /// Its failure dump as JSON, if there is one.
    pub dump: Option<Vec<u8>>,
}

/// Runs a test as a host does.
pub type InnerHostRun = fn(&InnerTest) -> anyhow::Result<InnerOutcome>;

/// Runs `test` and sends what came of it.
pub(crate) fn run(test: &InnerTest, link: Link, run_inner: InnerHostRun) -> anyhow::Result<()> {
    crash::install_in_test_process();
    let link = Arc::new(link);
    let pump = OutputPump::start(Arc::clone(&link)).context("redirecting the output")?;
    link.send(&Message::Stage(GuestStage::InnerHost))?;
    let outcome = run_inner(test);
    pump.finish()?;
    match outcome {
        Ok(InnerOutcome { sidecar, dump }) => {
            if let Some(json) = dump {
                send_dump(&link, json)?;
            }
            link.send(&Message::Sidecar(sidecar))?;
        }
        Err(error) => {
            let chain = error.chain().map(ToString::to_string).collect();
            link.send(&Message::SetupFailed(chain))?;
        }
    }
    Ok(link.send(&Message::Bye)?)
}

fn send_dump(link: &Link, json: Vec<u8>) -> Result<(), LinkError> {
    match link.send(&Message::FailureDump(json)) {
        Err(LinkError::Oversize(error)) => {
            let remark = format!("the failure dump did not get out of the machine: {error}");
            link.send(&Message::Remark(remark))
        }
        sent => sent,
    }
}
