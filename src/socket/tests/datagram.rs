//! UDP sockets.

use super::*;

fn bound(s: &mut Sockets, at: SocketAddr) -> Handle {
    let h = udp(s);
    s.bind(h, at).unwrap();
    h
}

#[test]
fn datagrams_go_there_and_back() {
    let mut net = Net::new();
    let server = bound(&mut net.b, addr(2, 53));
    let client = udp(&mut net.a);
    let to = Some(addr(2, 53));
    assert_eq!(net.a.send_to(client, b"question", 0, to, &SendMeta::default()), Ok(8));
    assert_ne!(net.a.local_addr(client).unwrap().port(), 0);
    net.run();
    assert_eq!(net.b.bytes_readable(server), Ok(8));
    let mut buf = [0; 4];
    let (n, meta) = net.b.recv_from(server, &mut buf, MSG_PEEK).unwrap();
    assert_eq!((n, meta.full_len), (4, 8));
    assert_eq!(net.b.recv(server, &mut buf, MSG_TRUNC), Ok(8));
    assert_eq!(net.b.recv_from(server, &mut buf, 0).unwrap_err(), Errno::EAGAIN);
    let parts = [IoSlice::new(b"an"), IoSlice::new(b"swer")];
    net.b.connect(server, meta.from.unwrap()).unwrap();
    assert_eq!(net.b.send_vectored(server, &parts, 0), Ok(6));
    net.run();
    assert_eq!(recv(&mut net.a, client).unwrap(), b"answer");
}

#[test]
fn a_refused_datagram_is_an_error_of_a_connected_socket_only() {
    let mut net = Net::new();
    let (open, connected) = (udp(&mut net.a), udp(&mut net.a));
    let to = Some(addr(2, 9));
    net.a.connect(connected, addr(2, 9)).unwrap();
    assert_eq!(net.a.peer_addr(connected), Ok(addr(2, 9)));
    net.a.send_to(open, b"x", 0, to, &SendMeta::default()).unwrap();
    net.a.send(connected, b"x", 0).unwrap();
    net.run();
    assert_eq!(recv(&mut net.a, open), Err(Errno::EAGAIN));
    assert!(net.a.readiness(connected).contains(Readiness::ERR));
    assert_eq!(recv(&mut net.a, connected), Err(Errno::ECONNREFUSED));
    assert_eq!(recv(&mut net.a, connected), Err(Errno::EAGAIN));
    net.a.disconnect(connected).unwrap();
    assert_eq!(net.a.send(connected, b"x", 0), Err(Errno::EDESTADDRREQ));
    assert_eq!(net.a.peer_addr(connected), Err(Errno::ENOTCONN));
}

