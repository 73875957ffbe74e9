//! The queues of a connection against what they stand for.

use super::Choices;
use super::bench::{Bench, byte_at, config, segment};
use crate::frame::Pool;
use crate::tcp::assembler::{Assembler, Insert, Limits};
use crate::tcp::connection::Bits;
use crate::tcp::{Connection, State, seq};
use crate::time::Duration;
use crate::wire::tcp::{Flags, Options, SackBlock};

/// Pieces in any order, overlapping in any way, against a map of which bytes
/// came: what is taken is the stream, and blocks are announced only of bytes
/// that are kept.
pub fn reassembly(bytes: &[u8]) {
    const SPAN: usize = 4096;
    let mut choices = Choices::new(bytes);
    let base = choices.word();
    let limit = choices.pick(&[64, 1, 7]);
    let mut pool = Pool::heap(96, 2048);
    let mut queue = Assembler::default();
    let mut kept = vec![false; SPAN];
    let small = choices.short() & 1023;
    let mut next = 0;
    while !choices.is_done() {
        let from = next + usize::from(choices.short()) % (SPAN - next).max(1);
        let len = usize::from(choices.short()) >> choices.below(12) & 2047;
        let to = (from + len).min(SPAN).min(from + 1900);
        let at = base.wrapping_add(from as u32);
        let Some(mut frame) = pool.alloc() else { panic!("the bound on pieces holds") };
        for (i, b) in pool.buffer_mut(&mut frame)[9..9 + to - from].iter_mut().enumerate() {
            *b = byte_at(at.wrapping_add(i as u32));
        }
        frame.set_range(9, to - from);
        let limits = Limits { pieces: limit, small: small.into() };
        match queue.insert(&mut pool, at, frame, limits) {
            // At the bound pieces that the new one covers may be gone.
            Insert::Full => assert!(queue.frames() >= limit || from == to || limit <= 1),
            // Another may be gone for it: what is there is among what came.
            Insert::Kept | Insert::Pruned => kept[from..to].fill(true),
            Insert::Duplicate => assert!(kept[from..to].iter().all(|k| *k)),
        }
        assert!(queue.frames() <= limit);
        assert_eq!(pool.counts().held as usize, queue.frames());
        for block in queue.blocks() {
            let rel = |n: u32| n.wrapping_sub(base) as usize;
            assert!(rel(block.left) < rel(block.right) && rel(block.left) >= next);
            assert!(kept[rel(block.left)..rel(block.right)].iter().all(|k| *k), "{block:?}");
        }
        if choices.one_in(3) {
            // What was missing came: all that goes on there is taken.
            next += usize::from(choices.short()) % (SPAN - next).max(1);
            while let Some(frame) = queue.take(&mut pool, base.wrapping_add(next as u32)) {
                for &b in pool.bytes(&frame) {
                    assert_eq!(b, byte_at(base.wrapping_add(next as u32)));
                    assert!(kept[next], "a byte that never came");
                    next += 1;
                }
                pool.free(frame);
            }
        }
    }
    queue.clear(&mut pool);
    pool.assert_conserved();
    assert_eq!(pool.available(), pool.capacity(), "frames leak");
}

/// What the peer of [`sack_scoreboard`] really has.
struct Peer {
    first: u32,
    have: Vec<bool>,
}

impl Peer {
    fn take(&mut self, at: u32, len: usize) {
        let from = at.wrapping_sub(self.first) as usize;
        if self.have.len() < from + len {
            self.have.resize(from + len, false);
        }
        self.have[from..from + len].fill(true);
    }

    /// Up to where it has all.
    fn next(&self) -> usize {
        self.have.iter().position(|h| !h).unwrap_or(self.have.len())
    }

    /// Its true blocks, the last ones first.
    fn blocks(&self) -> Vec<SackBlock> {
        let (mut blocks, mut i) = (Vec::new(), self.next());
        while i < self.have.len() {
            let left = i;
            while i < self.have.len() && self.have[i] {
                i += 1;
            }
            if i > left {
                let [left, right] = [left, i].map(|n| self.first.wrapping_add(n as u32));
                blocks.push(SackBlock { left, right });
            }
            i += 1;
        }
        blocks.reverse();
        blocks.truncate(3);
        blocks
    }
}

