//! TCP sockets.

use super::*;
use crate::telemetry::DropReason;
use crate::tcp::State;

#[test]
fn bytes_go_both_ways_and_both_sides_close() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    assert_eq!(net.a.connect(client, addr(2, 80)), Ok(()));
    assert_eq!(net.a.connect(client, addr(2, 80)), Err(Errno::EISCONN));
    assert_eq!(net.a.peer_addr(client), Ok(addr(2, 80)));
    assert_eq!(net.b.local_addr(server), Ok(addr(2, 80)));
    assert_eq!(net.a.send(client, b"hello", 0), Ok(5));
    assert_eq!(recv(&mut net.b, server), Err(Errno::EAGAIN));
    net.run();
    assert_eq!(net.b.bytes_readable(server), Ok(5));
    assert_eq!(recv(&mut net.b, server).unwrap(), b"hello");
    assert_eq!(net.b.send(server, b"world", MSG_NOSIGNAL), Ok(5));
    net.run();
    assert_eq!(recv(&mut net.a, client).unwrap(), b"world");
    net.a.close(client).unwrap();
    net.run();
    assert_eq!(recv(&mut net.b, server), Ok(vec![]));
    net.b.close(server).unwrap();
    net.run();
    assert_eq!((net.a.stack.tcp.connections(), net.a.stack.tcp.waiting()), (0, 1));
    assert_eq!((net.b.stack.tcp.connections(), net.b.stack.tcp.waiting()), (0, 0));
    net.b.close(listener).unwrap();
    assert_eq!((net.a.open_handles(), net.b.open_handles()), (0, 0));
    net.pass(Duration::from_secs(61));
    assert_eq!(net.a.stack.tcp.waiting(), 0);
    assert_eq!(net.a.next_deadline(), None);
}

#[test]
fn a_megabyte_arrives_whole() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let data: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 + (i >> 8)) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < data.len() {
        match net.a.send(client, &data[sent..], 0) {
            Ok(n) => sent += n,
            Err(error) => assert!(error == Errno::EAGAIN || sent == data.len(), "{error}"),
        }
        net.step();
        net.now += Duration::from_micros(50);
        while let Ok(bytes) = recv(&mut net.b, server) {
            got.extend(bytes);
        }
    }
    assert!(got == data);
}

#[test]
fn half_close_lets_the_other_side_go_on() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    net.a.send(client, b"request", 0).unwrap();
    net.a.shutdown(client, SHUT_WR).unwrap();
    assert_eq!(net.a.send(client, b"more", 0), Err(Errno::EPIPE));
    net.run();
    assert_eq!(recv(&mut net.b, server).unwrap(), b"request");
    assert_eq!(recv(&mut net.b, server).unwrap(), b"");
    assert_eq!(net.b.readiness(server), Readiness::IN | Readiness::OUT | Readiness::RDHUP);
    net.b.send(server, b"answer", 0).unwrap();
    net.b.close(server).unwrap();
    net.run();
    assert_eq!(recv(&mut net.a, client).unwrap(), b"answer");
    assert_eq!(recv(&mut net.a, client).unwrap(), b"");
    assert!(net.a.readiness(client).contains(Readiness::HUP));
    // The connection is in TIME-WAIT already; the socket still answers.
    assert_eq!(net.a.stack.tcp.waiting(), 1);
    assert_eq!(net.a.send(client, b"x", 0), Err(Errno::EPIPE));
    net.a.close(client).unwrap();
    assert_eq!(net.a.stack.tcp.connections(), 0);
}

#[test]
fn a_refused_connection_says_so_once() {
    let mut net = Net::new();
    let client = tcp(&mut net.a);
    assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::EINPROGRESS));
    assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::EALREADY));
    assert_eq!(net.a.send(client, b"x", 0), Err(Errno::EAGAIN));
    assert_eq!(recv(&mut net.a, client), Err(Errno::EAGAIN));
    assert_eq!(net.a.peer_addr(client), Err(Errno::ENOTCONN));
    net.run();
    let ready = net.a.readiness(client);
    assert!(ready.contains(Readiness::ERR | Readiness::HUP | Readiness::OUT), "{ready:?}");
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_ERROR), Errno::ECONNREFUSED.raw());
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_ERROR), 0);
    assert_eq!(net.b.stack.core.counters.dropped(DropReason::TcpNoSocket), 1);
    // The socket may try again.
    assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::ECONNABORTED));
    listen(&mut net.b, 81, 1);
    assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::EINPROGRESS));
    net.run();
    assert_eq!(net.a.connect(client, addr(2, 81)), Ok(()));
}

