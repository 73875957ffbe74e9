//! Arbitrary segments, program calls and clock steps for a connection.

use super::Choices;
use super::bench::{Bench, config, segment};
use crate::tcp::{Connection, IcmpError, State};
use crate::time::Duration;
use crate::wire::tcp::{Flags, Options, SackBlock, Segment};

const IRS: u32 = u32::MAX - 700;

/// Opens a connection by choice and does to it what the choices say. At every
/// step the invariants of [`Bench`] hold: no frame is lost, the bytes read are
/// the peer's stream and those that leave are ours, no announced window is taken
/// back, no timer spins, what is outstanding is watched; and at the end the
/// connection, closed and left alone, goes away by itself.
pub fn state_machine(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let config = config(&mut choices);
    let frames = choices.pick(&[512, 128]);
    let mtu = choices.pick(&[1500, 576, 68]);
    let mut bench = if choices.one_in(3) {
        Bench::new(config, frames, |env, template, options, initial| {
            Connection::connect(env, template, options, initial, mtu)
        })
    } else {
        let mut syn = segment(Flags::SYN, IRS, 0, choices.short(), 0);
        syn.options = syn_options(&mut choices);
        Bench::new(config, frames, |env, template, options, initial| {
            Connection::accept(env, template, options, initial, mtu, &syn)
        })
    };
    bench.set_apart(choices.one_in(2));
    let (_, flush) = bench.output();
    bench.check_rest(flush);
    if choices.one_in(4) {
        // Straight on to an established connection, more often than by chance.
    } else {
        shake_hands(&mut bench, &mut choices);
    }
    while !choices.is_done() && bench.state() != State::Closed {
        step(&mut bench, &mut choices);
    }
    bench.end();
}

fn syn_options(choices: &mut Choices) -> Options {
    let bits = choices.byte();
    Options {
        mss: (bits & 1 == 0).then(|| choices.pick(&[1460, 536, 48, 1, 0, 65_535])),
        window_scale: (bits & 2 == 0).then(|| choices.below(16) as u8),
        sack_permitted: bits & 4 == 0,
        timestamp: (bits & 8 == 0).then_some((5000, 0)),
        ..Options::default()
    }
}

fn shake_hands(bench: &mut Bench, choices: &mut Choices) {
    let Connection { hot, warm, cold, .. } = bench.conn();
    let mut seg = match hot.state {
        State::SynSent => segment(Flags::SYN | Flags::ACK, IRS, hot.snd_nxt, choices.short(), 0),
        _ => segment(Flags::ACK, cold.irs.wrapping_add(1), hot.snd_nxt, choices.short(), 0),
    };
    if hot.state == State::SynSent {
        seg.options = syn_options(choices);
        seg.options.timestamp = seg.options.timestamp.map(|t| (t.0, warm.ts_offset));
    } else if hot.bits.contains(crate::tcp::connection::Bits::TIMESTAMPS) {
        seg.options.timestamp = Some((5000, bench.conn().ts_now(bench.now)));
    }
    let _ = bench.input(&seg, 0);
    let (_, flush) = bench.output();
    bench.check_rest(flush);
}

fn step(bench: &mut Bench, choices: &mut Choices) {
    match choices.below(24) {
        0..=9 => {
            let seg = any_segment(bench, choices);
            let cut = if choices.one_in(8) { choices.below(1200) as usize } else { 0 };
            let _ = bench.input(&seg, cut);
        }
        10..=12 => {
            let n = choices.short() as usize >> choices.below(16);
            bench.write(n);
        }
        13 | 14 => {
            let n = choices.short() as usize >> choices.below(12);
            bench.read(n, choices.one_in(6));
        }
        15 => {
            // A turn ends with a flush: no time passes between them.
            let _ = bench.output();
            let _ = bench.advance(Duration::from_micros(u64::from(choices.short()) * 20));
        }
        16 => {
            let _ = bench.output();
            let _ = bench.advance(Duration::from_secs(1 << choices.below(24)));
        }
        17 | 20 => program(bench, choices),
        18 => icmp(bench, choices),
        19 => {
            bench.complete_all();
            bench.hold = choices.one_in(2);
        }
        _ => {}
    }
    if !choices.one_in(3) && bench.state() != State::Closed {
        let (out, flush) = bench.output();
        assert!(out.len() <= 512, "{} segments at once", out.len());
        bench.check_rest(flush);
    }
}

