//! The same operations of smoltcp, over Ethernet and with timestamps as ours are,
//! its other settings as it brings them. Nothing is allocated on the way.

use crate::meter::{Meter, Operation};
use crate::ours::{BURST, MESSAGE, SEGMENT};
use crate::tcp::Part;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use std::sync::atomic::{AtomicU32, Ordering};

const SERVER: (IpAddress, u16) = (IpAddress::v4(10, 0, 0, 1), 7);
/// Bytes of a socket's buffer: whole bursts, so that no segment is cut at its end.
const BUFFER: usize = 4 * BURST * SEGMENT;

/// Packets in buffers that are there already.
struct Fifo {
    slots: Vec<([u8; 1514], usize)>,
    first: usize,
    len: usize,
}

impl Fifo {
    fn new() -> Self {
        Self { slots: vec![([0; 1514], 0); 256], first: 0, len: 0 }
    }

    fn next(&mut self) -> &mut ([u8; 1514], usize) {
        let at = (self.first + self.len) % 256;
        self.len += 1;
        &mut self.slots[at]
    }

    fn take(&mut self) -> Option<&[u8]> {
        self.len = self.len.checked_sub(1)?;
        let (bytes, len) = &self.slots[self.first];
        self.first = (self.first + 1) % 256;
        Some(&bytes[..*len])
    }
}

struct Queues {
    rx: Fifo,
    tx: Fifo,
}

struct Rx<'a>(&'a [u8]);
struct Tx<'a>(&'a mut Fifo);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let slot = self.0.next();
        slot.1 = len;
        f(&mut slot.0[..len])
    }
}

impl Device for Queues {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx<'_>, Tx<'_>)> {
        Some((Rx(self.rx.take()?), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        (self.tx.len < 256).then_some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A stack with one socket.
struct End {
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    h: SocketHandle,
    buffer: Vec<u8>,
    now: Instant,
    /// Local ports used up.
    ports: u16,
}

fn stream() -> tcp::Socket<'static> {
    static CLOCK: AtomicU32 = AtomicU32::new(1);
    let room = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = tcp::Socket::new(room(), room());
    socket.set_tsval_generator(Some(|| CLOCK.fetch_add(1, Ordering::Relaxed)));
    socket
}

fn datagrams() -> udp::Socket<'static> {
    let room = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 16 * MESSAGE]);
    udp::Socket::new(room(), room())
}

impl End {
    fn new(host: u8, over: impl FnOnce(&mut SocketSet<'static>) -> SocketHandle) -> Self {
        let mut queues = Queues { rx: Fifo::new(), tx: Fifo::new() };
        let mac = EthernetAddress([2, 0, 0, 0, 0, host]);
        let mut config = Config::new(HardwareAddress::Ethernet(mac));
        config.random_seed = host.into();
        let now = Instant::from_secs(1);
        let mut interface = Interface::new(config, &mut queues, now);
        interface.update_ip_addrs(|all| all.push(IpCidr::new(IpAddress::v4(10, 0, 0, host), 24)).expect("room"));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let h = over(&mut sockets);
        Self { queues, interface, sockets, h, buffer: vec![7; BURST * SEGMENT], now, ports: 0 }
    }

    fn poll(&mut self) {
        self.interface.poll(self.now, &mut self.queues, &mut self.sockets);
    }

    fn tcp(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.h)
    }

    fn udp(&mut self) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(self.h)
    }

    fn connect(&mut self) {
        self.ports = self.ports % 10_000 + 1;
        let socket = self.sockets.get_mut::<tcp::Socket>(self.h);
        socket.connect(self.interface.context(), SERVER, 40_000 + self.ports).expect("closed");
    }

    /// Sends a message of this size.
    fn send(&mut self, n: usize) {
        let socket = self.sockets.get_mut::<tcp::Socket>(self.h);
        assert_eq!(socket.send_slice(&self.buffer[..n]), Ok(n));
    }

    /// Reads all there is.
    fn drain(&mut self) -> usize {
        let socket = self.sockets.get_mut::<tcp::Socket>(self.h);
        if socket.can_recv() { socket.recv_slice(&mut self.buffer).unwrap_or(0) } else { 0 }
    }

    /// A server's program: echoes, closes.
    fn serve(&mut self) {
        match self.drain() {
            0 if self.tcp().state() == tcp::State::CloseWait => self.tcp().close(),
            0 => {}
            n => self.send(n),
        }
    }

    /// A server's program for datagrams.
    fn answer(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket>(self.h);
        if let Ok((n, meta)) = socket.recv_slice(&mut self.buffer) {
            socket.send_slice(&self.buffer[..n], meta.endpoint).expect("room");
        }
    }
}

/// Moves up to `most` packets.
fn carry(from: &mut End, to: &mut End, most: usize) -> u64 {
    let mut n = 0;
    while n < most as u64
        && let Some(bytes) = from.queues.tx.take()
    {
        let slot = to.queues.rx.next();
        slot.0[..bytes.len()].copy_from_slice(bytes);
        slot.1 = bytes.len();
        n += 1;
    }
    let micro = smoltcp::time::Duration::from_micros(1);
    (from.now, to.now) = (from.now + micro, to.now + micro);
    n
}

