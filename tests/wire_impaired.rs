//! ringroad and Linux over a road that drops, duplicates, reorders and corrupts:
//! every byte has to arrive, and every segment of ours has to be sound. How fast
//! they go is for `scripts/goodput` to say.

mod common;
mod impaired;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::capture::Capture;
use common::{run, unique};
use impaired::transfer::{Outcome, Transfer};
use impaired::{End, Harm, LEFT, MTU, Road, Shape, fate};

const SHAPE: Shape = Shape {
    rate_mbit: 100,
    queue_bytes: 150_000,
    delay: Duration::from_millis(5),
    late: Duration::from_millis(2),
};

/// Enough of each for a transfer of a few megabytes to meet it both ways.
const HARM: Harm = Harm { drop: 0.01, duplicate: 0.01, reorder: 0.01, corrupt: 0.01 };

const BYTES: u64 = 3_000_000;

/// `examples/bulk.rs`, built as the command under test is.
fn bulk() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    let release = !cfg!(debug_assertions);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--example", "bulk"]);
    run(cargo.args(release.then_some("--release")));
    let command = PathBuf::from(common::RINGROAD);
    command.parent().expect("a folder").join("examples/bulk")
}

#[track_caller]
fn transfer(road: &Road, bulk: &Path, from: End, ours: bool, congestion: &str, seed: u64) -> Outcome {
    road.set(HARM, seed);
    let transfer = Transfer {
        bulk: bulk.to_path_buf(),
        from,
        ours,
        congestion: congestion.to_string(),
        bytes: BYTES,
        seed,
        limit: Duration::from_secs(120),
        samples: None,
    };
    let outcome = transfer.run(road).unwrap_or_else(|why| panic!("{congestion} from {from:?}: {why}"));
    assert_eq!(outcome.send["sha256"], outcome.sink["sha256"], "the sums");
    assert_eq!(outcome.sink["bytes"], BYTES);
    assert_eq!(outcome.send["congestion"], congestion, "it was really used");
    let over = if ours && from == End::Left { "ringroad" } else { "kernel" };
    assert_eq!(outcome.send["over"], over);
    for (end, leg) in [from, from.other()].into_iter().zip(outcome.legs) {
        let fate = fate(HARM, Road::seed(end, seed), leg.segments);
        assert_eq!(leg.befell(), fate, "what befalls a segment is its number's and the seed's alone");
        assert_eq!(leg.failures, 0, "the kernel's helpers all worked: {leg:?}");
        assert!(leg.largest <= MTU, "a segment of several: offloads are on: {leg:?}");
    }
    assert_eq!(road.lost_by_the_bed(), 0, "the delay line keeps up");
    outcome
}

#[test]
fn every_byte_arrives_over_a_road_that_harms_segments_in_every_way() {
    let bulk = bulk();
    let road = Road::new(&unique(), SHAPE);
    let mut capture = Capture::by(road.command(None, "tcpdump"), "left", 60_000);
    let mut outcomes = Vec::new();
    for (seed, congestion) in ["cubic", "bbr", "reno"].into_iter().enumerate() {
        outcomes.push(transfer(&road, &bulk, End::Left, true, congestion, 10 + seed as u64));
    }
    for (seed, congestion) in ["cubic", "bbr"].into_iter().enumerate() {
        outcomes.push(transfer(&road, &bulk, End::Right, true, congestion, 20 + seed as u64));
    }
    // No segment of ours is malformed or has a wrong checksum.
    capture.check(LEFT);
    for way in 0..2 {
        let befell: Vec<[u64; 4]> = outcomes.iter().map(|o| o.legs[way].befell()).collect();
        let total = (0..4).map(|kind| befell.iter().map(|b| b[kind]).sum::<u64>());
        assert!(total.clone().all(|n| n > 0), "something never happened: {befell:?}");
    }
    for outcome in &outcomes {
        let repeated = outcome.send["info"]["total_retrans"].as_u64().unwrap_or(0);
        let lost = outcome.legs[0].dropped + outcome.legs[0].corrupted;
        assert!(repeated * 2 > lost, "{lost} segments were lost, {repeated} sent again: TCP_INFO is untrue");
    }
}
