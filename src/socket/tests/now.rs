//! The short ways, beside the long ones.

use super::*;

/// What `a` wrote arrives at `b`, whose program is next.
fn arrive(net: &mut Net) {
    net.a.turn(net.now);
    assert!(carry(&mut net.a, &mut net.b, net.now, false));
}

/// A connection whose window is open, and was not in the SYN; what `a` writes leaves at
/// once.
fn open(net: &mut Net) -> (Handle, Handle, Handle) {
    let (client, server, listener) = net.connected(80);
    set(&mut net.a, client, IPPROTO_TCP, TCP_NODELAY, 1).unwrap();
    net.a.send(client, b"first", 0).unwrap();
    net.run();
    assert_eq!(recv(&mut net.b, server), Ok(b"first".to_vec()));
    net.pass(Duration::from_secs(1));
    (client, server, listener)
}

#[test]
fn a_small_message_is_read_by_the_short_way_and_nothing_else_is() {
    let mut net = Net::new();
    let (client, server, listener) = open(&mut net);
    let mut buf = [0; 200];
    assert_eq!(net.b.recv_now(server, &mut buf, 0), 0, "there is nothing");
    net.a.send(client, b"abc", 0).unwrap();
    arrive(&mut net);
    assert_eq!(net.b.recv_now(server, &mut buf[..2], 0), 0, "it does not fit");
    for flags in [MSG_PEEK, MSG_WAITALL, MSG_OOB, MSG_TRUNC] {
        assert_eq!(net.b.recv_now(server, &mut buf, flags), 0);
    }
    assert_eq!(net.b.recv_now(listener, &mut buf, 0), 0);
    assert_eq!(net.b.bytes_readable(server), Ok(3));
    assert_eq!((net.b.recv_now(server, &mut buf, MSG_DONTWAIT), &buf[..3]), (3, &b"abc"[..]));
    assert_eq!((net.b.recv_now(server, &mut buf, 0), net.b.recv(server, &mut buf, 0)), (0, Err(Errno::EAGAIN)));
    // A turn later, and of several segments, and of too many bytes.
    net.a.send(client, b"late", 0).unwrap();
    net.run();
    assert_eq!((net.b.recv_now(server, &mut buf, 0), recv(&mut net.b, server)), (0, Ok(b"late".to_vec())));
    net.a.send(client, &[7; 129], 0).unwrap();
    arrive(&mut net);
    assert_eq!((net.b.recv_now(server, &mut buf, 0), recv(&mut net.b, server)), (0, Ok(vec![7; 129])));
    net.a.send(client, &[8; 128], 0).unwrap();
    arrive(&mut net);
    assert_eq!((net.b.recv_now(server, &mut buf, 0), &buf[..128]), (128, &[8; 128][..]));
    set(&mut net.b, server, SOL_SOCKET, SO_RCVLOWAT, 10).unwrap();
    net.a.send(client, b"few", 0).unwrap();
    arrive(&mut net);
    assert_eq!((net.b.recv_now(server, &mut buf, 0), recv(&mut net.b, server)), (0, Ok(b"few".to_vec())), "one may wait for more");
    net.run();
    net.b.stack.assert_conserved();
    net.b.close(server).unwrap();
    assert_eq!(net.b.recv_now(server, &mut buf, 0), 0, "closed");
}

#[test]
fn a_small_message_is_sent_by_the_short_way_and_nothing_else_is() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    assert_eq!(net.b.send_now(server, b"", 0), 0);
    assert_eq!(net.b.send_now(server, &[7; 97], 0), 0, "too much");
    assert_eq!(net.b.send_now(server, b"x", MSG_MORE), 0);
    assert_eq!(net.b.send_now(listener, b"x", 0), 0);
    assert_eq!(net.b.send_now(server, &[1; 96], MSG_NOSIGNAL), 96);
    assert_eq!(net.b.send_now(server, b"2", 0), 0, "behind what is not acknowledged");
    assert_eq!(net.b.send(server, b"2", 0), Ok(1));
    net.run();
    let got = recv(&mut net.a, client).unwrap();
    assert_eq!((&got[..96], &got[96..]), (&[1; 96][..], &b"2"[..]));
    assert_eq!(net.b.send(server, b"m", MSG_MORE), Ok(1));
    net.pass(Duration::from_secs(1));
    assert_eq!(net.b.send_now(server, b"x", 0), 0, "a send with MSG_MORE went before");
    assert_eq!(net.b.send(server, b"x", 0), Ok(1));
    net.run();
    assert_eq!(recv(&mut net.a, client), Ok(b"mx".to_vec()));
    net.b.shutdown(server, SHUT_WR).unwrap();
    assert_eq!((net.b.send_now(server, b"x", 0), net.b.send(server, b"x", 0)), (0, Err(Errno::EPIPE)));
    net.run();
    net.b.stack.assert_conserved();
}