#[test]
fn a_reset_is_an_error_once_and_then_the_end() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let mut linger = [0; 8];
    linger[0] = 1;
    net.b.set_option(server, SOL_SOCKET, SO_LINGER, &linger).unwrap();
    net.b.close(server).unwrap();
    net.run();
    assert_eq!(net.a.stack.tcp.connections() + net.b.stack.tcp.connections(), 1);
    assert_eq!(recv(&mut net.a, client), Err(Errno::ECONNRESET));
    assert_eq!(recv(&mut net.a, client), Ok(vec![]));
    assert_eq!(net.a.send(client, b"x", 0), Err(Errno::EPIPE));
    assert_eq!(net.a.shutdown(client, SHUT_RDWR), Err(Errno::ENOTCONN));
    net.a.close(client).unwrap();
    assert_eq!(net.a.stack.tcp.connections(), 0);
}

#[test]
fn unread_data_makes_a_close_a_reset() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    net.a.send(client, b"never read", 0).unwrap();
    net.run();
    net.b.close(server).unwrap();
    net.run();
    assert_eq!(net.a.send(client, b"x", 0), Err(Errno::ECONNRESET));
    assert_eq!(net.a.send(client, b"x", 0), Err(Errno::EPIPE));
}

#[test]
fn calls_in_the_wrong_state_get_linuxs_answers() {
    let mut net = Net::new();
    let s = &mut net.a;
    let h = tcp(s);
    assert_eq!(recv(s, h), Err(Errno::ENOTCONN));
    assert_eq!(s.send(h, b"x", 0), Err(Errno::EPIPE));
    assert_eq!(s.shutdown(h, SHUT_WR), Err(Errno::ENOTCONN));
    assert_eq!(s.shutdown(h, 3), Err(Errno::EINVAL));
    assert_eq!(s.peer_addr(h), Err(Errno::ENOTCONN));
    assert_eq!(s.accept(h).unwrap_err(), Errno::EINVAL);
    assert_eq!(s.readiness(h), Readiness::OUT | Readiness::HUP);
    assert_eq!(s.local_addr(h), Ok(SocketAddr::from(([0, 0, 0, 0], 0))));
    assert_eq!(s.bind(h, addr(9, 80)), Err(Errno::EADDRNOTAVAIL));
    let free = tcp(s);
    set(s, free, IPPROTO_IP, IP_FREEBIND, 1).unwrap();
    s.bind(free, addr(9, 80)).unwrap();
    assert_eq!(s.local_addr(free), Ok(addr(9, 80)));
    assert_eq!(s.bind(h, "[::1]:80".parse().unwrap()), Err(Errno::EAFNOSUPPORT));
    s.bind(h, addr(1, 80)).unwrap();
    assert_eq!(s.bind(h, addr(1, 81)), Err(Errno::EINVAL));
    s.listen(h, 1).unwrap();
    s.listen(h, 5).unwrap();
    assert_eq!(get(s, h, SOL_SOCKET, SO_ACCEPTCONN), 1);
    assert_eq!(s.connect(h, addr(2, 80)), Err(Errno::EISCONN));
    assert_eq!(recv(s, h), Err(Errno::ENOTCONN));
    assert_eq!(s.send(h, b"x", 0), Err(Errno::EPIPE));
    assert_eq!(s.accept(h).unwrap_err(), Errno::EAGAIN);
    assert_eq!(s.bytes_readable(h), Err(Errno::EINVAL));
    s.shutdown(h, SHUT_RD).unwrap();
    assert_eq!(get(s, h, SOL_SOCKET, SO_ACCEPTCONN), 0);
    s.close(h).unwrap();
    assert_eq!(s.close(h), Err(Errno::EBADF));
    assert_eq!(recv(s, h), Err(Errno::EBADF));
    let u = udp(s);
    assert_ne!(u, h);
    assert_eq!(s.listen(u, 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(s.accept(u).unwrap_err(), Errno::EOPNOTSUPP);
    assert_eq!(s.socket(1, SOCK_STREAM, 0).unwrap_err(), Errno::EAFNOSUPPORT);
    assert_eq!(s.socket(AF_INET, 5, 0).unwrap_err(), Errno::ESOCKTNOSUPPORT);
    assert_eq!(s.socket(AF_INET, SOCK_STREAM, 17).unwrap_err(), Errno::EPROTONOSUPPORT);
    let c = tcp(s);
    assert_eq!(s.connect(c, "192.168.7.7:80".parse().unwrap()), Err(Errno::ENETUNREACH));
    assert_eq!(s.connect(c, "[fd00::1]:80".parse().unwrap()), Err(Errno::EAFNOSUPPORT));
    assert_eq!(s.connect(c, "10.0.0.255:80".parse().unwrap()), Err(Errno::ENETUNREACH));
}

#[test]
fn a_neighbour_that_does_not_answer_is_no_route_to_host() {
    let mut net = Net::new();
    let client = tcp(&mut net.a);
    assert_eq!(net.a.connect(client, addr(77, 80)), Err(Errno::EINPROGRESS));
    net.pass(Duration::from_secs(10));
    assert_eq!(net.a.connect(client, addr(77, 80)), Err(Errno::EHOSTUNREACH));
    assert_eq!(net.a.stack.tcp.connections(), 0);
}

#[test]
fn a_connection_that_is_open_to_its_client_outlives_a_neighbour_that_is_silent_for_a_while() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 16);
    let client = tcp(&mut net.a);
    assert_eq!(net.a.connect(client, addr(2, 80)), Err(Errno::EINPROGRESS));
    // The client has the SYN-ACK, but nothing that it sends afterwards arrives, and
    // nobody answers who asks for the other's address.
    while net.a.connect(client, addr(2, 80)) == Err(Errno::EALREADY) {
        net.step();
    }
    net.lose = [true; 2];
    net.a.send(client, b"hello", 0).unwrap();
    net.pass(Duration::from_secs(20));
    assert_eq!(net.b.accept(listener).unwrap_err(), Errno::EAGAIN);
    net.lose = [false; 2];
    net.pass(Duration::from_secs(30));
    let (server, _) = net.b.accept(listener).unwrap();
    assert_eq!(recv(&mut net.b, server).unwrap(), b"hello");
}