#[test]
fn options_of_datagrams_act() {
    let mut net = Net::new();
    let server = bound(&mut net.b, addr(2, 53));
    let client = udp(&mut net.a);
    set(&mut net.a, client, IPPROTO_IP, IP_TOS, 0x1c).unwrap();
    set(&mut net.a, client, IPPROTO_IP, IP_TTL, 9).unwrap();
    net.a.connect(client, addr(2, 53)).unwrap();
    net.a.send(client, b"x", 0).unwrap();
    net.run();
    let mut buf = [0; 4];
    let (_, meta) = net.b.recv_from(server, &mut buf, 0).unwrap();
    assert_eq!((meta.tos, meta.ttl, meta.to), (0x1c, 9, addr(2, 0).ip()));
    let meta = SendMeta { tos: Some(0x20), ttl: Some(3), source: None };
    net.a.send_to(client, b"x", 0, None, &meta).unwrap();
    net.run();
    let (_, meta) = net.b.recv_from(server, &mut buf, 0).unwrap();
    assert_eq!((meta.tos, meta.ttl), (0x20, 3));
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
    assert_eq!(get(&mut net.a, client, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
    let broadcast = Some("10.0.0.255:9".parse().unwrap());
    let none = SendMeta::default();
    assert_eq!(net.a.send_to(client, b"x", 0, broadcast, &none), Err(Errno::EACCES));
    set(&mut net.a, client, SOL_SOCKET, SO_BROADCAST, 1).unwrap();
    assert_eq!(net.a.send_to(client, b"x", 0, broadcast, &none), Ok(1));
    set(&mut net.a, client, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO).unwrap();
    assert_eq!(net.a.send(client, &[0; 3000], 0), Err(Errno::EMSGSIZE));
    assert_eq!(net.a.send(client, &[0; 65_508], 0), Err(Errno::EMSGSIZE));
}

#[test]
fn ports_of_datagrams_follow_the_rules_of_bind() {
    let mut net = Net::new();
    let s = &mut net.a;
    bound(s, addr(1, 53));
    let h = udp(s);
    assert_eq!(s.bind(h, addr(1, 53)), Err(Errno::EADDRINUSE));
    assert_eq!(s.bind(h, addr(7, 53)), Err(Errno::EADDRNOTAVAIL));
    let free = udp(s);
    set(s, free, IPPROTO_IP, IP_FREEBIND, 1).unwrap();
    s.bind(free, addr(7, 53)).unwrap();
    s.bind(h, addr(1, 0)).unwrap();
    assert_eq!(s.bind(h, addr(1, 99)), Err(Errno::EINVAL));
    for _ in 0..2 {
        let h = udp(s);
        set(s, h, SOL_SOCKET, SO_REUSEPORT, 1).unwrap();
        s.bind(h, addr(1, 54)).unwrap();
    }
    // A TCP socket may have the same number.
    let t = tcp(s);
    s.bind(t, addr(1, 53)).unwrap();
}

#[test]
fn a_datagram_is_lent_and_one_is_sent_without_a_copy() {
    let mut net = Net::new();
    let server = bound(&mut net.b, addr(2, 53));
    let client = udp(&mut net.a);
    net.a.connect(client, addr(2, 53)).unwrap();
    let mut frame = net.a.zc_alloc(client).unwrap();
    net.a.stack.core.pool.bytes_mut(&mut frame)[..3].copy_from_slice(b"abc");
    frame.truncate(3);
    net.a.zc_send(client, frame).unwrap();
    net.run();
    let frame = net.b.zc_recv(server).unwrap();
    assert_eq!(net.b.stack.core.pool.bytes(&frame), b"abc");
    net.b.stack.assert_conserved();
    net.b.zc_release(server, frame).unwrap();
    net.b.stack.assert_conserved();
}

#[test]
fn shutdown_of_datagram_sockets() {
    let mut net = Net::new();
    let h = udp(&mut net.a);
    assert_eq!(net.a.shutdown(h, SHUT_RD), Err(Errno::ENOTCONN));
    net.a.connect(h, addr(2, 53)).unwrap();
    net.a.shutdown(h, SHUT_RDWR).unwrap();
    assert_eq!(recv(&mut net.a, h), Ok(vec![]));
    assert_eq!(net.a.zc_recv(h).err(), Some(Errno::ESHUTDOWN));
    assert_eq!(net.a.send(h, b"x", 0), Err(Errno::EPIPE));
}

#[test]
fn a_ping_socket_hears_the_echo() {
    let mut net = Net::new();
    let h = net.a.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP).unwrap();
    assert_eq!(get(&mut net.a, h, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMP);
    net.a.connect(h, addr(2, 0)).unwrap();
    let mut echo = [0; 64];
    (echo[0], echo[7], echo[8]) = (8, 1, 99);
    assert_eq!(net.a.send(h, &echo, 0), Ok(64));
    net.run();
    let reply = recv(&mut net.a, h).unwrap();
    assert_eq!((reply.len(), reply[0], reply[7], reply[8]), (64, 0, 1, 99));
    assert_eq!(net.a.listen(h, 1), Err(Errno::EOPNOTSUPP));
    let raw = net.a.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP).unwrap();
    assert_eq!(get(&mut net.a, raw, SOL_SOCKET, SO_TYPE), SOCK_RAW);
    net.a.close(raw).unwrap();
    net.a.close(h).unwrap();
}
