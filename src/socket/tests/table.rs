//! Bounds, ports, queues: what happens at the edges of the tables.

use super::*;
use crate::telemetry::DropReason;

fn dropped(s: &Sockets, reason: DropReason) -> u64 {
    s.stack.core.counters.dropped(reason)
}

#[test]
fn a_full_accept_queue_drops_and_recovers() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 1);
    let clients: Vec<_> = (0..4).map(|_| tcp(&mut net.a)).collect();
    for &client in &clients {
        let _ = net.a.connect(client, addr(2, 80));
        net.run();
    }
    // A backlog of one lets two through, as in Linux.
    assert!(dropped(&net.b, DropReason::TcpAcceptQueueFull) >= 2);
    let mut accepted = 0;
    for _ in 0..20 {
        while net.b.accept(listener).is_ok() {
            accepted += 1;
        }
        net.pass(Duration::from_secs(1));
    }
    assert_eq!(accepted, 4);
    assert!(clients.iter().all(|&c| net.a.connect(c, addr(2, 80)) == Ok(())));
}

#[test]
fn a_third_ack_that_finds_the_accept_queue_full_is_dropped() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 1);
    let first = tcp(&mut net.a);
    let _ = net.a.connect(first, addr(2, 80));
    net.run();
    // Both SYNs in one batch: they pass the check of the accept queue, which has
    // room for one more.
    for _ in 0..2 {
        let client = tcp(&mut net.a);
        let _ = net.a.connect(client, addr(2, 80));
    }
    net.run();
    assert_eq!(net.b.stack.tcp.connections(), 3);
    assert_eq!(dropped(&net.b, DropReason::TcpAcceptQueueFull), 1);
    net.b.accept(listener).unwrap();
    net.b.accept(listener).unwrap();
    assert!(net.b.accept(listener).is_err());
    net.pass(Duration::from_secs(4));
    net.b.accept(listener).unwrap();
}

#[test]
fn a_full_syn_queue_drops_syns() {
    let mut b = config(2);
    b.table.max_half_open = 2;
    b.table.syn_cookies = crate::stack::tcp::SynCookies::Off;
    let mut net = Net::with(config(1), b);
    listen(&mut net.b, 80, 100);
    // Resolve the neighbour both ways before the answers are lost.
    let first = tcp(&mut net.a);
    let _ = net.a.connect(first, addr(2, 80));
    net.run();
    net.lose[1] = true;
    for _ in 0..5 {
        let client = tcp(&mut net.a);
        let _ = net.a.connect(client, addr(2, 80));
    }
    net.run();
    assert_eq!(dropped(&net.b, DropReason::TcpSynQueueFull), 3);
    assert_eq!(net.b.stack.tcp.connections(), 3);
    // Half-open connections that nobody answers are given up.
    net.pass(Duration::from_secs(300));
    assert_eq!(net.b.stack.tcp.connections(), 1);
}

#[test]
fn a_full_table_refuses_both_ways() {
    let (mut a, mut b) = (config(1), config(2));
    a.table.max_connections = 3;
    b.table.max_connections = 2;
    let mut net = Net::with(a, b);
    listen(&mut net.b, 80, 100);
    for i in 0..4 {
        let client = tcp(&mut net.a);
        let expected = if i < 3 { Errno::EINPROGRESS } else { Errno::ENOBUFS };
        assert_eq!(net.a.connect(client, addr(2, 80)), Err(expected));
        net.run();
    }
    assert!(dropped(&net.b, DropReason::TcpTableFull) >= 1);
    assert_eq!(net.b.stack.tcp.connections(), 2);
}

#[test]
fn handles_are_bounded() {
    let mut c = config(1);
    c.table.max_sockets = 3;
    let mut s = sockets(c, 1);
    let h = tcp(&mut s);
    udp(&mut s);
    s.epoll_create().unwrap();
    assert_eq!(s.socket(AF_INET, SOCK_STREAM, 0).unwrap_err(), Errno::EMFILE);
    assert_eq!(s.socket(AF_INET, SOCK_DGRAM, 0).unwrap_err(), Errno::EMFILE);
    assert_eq!(s.epoll_create().unwrap_err(), Errno::EMFILE);
    s.close(h).unwrap();
    let again = tcp(&mut s);
    assert_ne!(again, h);
    assert_eq!(s.readiness(h), Readiness::empty());
}

#[test]
fn ephemeral_ports_run_out() {
    let mut a = config(1);
    a.ephemeral_ports = (5000, 5003);
    let mut net = Net::with(a, config(2));
    listen(&mut net.b, 80, 100);
    listen(&mut net.b, 81, 100);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let client = tcp(&mut net.a);
        assert_eq!(net.a.connect(client, addr(2, 80)), Err(Errno::EINPROGRESS));
        seen.push(net.a.local_addr(client).unwrap().port());
    }
    seen.sort_unstable();
    assert_eq!(seen, [5000, 5001, 5002, 5003]);
    let fifth = tcp(&mut net.a);
    assert_eq!(net.a.connect(fifth, addr(2, 80)), Err(Errno::EADDRNOTAVAIL));
    // To another peer the same ports are free.
    assert_eq!(net.a.connect(fifth, addr(2, 81)), Err(Errno::EINPROGRESS));
    let bound = tcp(&mut net.a);
    assert_eq!(net.a.bind(bound, addr(1, 0)), Err(Errno::EADDRINUSE));
}