#[test]
fn peek_trunc_and_more_do_what_they_say() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let segments = net.a.stack.core.counters.tcp_segments_out;
    net.a.send(client, b"one ", MSG_MORE).unwrap();
    net.run();
    assert_eq!(net.a.stack.core.counters.tcp_segments_out, segments);
    net.a.send(client, b"two", 0).unwrap();
    net.run();
    assert_eq!(net.a.stack.core.counters.tcp_segments_out, segments + 1);
    let mut buf = [0; 16];
    assert_eq!(net.b.recv(server, &mut buf, MSG_PEEK), Ok(7));
    assert_eq!(&buf[..7], b"one two");
    assert_eq!(net.b.recv(server, &mut buf[..4], MSG_TRUNC), Ok(4));
    assert_eq!(recv(&mut net.b, server).unwrap(), b"two");
    assert_eq!(net.b.recv(server, &mut buf, MSG_OOB), Err(Errno::EINVAL));
    let parts = [IoSlice::new(b"a"), IoSlice::new(b""), IoSlice::new(b"bc")];
    assert_eq!(net.b.send_vectored(server, &parts, 0), Ok(3));
    net.run();
    assert_eq!(recv(&mut net.a, client).unwrap(), b"abc");
}

#[test]
fn a_record_ends_with_msg_eor() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    for (flags, segments) in [(0, 1), (MSG_EOR, 2)] {
        let before = net.a.stack.core.counters.tcp_segments_out;
        net.a.send(client, b"one", flags).unwrap();
        net.a.send(client, b"two", 0).unwrap();
        net.run();
        assert_eq!(net.a.stack.core.counters.tcp_segments_out - before, segments);
        assert_eq!(recv(&mut net.b, server).unwrap(), b"onetwo");
    }
    // The record is the whole message, however many parts it is in.
    let before = net.a.stack.core.counters.tcp_segments_out;
    let parts = [IoSlice::new(b"one"), IoSlice::new(b"two")];
    assert_eq!(net.a.send_vectored(client, &parts, MSG_EOR), Ok(6));
    net.a.send(client, b"three", 0).unwrap();
    net.run();
    assert_eq!(net.a.stack.core.counters.tcp_segments_out - before, 2);
}

#[test]
fn what_is_to_be_held_back_is_also_where_the_first_attempt_came_too_early() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 16);
    let client = tcp(&mut net.a);
    assert_eq!(net.a.connect(client, addr(2, 80)), Err(Errno::EINPROGRESS));
    assert_eq!(net.a.send(client, b"one ", MSG_MORE), Err(Errno::EAGAIN));
    net.run();
    let (server, _) = net.b.accept(listener).unwrap();
    assert_eq!(net.a.send(client, b"one ", MSG_MORE), Ok(4));
    net.run();
    assert_eq!(recv(&mut net.b, server), Err(Errno::EAGAIN));
    net.a.send(client, b"two", 0).unwrap();
    net.run();
    assert_eq!(recv(&mut net.b, server).unwrap(), b"one two");
}

