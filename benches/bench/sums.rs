//! How long checksums take: the unit that is chosen on this machine, and a loop
//! of words.

use std::time::Instant;

use ringroad::arch;

use super::checksum::{BATCH as PACKETS, Packets};

/// How often each is timed; the least counts, since nothing makes a sum faster.
const TIMES: usize = 40;
/// Bytes that are summed at a time, about.
const WORK: usize = 1 << 20;

/// Time checksums of so many bytes.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=9000))]
    bytes: u32,
    /// By a loop of words, and not by the unit that is chosen on this machine
    #[arg(long)]
    words: bool,
}

/// The least time of `work`, in nanoseconds.
fn least(mut work: impl FnMut()) -> f64 {
    let once = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_nanos() as f64
    };
    (0..TIMES).map(once).fold(f64::INFINITY, f64::min)
}

/// Nanoseconds of a sum.
fn measure(args: &Args) -> f64 {
    let packets = Packets::make();
    let len = args.bytes as usize;
    let turns = (WORK / len / PACKETS).max(1);
    let each = least(|| {
        for _ in 0..turns {
            if args.words {
                packets.word_sums(len);
            } else {
                packets.sums(len, arch::sum);
            }
        }
    });
    each / (turns * PACKETS) as f64
}

/// Measure and print.
pub fn run(args: &Args) -> Result<(), String> {
    println!("{{\"ns\":{:.3}}}", measure(args));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bytes_take_more_time() {
        let time = |bytes| measure(&Args { bytes, words: true });
        assert!(time(9000) > 4.0 * time(64), "{} {}", time(9000), time(64));
    }
}