/// What the program does seldom.
fn program(bench: &mut Bench, choices: &mut Choices) {
    match choices.below(20) {
        12 => bench.write_urgent(),
        13 | 14 => bench.read_urgent(choices.one_in(2)),
        15..=17 => bench.read_frame(),
        18 => bench.set_apart(choices.one_in(2)),
        0 | 1 => {
            let _ = bench.with(|c, _| c.shutdown_send());
        }
        2 => {
            let _ = bench.with(|c, e| c.close(e));
        }
        3 => {
            let _ = bench.with(|c, e| c.abort(e));
        }
        4 | 5 => {
            let on = choices.one_in(2);
            let _ = bench.with(|c, _| c.set_cork(on));
        }
        6 => {
            bench.with(|c, _| c.take_error());
        }
        7 | 8 => {
            let mtu = 60 + choices.below(1500) as usize;
            let _ = bench.with(|c, e| c.set_mtu(e, mtu));
        }
        _ => {
            bench.with(|c, _| c.fed());
        }
    }
    bench.check();
}

fn icmp(bench: &mut Bench, choices: &mut Choices) {
    let h = &bench.conn().hot;
    let quoted = choices.pick(&[h.snd_una, h.snd_nxt, h.snd_nxt.wrapping_sub(1), 0]);
    let error = match choices.below(5) {
        0 => IcmpError::PacketTooBig { mtu: choices.short() },
        1 => IcmpError::Unreachable,
        2 => IcmpError::NetworkUnreachable,
        3 => IcmpError::ProtocolUnreachable,
        _ => IcmpError::PortUnreachable,
    };
    let _ = bench.with(|c, e| c.icmp_error(e, error, quoted, false));
    bench.check();
}

/// A number near `base`, or anywhere.
fn near(choices: &mut Choices, base: u32) -> u32 {
    match choices.below(8) {
        0..=3 => base,
        4 => base.wrapping_add(choices.byte().into()),
        5 => base.wrapping_sub(choices.byte().into()),
        6 => base.wrapping_add_signed((choices.short() as i16).into()),
        _ => choices.word(),
    }
}

/// A segment of a peer that may be honest, confused or an attacker.
fn any_segment(bench: &Bench, choices: &mut Choices) -> Segment {
    let h = &bench.conn().hot;
    let flags = match choices.below(16) {
        0..=8 => Flags::ACK,
        9 => Flags::ACK | Flags::PSH,
        10 => Flags::ACK | Flags::FIN,
        11 => Flags::RST,
        12 => Flags::SYN,
        13 => Flags::SYN | Flags::ACK,
        14 => Flags::ACK | Flags::URG,
        _ => Flags::from_bits_retain(choices.byte()),
    };
    let edge = if choices.one_in(6) { h.rcv_edge } else { h.rcv_nxt };
    let at = near(choices, edge);
    let sent = h.snd_nxt.wrapping_sub(h.snd_una);
    let within = h.snd_una.wrapping_add(u32::from(choices.short()) % sent.clamp(1, 65_536));
    let base = choices.pick(&[h.snd_una, h.snd_nxt, within]);
    let ack = near(choices, base);
    let window = choices.pick(&[60_000, 0, 1, choices.0.len() as u16, u16::MAX]);
    let len = if choices.one_in(2) { choices.short() as usize % 1461 } else { 0 };
    let mut seg = segment(flags, at, ack, window, len);
    seg.urgent = if flags.contains(Flags::URG) { choices.short() } else { 0 };
    let o = &mut seg.options;
    if h.bits.contains(crate::tcp::connection::Bits::TIMESTAMPS) != choices.one_in(16) {
        let value = near(choices, h.ts_recent);
        o.timestamp = Some((value, near(choices, bench.conn().ts_now(bench.now))));
    }
    for _ in 0..choices.below(8).saturating_sub(3) {
        let left = near(choices, within);
        let right = left.wrapping_add(u32::from(choices.short()) >> choices.below(12));
        let _ = o.sack.try_push(SackBlock { left, right });
    }
    if choices.one_in(32) {
        (o.mss, o.window_scale) = (Some(choices.short()), Some(choices.byte()));
    }
    seg
}