#[test]
fn a_port_in_time_wait_is_taken_without_reuse_addr() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    net.b.close(server).unwrap();
    net.run();
    net.a.close(client).unwrap();
    net.b.close(listener).unwrap();
    net.run();
    assert_eq!(net.b.stack.tcp.waiting(), 1);
    let again = tcp(&mut net.b);
    assert_eq!(net.b.bind(again, addr(2, 80)), Err(Errno::EADDRINUSE));
    set(&mut net.b, again, SOL_SOCKET, SO_REUSEADDR, 1).unwrap();
    net.b.bind(again, addr(2, 80)).unwrap();
    net.b.listen(again, 1).unwrap();
    net.b.close(again).unwrap();
    net.pass(Duration::from_secs(61));
    let last = tcp(&mut net.b);
    net.b.bind(last, addr(2, 80)).unwrap();
}

#[test]
fn a_new_connection_may_replace_one_in_time_wait() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    let local = net.a.local_addr(client).unwrap();
    net.b.close(server).unwrap();
    net.run();
    net.a.close(client).unwrap();
    net.run();
    assert_eq!(net.b.stack.tcp.waiting(), 1);
    net.pass(Duration::from_millis(20));
    let client = tcp(&mut net.a);
    net.a.bind(client, local).unwrap();
    assert_eq!(net.a.connect(client, addr(2, 80)), Err(Errno::EINPROGRESS));
    net.run();
    assert_eq!(net.b.stack.tcp.waiting(), 0);
    assert_eq!(net.b.accept(listener).unwrap().1, local);
}

#[test]
fn time_wait_is_bounded_and_the_oldest_goes() {
    let mut a = config(1);
    a.table.max_time_wait = 2;
    let mut net = Net::with(a, config(2));
    let listener = listen(&mut net.b, 80, 10);
    for _ in 0..5 {
        let (client, server) = net.join(listener, 80);
        net.a.close(client).unwrap();
        net.run();
        net.b.close(server).unwrap();
        net.run();
    }
    assert_eq!(net.a.stack.tcp.waiting(), 2);
}

#[test]
fn flags_that_no_segment_has_are_dropped() {
    use crate::wire::tcp::Flags;
    let mut net = Net::new();
    let (client, _, _) = net.connected(80);
    let template = |s: &Sockets| {
        let core = &s.stack.core;
        let link = crate::tcp::Link::Ethernet { src: core.interface().mac, dst: Mac([2, 0, 0, 0, 0, 2]) };
        crate::tcp::Template::new(link, addr(1, 1234), addr(2, 80), 64, 0)
    };
    let t = template(&net.a);
    let reply = crate::tcp::Reply { seq: 1, ack: None, reset: false, window: 0, timestamp: None };
    let core = &mut net.a.stack.core;
    assert!(t.send(&mut core.pool, &mut core.tx, &reply));
    net.run();
    assert_eq!(dropped(&net.b, DropReason::TcpBadFlags), 1);
    // A FIN without an ACK to a listener is no reason for an RST.
    let core = &mut net.a.stack.core;
    assert!(t.send(&mut core.pool, &mut core.tx, &reply));
    let desc = core.tx.pop().unwrap();
    let mut bytes = core.pool.tx_bytes(&desc).to_vec();
    core.pool.complete(desc.index());
    bytes[14 + 20 + 13] = Flags::FIN.bits();
    let sum = u16::from_be_bytes([bytes[50], bytes[51]]) - 1;
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    let mut frame = net.b.stack.core.pool.alloc().unwrap();
    net.b.stack.core.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
    frame.set_range(0, bytes.len());
    let mut batch = Batch::new();
    batch.push(Packet::single(frame));
    net.b.receive(net.now, &mut batch);
    assert_eq!(dropped(&net.b, DropReason::TcpBadFlags), 2);
    assert_eq!(net.b.stack.core.counters.tcp_resets_out, 0);
    let _ = client;
}

#[test]
fn a_closed_listener_resets_what_it_did_not_hand_out() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 10);
    let client = tcp(&mut net.a);
    let _ = net.a.connect(client, addr(2, 80));
    net.run();
    net.b.close(listener).unwrap();
    net.run();
    assert_eq!(net.b.stack.tcp.connections(), 0);
    assert_eq!(recv(&mut net.a, client), Err(Errno::ECONNRESET));
}

