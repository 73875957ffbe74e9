//! What one side of a connection does.

use crate::draw::Draw;
use crate::features::{Features, Has};
use ringroad::socket::linux::*;
use ringroad::time::Duration;

/// How a program learns that a socket is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// It tries whenever its host does anything.
    Always,
    /// It waits for level-triggered epoll events, and asks for what it waits for.
    Level,
    /// It waits for edge-triggered epoll events, and then does all it can.
    Edge,
    /// It waits for an event, and asks again each time.
    OneShot,
}

/// How a side ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `shutdown` after the last byte, `close` after the peer's end.
    Shutdown,
    /// `close` after the last byte, whatever the peer does.
    Close,
    /// SO_LINGER zero and `close`, once this many bytes went either way.
    Abort(u64),
    /// As `Shutdown`, with SO_LINGER of some seconds set before.
    Linger(i32),
}

/// A socket option that a program sets.
pub type Setting = (i32, i32, i32);

#[derive(Clone, Debug)]
pub struct SidePlan {
    pub send: u64,
    pub end: End,
    pub drive: Drive,
    /// It goes on until nothing more can be done at once.
    pub greedy: bool,
    /// Bytes in a call of `send`, at most.
    pub write_chunk: usize,
    /// Bytes in a call of `recv`, at most.
    pub read_chunk: usize,
    /// Time from one `recv` to the next, and from one `send` to the next.
    pub read_pause: Duration,
    pub write_pause: Duration,
    /// After so many bytes it does not read for so long.
    pub stop: Option<(u64, Duration)>,
    /// Whether it lends frames, and how long it keeps them.
    pub lend: Option<Duration>,
    /// Whether a client opens with its first data.
    pub early: bool,
    /// Whether it sends lent frames.
    pub alloc: bool,
    /// Whether it uses peeks, vectors and MSG_MORE.
    pub flags: bool,
    /// The number of the byte that it sends as urgent, and whether it reads the
    /// peer's with the others (SO_OOBINLINE).
    pub urgent: Option<u64>,
    pub inline: bool,
    /// It ends only after it has read the peer's end.
    pub last: bool,
    /// Set before the connection begins or is accepted.
    pub settings: Vec<Setting>,
    /// The name of its congestion control, where it names one.
    pub congestion: Option<&'static str>,
    /// Set after so many bytes went either way.
    pub changes: Vec<(u64, Setting)>,
    /// Another congestion control, after so many bytes.
    pub switch: Option<(u64, &'static str)>,
}

/// All that the stack knows, in the order of its numbers.
pub const CONGESTION: [&str; 4] = ["reno", "cubic", "bbr", "dctcp"];

pub fn draw(features: &Features, most: u64, d: &mut Draw) -> SidePlan {
    let has = features.has;
    let bits = u64::from(most.max(2).ilog2());
    let mut send = d.spread(bits);
    if has.contains(Has::BIG) && d.one_in(2) {
        send = most;
    }
    let slow = has.contains(Has::READ_PAUSES) && d.one_in(4);
    let slow_writer = has.contains(Has::WRITE_PAUSES) && d.one_in(4);
    let stops = has.contains(Has::LONG_PAUSES) && d.one_in(2);
    // Many bytes in tiny pieces take for ever; that is no hang.
    let pieces = if slow || slow_writer { 500 } else { 4000 };
    let least = (most / pieces).max(1) as usize;
    let drive = d.pick(&[Drive::Always, Drive::Level, Drive::Level, Drive::Edge, Drive::Edge, Drive::OneShot]);
    SidePlan {
        send,
        end: end(has, send, d),
        drive,
        greedy: matches!(drive, Drive::Always | Drive::Edge) || d.one_in(2),
        write_chunk: least + d.spread(16) as usize,
        read_chunk: if slow || d.one_in(4) { least.max(100) + d.spread(12) as usize } else { 65_536 },
        read_pause: if slow { d.millis(60) } else { Duration::ZERO },
        write_pause: if slow_writer { d.millis(60) } else { Duration::ZERO },
        stop: stops.then(|| (d.spread(bits), d.millis(90_000))),
        lend: (has.contains(Has::ZERO_COPY) && d.one_in(2)).then(|| if d.one_in(2) { Duration::ZERO } else { d.millis(30) }),
        early: has.contains(Has::FAST_OPEN) && d.one_in(2),
        alloc: has.contains(Has::ZERO_COPY) && d.one_in(2),
        flags: has.contains(Has::FLAGS) && d.one_in(2),
        urgent: (has.contains(Has::URGENT) && send > 0 && d.one_in(2)).then(|| d.below(send)),
        inline: has.contains(Has::URGENT) && d.one_in(2),
        last: false,
        settings: settings(has, d),
        congestion: (has.contains(Has::OPTIONS) && d.one_in(3)).then(|| d.pick(&CONGESTION)),
        changes: changes(has, bits, d),
        switch: (has.contains(Has::CHANGES) && d.one_in(2)).then(|| (d.below(send + 1), d.pick(&CONGESTION))),
    }
}

fn end(has: Has, send: u64, d: &mut Draw) -> End {
    if has.contains(Has::ABORTS) && d.one_in(4) {
        return End::Abort(d.below(2 * send + 2));
    }
    if has.contains(Has::EARLY_CLOSE) && d.one_in(4) {
        return End::Close;
    }
    if has.contains(Has::OPTIONS) && d.one_in(6) { End::Linger(d.between(1, 10) as i32) } else { End::Shutdown }
}

fn settings(has: Has, d: &mut Draw) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut set = |level, name, value| all.push((level, name, value));
    // Without it, who waits for a peer that is gone waits for ever.
    let gone = Has::ODD_TIMES | Has::LONG_PAUSES | Has::RESTARTS | Has::CUT_FOR_EVER | Has::ADDRESSES | Has::ABORTS | Has::EARLY_CLOSE | Has::IMPATIENT;
    if has.intersects(gone | Has::KEEPALIVE | Has::REOPENED | Has::SMALL_TABLES | Has::COOKIES | Has::FAST_OPEN | Has::DEFERRED) {
        let quick = has.contains(Has::IMPATIENT) && d.one_in(2);
        set(SOL_SOCKET, SO_KEEPALIVE, 1);
        set(IPPROTO_TCP, TCP_KEEPIDLE, if quick { 1 } else { 20 });
        set(IPPROTO_TCP, TCP_KEEPINTVL, if quick { 1 } else { 5 });
        set(IPPROTO_TCP, TCP_KEEPCNT, if quick { 3 } else { 9 });
    }
    if has.contains(Has::IMPATIENT) && d.one_in(2) {
        set(IPPROTO_TCP, TCP_USER_TIMEOUT, d.between(50, 10_000) as i32);
    }
    if has.contains(Has::USER_TIMEOUT) {
        // Longer than anything that is to be outlived, both ways.
        if d.one_in(2) {
            set(IPPROTO_TCP, TCP_USER_TIMEOUT, d.between(7_200_000, 14_400_000) as i32);
        }
        set(IPPROTO_TCP, RR_TCP_UTO, 1);
    }
    if has.contains(Has::OPTIONS) {
        set(IPPROTO_TCP, TCP_NODELAY, d.below(2) as i32);
        if d.one_in(6) {
            set(IPPROTO_TCP, TCP_CORK, 1);
        }
        if d.one_in(6) {
            set(IPPROTO_TCP, TCP_QUICKACK, 1);
        }
        if d.one_in(4) {
            set(SOL_SOCKET, SO_SNDBUF, 1024 << d.below(9));
        }
        if d.one_in(4) {
            set(SOL_SOCKET, SO_RCVBUF, 1024 << d.below(9));
        }
        if has.contains(Has::SMALL_SEGMENTS) {
            set(IPPROTO_TCP, TCP_MAXSEG, d.between(88, 1000) as i32);
        }
    }
    all
}

fn changes(has: Has, bits: u64, d: &mut Draw) -> Vec<(u64, Setting)> {
    if !has.contains(Has::CHANGES) {
        return Vec::new();
    }
    let mut all: Vec<_> = (0..d.below(6)).map(|_| (d.spread(bits + 1), change(d))).collect();
    all.sort_by_key(|c| std::cmp::Reverse(c.0));
    all
}

fn change(d: &mut Draw) -> Setting {
    let (on, size) = (d.below(2) as i32, 1024 << d.below(8));
    let idle = d.between(20, 60) as i32;
    d.pick(&[
        (IPPROTO_TCP, TCP_NODELAY, on),
        (IPPROTO_TCP, TCP_CORK, on),
        (IPPROTO_TCP, TCP_QUICKACK, on),
        (SOL_SOCKET, SO_SNDBUF, size),
        (SOL_SOCKET, SO_RCVBUF, size),
        (IPPROTO_TCP, TCP_KEEPIDLE, idle),
        (SOL_SOCKET, SO_KEEPALIVE, 1),
        (IPPROTO_IP, IP_TOS, 0x10),
    ])
}