#[test]
fn a_stream_that_ends_with_an_urgent_byte_ends_for_who_only_looks_too() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    net.a.send(client, b"X", MSG_OOB).unwrap();
    net.a.shutdown(client, SHUT_WR).unwrap();
    net.run();
    let mut buf = [0; 4];
    assert_eq!(net.b.recv(server, &mut buf, MSG_PEEK), Ok(0));
    assert_eq!(net.b.recv(server, &mut buf, 0), Ok(0));
}

#[test]
fn no_frame_for_the_part_before_the_mark_is_said_and_loses_nothing() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    net.a.send(client, b"ab", MSG_MORE).unwrap();
    net.a.send(client, b"c", MSG_OOB).unwrap();
    net.run();
    let pool = &mut net.b.stack.core.pool;
    let taken: Vec<_> = core::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(net.b.zc_recv(server).unwrap_err(), Errno::ENOBUFS);
    for frame in taken {
        net.b.stack.core.pool.free(frame);
    }
    let frame = net.b.zc_recv(server).unwrap();
    assert_eq!(net.b.stack.core.pool.bytes(&frame), b"ab");
    net.b.zc_release(server, frame).unwrap();
    assert_eq!(net.b.zc_recv(server).unwrap_err(), Errno::EAGAIN);
    net.b.stack.assert_conserved();
}

#[test]
fn what_the_stack_was_told_holds_where_the_socket_says_nothing() {
    let mut a = config(1);
    let o = &mut a.tcp.options;
    (o.max_segment, o.user_timeout, o.window_clamp) = (600, 7000, 4000);
    (o.keep_idle, o.keep_interval, o.keep_count) = (11, 12, 13);
    o.oob_inline = true;
    let mut net = Net::with(a, config(2));
    let (client, ..) = net.connected(80);
    let conn = match net.a.table.get(client).unwrap().kind {
        Kind::Stream(conn) => net.a.stack.tcp.conn(conn),
        kind => panic!("{kind:?}"),
    };
    assert_eq!((conn.segment_size(), conn.user_timeout()), (600 - 12, 7000));
    assert_eq!((conn.keepalive_times(), conn.receive_buffer()), ((11, 12, 13), 4000));
    for (level, name, value) in [
        (IPPROTO_TCP, TCP_KEEPIDLE, 11),
        (IPPROTO_TCP, TCP_KEEPINTVL, 12),
        (IPPROTO_TCP, TCP_KEEPCNT, 13),
        (IPPROTO_TCP, TCP_USER_TIMEOUT, 7000),
        (IPPROTO_TCP, TCP_WINDOW_CLAMP, 4000),
        (SOL_SOCKET, SO_OOBINLINE, 1),
    ] {
        assert_eq!(get(&mut net.a, client, level, name), value, "{level} {name}");
    }
    // What the socket says comes first.
    set(&mut net.a, client, IPPROTO_TCP, TCP_KEEPIDLE, 99).unwrap();
    assert_eq!(get(&mut net.a, client, IPPROTO_TCP, TCP_KEEPIDLE), 99);
}

#[test]
fn shutdown_for_reading_ends_reads_at_once() {
    let mut net = Net::new();
    let (client, _server, _) = net.connected(80);
    let ep = net.a.epoll_create().unwrap();
    net.a.epoll_ctl(ep, EPOLL_CTL_ADD, client, EPOLLIN | EPOLLRDHUP, 1).unwrap();
    assert_eq!(events(&mut net.a, ep), []);
    net.a.shutdown(client, SHUT_RD).unwrap();
    assert_eq!(recv(&mut net.a, client), Ok(vec![]));
    assert_eq!(events(&mut net.a, ep), [(EPOLLIN | EPOLLRDHUP, 1)]);
}

#[test]
fn lost_segments_are_sent_again_by_the_wheel() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    net.lose[0] = true;
    net.a.send(client, b"lost at first", 0).unwrap();
    net.run();
    net.lose[0] = false;
    assert_eq!(recv(&mut net.b, server), Err(Errno::EAGAIN));
    net.pass(Duration::from_secs(3));
    assert_eq!(recv(&mut net.b, server).unwrap(), b"lost at first");
    assert!(net.a.stack.core.counters.tcp_retransmits > 0);
}

#[test]
fn a_silent_peer_times_out() {
    let mut net = Net::new();
    let (client, _server, _) = net.connected(80);
    set(&mut net.a, client, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000).unwrap();
    net.lose = [true; 2];
    net.a.send(client, b"into the void", 0).unwrap();
    net.pass(Duration::from_secs(30));
    assert_eq!(recv(&mut net.a, client), Err(Errno::ETIMEDOUT));
}