#[test]
fn a_reuse_port_group_shares_the_connections() {
    let mut net = Net::new();
    let group: Vec<_> = (0..3)
        .map(|_| {
            let h = tcp(&mut net.b);
            set(&mut net.b, h, SOL_SOCKET, SO_REUSEPORT, 1).unwrap();
            net.b.bind(h, addr(2, 80)).unwrap();
            net.b.listen(h, 100).unwrap();
            h
        })
        .collect();
    for _ in 0..60 {
        let client = tcp(&mut net.a);
        let _ = net.a.connect(client, addr(2, 80));
    }
    net.run();
    for h in group {
        let mut n = 0;
        while net.b.accept(h).is_ok() {
            n += 1;
        }
        assert!(n >= 5, "{n} of 60");
    }
}

#[test]
fn many_connections_come_and_go() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 2000);
    for round in 0..3 {
        let clients: Vec<_> = (0..500).map(|_| tcp(&mut net.a)).collect();
        for &c in &clients {
            let _ = net.a.connect(c, addr(2, 80));
        }
        net.run();
        for &c in &clients {
            net.a.send(c, b"hi", 0).unwrap();
        }
        net.run();
        let mut servers = Vec::new();
        while let Ok((s, _)) = net.b.accept(listener) {
            assert_eq!(recv(&mut net.b, s).unwrap(), b"hi");
            servers.push(s);
        }
        assert_eq!(servers.len(), 500, "round {round}");
        for c in clients {
            net.a.close(c).unwrap();
        }
        net.run();
        for s in servers {
            net.b.close(s).unwrap();
        }
        net.run();
    }
    assert_eq!((net.a.stack.tcp.connections(), net.b.stack.tcp.connections()), (0, 0));
    assert_eq!(net.a.held_frames() + net.b.held_frames(), 0);
    net.pass(Duration::from_secs(70));
    assert_eq!(net.a.stack.tcp.waiting() + net.b.stack.tcp.waiting(), 0);
}

#[test]
fn who_found_no_frame_is_told_when_there_are_some() {
    let mut net = Net::new();
    let (client, _server, _) = net.connected(80);
    let ep = net.a.epoll_create().unwrap();
    net.a.epoll_ctl(ep, EPOLL_CTL_ADD, client, EPOLLOUT | EPOLLET, 1).unwrap();
    assert_eq!(events(&mut net.a, ep).len(), 1);
    let pool = &mut net.a.stack.core.pool;
    let hoard: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(net.a.send(client, b"x", 0), Err(Errno::EAGAIN));
    assert_eq!(net.a.zc_alloc(client).unwrap_err(), Errno::EAGAIN);
    net.a.turn(net.now);
    assert_eq!(events(&mut net.a, ep), []);
    // Until then there is no room, and who sleeps wakes up to look.
    assert!(!net.a.readiness(client).contains(Readiness::OUT));
    assert!(net.a.next_deadline().is_some_and(|at| at <= net.now + Duration::from_millis(1)));
    hoard.into_iter().for_each(|frame| net.a.stack.core.pool.free(frame));
    net.a.turn(net.now);
    assert_eq!(events(&mut net.a, ep), [(EPOLLOUT, 1)]);
    assert_eq!(net.a.send(client, b"x", 0), Ok(1));
}

#[test]
fn a_connection_that_talks_leaves_no_heap_of_timers_behind() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    for (s, h) in [(&mut net.a, client), (&mut net.b, server)] {
        set(s, h, SOL_SOCKET, SO_KEEPALIVE, 1).unwrap();
    }
    for _ in 0..300 {
        net.a.send(client, b"ping", 0).unwrap();
        net.pass(Duration::from_millis(500));
        assert_eq!(recv(&mut net.b, server).unwrap(), b"ping");
    }
    for s in [&net.a, &net.b] {
        let entries = s.stack.tcp.wheel_entries();
        assert!(entries < 10, "{entries} entries for one connection");
    }
    // The far timer comes all the same, and at its time.
    for (name, value) in [(TCP_KEEPIDLE, 100), (TCP_KEEPINTVL, 45), (TCP_KEEPCNT, 1)] {
        set(&mut net.a, client, IPPROTO_TCP, name, value).unwrap();
    }
    net.lose = [true; 2];
    net.pass(Duration::from_secs(143));
    assert_eq!(recv(&mut net.a, client), Err(Errno::EAGAIN));
    net.pass(Duration::from_secs(3));
    assert_eq!(recv(&mut net.a, client), Err(Errno::ETIMEDOUT));
}

#[test]
fn a_syn_that_nobody_wants_does_not_end_time_wait() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    let port = net.a.local_addr(client).unwrap().port();
    net.a.close(client).unwrap();
    net.run();
    net.b.close(server).unwrap();
    net.b.close(listener).unwrap();
    net.pass(Duration::from_secs(2));
    assert_eq!(net.a.stack.tcp.waiting(), 1);
    // The other side opens with the same addresses and ports.
    let again = tcp(&mut net.b);
    net.b.bind(again, addr(2, 80)).unwrap();
    assert_eq!(net.b.connect(again, addr(1, port)), Err(Errno::EINPROGRESS));
    net.pass(Duration::from_secs(3));
    assert_eq!(net.a.stack.tcp.waiting(), 1);
    assert_eq!(net.b.connect(again, addr(1, port)), Err(Errno::EALREADY));
}
