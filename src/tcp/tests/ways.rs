//! The short ways in and out beside the predicted and the long ones: whatever happens,
//! what leaves, what writers hear, the timers and the state are the same.

use super::*;
use crate::tcp::input::Plain;
use crate::wire::ethernet::Mac;

/// A plain segment by the way that `quick` says.
fn plain(solo: &mut Solo, quick: bool, seq: u32, window: u16, data: &[u8]) -> bool {
    let ack = solo.ack;
    let ts = solo.time.map(|t| (t, solo.echo));
    let seg = Plain { seq, ack, window, timestamp: ts, len: data.len() as u32, merged: 0 };
    if !quick || !solo.host.conn().is_quick(&seg) {
        let s = segment(ACK | PSH, seq, ack, window, solo.options(), data.len());
        solo.host.input(&s, data);
        return false;
    }
    let mut frame = solo.host.pool.alloc().unwrap();
    solo.host.pool.buffer_mut(&mut frame)[52..52 + data.len()].copy_from_slice(data);
    frame.set_range(52, data.len());
    let now = solo.host.now;
    let h = &mut solo.host;
    h.conn.as_mut().unwrap().input_quick(now, &mut h.pool, &mut h.counters, &h.config, &seg, frame);
    true
}

/// Data and, behind it, a bare ACK that opens the window; the ACK comes first. The window of
/// the data is older (SND.WL1) and does not count.
fn reordered_window(quick: bool) -> (bool, Vec<(u32, usize)>) {
    let mut solo = Solo::plain();
    let at = solo.seq;
    plain(&mut solo, false, at.wrapping_add(100), 60_000, b"");
    solo.host.silent();
    let taken = plain(&mut solo, quick, at, 100, &pattern(100));
    solo.host.recv_all();
    solo.host.send(&pattern(5000));
    let out = solo.leaving();
    solo.host.finish();
    (taken, out)
}

#[test]
fn a_window_older_than_the_last_does_not_count_on_the_short_way() {
    let (short, long) = (reordered_window(true), reordered_window(false));
    assert_eq!(short.1, long.1);
}

/// A full segment by itself, then a small write, neither acknowledged.
fn small_after_full(lone: bool) -> Vec<(u32, usize)> {
    let mut solo = Solo::plain();
    solo.host.send(&pattern(1000));
    if lone {
        assert_eq!(solo.leaving(), [(0, 1000)]);
    } else {
        let h = &mut solo.host;
        let mut conn = h.conn.take().unwrap();
        let _ = conn.flush_any(&mut h.env());
        h.conn = Some(conn);
        assert_eq!(solo.leaving(), [(0, 1000)]);
    }
    solo.host.send(&pattern(10));
    let out = solo.leaving();
    solo.host.finish();
    out
}

#[test]
fn a_full_segment_holds_no_small_one_back() {
    assert_eq!(small_after_full(false), [(1000, 10)], "the long way, as Linux does");
    assert_eq!(small_after_full(true), [(1000, 10)], "the short way");
}

/// What happens in a differential run.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The peer's next data, so many bytes; acknowledging `part`/4 of what is under way.
    Data { len: usize, part: u32, window: u16, late: u8 },
    Ack { part: u32, window: u16, late: u8 },
    /// So many segments in a row that say nothing else.
    Row { count: usize, len: usize, part: u32, window: u16 },
    Send(usize),
    Recv,
    Pass(u64),
    Flush,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Short,
    Predicted,
    Long,
}

/// From now on it sends over Ethernet.
fn over_ethernet(h: &mut Host) {
    let (link, capacity) = (Link::Ethernet { src: Mac([2; 6]), dst: Mac([4; 6]) }, h.pool.frame_capacity());
    let conn = h.conn.as_mut().unwrap();
    conn.template = Template::new(link, conn.template.local(), conn.template.remote(), 64, 0);
    conn.set_mss(capacity);
}

/// Whether it has timestamps and such, and runs over Ethernet.
type Kind = (bool, bool);