#[test]
fn keepalive_finds_a_dead_peer() {
    let mut net = Net::new();
    let (client, _server, _) = net.connected(80);
    set(&mut net.a, client, IPPROTO_TCP, TCP_KEEPIDLE, 10).unwrap();
    set(&mut net.a, client, IPPROTO_TCP, TCP_KEEPINTVL, 5).unwrap();
    set(&mut net.a, client, IPPROTO_TCP, TCP_KEEPCNT, 3).unwrap();
    set(&mut net.a, client, SOL_SOCKET, SO_KEEPALIVE, 1).unwrap();
    net.pass(Duration::from_secs(60));
    assert_eq!(recv(&mut net.a, client), Err(Errno::EAGAIN));
    net.lose = [true; 2];
    net.pass(Duration::from_secs(60));
    // Its neighbour was asked for meanwhile, and is gone too: that is the reason.
    assert_eq!(recv(&mut net.a, client), Err(Errno::EHOSTUNREACH));
}

#[test]
fn both_ends_in_one_stack_and_one_socket_with_itself() {
    let mut net = Net::new();
    let listener = listen(&mut net.a, 80, 4);
    for target in [addr(1, 80), "127.0.0.1:80".parse().unwrap(), "0.0.0.0:80".parse().unwrap()] {
        let client = tcp(&mut net.a);
        assert_eq!(net.a.connect(client, target), Err(Errno::EINPROGRESS));
        net.run();
        let (server, _) = net.a.accept(listener).unwrap();
        net.a.send(client, b"ping", 0).unwrap();
        net.run();
        assert_eq!(recv(&mut net.a, server).unwrap(), b"ping");
        net.a.close(client).unwrap();
        net.a.close(server).unwrap();
        net.run();
    }
    let own = tcp(&mut net.a);
    net.a.bind(own, addr(1, 4000)).unwrap();
    assert_eq!(net.a.connect(own, addr(1, 4000)), Err(Errno::EINPROGRESS));
    net.run();
    assert_eq!(net.a.connect(own, addr(1, 4000)), Ok(()));
    net.a.send(own, b"echo", 0).unwrap();
    net.run();
    assert_eq!(recv(&mut net.a, own).unwrap(), b"echo");
    net.a.close(own).unwrap();
    net.run();
}

#[test]
fn options_reach_the_connection() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 4);
    set(&mut net.b, listener, IPPROTO_TCP, TCP_NODELAY, 1).unwrap();
    let (client, server) = net.join(listener, 80);
    assert_eq!(get(&mut net.b, server, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_DOMAIN), AF_INET);
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    assert_eq!(get(&mut net.a, client, IPPROTO_IP, IP_MTU), 1500);
    assert_eq!(get(&mut net.a, client, IPPROTO_TCP, TCP_MAXSEG), 1448);
    let mut name = [0; 16];
    assert_eq!(net.a.get_option(client, IPPROTO_TCP, TCP_CONGESTION, &mut name), Ok(16));
    let text = name.split(|&b| b == 0).next().unwrap().to_vec();
    net.a.set_option(client, IPPROTO_TCP, TCP_CONGESTION, &text).unwrap();
    let unknown = net.a.set_option(client, IPPROTO_TCP, TCP_CONGESTION, b"nonesuch\0");
    assert_eq!(unknown, Err(Errno::ENOENT));
    let mut info = [0; 300];
    assert_eq!(net.a.get_option(client, IPPROTO_TCP, TCP_INFO, &mut info), Ok(280));
    assert_eq!(info[0], State::Established as u8);
    assert_eq!(net.b.get_option(listener, IPPROTO_TCP, TCP_INFO, &mut info), Ok(280));
    assert_eq!(info[0], State::Listen as u8);
    let u = udp(&mut net.a);
    let tcp_on_udp = net.a.get_option(u, IPPROTO_TCP, TCP_NODELAY, &mut info);
    assert_eq!(tcp_on_udp, Err(Errno::ENOPROTOOPT));
}