/// A sender whose segments get lost by choice and whose peer acknowledges what
/// it has, but claims what it likes in SACK blocks (reneging, D-SACK, nonsense).
/// The scoreboard's sums hold at every step, and once the peer is honest all
/// data arrives: no claim makes the sender forget a byte.
pub fn sack_scoreboard(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut config = config(&mut choices);
    (config.options.sack, config.options.cork) = (true, false);
    (config.options.user_timeout, config.frames_low) = (0, 48);
    let mut syn = segment(Flags::SYN, 77, 0, 60_000, 0);
    let time = choices.one_in(2).then_some((1, 0));
    syn.options = Options {
        mss: Some(choices.pick(&[1000, 100, 1460])),
        window_scale: Some(choices.below(5) as u8),
        sack_permitted: true,
        timestamp: time,
        ..Options::default()
    };
    let mut bench = Bench::new(config, 1024, |env, template, options, initial| {
        Connection::accept(env, template, options, initial, 1500, &syn)
    });
    let _ = bench.output();
    let mut peer = Peer { first: bench.conn().hot.snd_nxt, have: Vec::new() };
    let mut written = 0;
    acknowledge(&mut bench, &peer, None);
    assert_eq!(bench.state(), State::Established);
    while !choices.is_done() {
        if written < 200_000 {
            written += bench.write(usize::from(choices.short()) >> choices.below(10));
        }
        deliver(&mut bench, &mut peer, &mut choices);
        let lies = choices.one_in(3).then_some(&mut choices);
        acknowledge(&mut bench, &peer, lies);
        if choices.one_in(6) {
            let _ = bench.advance(Duration::from_millis(u64::from(choices.short()) / 8));
        }
    }
    // An honest peer on a good wire gets all of it.
    for _ in 0..3000 {
        if bench.conn().hot.snd_una == bench.conn().hot.snd_end {
            break;
        }
        let _ = bench.advance(Duration::from_secs(130));
        deliver(&mut bench, &mut peer, &mut choices);
        acknowledge(&mut bench, &peer, None);
    }
    assert_eq!(peer.next(), written, "data was forgotten: {:?}", bench.conn());
    assert_eq!(bench.state(), State::Established);
    bench.end();
}

/// What leaves reaches the peer, or does not, by choice; with no choices left it
/// all does.
fn deliver(bench: &mut Bench, peer: &mut Peer, choices: &mut Choices) {
    let (out, flush) = bench.output();
    bench.check_rest(flush);
    for out in out {
        if !choices.one_in(3) {
            peer.take(out.seg.seq, out.data.len());
        }
    }
}

/// The peer's ACK, with true blocks or with lies.
fn acknowledge(bench: &mut Bench, peer: &Peer, lies: Option<&mut Choices>) {
    let (irs, first) = (bench.conn().cold.irs, peer.first);
    let ack = first.wrapping_add(peer.next() as u32);
    let mut seg = segment(Flags::ACK, irs.wrapping_add(1), ack, 60_000, 0);
    if bench.conn().hot.bits.contains(Bits::TIMESTAMPS) {
        seg.options.timestamp = Some((1, bench.conn().ts_now(bench.now)));
    }
    match lies {
        None => seg.options.sack.extend(peer.blocks()),
        Some(choices) => {
            let sent = seq::distance(first, bench.conn().hot.snd_nxt).max(1);
            for _ in 0..choices.below(4) {
                let left = first.wrapping_add(choices.word() % sent);
                let len = u32::from(choices.short()) >> choices.below(12);
                let left = if choices.one_in(8) { choices.word() } else { left };
                seg.options.sack.push(SackBlock { left, right: left.wrapping_add(len) });
            }
            seg.window = choices.pick(&[60_000, 60_000, 0, 500]);
        }
    }
    let _ = bench.input(&seg, 0);
}
