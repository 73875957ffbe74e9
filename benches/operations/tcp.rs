//! Operations of our stack, on the near end of a pair.

use crate::meter::{Meter, Operation};
use crate::ours::{MESSAGE, PLAIN, Pair, SERVER, Shape};
use ringroad::socket::Handle;
use ringroad::socket::linux::*;
use ringroad::time::Duration;
use std::ops::Range;

/// A message there and back: at both ends, or at the server alone.
pub struct Echo {
    pair: Pair,
    near: Handle,
    both: bool,
}

impl Echo {
    pub fn new(both: bool) -> Self {
        let (mut pair, far, near) = Pair::connected(PLAIN);
        pair.far.begin(far);
        Self { pair, near, both }
    }

    /// Where the near end's connection lies, and how many bytes of that are asked for ahead.
    pub fn place(&self) -> (Range<usize>, usize) {
        self.pair.near.sockets.place(self.near).expect("a stream")
    }
}

impl Operation for Echo {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        let Self { pair, both, .. } = self;
        meter.count_if(*both, || pair.far.sockets.turn(pair.now));
        pair.carry_near(64);
        meter.count(|| pair.near_serves());
        pair.carry_far(64);
        let mut answered = false;
        meter.count_if(*both, || {
            pair.far_receive();
            answered = pair.far.ask();
        });
        assert!(answered, "a round trip a step");
        1
    }
}

/// What of a burst's way is counted.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    /// Bursts leave: written, cut, summed, queued.
    Out,
    /// Bursts come in: received as one batch, read, acknowledged.
    In,
    /// ACKs of two segments each come in, those of a burst as one batch.
    Acks,
}

/// Bursts of full segments in one direction.
pub struct Bulk {
    pair: Pair,
    from: Handle,
    part: Part,
}

impl Bulk {
    pub fn new(part: Part, shape: Shape) -> Self {
        let (mut pair, far, near) = Pair::connected(shape);
        if part == Part::In {
            for _ in 0..50 {
                pair.far.send_burst(far);
                open_window(&mut pair, true);
            }
            return Self { pair, from: far, part };
        }
        for _ in 0..50 {
            pair.near.send_burst(near);
            open_window(&mut pair, false);
        }
        Self { pair, from: near, part }
    }

    fn step_in(&mut self, meter: &mut Meter) -> u64 {
        let pair = &mut self.pair;
        let Shape { burst, segment, .. } = pair.shape;
        pair.far.send_burst(self.from);
        pair.far_turn();
        pair.carry_near(burst);
        let segments = pair.batch.len();
        let mut read = 0;
        meter.count(|| {
            pair.near_receive();
            read = pair.near.drain();
            pair.near.sockets.turn(pair.now);
        });
        assert_eq!((segments, read), (burst, burst * segment), "a burst is one batch");
        pair.carry_far(64);
        pair.far_turn();
        segments as u64
    }

    fn step_out(&mut self, meter: &mut Meter) -> u64 {
        let pair = &mut self.pair;
        let Shape { burst, segment, .. } = pair.shape;
        meter.count_if(self.part == Part::Out, || {
            pair.near.send_burst(self.from);
            pair.near.sockets.turn(pair.now);
        });
        let segments = pair.near.sockets.tx().1.len();
        assert_eq!(segments, burst, "a burst leaves at once");
        for _ in 0..burst / 2 {
            pair.carry_far(2);
            pair.far_receive();
            assert_eq!(pair.far.drain(), 2 * segment);
            pair.far.sockets.turn(pair.now);
        }
        pair.carry_near(64);
        let acks = pair.batch.len();
        meter.count_if(self.part == Part::Acks, || pair.near_turn());
        if self.part == Part::Acks { acks as u64 } else { segments as u64 }
    }
}

/// Carries a burst to its end, two segments at a time: the windows grow.
fn open_window(pair: &mut Pair, inwards: bool) {
    let Shape { burst, segment, .. } = pair.shape;
    let mut read = 0;
    while read < burst * segment {
        pair.far_turn();
        pair.carry_near(2);
        pair.near_receive();
        read += if inwards { pair.near.drain() } else { 0 };
        pair.near.sockets.turn(pair.now);
        pair.carry_far(2);
        pair.far_receive();
        read += if inwards { 0 } else { pair.far.drain() };
    }
    for _ in 0..burst {
        pair.far_turn();
        pair.carry_near(64);
        pair.near_turn();
        pair.carry_far(64);
        pair.now += Duration::from_millis(1);
    }
    pair.far_turn();
}

impl Operation for Bulk {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        if self.part == Part::In { self.step_in(meter) } else { self.step_out(meter) }
    }
}

/// A connection from its SYN to its end, at the server.
pub struct Life(Pair);

impl Life {
    pub fn new() -> Self {
        // The address is resolved by a connection before.
        Self(Pair::connected(PLAIN).0)
    }
}

impl Operation for Life {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        let pair = &mut self.0;
        let mut hop = |pair: &mut Pair| {
            pair.far_turn();
            pair.carry_near(64);
            meter.count(|| pair.near_serves());
            pair.carry_far(64);
            pair.far_receive();
        };
        let h = pair.far.connect(SERVER);
        hop(pair); // SYN
        hop(pair); // ACK
        assert_eq!(pair.near.sockets.stack.tcp.connections(), 2);
        pair.far.sockets.close(h).expect("open");
        hop(pair); // FIN
        hop(pair); // ACK of the near end's FIN
        assert_eq!(pair.near.sockets.stack.tcp.connections(), 1);
        1
    }
}

/// A datagram and its answer, at the server.
pub struct Datagram {
    pair: Pair,
    far: Handle,
}

impl Datagram {
    pub fn new() -> Self {
        let mut pair = Pair::new();
        let near = pair.near.sockets.socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
        pair.near.sockets.bind(near, SERVER).expect("a free port");
        pair.near.watch(near);
        let far = pair.far.connect_datagrams(SERVER);
        Self { pair, far }
    }
}

impl Operation for Datagram {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        let pair = &mut self.pair;
        pair.far.send_message(self.far);
        // The first one waits until the address is resolved.
        let mut came = 0;
        while came == 0 {
            pair.far_turn();
            pair.carry_near(64);
            meter.count(|| {
                pair.near_receive();
                pair.near.answer();
                pair.near.sockets.turn(pair.now);
            });
            pair.carry_far(64);
            pair.far_receive();
            came = pair.far.read(self.far);
        }
        assert_eq!(came, MESSAGE);
        1
    }
}