#[test]
fn one_level_triggered_member_is_found_by_the_short_way() {
    let mut net = Net::new();
    let (client, server, listener) = open(&mut net);
    let ep = net.b.epoll_create().unwrap();
    assert_eq!((net.b.epoll_now(ep), net.b.epoll_now(server)), (None, None));
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN | EPOLLRDNORM, 7).unwrap();
    net.a.send(client, b"abc", 0).unwrap();
    arrive(&mut net);
    let found = Some(EpollEvent { events: EPOLLIN | EPOLLRDNORM, data: 7 });
    // The first event goes to the list; the second finds it there, and tells nothing new.
    for _ in 0..2 {
        events(&mut net.b, ep);
        assert_eq!((net.b.epoll_now(ep), net.b.epoll_now(ep)), (found, found));
        net.a.send(client, b"def", 0).unwrap();
        arrive(&mut net);
    }
    recv(&mut net.b, server).unwrap();
    assert_eq!((net.b.epoll_now(ep), events(&mut net.b, ep)), (None, vec![]));
    net.b.shutdown(server, SHUT_RD).unwrap();
    assert_eq!((net.b.epoll_now(ep), events(&mut net.b, ep)), (None, vec![(EPOLLIN | EPOLLRDNORM, 7)]));
    net.b.epoll_ctl(ep, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLET, 7).unwrap();
    assert_eq!((net.b.epoll_now(ep), events(&mut net.b, ep)), (None, vec![(EPOLLIN, 7)]));
    // Two on the list.
    net.b.epoll_ctl(ep, EPOLL_CTL_MOD, server, EPOLLIN, 7).unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, listener, EPOLLIN, 8).unwrap();
    let second = tcp(&mut net.a);
    let _ = net.a.connect(second, addr(2, 80));
    net.run();
    assert_eq!((net.b.epoll_now(ep), events(&mut net.b, ep).len()), (None, 2));
    net.b.close(server).unwrap();
    net.b.close(listener).unwrap();
    assert_eq!((net.b.epoll_now(ep), events(&mut net.b, ep)), (None, vec![]));
    net.b.close(ep).unwrap();
    assert_eq!(net.b.epoll_now(ep), None);
}

#[test]
fn a_small_datagram_goes_the_short_ways_and_nothing_else_does() {
    let mut net = Net::new();
    let (server, client, stream) = (udp(&mut net.b), udp(&mut net.a), tcp(&mut net.a));
    net.b.bind(server, addr(2, 53)).unwrap();
    let SocketAddr::V4(to) = addr(2, 53) else { unreachable!("it is one") };
    let ask = |net: &mut Net, data: &[u8]| {
        assert_eq!(net.a.send_to(client, data, 0, Some(to.into()), &SendMeta::default()), Ok(data.len()));
        net.run();
    };
    assert_eq!(net.a.send_to_now(client, b"ask", 0, to), 0, "it has no port");
    ask(&mut net, b"ask");
    let mut buf = [0; 200];
    assert_eq!(net.b.recv_from_now(server, &mut buf[..2], 0), None, "it does not fit");
    assert!([MSG_PEEK, MSG_TRUNC, MSG_OOB].iter().all(|flag| net.b.recv_from_now(server, &mut buf, *flag).is_none()));
    let (n, from) = net.b.recv_from_now(server, &mut buf, MSG_DONTWAIT).unwrap();
    assert_eq!((&buf[..n], *from.ip()), (&b"ask"[..], Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(net.a.local_addr(client).unwrap().port(), from.port());
    assert_eq!(net.b.recv_from_now(server, &mut buf, 0), None, "there is none");
    assert_eq!(net.a.send_to_now(client, b"x", 0, to), 0, "the way is not noted");
    ask(&mut net, b"more");
    assert_eq!(net.b.recv_from_now(server, &mut buf, 0), Some((4, from)));
    // Now there is one.
    assert_eq!(net.a.send_to_now(client, &[7; 97], 0, to), 0, "too much");
    let before = net.a.tx().1.len();
    assert_eq!(net.a.send_to_now(client, b"", 0, to), 0, "which says that nothing was done");
    assert_eq!(net.a.tx().1.len(), before);
    assert_eq!((net.a.send_to_now(client, b"x", MSG_MORE, to), net.a.send_to_now(stream, b"x", 0, to)), (0, 0));
    assert_eq!(net.a.send_to_now(client, &[7; 96], MSG_NOSIGNAL, to), 96);
    net.run();
    assert_eq!(net.b.recv_from_now(server, &mut buf, 0), Some((96, from)));
    assert_eq!(&buf[..96], &[7; 96]);
    // Too large, and nothing at all, which is no end.
    for len in [129, 0] {
        ask(&mut net, &vec![8; len]);
        assert_eq!(net.b.recv_from_now(server, &mut buf, 0), None);
        assert_eq!(net.b.recv_from(server, &mut buf, 0).map(|(n, _)| n), Ok(len));
    }
    net.a.stack.assert_conserved();
    net.b.stack.assert_conserved();
    net.b.close(server).unwrap();
    assert_eq!(net.b.recv_from_now(server, &mut buf, 0), None, "closed");
}