/// All that is seen of a run.
fn run(way: Way, (modern, ethernet): Kind, steps: &[Step]) -> Vec<String> {
    let mut solo = if modern { Solo::modern() } else { Solo::plain() };
    if ethernet {
        over_ethernet(&mut solo.host);
    }
    let mut seen = Vec::new();
    let (mut short, mut more) = (0, 0);
    // The peer's numbers: what was sent, acknowledged at most.
    let (mut late, mut top) = (Vec::<(u8, Plain, Vec<u8>)>::new(), solo.ack);
    for step in steps {
        if solo.host.state() != State::Established {
            break;
        }
        let mut arrive = Vec::new();
        let mut rest = Vec::new();
        for (n, seg, data) in late.drain(..) {
            if n == 0 { arrive.push((seg, data)) } else { rest.push((n - 1, seg, data)) }
        }
        late = rest;
        match *step {
            Step::Data { len: _, part, window, late: n } | Step::Ack { part, window, late: n } => {
                let len = if let Step::Data { len, .. } = *step { len } else { 0 };
                let ack = solo.ack.wrapping_add(top.wrapping_sub(solo.ack) / 4 * part.min(4));
                let ack = if part >= 4 { top } else { ack };
                solo.ack = ack;
                if modern {
                    solo.time = solo.time.map(|t| t + 1);
                }
                let timestamp = solo.time.map(|t| (t, solo.echo));
                let seg = Plain { seq: solo.seq, ack, window, timestamp, len: len as u32, merged: 0 };
                solo.seq = solo.seq.wrapping_add(len as u32);
                late.push((n, seg, pattern(len)));
            }
            Step::Row { count, len, part, window } => {
                solo.ack = solo.ack.wrapping_add(top.wrapping_sub(solo.ack) / 4 * part.min(4));
                solo.time = solo.time.map(|t| t + 1);
                let timestamp = solo.time.map(|t| (t, solo.echo));
                for _ in 0..count {
                    let seg = Plain { seq: solo.seq, ack: solo.ack, window, timestamp, len: len as u32, merged: 0 };
                    solo.seq = solo.seq.wrapping_add(len as u32);
                    arrive.push((seg, pattern(len)));
                }
            }
            Step::Send(n) => seen.push(format!("send {}", solo.host.send(&pattern(n)))),
            Step::Recv => seen.push(format!("recv {}", solo.host.recv_all().len())),
            Step::Pass(n) => {
                solo.host.advance(ms(n));
            }
            Step::Flush => {}
        }
        // The segment that took the short way just before.
        let mut before = None;
        for (seg, data) in arrive {
            let same = |b: &Plain| (b.ack, b.window, b.timestamp) == (seg.ack, seg.window, seg.timestamp);
            match before.filter(same) {
                Some(_) if seg.len > 0 && solo.host.conn().goes_on(seg.seq, seg.len) => {
                    goes_on(&mut solo.host, &seg, &data);
                    more += 1;
                    before = Some(seg);
                }
                _ => {
                    let taken = arrives(&mut solo, way, &seg, &data);
                    short += u32::from(taken);
                    before = taken.then_some(seg);
                }
            }
        }
        if matches!(step, Step::Flush | Step::Pass(_)) && solo.host.state() == State::Established {
            look(&mut solo, way, &mut top, &mut seen);
        }
    }
    if way == Way::Short {
        SHORT.with(|s| s.set(s.get() + short));
        MORE.with(|m| m.set(m.get() + more));
    }
    solo.host.finish();
    seen
}

/// Lets it send, and notes what is seen of it then.
fn look(solo: &mut Solo, way: Way, top: &mut u32, seen: &mut Vec<String>) {
    let out = if way == Way::Long { leave_the_long_way(&mut solo.host) } else { solo.host.out() };
    for o in out {
        let end = o.seg.seq.wrapping_add(o.len() as u32);
        *top = if seq::gt(end, *top) { end } else { *top };
        solo.echo = o.seg.options.timestamp.map_or(0, |t| t.0);
        seen.push(format!("{:?} {:?}", o.seg, o.len()));
    }
    seen.push(format!("{:?}", solo.host.take_events() & Events::WRITABLE));
    seen.push(format!("{:?}", solo.host.conn().deadline()));
    // Each run has an arena of its own.
    let hot = format!("{:?}", solo.host.conn().hot);
    let digits = |c: char| c.is_ascii_digit();
    seen.push(hot.split("arena: ").map(|part| part.trim_start_matches(digits)).collect());
}

