//! Anything at all comes in, at any time: no panic, no lost frame, no endless
//! answer, and the numbers stay in order.

use super::*;
use crate::tcp::connection::Watch;

/// A segment that may be anything, often close to what is expected.
fn any_segment(solo: &Solo, rng: &mut Rng) -> (Segment, Vec<u8>) {
    let near = |n: u32, rng: &mut Rng| match rng.below(6) {
        0 => rng.next_u32(),
        1 => n.wrapping_add(rng.below(70_000)),
        2 => n.wrapping_sub(rng.below(3000)),
        3 => n.wrapping_add(rng.below(3)).wrapping_sub(1),
        _ => n,
    };
    let (rcv, snd) = (solo.host.conn().hot.rcv_nxt, solo.host.conn().hot.snd_nxt);
    let mut flags = ACK;
    if rng.below(4) == 0 {
        flags = Flags::from_bits_truncate(rng.next_u32() as u8);
        if rng.below(3) > 0 {
            flags -= RST | SYN;
        }
    }
    let data = if rng.below(2) == 0 { pattern(rng.below(1400) as usize) } else { Vec::new() };
    let time = solo.time.map(|t| {
        (near(t.wrapping_add(solo.host.now.as_millis_wrapping()), rng), near(solo.echo, rng))
    });
    let mut options = Options { timestamp: time, ..Options::default() };
    if rng.below(5) == 0 {
        options.mss = Some(rng.next_u32() as u16);
        options.window_scale = Some(rng.next_u32() as u8);
        for _ in 0..rng.below(4) {
            let block = SackBlock { left: near(snd, rng), right: near(snd, rng) };
            options.sack.push(block);
        }
    }
    let window = if rng.below(3) == 0 { rng.next_u32() as u16 >> rng.below(16) } else { 60_000 };
    let mut seg = segment(flags, near(rcv, rng), near(snd, rng), window, options, data.len());
    seg.urgent = rng.next_u32() as u16;
    (seg, data)
}

/// What stands for a cold field says whether it is in use.
fn watched(conn: &Connection) {
    let (watch, c) = (conn.warm.watch, &conn.cold);
    assert_eq!(watch.contains(Watch::FLOW), c.flow.is_some());
    assert_eq!(watch.contains(Watch::USER_TIMEOUT), c.user_timeout > 0);
    assert_eq!(watch.contains(Watch::LOW_WATER), c.low_water > 1);
    assert!(!watch.contains(Watch::STALLED) || c.stalled != Instant::NEVER);
}

fn invariants(host: &Host) {
    let h = &host.conn().hot;
    assert!(seq::le(h.snd_una, h.snd_nxt));
    let closed = h.state == State::Closed;
    assert!(closed || seq::le(h.snd_nxt, h.snd_end.wrapping_add(1)));
    assert!(seq::le(h.rcv_nxt, h.rcv_edge));
    assert!(h.send.lost() <= h.snd_nxt.wrapping_sub(h.snd_una));
    assert!(host.conn().warm.congestion.window > 0);
    watched(host.conn());
    assert!(host.conn().recv_len() as u32 <= h.rcv_used);
    if closed {
        assert_eq!(host.conn().deadline(), Instant::NEVER);
    } else if h.state.is_synchronized() && h.snd_una != h.snd_nxt {
        let set = host.conn().deadline() < Instant::NEVER;
        assert!(set || host.again, "something is outstanding and no timer runs: {h:?}");
    }
}

fn storm(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut config = Config::default();
    config.options.receive_buffer = 1024 << rng.below(8);
    config.options.send_buffer = 1024 << rng.below(8);
    config.options.keepalive = rng.below(2) == 0;
    config.options.nodelay = rng.below(2) == 0;
    config.options.user_timeout = if rng.below(4) == 0 { 30_000 } else { 0 };
    let offer = Offer {
        mss: rng.below(1500) as u16,
        scale: (rng.below(2) == 0).then(|| rng.below(15) as u8),
        sack: rng.below(2) == 0,
        time: rng.below(2) == 0,
        window: rng.next_u32() as u16,
    };
    let (mut solo, _) = Solo::syn_received(config, offer);
    if rng.below(8) > 0 {
        solo.get(ACK, b"");
    }
    let least = if seed % 4 == 1 { 700 } else { 1 };
    let d = solo.host.with(|c, e| c.set_low_water(&e.config.clone(), least));
    solo.host.note(d);
    for _ in 0..400 {
        match rng.below(16) {
            0..8 => {
                let (seg, data) = any_segment(&solo, &mut rng);
                solo.host.input(&seg, &data);
            }
            8 | 9 => {
                solo.host.send(&pattern(rng.below(5000) as usize));
            }
            10 => {
                let mut buf = vec![0; rng.below(3000) as usize];
                solo.host.with(|c, e| c.recv(e, &mut buf, false));
            }
            11 | 12 => solo.host.advance(ms(rng.below(2000).into())),
            13 => {
                solo.host.hold = rng.below(2) == 0;
                if !solo.host.hold {
                    solo.host.complete_all();
                }
            }
            14 => {
                let d = match rng.below(6) {
                    5 => {
                        solo.host.with(|c, _| c.set_user_timeout(rng.below(2) * 20_000));
                        Disposition::NONE
                    }
                    0 => solo.host.with(|c, _| c.set_cork(true)),
                    1 => solo.host.with(|c, _| c.set_cork(false)),
                    2 => solo.host.with(|c, e| c.set_mtu(e, 100 + rng.below(1400) as usize)),
                    3 => solo.host.with(|c, e| {
                        let mtu = rng.next_u32() as u16;
                        let una = c.hot.snd_una;
                        c.icmp_error(e, IcmpError::PacketTooBig { mtu }, una, false)
                    }),
                    _ => solo.host.with(|c, e| {
                        let config = e.config.clone();
                        c.set_receive_buffer(&config, rng.below(1 << 20))
                    }),
                };
                solo.host.note(d);
            }
            _ if rng.below(20) == 0 => match rng.below(3) {
                0 => solo.host.shutdown(),
                1 => solo.host.close(),
                _ => {
                    let d = solo.host.with(|c, e| c.abort(e));
                    solo.host.note(d);
                }
            },
            _ => {}
        }
        if rng.below(3) > 0 {
            let n = solo.host.output().len();
            assert!(n <= 256 + 64, "{n} segments at once");
            invariants(&solo.host);
        }
        if solo.host.state() == State::Closed {
            break;
        }
    }
    // Left alone, a closed connection ends by itself.
    solo.host.close();
    for _ in 0..2000 {
        if solo.host.state() == State::Closed {
            break;
        }
        solo.host.output();
        let next = solo.host.conn().deadline();
        assert!(next < Instant::NEVER, "seed {seed}: {:?}", solo.host.conn());
        solo.host.now = solo.host.now.max(next);
        solo.host.timer();
    }
    assert_eq!(solo.host.state(), State::Closed, "seed {seed}: {:?}", solo.host.conn());
    solo.host.finish();
}

#[test]
fn a_storm_of_segments_breaks_nothing() {
    for seed in 0..500 {
        storm(seed);
    }
}
