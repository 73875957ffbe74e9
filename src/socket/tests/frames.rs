//! Which packets the life of a connection with one request and one answer takes,
//! between programs that wait with epoll and do what they are woken for.

use super::*;
use crate::wire::trace::{Begins, Style, Tracer};

const PORT: u16 = 80;
const REQUEST: &[u8] = &[b'q'; 64];

/// Who is the first to close.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Server,
    Client,
}

/// The server on `b` and the client on `a`.
struct Programs {
    first: First,
    server: Handle,
    listener: Handle,
    client: Handle,
    socket: Handle,
    /// The client has asked; it has its answer and the end.
    asked: bool,
    done: bool,
}

impl Programs {
    fn new(net: &mut Net, first: First) -> Self {
        let listener = listen(&mut net.b, PORT, 16);
        let (server, client) = (net.b.epoll_create().unwrap(), net.a.epoll_create().unwrap());
        net.b.epoll_ctl(server, EPOLL_CTL_ADD, listener, EPOLLIN, listener.to_raw()).unwrap();
        let socket = tcp(&mut net.a);
        Self { first, server, listener, client, socket, asked: false, done: false }
    }

    fn connect(&mut self, net: &mut Net) {
        assert_eq!(net.a.connect(self.socket, addr(2, PORT)), Err(Errno::EINPROGRESS));
        net.a.epoll_ctl(self.client, EPOLL_CTL_ADD, self.socket, EPOLLIN | EPOLLOUT, 0).unwrap();
    }

    fn client(&mut self, net: &mut Net) {
        for (ready, _) in events(&mut net.a, self.client) {
            if ready & EPOLLOUT != 0 && !self.asked {
                self.asked = true;
                assert_eq!(net.a.send(self.socket, REQUEST, MSG_NOSIGNAL), Ok(REQUEST.len()));
                net.a.epoll_ctl(self.client, EPOLL_CTL_MOD, self.socket, EPOLLIN, 0).unwrap();
            } else if ready & EPOLLIN != 0 {
                let end = match recv(&mut net.a, self.socket).unwrap() {
                    answer if answer == REQUEST => self.first == First::Client,
                    nothing => nothing.is_empty() && self.first == First::Server,
                };
                if end {
                    net.a.close(self.socket).unwrap();
                    self.done = true;
                    return;
                }
            }
        }
    }

    fn serve(&self, net: &mut Net) {
        for (_, data) in events(&mut net.b, self.server) {
            let h = Handle::from_raw(data);
            if h == self.listener {
                while let Ok((new, _)) = net.b.accept(h) {
                    net.b.epoll_ctl(self.server, EPOLL_CTL_ADD, new, EPOLLIN, new.to_raw()).unwrap();
                }
                continue;
            }
            let text = recv(&mut net.b, h).unwrap();
            if !text.is_empty() {
                assert_eq!(net.b.send(h, &text, MSG_NOSIGNAL), Ok(text.len()));
            }
            if text.is_empty() || self.first == First::Server {
                net.b.close(h).unwrap();
            }
        }
    }
}

/// A packet as it is short to write: who sent it, its flags, the length of its payload.
fn short(tracer: &mut Tracer, from: char, bytes: &[u8]) -> String {
    let line = tracer.packet(Begins::Ethernet, bytes);
    let between = |a: &str, b: &str| line.split_once(a).unwrap().1.split(b).next().unwrap().to_string();
    let (flags, length) = (between("Flags [", "]"), line.rsplit_once("length ").unwrap().1);
    if length == "0" { format!("{from} {flags}") } else { format!("{from} {flags} {length}") }
}

/// Carries what one end sends to the other, in one batch, and notes it.
fn carry_noted(net: &mut Net, to_b: bool, tracer: &mut Tracer, seen: &mut Vec<String>) {
    net.now += Duration::from_micros(10);
    let (from, to, name) = if to_b { (&mut net.a, &mut net.b, 'c') } else { (&mut net.b, &mut net.a, 's') };
    let mut batch = Batch::new();
    let (pool, queue) = from.tx();
    while let Some(desc) = queue.pop() {
        let bytes = pool.tx_bytes(&desc).to_vec();
        pool.complete(desc.index());
        seen.push(short(tracer, name, &bytes));
        let mut frame = to.stack.core.pool.alloc().unwrap();
        to.stack.core.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
        frame.set_range(0, bytes.len());
        batch.push(Packet::single(frame));
    }
    to.receive(net.now, &mut batch);
}

/// The packets of a connection's life, of both ends in turns as workers have them:
/// what came in, the program, what goes out.
fn life(first: First) -> Vec<String> {
    let mut net = Net::new();
    // Neighbours know each other from a connection before.
    let (one, other, old) = net.connected(7);
    net.a.close(one).unwrap();
    net.b.close(other).unwrap();
    net.b.close(old).unwrap();
    net.run();
    let mut programs = Programs::new(&mut net, first);
    let (mut seen, mut tracer) = (Vec::new(), Tracer::new(Style::Modern));
    programs.connect(&mut net);
    for _ in 0..20 {
        programs.client(&mut net);
        net.a.turn(net.now);
        carry_noted(&mut net, true, &mut tracer, &mut seen);
        programs.serve(&mut net);
        net.b.turn(net.now);
        carry_noted(&mut net, false, &mut tracer, &mut seen);
    }
    // Whatever a timer would send.
    let end = net.now + Duration::from_secs(1);
    while let Some(at) = [&net.a, &net.b].into_iter().filter_map(|s| s.next_deadline()).min().filter(|&at| at < end) {
        net.now = net.now.max(at);
        net.a.turn(net.now);
        net.b.turn(net.now);
        carry_noted(&mut net, true, &mut tracer, &mut seen);
        carry_noted(&mut net, false, &mut tracer, &mut seen);
    }
    assert!(programs.done);
    assert_eq!(net.a.stack.tcp.connections() + net.b.stack.tcp.connections(), 0);
    seen
}

#[test]
fn a_life_whose_server_closes_takes_the_least_packets() {
    let least = ["c S", "s S.", "c P. 64", "s FP. 64", "c F.", "s ."];
    assert_eq!(life(First::Server), least);
}

#[test]
fn a_life_whose_client_closes_takes_one_more() {
    let least = ["c S", "s S.", "c P. 64", "s P. 64", "c F.", "s F.", "c ."];
    assert_eq!(life(First::Client), least);
}

#[test]
fn the_first_request_is_acknowledged_without_an_answer_too() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, PORT, 16);
    let client = tcp(&mut net.a);
    assert_eq!(net.a.connect(client, addr(2, PORT)), Err(Errno::EINPROGRESS));
    // SYN and SYN-ACK, and what is asked on the way.
    while !net.a.is_delivered(client) {
        assert!(net.step());
    }
    assert_eq!(net.a.send(client, REQUEST, 0), Ok(REQUEST.len()));
    net.a.turn(net.now);
    carry(&mut net.a, &mut net.b, net.now, false);
    let (server, _) = net.b.accept(listener).unwrap();
    let sent = |net: &mut Net| {
        net.b.turn(net.now);
        net.b.tx().1.len()
    };
    assert_eq!(sent(&mut net), 0, "the program has yet to learn of the request");
    assert!(!net.b.has_more_to_send(), "and a late turn does not send it either");
    assert_eq!(net.b.next_deadline(), Some(net.now), "and that is not slept through");
    assert_eq!(sent(&mut net), 1);
    assert_eq!(recv(&mut net.b, server).unwrap(), REQUEST);
}