fn leave_the_long_way(h: &mut Host) -> Vec<Out> {
    let mut conn = h.conn.take().unwrap();
    let _done = conn.flush_any(&mut h.env());
    h.conn = Some(conn);
    let mut out = Vec::new();
    while let Some(desc) = h.tx.pop() {
        out.push(open(h.pool.tx_bytes(&desc)));
        h.pool.complete(desc.index());
    }
    out
}

thread_local! {
    static SHORT: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    static MORE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Data that goes on behind a segment of the short way.
fn goes_on(h: &mut Host, seg: &Plain, data: &[u8]) {
    let mut frame = h.pool.alloc().unwrap();
    h.pool.buffer_mut(&mut frame)[52..52 + data.len()].copy_from_slice(data);
    frame.set_range(52, data.len());
    h.conn.as_mut().unwrap().input_more(&mut h.pool, &mut h.counters, &h.config, seg.seq, frame);
}

fn arrives(solo: &mut Solo, way: Way, seg: &Plain, data: &[u8]) -> bool {
    let whole = || {
        let options = Options { timestamp: seg.timestamp, ..Options::default() };
        segment(ACK | PSH, seg.seq, seg.ack, seg.window, options, data.len())
    };
    let h = &mut solo.host;
    let frame = |h: &mut Host| {
        let mut frame = h.pool.alloc().unwrap();
        h.pool.buffer_mut(&mut frame)[52..52 + data.len()].copy_from_slice(data);
        frame.set_range(52, data.len());
        frame
    };
    let payload = |h: &mut Host| (!data.is_empty()).then(|| frame(h));
    match way {
        Way::Short if h.conn().is_quick(seg) => {
            let frame = frame(h);
            let now = h.now;
            h.conn.as_mut().unwrap().input_quick(now, &mut h.pool, &mut h.counters, &h.config, seg, frame);
            true
        }
        Way::Long => {
            let packet = payload(h).map(Packet::single);
            let s = whole();
            let d = h.with(|c, e| c.input_any(e, &s, packet));
            h.note(d);
            false
        }
        _ => {
            h.input(&whole(), data);
            false
        }
    }
}

mod same {
    use super::*;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let window = prop_oneof![3 => Just(60_000u16), 1 => Just(0), 2 => 1u16..4000];
        let late = prop_oneof![6 => Just(0u8), 1 => 0u8..6];
        let part = prop_oneof![4 => Just(4u32), 1 => 0u32..5];
        let size = prop_oneof![3 => 1usize..200, 2 => Just(1000usize), 1 => Just(1448usize), 1 => 1usize..4000];
        let step = prop_oneof![
            4 => (1usize..900, part.clone(), window.clone(), late.clone()).prop_map(|(len, part, window, late)| Step::Data { len, part, window, late }),
            3 => (part.clone(), window.clone(), late).prop_map(|(part, window, late)| Step::Ack { part, window, late }),
            2 => (2usize..9, 1usize..900, part.clone(), window.clone())
                .prop_map(|(count, len, part, window)| Step::Row { count, len, part, window }),
            4 => size.prop_map(Step::Send),
            2 => Just(Step::Recv),
            2 => (1u64..400).prop_map(Step::Pass),
            8 => Just(Step::Flush),
        ];
        prop::collection::vec(step, 1..60)
    }

    #[test]
    fn the_short_way_is_taken() {
        use proptest::{strategy::ValueTree, test_runner::TestRunner};
        let mut runner = TestRunner::deterministic();
        SHORT.with(|s| s.set(0));
        for _ in 0..200 {
            let steps = steps().new_tree(&mut runner).unwrap().current();
            run(Way::Short, (true, true), &steps);
        }
        let n = (SHORT.with(|s| s.get()), MORE.with(|m| m.get()));
        assert!(n.0 > 200 && n.1 > 200, "{n:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn predicted_and_long_are_one(steps in steps(), kind: Kind) {
            prop_assert_eq!(run(Way::Predicted, kind, &steps), run(Way::Long, kind, &steps));
        }

        #[test]
        fn short_and_predicted_are_one(steps in steps(), kind: Kind) {
            prop_assert_eq!(run(Way::Short, kind, &steps), run(Way::Predicted, kind, &steps));
        }

        #[test]
        fn short_and_long_are_one(steps in steps(), kind: Kind) {
            prop_assert_eq!(run(Way::Short, kind, &steps), run(Way::Long, kind, &steps));
        }
    }
}
