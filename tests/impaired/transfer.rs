//! One bulk transfer over the road by `examples/bulk.rs`, and what is known of it
//! afterwards.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Counters, End, Road};
use crate::common::Program;

const PORT: &str = "5001";

/// What to transfer, and how.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The program.
    pub bulk: PathBuf,
    /// Who sends.
    pub from: End,
    /// The left host is ringroad; otherwise both are the kernel's.
    pub ours: bool,
    /// The sender's congestion control.
    pub congestion: String,
    pub bytes: u64,
    /// What the bytes are drawn from.
    pub seed: u64,
    /// How long it may take.
    pub limit: Duration,
    /// Where the two ends write their TCP_INFO: FILE.send and FILE.sink.
    pub samples: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the sender says.
    pub send: Value,
    /// What the receiver says.
    pub sink: Value,
    /// What befell the sender's segments, and the receiver's.
    pub legs: [Counters; 2],
    /// What the bottleneck's queue refused of the sender's, and of the receiver's.
    pub queue_drops: [u64; 2],
}

impl Outcome {
    /// Mbit/s of payload.
    pub fn goodput(&self) -> f64 {
        self.send["mbit_per_s"].as_f64().expect("a figure")
    }
}

impl Transfer {
    fn command(&self, road: &Road, end: End, role: &str) -> Command {
        // At real-time priority, in both arms: what else the machine does shall matter less.
        let mut command = road.command(Some(end), "chrt");
        command.args(["--rr", "5"]).arg(&self.bulk).arg(role).args(["--limit", &self.limit.as_secs().to_string()]);
        if self.ours && end == End::Left {
            command.args(["--over", "veth0"]);
        }
        if let Some(file) = &self.samples {
            command.args(["--samples", &format!("{file}.{role}")]);
        }
        command
    }

    /// Does it. The road's counters must have been set to zero before.
    ///
    /// # Errors
    /// What an end said that did not succeed.
    pub fn run(&self, road: &Road) -> Result<Outcome, String> {
        let to = self.from.other();
        let ends = [self.from, to];
        let before = ends.map(|e| road.queue_drops(e));
        let mut sink = self.command(road, to, "sink");
        sink.args(["--port", PORT]);
        let mut sink = Program::start(sink);
        sink.wait_for("ready");
        let mut send = self.command(road, self.from, "send");
        send.args(["--to", &format!("{}:{PORT}", to.address()), "--bytes", &self.bytes.to_string()]);
        send.args(["--seed", &self.seed.to_string(), "--congestion", &self.congestion]);
        let mut send = Program::start(send);
        let limit = self.limit + Duration::from_secs(10);
        let (sent, send_said) = send.end(limit);
        if !sent {
            sink.kill();
            return Err(format!("the sender: {send_said}\nthe receiver: {}", sink.output()));
        }
        let (taken, sink_said) = sink.end(limit);
        if !taken {
            return Err(format!("the receiver: {sink_said}"));
        }
        let json = |said: &str| {
            let line = said.lines().rev().find(|l| l.starts_with('{')).unwrap_or_default();
            serde_json::from_str::<Value>(line).map_err(|e| format!("{e}: {said}"))
        };
        let after = ends.map(|e| road.queue_drops(e));
        Ok(Outcome {
            send: json(&send_said)?,
            sink: json(&sink_said)?,
            legs: ends.map(|e| road.counters(e)),
            queue_drops: [after[0] - before[0], after[1] - before[1]],
        })
    }
}
