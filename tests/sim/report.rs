//! Says, where a run fails, how to see it again.

use crate::features::Class;
use crate::net::{Captured, Net};
use ringroad::wire::trace::{Begins, Style, Tracer};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Packets shown where one of many seeds fails; where it runs alone, all.
const SHOWN: usize = 60;
/// Failures of which packets are shown.
const FAILURES: usize = 5;

static FAILED: AtomicUsize = AtomicUsize::new(0);

/// True where one seed runs alone.
pub fn alone() -> bool {
    std::env::var_os("RINGROAD_SEED").is_some()
}

pub struct Report {
    pub seed: u64,
    pub class: Class,
    pub net: Net,
}

impl Drop for Report {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let packets = self.net.captured();
        if FAILED.fetch_add(1, Relaxed) < FAILURES {
            show(&packets, if alone() { usize::MAX } else { SHOWN });
        }
        let class = format!("{:?}", self.class).to_lowercase();
        eprintln!(
            "failed: RINGROAD_CLASS={class} RINGROAD_SEED={} cargo test --test sim -- --exact one_seed",
            self.seed
        );
    }
}

fn show(packets: &[Captured], shown: usize) {
    let mut tracer = Tracer::new(Style::Modern);
    let raw = packets.first().is_some_and(|p| p.bytes.first() == Some(&0x45));
    let begins = if raw { Begins::Ip } else { Begins::Ethernet };
    let line = |p: &Captured| format!("{} | {}", p.from, tracer.line(p.at, begins, &p.bytes));
    let lines: Vec<_> = packets.iter().map(line).collect();
    for line in &lines[lines.len().saturating_sub(shown)..] {
        eprintln!("{line}");
    }
}
