//! The short way of what opens and ends a connection beside the long one: whatever
//! happens, what leaves, what the program hears, the timers and the state are the same.

use super::*;
use crate::tcp::input::Plain;
use proptest::prelude::*;

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The peer's next segment: so many bytes, a FIN, acknowledging `part`/4 of what was
    /// sent, or `back` less; from `off` further on than it should be.
    Segment { len: usize, fin: bool, part: u32, back: u32, window: u16, off: i32 },
    Send(usize),
    Recv,
    Shutdown,
    Close,
    Pass(u64),
    Flush,
}

/// How many segments took the short way, by the state that they met.
type Taken = std::collections::BTreeMap<String, u32>;

/// Gives the connection a segment; `short`: by the short way, if it is for that.
fn arrives(h: &mut Host, short: bool, seg: &Plain, fin: bool, data: &[u8], taken: &mut Taken) {
    let frame = (!data.is_empty()).then(|| {
        let mut frame = h.pool.alloc().unwrap();
        h.pool.buffer_mut(&mut frame)[52..52 + data.len()].copy_from_slice(data);
        frame.set_range(52, data.len());
        frame
    });
    let edge = h.conn().is_edge(seg, fin);
    if edge {
        *taken.entry(format!("{:?}", h.state())).or_default() += 1;
    }
    let d = if short && edge {
        h.with(|c, e| c.input_edge(e, seg, frame, fin))
    } else {
        let options = Options { timestamp: seg.timestamp, ..Options::default() };
        let flags = if fin { ACK | FIN } else { ACK };
        let s = segment(flags, seg.seq, seg.ack, seg.window, options, data.len());
        h.with(|c, e| {
            e.counters.tcp_segments_in += 1;
            c.input_any(e, &s, frame.map(Packet::single))
        })
    };
    h.note(d);
    h.check();
}

/// All that is seen of a run that begins in SYN-RECEIVED.
fn run(short: bool, modern: bool, steps: &[Step], taken: &mut Taken) -> Vec<String> {
    let (mut solo, _) = Solo::syn_received(Config::default(), if modern { MODERN } else { PLAIN });
    let mut seen = Vec::new();
    let (first, mut top) = (solo.ack, solo.ack);
    for step in steps {
        if matches!(solo.host.state(), State::Closed | State::TimeWait) {
            break;
        }
        match *step {
            Step::Segment { len, fin, part, back, window, off } => {
                // The SYN is acknowledged with the first.
                let done = top.wrapping_sub(solo.ack) * part / 4;
                solo.ack = solo.ack.wrapping_add(done);
                solo.time = solo.time.map(|t| t + 1);
                let seq = solo.seq.wrapping_add(off as u32);
                let timestamp = solo.time.map(|t| (t, solo.echo));
                let ack = solo.ack.wrapping_sub(back);
                let seg = Plain { seq, ack, window, timestamp, len: len as u32, merged: 0 };
                if off == 0 {
                    solo.seq = solo.seq.wrapping_add(len as u32 + u32::from(fin));
                }
                arrives(&mut solo.host, short, &seg, fin, &pattern(len), taken);
            }
            Step::Send(n) => seen.push(format!("send {}", solo.host.send(&pattern(n)))),
            Step::Recv => seen.push(format!("recv {}", solo.host.recv_all().len())),
            Step::Shutdown => solo.host.shutdown(),
            Step::Close => solo.host.close(),
            Step::Pass(n) => solo.host.advance(ms(n)),
            Step::Flush => {}
        }
        if matches!(step, Step::Flush | Step::Pass(_)) {
            for o in solo.host.out() {
                let end = o.seg.seq.wrapping_add(o.seg.seq_len());
                top = if seq::gt(end, top) { end } else { top };
                solo.echo = o.seg.options.timestamp.map_or(0, |t| t.0);
                seen.push(format!("{:?} {:?}", o.seg, o.len()));
            }
        }
        seen.push(format!("{:?}", solo.host.take_events()));
        look(&solo.host, &mut seen);
    }
    assert!(seq::ge(top, first));
    seen.push(format!("{:?}", solo.host.counters));
    solo.host.finish();
    seen
}

/// Notes the state; of a connection that is over what is asked of it yet.
fn look(h: &Host, seen: &mut Vec<String>) {
    let conn = h.conn();
    if conn.state() == State::Closed {
        seen.push(format!("{:?} {:?} {}", conn.hot.bits, conn.warm.error, conn.warm.bytes_acked));
        return;
    }
    // Each run has an arena of its own.
    let all = format!("{:?} {:?} {:?}", conn.hot, conn.cold, conn.deadline());
    let digits = |c: char| c.is_ascii_digit();
    seen.push(all.split("arena: ").map(|part| part.trim_start_matches(digits)).collect());
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let window = prop_oneof![4 => Just(60_000u16), 1 => Just(0), 1 => 1u16..4000];
    let part = prop_oneof![5 => Just(4u32), 1 => 0u32..5];
    let len = prop_oneof![3 => Just(0usize), 3 => 1usize..900];
    let back = prop_oneof![9 => Just(0u32), 1 => 1u32..3000];
    let off = prop_oneof![9 => Just(0i32), 1 => -3i32..1000];
    let step = prop_oneof![
        8 => (len, prop::bool::weighted(0.2), part, back, window, off)
            .prop_map(|(len, fin, part, back, window, off)| Step::Segment { len, fin, part, back, window, off }),
        3 => prop_oneof![1usize..200, Just(1000usize), 1usize..4000].prop_map(Step::Send),
        2 => Just(Step::Recv),
        1 => Just(Step::Shutdown),
        1 => Just(Step::Close),
        1 => (1u64..400).prop_map(Step::Pass),
        8 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 1..25)
}

#[test]
fn the_short_way_is_taken_in_each_state() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let (mut runner, mut taken) = (TestRunner::deterministic(), Taken::new());
    for _ in 0..2000 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        run(true, true, &steps, &mut taken);
    }
    let states = ["CloseWait", "Closing", "Established", "FinWait1", "FinWait2", "LastAck", "SynReceived"];
    assert!(taken.keys().eq(states.iter()) && taken.values().all(|&n| n >= 10), "{taken:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn short_and_long_are_one(steps in steps(), modern: bool) {
        let (mut short, mut long) = (Taken::new(), Taken::new());
        prop_assert_eq!(run(true, modern, &steps, &mut short), run(false, modern, &steps, &mut long));
        prop_assert_eq!(short, long);
    }
}
