//! How a host is set up.

use crate::draw::Draw;
use crate::features::{Features, Has};
use crate::scenario::{address, mac};
use crate::side_plan::CONGESTION;
use ringroad::stack::tcp::SynCookies;
use ringroad::stack::{Config, Mode};
use ringroad::tcp::{self, EcnMode};
use ringroad::time::Duration;
use ringroad::wire::ethernet::Mac;

/// Listeners of each host.
pub const LISTENERS: usize = 3;

#[derive(Clone, Debug)]
pub struct ListenerPlan {
    pub port: u16,
    pub backlog: i32,
    /// Time from one `accept` to the next.
    pub pause: Duration,
    /// TCP_FASTOPEN and TCP_DEFER_ACCEPT as they are set.
    pub fast_open: i32,
    pub defer: i32,
    /// TCP_CONGESTION, for the connections that it accepts.
    pub congestion: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct HostPlan {
    pub config: Config,
    pub frames: u32,
    pub listeners: Vec<ListenerPlan>,
    /// Events that a wait takes at a time.
    pub wait: usize,
}

pub fn draw(n: usize, features: &Features, mtu: usize, frames: u32, d: &mut Draw) -> HostPlan {
    let has = features.has;
    let mut config = Config {
        mode: Mode::Owned,
        addresses: vec![(address(n).into(), 24)],
        mac: Mac(mac(n)),
        mtu,
        multi_buffer: true,
        raw_ip: has.contains(Has::RAW_IP),
        transmit_queue: if has.contains(Has::SMALL_RINGS) { d.pick(&[256, 32, 8]) } else { 4096 },
        ..Default::default()
    };
    // A program that closed is gone: that its last bytes arrive is still wanted.
    config.tcp.orphan_retries = 15;
    protocol(&mut config.tcp, has, d);
    if has.contains(Has::FEW_FRAMES) {
        config.tcp.frame_reserve = 16;
        config.tcp.frames_low = 48;
    }
    if has.contains(Has::SMALL_TABLES) {
        small_tables(&mut config, d);
    }
    if has.contains(Has::ODD_TIMES) {
        odd_times(&mut config.tcp, d);
    }
    if has.contains(Has::IMPATIENT) {
        config.tcp.retries = d.between(3, 8) as u8;
        config.tcp.syn_retries = d.between(1, 4) as u8;
        config.tcp.synack_retries = d.between(1, 4) as u8;
    }
    if has.contains(Has::COOKIES) {
        config.table.syn_cookies = d.pick(&[SynCookies::Always, SynCookies::Auto, SynCookies::Off]);
    }
    if has.contains(Has::ECN) {
        config.tcp.ecn = d.pick(&[EcnMode::Request, EcnMode::Request, EcnMode::Accept, EcnMode::Off]);
    }
    config.table.fast_open_server = has.contains(Has::FAST_OPEN);
    if has.contains(Has::WRAP) {
        // Before 2^32 by as much as the clock of 4 us goes in a few seconds and a
        // few hundred kilobytes of data.
        config.tcp.sequence_base = Some((d.spread(20) as u32).wrapping_neg());
    }
    if has.contains(Has::ODD_TIMES) {
        let us = Duration::from_micros;
        config.table.ack_spacing = d.pick(&[us(0), us(1), us(25), us(5000)]);
    }
    let slow = has.contains(Has::SLOW_ACCEPT);
    let listener = |i: usize, d: &mut Draw| ListenerPlan {
        port: 80 + i as u16,
        backlog: if has.contains(Has::SMALL_TABLES) { d.between(0, 4) as i32 } else { 256 },
        pause: if slow && d.one_in(2) { d.millis(500) } else { Duration::ZERO },
        fast_open: if has.contains(Has::FAST_OPEN) { d.pick(&[0, 1, 16]) } else { 0 },
        defer: if has.contains(Has::DEFERRED) { d.below(5) as i32 } else { 0 },
        congestion: (has.contains(Has::CHANGES) && d.one_in(2)).then(|| d.pick(&CONGESTION)),
    };
    let listeners = (0..LISTENERS).map(|i| listener(i, d)).collect();
    HostPlan { config, frames, listeners, wait: d.pick(&[1, 3, 64, 1024]) }
}

fn protocol(tcp: &mut tcp::Config, has: Has, d: &mut Draw) {
    let plain = has.contains(Has::PLAIN);
    tcp.options.timestamps = !(plain && d.one_in(3));
    tcp.options.sack = !(plain && d.one_in(3));
    tcp.options.window_scaling = !(plain && d.one_in(3));
    tcp.initial_window = if plain { d.pick(&[10, 2, 1]) } else { 10 };
    if has.contains(Has::SMALL_BUFFERS) {
        tcp.options.send_buffer = 1024 << d.below(7);
        tcp.options.receive_buffer = 1024 << d.below(7);
        if d.one_in(2) {
            tcp.max_receive_buffer = tcp.options.receive_buffer;
        }
    }
    if has.contains(Has::SMALL_SEGMENTS) {
        tcp.options.max_segment = d.between(88, 600) as u16;
    }
}

fn small_tables(config: &mut Config, d: &mut Draw) {
    config.neighbor.max_entries = d.between(2, 12) as usize;
    config.neighbor.max_queue = d.between(1, 4) as usize;
    config.table.syn_cookies = SynCookies::Off;
    config.table.max_half_open = d.between(1, 4) as usize;
    config.table.max_time_wait = d.between(1, 4) as usize;
    config.tcp.out_of_order_segments = d.between(16, 64) as u32;
    config.loop_queue = d.between(4, 32) as usize;
    config.fragment.max_datagrams = d.between(1, 4) as usize;
    config.datagram.max_datagrams = d.between(1, 4) as usize;
    if d.one_in(3) {
        config.table.max_connections = d.between(2, 8) as usize;
    }
}

/// Values at the edges of what each timer can be.
fn odd_times(tcp: &mut tcp::Config, d: &mut Draw) {
    let ms = Duration::from_millis;
    tcp.min_rto = d.pick(&[ms(1), ms(5), ms(200), ms(1000)]);
    tcp.initial_rto = d.pick(&[ms(1000), ms(3000), ms(200)]);
    tcp.max_rto = d.pick(&[ms(120_000), ms(60_000), ms(5_000)]);
    tcp.delayed_ack = d.pick(&[ms(0), ms(1), ms(40), ms(200), ms(499)]);
    tcp.quick_acks = d.pick(&[0, 1, 16, 255]);
    tcp.time_wait = d.pick(&[ms(1), ms(100), ms(1000), ms(60_000), ms(240_000)]);
    tcp.fin_wait_2 = d.pick(&[ms(1), ms(1000), ms(60_000)]);
    tcp.cork = d.pick(&[ms(1), ms(200), ms(1000)]);
    tcp.override_sws = d.pick(&[ms(1), ms(200), ms(1000)]);
    tcp.coalesce = d.pick(&[0, 1, 512, 1500]);
    tcp.challenge_acks = d.pick(&[1, 10, 1000]);
    tcp.invalid_ack_interval = d.pick(&[ms(0), ms(500), ms(5000)]);
}