#[test]
fn frames_are_lent_and_taken_without_a_copy() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let mut frame = net.a.zc_alloc(client).unwrap();
    assert_eq!(net.a.lent_frames(), 1);
    net.a.stack.assert_conserved();
    net.a.stack.core.pool.bytes_mut(&mut frame)[..4].copy_from_slice(b"lent");
    frame.truncate(4);
    let copied = net.a.stack.core.counters.tx_copied_bytes;
    net.a.zc_send(client, frame).unwrap();
    assert_eq!(net.a.stack.core.counters.tx_copied_bytes, copied);
    net.run();
    let frame = net.b.zc_recv(server).unwrap();
    assert_eq!(net.b.stack.core.pool.bytes(&frame), b"lent");
    assert_eq!(net.b.zc_recv(server).unwrap_err(), Errno::EAGAIN);
    net.b.zc_release(server, frame).unwrap();
    assert_eq!((net.a.lent_frames(), net.b.lent_frames()), (0, 0));
    // Misuse: not the right handle, not from zc_alloc, and after the close.
    let other = tcp(&mut net.a);
    let frame = net.a.zc_alloc(client).unwrap();
    let (error, frame) = net.a.zc_send(other, frame).unwrap_err();
    assert_eq!(error, Errno::EINVAL);
    assert_eq!(net.a.zc_release(other, frame), Err(Errno::EINVAL));
    let stolen = net.a.stack.core.pool.alloc().unwrap();
    let (error, stolen) = net.a.zc_send(client, stolen).unwrap_err();
    assert_eq!(error, Errno::EINVAL);
    net.a.stack.core.pool.free(stolen);
    let frame = net.a.zc_alloc(client).unwrap();
    net.a.close(client).unwrap();
    let (error, frame) = net.a.zc_send(client, frame).unwrap_err();
    assert_eq!(error, Errno::EBADF);
    net.a.zc_release(client, frame).unwrap();
    net.run();
    assert_eq!(net.b.zc_recv(server).unwrap_err(), Errno::ESHUTDOWN);
    assert_eq!(net.a.lent_frames(), 0);
}

/// An ICMP error from host 2 to host 1 about the packet `quote`.
fn icmp_about(net: &mut Net, code: u8, quote: &[u8]) {
    use crate::wire::{icmpv4, ipv4};
    use zerocopy::IntoBytes;
    let mut bytes = vec![0; 14 + 20 + 8 + quote.len()];
    let len = icmpv4::build(&mut bytes[34..], icmpv4::UNREACHABLE, code, 0, 0, quote);
    let [src, dst] = [2, 1].map(|host| core::net::Ipv4Addr::new(10, 0, 0, host));
    let ip = ipv4::Header::new(src, dst, ipv4::ICMP, len, 64, 0, 0, 0);
    bytes[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    bytes[14..34].copy_from_slice(ip.as_bytes());
    let pool = &mut net.a.stack.core.pool;
    let mut frame = pool.alloc().unwrap();
    pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(&bytes);
    frame.set_range(0, bytes.len());
    let mut batch = Batch::new();
    batch.push(Packet::single(frame));
    net.a.receive(net.now, &mut batch);
}

#[test]
fn an_icmp_error_is_believed_only_about_what_is_under_way() {
    let mut net = Net::new();
    // The neighbour is known from here on.
    net.connected(80);
    let client = tcp(&mut net.a);
    assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::EINPROGRESS));
    net.a.turn(net.now);
    let (pool, queue) = net.a.tx();
    let desc = queue.pop().unwrap();
    let syn = pool.tx_bytes(&desc)[14..].to_vec();
    pool.complete(desc.index());
    let counters = |net: &Net| net.a.stack.core.counters.dropped(DropReason::IcmpQuoteInvalid);
    // Another sequence number, another port: nobody's.
    for at in [24, 20] {
        let mut wrong = syn.clone();
        wrong[at] ^= 0x55;
        let before = counters(&net);
        icmp_about(&mut net, 3, &wrong);
        assert_eq!(counters(&net), before + 1);
        assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::EALREADY));
    }
    icmp_about(&mut net, 3, &syn);
    assert_eq!(net.a.connect(client, addr(2, 81)), Err(Errno::ECONNREFUSED));
}

#[test]
fn connections_follow_a_neighbour_to_its_new_address() {
    use crate::stack::Neighbor;
    let mut net = Net::new();
    let (client, _, _) = net.connected(80);
    let new = Mac([2, 0, 0, 0, 9, 9]);
    net.a.stack.core.set_neighbor(addr(2, 0).ip(), Neighbor::Known(new));
    net.a.send(client, b"x", 0).unwrap();
    net.a.turn(net.now);
    let (pool, queue) = net.a.tx();
    let desc = queue.pop().unwrap();
    assert_eq!(pool.tx_bytes(&desc)[..6], new.0);
    pool.complete(desc.index());
}

