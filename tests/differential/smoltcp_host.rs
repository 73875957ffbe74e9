//! smoltcp as the other.

use crate::script::Script;
use crate::{BUFFER, Host, OURS, PEER, PEER_PORT, PORT, State};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{self, Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;

/// A device of two queues.
#[derive(Default)]
struct Queues {
    rx: VecDeque<Vec<u8>>,
    tx: Vec<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let r = f(&mut bytes);
        self.0.push(bytes);
        r
    }
}

impl Device for Queues {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        Some((Rx(self.rx.pop_front()?), Tx(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

pub struct Smoltcp {
    device: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    now: Instant,
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms as i64)
}

impl Smoltcp {
    pub fn new(script: &Script) -> Self {
        let mut device = Queues::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = script.seed;
        let mut interface = Interface::new(config, &mut device, at(0));
        interface.update_ip_addrs(|all| all.push(IpCidr::new(OURS.into(), 24)).expect("room"));
        let buffer = || SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        if script.passive {
            socket.listen(PORT).expect("listen");
        } else {
            let peer = (IpAddress::from(PEER), PEER_PORT);
            socket.connect(interface.context(), peer, PORT).expect("connect");
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        Self { device, interface, sockets, handle, now: at(0) }
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        self.interface.poll(self.now, &mut self.device, &mut self.sockets);
        std::mem::take(&mut self.device.tx)
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket>(self.handle)
    }
}

impl Host for Smoltcp {
    fn input(&mut self, now: u64, packet: &[u8]) -> Vec<Vec<u8>> {
        self.now = self.now.max(at(now));
        self.device.rx.push_back(packet.to_vec());
        self.poll()
    }

    fn pass(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut all = self.poll();
        while let Some(next) = self.interface.poll_at(self.now, &self.sockets)
            && next <= at(now)
            && (next > self.now || !all.is_empty())
        {
            let before = self.now;
            self.now = self.now.max(next);
            let out = self.poll();
            if out.is_empty() && self.now == before {
                break;
            }
            all.extend(out);
        }
        self.now = self.now.max(at(now));
        all
    }

    fn write(&mut self, data: &[u8]) -> usize {
        self.socket().send_slice(data).unwrap_or(0)
    }

    fn read(&mut self) -> Vec<u8> {
        let mut buf = vec![0; 2 * BUFFER];
        let n = self.socket().recv_slice(&mut buf).unwrap_or(0);
        buf.truncate(n);
        buf
    }

    fn shutdown(&mut self) {
        self.socket().close();
    }

    fn abort(&mut self) {
        self.socket().abort();
    }

    fn state(&mut self) -> State {
        match self.socket().state() {
            tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived => State::Opening,
            tcp::State::Established => State::Established,
            tcp::State::FinWait1 => State::FinWait1,
            tcp::State::FinWait2 => State::FinWait2,
            tcp::State::CloseWait => State::CloseWait,
            tcp::State::Closing => State::Closing,
            tcp::State::LastAck => State::LastAck,
            tcp::State::TimeWait => State::TimeWait,
            tcp::State::Closed => State::Closed,
        }
    }
}