/// Two ends, connected.
fn connected() -> (End, End) {
    let [mut near, mut far] = [1, 2].map(|host| End::new(host, |all| all.add(stream())));
    near.tcp().listen(SERVER.1).expect("closed");
    far.connect();
    while !far.tcp().may_send() || !near.tcp().may_send() {
        far.poll();
        carry(&mut far, &mut near, 64);
        near.poll();
        carry(&mut near, &mut far, 64);
    }
    (near, far)
}

pub struct Echo {
    near: End,
    far: End,
    both: bool,
}

impl Echo {
    pub fn new(both: bool) -> Self {
        let (near, mut far) = connected();
        far.send(MESSAGE);
        Self { near, far, both }
    }
}

impl Operation for Echo {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        let Self { near, far, both } = self;
        meter.count_if(*both, || far.poll());
        carry(far, near, 64);
        meter.count(|| {
            near.poll();
            near.serve();
            near.poll();
        });
        carry(near, far, 64);
        meter.count_if(*both, || {
            far.poll();
            assert_eq!(far.drain(), MESSAGE);
            far.send(MESSAGE);
        });
        1
    }
}

pub struct Bulk {
    near: End,
    far: End,
    part: Part,
}

impl Bulk {
    pub fn new(part: Part) -> Self {
        let (near, far) = connected();
        Self { near, far, part }
    }

    fn step_in(&mut self, meter: &mut Meter) -> u64 {
        let Self { near, far, .. } = self;
        far.send(BURST * SEGMENT);
        far.poll();
        let segments = carry(far, near, BURST);
        let mut read = 0;
        meter.count(|| {
            near.poll();
            read = near.drain();
            near.poll();
        });
        assert_eq!((segments, read), (BURST as u64, BURST * SEGMENT), "a burst is one batch");
        carry(near, far, 64);
        far.poll();
        segments
    }

    fn step_out(&mut self, meter: &mut Meter) -> u64 {
        let Self { near, far, part } = self;
        meter.count_if(*part == Part::Out, || {
            near.send(BURST * SEGMENT);
            near.poll();
        });
        assert_eq!(near.queues.tx.len, BURST, "a burst leaves at once");
        for _ in 0..BURST / 2 {
            carry(near, far, 2);
            far.poll();
            assert_eq!(far.drain(), 2 * SEGMENT);
        }
        let acks = carry(far, near, 64);
        meter.count_if(*part == Part::Acks, || near.poll());
        if *part == Part::Acks { acks } else { BURST as u64 }
    }
}

impl Operation for Bulk {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        if self.part == Part::In { self.step_in(meter) } else { self.step_out(meter) }
    }
}

pub struct Life {
    near: End,
    far: End,
}

impl Life {
    pub fn new() -> Self {
        let [near, far] = [1, 2].map(|host| End::new(host, |all| all.add(stream())));
        Self { near, far }
    }
}

impl Operation for Life {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        let Self { near, far } = self;
        meter.count(|| near.tcp().listen(SERVER.1).expect("closed"));
        far.connect();
        let mut hop = |near: &mut End, far: &mut End| {
            far.poll();
            carry(far, near, 64);
            meter.count(|| {
                near.poll();
                near.serve();
                near.poll();
            });
            carry(near, far, 64);
            far.poll();
        };
        while near.tcp().state() != tcp::State::Established {
            hop(near, far);
        }
        far.tcp().close();
        while near.tcp().state() != tcp::State::Closed {
            hop(near, far);
        }
        // No TIME-WAIT in the way of the next one; what that sends is lost.
        far.tcp().abort();
        far.poll();
        while far.queues.tx.take().is_some() {}
        1
    }
}

pub struct Datagram {
    near: End,
    far: End,
}

impl Datagram {
    pub fn new() -> Self {
        let [mut near, mut far] = [1, 2].map(|host| End::new(host, |all| all.add(datagrams())));
        near.udp().bind(SERVER.1).expect("free");
        far.udp().bind(SERVER.1).expect("free");
        Self { near, far }
    }
}

impl Operation for Datagram {
    fn step(&mut self, meter: &mut Meter) -> u64 {
        let Self { near, far } = self;
        far.udp().send_slice(&[7; MESSAGE], IpEndpoint::from(SERVER)).expect("room");
        let mut buffer = [0; MESSAGE];
        // The first one waits until the address is resolved.
        while !far.udp().can_recv() {
            far.poll();
            carry(far, near, 64);
            meter.count(|| {
                near.poll();
                near.answer();
                near.poll();
            });
            carry(near, far, 64);
            far.poll();
        }
        assert_eq!(far.udp().recv_slice(&mut buffer).map(|r| r.0), Ok(MESSAGE));
        1
    }
}