#[test]
fn a_frame_that_does_not_fit_any_more_may_be_sent_later() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    set(&mut net.a, client, SOL_SOCKET, SO_SNDBUF, 1).unwrap();
    let frames = [net.a.zc_alloc(client).unwrap(), net.a.zc_alloc(client).unwrap()];
    let [first, second] = frames;
    let bytes = first.len() + second.len();
    net.a.zc_send(client, first).unwrap();
    let (error, second) = net.a.zc_send(client, second).unwrap_err();
    assert_eq!(error, Errno::EAGAIN);
    net.run();
    net.a.zc_send(client, second).unwrap();
    net.run();
    assert_eq!(net.b.bytes_readable(server), Ok(bytes));
}

#[test]
fn what_one_connection_learns_of_the_path_the_next_one_knows() {
    let mut net = Net::new();
    let (client, _, listener) = net.connected(80);
    net.a.send(client, &[0; 1448], 0).unwrap();
    net.a.turn(net.now);
    let (pool, queue) = net.a.tx();
    let desc = queue.pop().unwrap();
    let bytes = pool.tx_bytes(&desc)[14..].to_vec();
    pool.complete(desc.index());
    let mss = |s: &mut Sockets, h| get(s, h, IPPROTO_TCP, TCP_MAXSEG);
    // Not about what is under way: not believed.
    let mut wrong = bytes.clone();
    wrong[24] ^= 0x55;
    icmp_about(&mut net, 4, &wrong);
    assert_eq!((get(&mut net.a, client, IPPROTO_IP, IP_MTU), mss(&mut net.a, client)), (1500, 1448));
    // The router does not say which: the next smaller one in use.
    icmp_about(&mut net, 4, &bytes);
    assert_eq!((get(&mut net.a, client, IPPROTO_IP, IP_MTU), mss(&mut net.a, client)), (1492, 1440));
    let (second, _) = net.join(listener, 80);
    assert_eq!(mss(&mut net.a, second), 1440);
}

#[test]
fn the_window_stays_within_its_clamp() {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 16);
    set(&mut net.b, listener, IPPROTO_TCP, TCP_WINDOW_CLAMP, 20_000).unwrap();
    let (client, server) = net.join(listener, 80);
    assert_eq!(net.a.send(client, &[0; 200_000], 0), Ok(200_000));
    let waiting = |net: &mut Net| {
        net.pass(Duration::from_secs(1));
        net.b.bytes_readable(server).unwrap()
    };
    // Though all is read, time and again: the buffer does not grow beyond it.
    for _ in 0..6 {
        let n = waiting(&mut net);
        assert!((15_000..=20_000).contains(&n), "{n}");
        assert_eq!(net.b.recv(server, &mut vec![0; n], 0), Ok(n));
    }
    // Nor does a size that the program sets; until the bound rises.
    set(&mut net.b, server, SOL_SOCKET, SO_RCVBUF, 50_000).unwrap();
    assert!(waiting(&mut net) <= 20_000);
    set(&mut net.b, server, IPPROTO_TCP, TCP_WINDOW_CLAMP, 40_000).unwrap();
    assert!((35_000..=40_000).contains(&waiting(&mut net)));
    // No bound at all is for sockets that are not connected, the least is Linux's.
    assert_eq!(set(&mut net.b, server, IPPROTO_TCP, TCP_WINDOW_CLAMP, 0), Err(Errno::EINVAL));
    set(&mut net.b, server, IPPROTO_TCP, TCP_WINDOW_CLAMP, 1).unwrap();
    assert_eq!(get(&mut net.b, server, IPPROTO_TCP, TCP_WINDOW_CLAMP), 1152);
    let fresh = tcp(&mut net.a);
    set(&mut net.a, fresh, IPPROTO_TCP, TCP_WINDOW_CLAMP, 0).unwrap();
}

#[test]
fn readable_means_as_much_as_the_program_wants_at_a_time() {
    // SO_RCVLOWAT, socket(7).
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    assert_eq!(get(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT), 1);
    set(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT, 100).unwrap();
    let ep = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, 7).unwrap();
    let edge = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(edge, EPOLL_CTL_ADD, server, EPOLLIN | EPOLLET, 8).unwrap();
    net.a.send(client, &[1; 99], 0).unwrap();
    net.run();
    assert_eq!(net.b.readiness(server), Readiness::OUT);
    assert_eq!((events(&mut net.b, ep), events(&mut net.b, edge)), (vec![], vec![]));
    // A read that does not wait gets what there is.
    let mut buf = [0; 4096];
    assert_eq!(net.b.recv(server, &mut buf[..10], 0), Ok(10));
    net.a.send(client, &[1; 11], 0).unwrap();
    net.run();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
    assert_eq!((events(&mut net.b, edge), events(&mut net.b, edge)), (vec![(EPOLLIN, 8)], vec![]));
    assert_eq!(net.b.recv(server, &mut buf[..1], 0), Ok(1));
    assert_eq!(events(&mut net.b, ep), []);
    // Less is wanted: what waits is enough.
    set(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT, 50).unwrap();
    assert_eq!((events(&mut net.b, ep), events(&mut net.b, edge)), (vec![(EPOLLIN, 7)], vec![(EPOLLIN, 8)]));
    // The end is always worth a look.
    set(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT, 5000).unwrap();
    assert_eq!(events(&mut net.b, ep), []);
    net.a.shutdown(client, SHUT_WR).unwrap();
    net.run();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
    // What a listener has its connections have.
    set(&mut net.b, listener, SOL_SOCKET, SO_RCVLOWAT, 10).unwrap();
    let (client, server) = net.join(listener, 80);
    net.a.send(client, &[1; 9], 0).unwrap();
    net.run();
    assert_eq!(net.b.readiness(server), Readiness::OUT);
    net.a.send(client, &[1], 0).unwrap();
    net.run();
    assert_eq!(net.b.readiness(server), Readiness::IN | Readiness::OUT);
}

#[test]
fn so_rcvlowat_is_bounded_by_the_buffer_and_a_shut_window_is_readable_before_it() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let max = i32::try_from(net.b.stack.core.config.tcp.max_receive_buffer).unwrap();
    // A buffer that the program did not set grows to hold it.
    set(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT, 1 << 20).unwrap();
    assert_eq!(get(&mut net.b, server, SOL_SOCKET, SO_RCVBUF), 2 << 20);
    for (wanted, kept) in [(0, 1), (-1, max / 2), (max, max / 2), (1 << 20, 1 << 20)] {
        set(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT, wanted).unwrap();
        assert_eq!(get(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT), kept);
    }
    let second = listen(&mut net.b, 81, 1);
    let other = net.join(second, 81).1;
    set(&mut net.b, other, SOL_SOCKET, SO_RCVBUF, 10_000).unwrap();
    set(&mut net.b, other, SOL_SOCKET, SO_RCVLOWAT, 1 << 20).unwrap();
    assert_eq!(get(&mut net.b, other, SOL_SOCKET, SO_RCVLOWAT), 10_000);
    assert_eq!(get(&mut net.b, other, SOL_SOCKET, SO_RCVBUF), 20_000);
    assert_eq!(set(&mut net.b, other, SOL_SOCKET, SO_SNDLOWAT, 2), Err(Errno::ENOPROTOOPT));
    // As many fit as are wanted.
    let data = vec![1; 1 << 16];
    let mut sent = 0;
    while !net.b.readiness(server).contains(Readiness::IN) {
        sent += net.a.send(client, &data, 0).unwrap();
        net.run();
    }
    assert!((1 << 20..(1 << 20) + (1 << 17)).contains(&sent), "{sent}");
    // Here they do not: the window shuts before, and the program is told.
    let conn = tcp(&mut net.a);
    let small = listen(&mut net.b, 82, 1);
    set(&mut net.b, small, SOL_SOCKET, SO_RCVLOWAT, 1 << 20).unwrap();
    set(&mut net.b, small, SOL_SOCKET, SO_RCVBUF, 10_000).unwrap();
    assert_eq!(net.a.connect(conn, addr(2, 82)), Err(Errno::EINPROGRESS));
    net.run();
    let (server, _) = net.b.accept(small).unwrap();
    net.a.send(conn, &data[..5000], 0).unwrap();
    net.run();
    assert_eq!(net.b.readiness(server), Readiness::OUT);
    net.a.send(conn, &data[..20_000], 0).unwrap();
    net.run();
    assert_eq!(net.b.readiness(server), Readiness::IN | Readiness::OUT);
}

#[test]
fn what_is_more_than_a_turns_share_leaves_in_the_next_which_is_due_at_once() {
    let mut first = config(1);
    first.tcp.initial_window = 100;
    let mut net = Net::with(first, config(2));
    let (client, _, _) = net.connected(80);
    // The handshake's windows are not scaled; the ACK of a byte tells the real one.
    assert_eq!(net.a.send(client, b"x", 0), Ok(1));
    net.pass(Duration::from_millis(500));
    let all = 70 * 1448;
    assert_eq!(net.a.send(client, &vec![7; all], 0), Ok(all));
    net.a.turn(net.now);
    let share = net.a.tx().1.len();
    assert_eq!(share, (64 * 1024usize).div_ceil(1448));
    assert_eq!(net.a.next_deadline(), Some(net.now));
    net.a.turn(net.now);
    assert_eq!(net.a.tx().1.len(), 70);
    assert!(net.a.next_deadline().is_some_and(|at| at > net.now));
    net.run();
}
