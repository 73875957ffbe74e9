//! TCP Fast Open and TCP_DEFER_ACCEPT: what they are for, and what may not come
//! of them.

use super::bed::*;
use ringroad::errno::Errno;
use ringroad::socket::linux::*;
use ringroad::socket::{Handle, Readiness, SendMeta};
use ringroad::stack::tcp::FastOpenKeys;
use ringroad::telemetry::DropReason;
use ringroad::wire::tcp::{Cookie, Options, Segment, parse_options};
use ringroad::wire::{icmpv4, ipv4};
use std::io::IoSlice;
use std::net::SocketAddr;
use zerocopy::IntoBytes;

const FIRST: FastOpenKeys = FastOpenKeys { first: [1; 16], second: None };

/// A stack whose listener takes data from SYNs, and its cookie for the peer.
fn server(limit: i32) -> (Bed, Cookie) {
    let mut b = Bed::new(|c| {
        c.table.fast_open_server = true;
        c.table.fast_open_keys = Some(FIRST);
    });
    let listener = b.listener;
    b.set(listener, IPPROTO_TCP, TCP_FASTOPEN, limit);
    assert_eq!(b.get(listener, IPPROTO_TCP, TCP_FASTOPEN), limit);
    let options = Options { fast_open: Some(Cookie::default()), ..modern(1) };
    b.put(&Segment { src_port: 3999, options, ..seg(SYN, 1, 0) }, b"not taken");
    let answer = b.one().seg;
    assert_eq!(answer.ack, 2);
    let cookie = answer.options.fast_open.unwrap();
    assert_eq!(cookie.as_slice().len(), 8);
    b.put(&Segment { src_port: 3999, ..seg(RST, 2, 0) }, b"");
    b.take();
    assert_eq!((b.connections(), b.counters().tcp_fast_open_asked), (0, 1));
    (b, cookie)
}

fn early(port: u16, cookie: Cookie) -> Segment {
    let options = Options { fast_open: Some(cookie), ..modern(1) };
    Segment { src_port: port, options, ..seg(SYN, 999, 0) }
}

#[test]
fn data_in_the_syn_is_read_and_answered_before_the_handshake_is_over() {
    let (mut b, cookie) = server(5);
    b.put(&early(4000, cookie), b"request");
    let (h, _) = b.sockets.accept(b.listener).unwrap();
    let mut buf = [0; 16];
    assert_eq!(b.sockets.recv(h, &mut buf, 0), Ok(7));
    assert_eq!(&buf[..7], b"request");
    assert!(b.sockets.readiness(h).contains(Readiness::OUT));
    assert_eq!(b.sockets.send(h, b"answer", 0), Ok(6));
    let out = b.take();
    assert_eq!((out[0].seg.flags, out[0].seg.ack, out[0].data.len()), (SYN | ACK, 1007, 0));
    assert_eq!(out[0].seg.options.fast_open, None, "it has the right one");
    assert_eq!((&out[1].data[..], out[1].seg.seq), (&b"answer"[..], out[0].seg.seq.wrapping_add(1)));
    // The SYN once more is a duplicate: nothing is read twice.
    b.put(&early(4000, cookie), b"request");
    assert_eq!(b.one().seg.ack, 1007);
    assert_eq!(b.sockets.recv(h, &mut buf, 0), Err(Errno::EAGAIN));
    // The last ACK of the handshake takes the answer with it.
    let time = Some((2, out[1].seg.options.timestamp.unwrap().0));
    let c = Conn { h, port: 4000, seq: 1007, ack: out[1].seg.seq.wrapping_add(6), time };
    b.put(&c.seg(ACK), b"");
    assert_eq!((b.info(h, 0) as u8, b.info(h, 24)), (1, 0), "ESTABLISHED, nothing outstanding");
    b.sockets.send(h, b"more", 0).unwrap();
    assert_eq!(b.one().seg.seq, c.ack);
    assert_eq!(b.counters().tcp_fast_open_passive, 1);
}

#[test]
fn what_is_shut_early_takes_no_more() {
    let (mut b, cookie) = server(5);
    b.put(&early(4000, cookie), b"request");
    let (h, _) = b.sockets.accept(b.listener).unwrap();
    assert_eq!(b.sockets.send(h, b"answer", 0), Ok(6));
    b.sockets.shutdown(h, SHUT_WR).unwrap();
    assert_eq!(b.sockets.send(h, b"more", MSG_NOSIGNAL), Err(Errno::EPIPE));
    let out = b.take();
    assert_eq!((out.len(), &out[1].data[..]), (2, &b"answer"[..]), "it leaves all the same");
    assert_eq!(out[1].seg.flags & FIN, FIN, "and ends the stream");
    let time = Some((2, out[1].seg.options.timestamp.unwrap().0));
    let c = Conn { h, port: 4000, seq: 1007, ack: out[1].seg.seq.wrapping_add(7), time };
    b.put(&c.seg(ACK), b"");
    assert_eq!(b.take().len(), 0, "FIN-WAIT-2");
    assert_eq!(b.sockets.send(h, b"more", MSG_NOSIGNAL), Err(Errno::EPIPE));
}

#[test]
fn a_wrong_cookie_opens_nothing_early() {
    let (mut b, cookie) = server(5);
    let wrong = Cookie::new(&[9; 8]).unwrap();
    b.put(&early(4000, wrong), b"request");
    let answer = b.one().seg;
    // It is told the right one, which reaches who has the address.
    assert_eq!((answer.ack, answer.options.fast_open), (1000, Some(cookie)));
    assert!(b.sockets.accept(b.listener).is_err());
    assert_eq!(b.counters().tcp_fast_open_refused, 1);
    // Another address has another cookie.
    b.put_from([10, 0, 0, 3].into(), &early(4000, cookie), b"request");
    assert_eq!(b.one().seg.ack, 1000);
}

#[test]
fn without_the_servers_switch_or_the_sockets_option_the_option_means_nothing() {
    for (switch, limit) in [(false, 5), (true, 0)] {
        let mut b = Bed::new(|c| {
            c.table.fast_open_server = switch;
            c.table.fast_open_keys = Some(FIRST);
        });
        let listener = b.listener;
        b.set(listener, IPPROTO_TCP, TCP_FASTOPEN, limit);
        b.put(&early(4000, Cookie::default()), b"data");
        let answer = b.one().seg;
        assert_eq!((answer.ack, answer.options.fast_open), (1000, None));
    }
}

#[test]
fn every_listener_takes_it_where_the_configuration_says_so_as_many_as_its_backlog() {
    let mut b = Bed::new(|c| {
        c.table.fast_open_server = true;
        c.table.fast_open_listeners = true;
        c.table.fast_open_keys = Some(FIRST);
    });
    let asked = Options { fast_open: Some(Cookie::default()), ..modern(1) };
    b.put(&Segment { src_port: 3999, options: asked, ..seg(SYN, 1, 0) }, b"");
    let cookie = b.one().seg.options.fast_open.expect("a cookie");
    b.put(&early(4000, cookie), b"request");
    assert_eq!(b.one().seg.ack, 1007);
}

#[test]
fn without_a_cookie_data_is_taken_only_where_the_configuration_trusts_addresses() {
    for trusted in [false, true] {
        let mut b = Bed::new(|c| {
            c.table.fast_open_server = true;
            c.table.fast_open_no_cookie = trusted;
        });
        let listener = b.listener;
        b.set(listener, IPPROTO_TCP, TCP_FASTOPEN, 5);
        b.put(&Segment { src_port: 4000, options: modern(1), ..seg(SYN, 999, 0) }, b"request");
        assert_eq!(b.one().seg.ack, if trusted { 1007 } else { 1000 });
        assert_eq!(b.sockets.accept(listener).is_ok(), trusted);
    }
}

#[test]
fn a_cookie_in_the_experimental_option_is_answered_in_it() {
    let (mut b, cookie) = server(5);
    let old = parse_options(&[254, 4, 0xf9, 0x89]).unwrap().fast_open.unwrap();
    b.put(&early(4000, old), b"");
    let given = b.one().seg.options.fast_open.expect("a cookie");
    assert_eq!((given, given.as_slice()), (cookie.as_in(old), cookie.as_slice()));
    b.put(&early(4001, given), b"request");
    assert_eq!(b.one().seg.ack, 1007);
}

#[test]
fn a_key_that_was_replaced_is_good_until_the_next() {
    let (mut b, cookie) = server(5);
    b.sockets.stack.tcp.rotate_fast_open_key([2; 16]);
    b.put(&early(4000, cookie), b"one");
    let answer = b.one().seg;
    assert_eq!(answer.ack, 1003, "the old one still counts");
    let new = answer.options.fast_open.expect("and the new one comes with the answer");
    assert_ne!(new, cookie);
    b.put(&early(4001, new), b"two");
    assert_eq!(b.one().seg.ack, 1003);
    b.sockets.stack.tcp.rotate_fast_open_key([3; 16]);
    b.put(&early(4002, cookie), b"three");
    assert_eq!(b.one().seg.ack, 1000, "two keys later it does not");
    // A listener's own keys, as TCP_FASTOPEN_KEY sets them.
    let listener = b.listener;
    let both = [[4u8; 16], [1; 16]].concat();
    b.sockets.set_option(listener, IPPROTO_TCP, TCP_FASTOPEN_KEY, &both).unwrap();
    b.put(&early(4003, cookie), b"four");
    assert_eq!(b.one().seg.ack, 1004);
    let mut read = [0; 40];
    assert_eq!(b.sockets.get_option(listener, IPPROTO_TCP, TCP_FASTOPEN_KEY, &mut read), Ok(32));
    assert_eq!(read[..32], both);
    for wrong in [15, 17, 31, 33] {
        let set = b.sockets.set_option(listener, IPPROTO_TCP, TCP_FASTOPEN_KEY, &[0; 64][..wrong]);
        assert_eq!(set, Err(Errno::EINVAL), "{wrong}");
    }
}

#[test]
fn stolen_cookies_open_no_more_than_the_limit() {
    let (mut b, cookie) = server(3);
    for port in 4000..4006 {
        b.put(&early(port, cookie), b"x");
    }
    let early_ones = b.take().iter().filter(|o| o.seg.ack == 1001).count();
    assert_eq!((early_ones, b.counters().tcp_fast_open_full), (3, 3));
    // The victim's RSTs, from the address that was borrowed, make no room.
    for port in 4000..4003 {
        b.put(&Segment { src_port: port, ..seg(RST, 1001, 0) }, b"");
    }
    b.put(&early(4010, cookie), b"x");
    assert_eq!(b.take().pop().unwrap().seg.ack, 1000);
    b.wait(secs(61));
    b.put(&early(4011, cookie), b"x");
    assert_eq!(b.take().pop().unwrap().seg.ack, 1001);
    // Who finishes the handshake makes room at once.
    let (mut b, cookie) = server(1);
    for port in 4000..4005 {
        b.put(&early(port, cookie), b"x");
        let answer = b.one().seg;
        assert_eq!(answer.ack, 1001, "{port}");
        let options = Options { timestamp: Some((1, answer.options.timestamp.unwrap().0)), ..Default::default() };
        b.put(&Segment { src_port: port, options, ..seg(ACK, 1001, answer.seq.wrapping_add(1)) }, b"");
    }
}

#[test]
fn an_early_connection_that_is_reset_tells_its_program() {
    let (mut b, cookie) = server(3);
    b.put(&early(4000, cookie), b"x");
    let (h, _) = b.sockets.accept(b.listener).unwrap();
    b.take();
    b.put(&Segment { src_port: 4000, ..seg(RST, 1001, 0) }, b"");
    let mut buf = [0; 8];
    assert_eq!(b.sockets.recv(h, &mut buf, 0), Ok(1));
    assert_eq!(b.sockets.recv(h, &mut buf, 0), Err(Errno::ECONNRESET));
    b.sockets.close(h).unwrap();
    b.take();
    assert_eq!(b.connections(), 0);
}

fn peer() -> SocketAddr {
    SocketAddr::new(PEER.into(), 443)
}

/// A client that opens with MSG_FASTOPEN, and its SYN.
fn open_with(b: &mut Bed, data: &[u8]) -> (Handle, Result<usize, Errno>, Out) {
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    let sent = b.sockets.send_to(h, data, MSG_FASTOPEN | MSG_DONTWAIT, Some(peer()), &SendMeta::default());
    (h, sent, b.one())
}

fn syn_ack(syn: &Segment, acked: u32, cookie: Option<Cookie>) -> Segment {
    let options = Options { fast_open: cookie, timestamp: Some((7, syn.options.timestamp.unwrap().0)), ..modern(0) };
    let ack = syn.seq.wrapping_add(1 + acked);
    Segment { src_port: 443, dst_port: syn.src_port, options, ..seg(SYN | ACK, 5000, ack) }
}

fn given() -> Cookie {
    Cookie::new(&[5; 8]).unwrap()
}

/// A client that knows the peer's cookie.
fn client() -> Bed {
    let mut b = Bed::new(|_| ());
    let (h, sent, syn) = open_with(&mut b, b"hello");
    // No cookie: the SYN asks for one, and takes nothing.
    assert_eq!((sent, syn.data.len()), (Err(Errno::EINPROGRESS), 0));
    assert_eq!(syn.seg.options.fast_open, Some(Cookie::default()));
    let again = b.sockets.send_to(h, b"x", MSG_FASTOPEN | MSG_DONTWAIT, Some(peer()), &SendMeta::default());
    assert_eq!(again, Err(Errno::EALREADY));
    b.put(&syn_ack(&syn.seg, 0, Some(given())), b"");
    b.take();
    assert_eq!(b.sockets.connect(h, peer()), Ok(()), "it is open");
    let again = b.sockets.send_to(h, b"x", MSG_FASTOPEN | MSG_DONTWAIT, Some(peer()), &SendMeta::default());
    assert_eq!(again, Err(Errno::EISCONN));
    assert_eq!(b.sockets.send(h, b"hello", 0), Ok(5));
    let sent = b.one();
    assert_eq!(sent.data, b"hello");
    let (dst_port, time) = (syn.seg.src_port, Some((7, sent.seg.options.timestamp.unwrap().0)));
    let options = Options { timestamp: time, ..Default::default() };
    let ack = sent.seg.seq.wrapping_add(5);
    b.put(&Segment { src_port: 443, dst_port, options, ..seg(ACK, 5001, ack) }, b"");
    b
}

#[test]
fn the_second_open_carries_its_data_in_the_syn() {
    let mut b = client();
    let (h, sent, syn) = open_with(&mut b, b"hello");
    assert_eq!((sent, &syn.data[..]), (Ok(5), &b"hello"[..]));
    assert_eq!((syn.seg.flags, syn.seg.options.fast_open), (SYN, Some(given())));
    b.put(&syn_ack(&syn.seg, 5, None), b"welcome");
    let ack = b.one();
    assert_eq!((ack.seg.ack, ack.seg.seq, ack.data.len()), (5008, syn.seg.seq.wrapping_add(6), 0));
    assert_eq!(b.sockets.bytes_readable(h), Ok(7));
    assert_eq!(b.counters().tcp_fast_open_active, 1);
    // A SYN takes no more than the peer's segment size as it was known, less all
    // options.
    let (_, sent, syn) = open_with(&mut b, &[1; 5000]);
    assert_eq!((sent, syn.data.len()), (Ok(1420), 1420));
}

#[test]
fn data_that_the_peer_did_not_take_is_sent_again_at_once() {
    let mut b = client();
    let (_, _, syn) = open_with(&mut b, b"hello");
    b.put(&syn_ack(&syn.seg, 0, None), b"");
    let again = b.one();
    assert_eq!((&again.data[..], again.seg.seq), (&b"hello"[..], syn.seg.seq.wrapping_add(1)));
    assert_eq!(b.counters().tcp_fast_open_active_failed, 1);
    // A part of it, too.
    let (_, _, syn) = open_with(&mut b, b"hello");
    b.put(&syn_ack(&syn.seg, 2, None), b"");
    let again = b.take();
    let end = again.iter().find(|o| !o.data.is_empty()).unwrap();
    assert_eq!((&end.data[..], end.seg.seq), (&b"llo"[..], syn.seg.seq.wrapping_add(3)));
    // What was never sent cannot be acknowledged.
    let (_, _, syn) = open_with(&mut b, b"hello");
    b.put(&syn_ack(&syn.seg, 6, None), b"");
    assert_eq!(b.one().seg.flags, RST);
}

#[test]
fn through_a_black_hole_the_syn_goes_again_bare_and_the_way_is_spared() {
    let mut b = client();
    for round in 0..3 {
        let (_, _, syn) = open_with(&mut b, b"hello");
        let spared = syn.seg.options.fast_open.is_none();
        assert_eq!((spared, syn.data.is_empty()), (round == 2, round == 2));
        let of_this = |o: &Out| o.seg.src_port == syn.seg.src_port;
        let again = b.wait(ms(1100)).into_iter().find(of_this).unwrap();
        assert_eq!((again.seg.flags, again.data.len(), again.seg.options.fast_open), (SYN, 0, None));
        b.put(&syn_ack(&again.seg, 0, None), b"");
        let out = b.take();
        assert_eq!(out.iter().any(|o| o.data == b"hello"), round < 2, "{out:?}");
    }
}

#[test]
fn connect_with_the_option_waits_for_the_first_data() {
    let mut b = client();
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    b.set(h, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
    assert_eq!(b.sockets.connect(h, peer()), Ok(()));
    assert_eq!(b.sockets.connect(h, peer()), Err(Errno::EISCONN));
    b.silent();
    assert!(b.wait(secs(100)).is_empty(), "nothing leaves, and no timer ends it");
    assert_eq!(b.sockets.readiness(h), Readiness::OUT);
    assert_eq!(b.sockets.send(h, b"hello", 0), Ok(5));
    let syn = b.one();
    assert_eq!((&syn.data[..], syn.seg.options.fast_open), (&b"hello"[..], Some(given())));
    assert_eq!(b.sockets.send(h, b"more", 0), Err(Errno::EAGAIN));
    b.put(&syn_ack(&syn.seg, 5, None), b"");
    b.take();
    assert_eq!(b.sockets.send(h, b"more", 0), Ok(4));
    assert_eq!(b.one().data, b"more");
    // Without a cookie it is a connect like any other, that asks for one.
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    b.set(h, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
    let other = SocketAddr::new([10, 0, 0, 7].into(), 80);
    assert_eq!(b.sockets.connect(h, other), Err(Errno::EINPROGRESS));
    assert_eq!(b.one().seg.options.fast_open, Some(Cookie::default()));
}

#[test]
fn the_clients_switch_turns_it_off() {
    let mut b = Bed::new(|c| c.table.fast_open_client = false);
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    let sent = b.sockets.send_to(h, b"x", MSG_FASTOPEN | MSG_DONTWAIT, Some(peer()), &SendMeta::default());
    assert_eq!(sent, Err(Errno::EOPNOTSUPP));
    let on = 1i32.to_ne_bytes();
    assert_eq!(b.sockets.set_option(h, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on), Err(Errno::EOPNOTSUPP));
}

#[test]
fn an_opening_needs_an_address() {
    let mut b = Bed::new(|_| ());
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    assert_eq!(b.sockets.send(h, b"x", MSG_FASTOPEN), Err(Errno::EINVAL));
    assert_eq!(b.sockets.send_to(h, b"x", MSG_FASTOPEN, None, &SendMeta::default()), Err(Errno::EINVAL));
    assert_eq!(b.sockets.send(h, b"x", 0), Err(Errno::EPIPE));
    b.silent();
}

#[test]
fn a_cookie_that_nobody_asked_for_is_not_kept() {
    let mut b = Bed::new(|_| ());
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    assert_eq!(b.sockets.connect(h, peer()), Err(Errno::EINPROGRESS));
    let syn = b.one().seg;
    b.put(&syn_ack(&syn, 0, Some(given())), b"");
    b.take();
    assert_eq!(open_with(&mut b, b"x").1, Err(Errno::EINPROGRESS));
}

#[test]
fn a_deferred_accept_waits_for_data() {
    let mut b = Bed::new(|_| ());
    let listener = b.listener;
    b.set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
    assert_eq!(b.get(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT), 3);
    let c = b.handshake(4000, modern(1));
    b.silent();
    assert_eq!((b.sockets.accept(listener).err(), b.counters().tcp_deferred), (Some(Errno::EAGAIN), 1));
    assert!(b.wait(ms(900)).is_empty());
    b.put(&c.seg(ACK | PSH), b"request");
    let (h, _) = b.sockets.accept(listener).unwrap();
    assert_eq!(b.sockets.bytes_readable(h), Ok(7));
    // Its ACK gives the program one turn to answer.
    b.silent();
    assert_eq!(b.one().seg.flags, ACK);
    // A FIN is something to tell of, too.
    let c = b.handshake(4001, modern(1));
    b.put(&c.seg(FIN | ACK), b"");
    assert!(b.sockets.accept(listener).is_ok());
}

#[test]
fn at_the_end_of_the_deferral_the_syn_ack_asks_once_more() {
    let mut b = Bed::new(|_| ());
    let listener = b.listener;
    b.set(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
    let c = b.handshake(4000, modern(1));
    // Two transmissions: the time-out after 1 s passes in silence, as Linux has it
    // the next one is the last chance.
    let asked = b.wait(ms(3500));
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].seg.flags, SYN | ACK);
    b.put(&c.seg(ACK), b"");
    assert!(b.sockets.accept(listener).is_ok(), "then a bare ACK will do");
    // Who says nothing at all is given up.
    b.handshake(4001, modern(1));
    b.wait(secs(200));
    assert_eq!((b.connections(), b.sockets.accept(listener).err()), (1, Some(Errno::EAGAIN)));
}

#[test]
fn the_count_of_syns_is_the_sockets_or_the_stacks() {
    let mut b = Bed::new(|_| ());
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    assert_eq!(b.get(h, IPPROTO_TCP, TCP_SYNCNT), 7);
    b.set(h, IPPROTO_TCP, TCP_SYNCNT, 2);
    assert_eq!(b.get(h, IPPROTO_TCP, TCP_SYNCNT), 2);
    for wrong in [0i32, 128, -1] {
        let set = b.sockets.set_option(h, IPPROTO_TCP, TCP_SYNCNT, &wrong.to_ne_bytes());
        assert_eq!(set, Err(Errno::EINVAL));
    }
    let _ = b.sockets.connect(h, peer());
    let syns = b.wait(secs(100));
    assert_eq!(syns.len(), 3);
    assert_eq!(b.sockets.connect(h, peer()), Err(Errno::ETIMEDOUT));
}

#[test]
fn the_parts_of_one_message_go_in_the_syn_together() {
    let mut b = client();
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    let parts = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo"), IoSlice::new(&[1; 2000])];
    let flags = MSG_FASTOPEN | MSG_DONTWAIT;
    let sent = b.sockets.send_message(h, &parts, flags, Some(peer()), &SendMeta::default());
    let syn = b.one();
    assert_eq!((sent, syn.data.len(), &syn.data[..6]), (Ok(1420), 1420, &b"hello\x01"[..]));
}

#[test]
fn a_call_that_may_wait_leaves_the_rest_with_the_connection() {
    for knows in [true, false] {
        let mut b = if knows { client() } else { Bed::new(|_| ()) };
        let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        let data: Vec<u8> = (0..3000u32).map(|i| (i / 7) as u8).collect();
        let sent = b.sockets.send_to(h, &data, MSG_FASTOPEN, Some(peer()), &SendMeta::default());
        let syn = b.one();
        let early = if knows { 1420 } else { 0 };
        assert_eq!((sent, &syn.data[..]), (Ok(3000), &data[..early]));
        b.put(&syn_ack(&syn.seg, early as u32, Some(given())), b"");
        // What follows carries the handshake's last ACK.
        let got: Vec<u8> = b.take().into_iter().flat_map(|o| {
            assert!(!o.data.is_empty());
            o.data
        }).collect();
        assert_eq!(got, data[early..]);
    }
}

#[test]
fn where_nobody_forges_addresses_data_goes_without_a_cookie() {
    for by_socket in [true, false] {
        let mut b = Bed::new(|c| c.table.fast_open_client_no_cookie = !by_socket);
        let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
        b.set(h, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, i32::from(by_socket));
        let flags = MSG_FASTOPEN | MSG_DONTWAIT;
        let sent = b.sockets.send_to(h, b"hello", flags, Some(peer()), &SendMeta::default());
        let syn = b.one();
        assert_eq!((sent, &syn.data[..], syn.seg.options.fast_open), (Ok(5), &b"hello"[..], None));
        // A cookie that comes all the same was not asked for.
        b.put(&syn_ack(&syn.seg, 5, Some(given())), b"");
        b.take();
        assert_eq!(b.counters().tcp_fast_open_active, 1);
    }
}

#[test]
fn an_answer_may_bring_all_and_end_and_must_echo_our_timestamp() {
    let mut b = client();
    let (h, _, syn) = open_with(&mut b, b"hello");
    let mut foreign = syn_ack(&syn.seg, 5, None);
    foreign.options.timestamp = Some((7, syn.seg.options.timestamp.unwrap().0.wrapping_add(9)));
    b.put(&foreign, b"forged");
    let reset = b.one();
    assert_eq!((reset.seg.flags, reset.seg.options.timestamp), (RST, None));
    assert_eq!(b.dropped(DropReason::TcpPaws), 1);
    let all = Segment { flags: SYN | ACK | FIN, ..syn_ack(&syn.seg, 5, None) };
    b.put(&all, b"all there is");
    assert_eq!(b.one().seg.ack, 5000 + 1 + 12 + 1);
    let mut buf = [0; 64];
    assert_eq!((b.sockets.recv(h, &mut buf, 0), b.sockets.recv(h, &mut buf, 0)), (Ok(12), Ok(0)));
}

#[test]
fn a_peer_that_cannot_be_reached_ends_what_no_program_has() {
    let (mut b, cookie) = server(8);
    // Half open: its ACK finds nothing.
    b.put(&Segment { src_port: 6000, options: modern(1), ..seg(SYN, 999, 0) }, b"");
    let half = b.one();
    unreachable(&mut b, &half);
    b.put(&Segment { src_port: 6000, ..seg(ACK, 1000, half.seg.seq.wrapping_add(1)) }, b"");
    assert_eq!(b.one().seg.flags, RST);
    // With data and a cookie: what came can be read, and then why it ended.
    let options = Options { fast_open: Some(cookie), ..modern(1) };
    let syn = Segment { src_port: 6001, options, ..seg(SYN, 999, 0) };
    for accepted in [false, true] {
        let syn = Segment { src_port: 6001 + u16::from(accepted), ..syn.clone() };
        b.put(&syn, b"early");
        let answer = b.one();
        let before = accepted.then(|| b.sockets.accept(b.listener).unwrap().0);
        unreachable(&mut b, &answer);
        let h = before.unwrap_or_else(|| b.sockets.accept(b.listener).unwrap().0);
        let mut buf = [0; 64];
        assert_eq!(b.sockets.recv(h, &mut buf, 0), Ok(5));
        let error = if accepted { Errno::EAGAIN } else { Errno::EHOSTUNREACH };
        assert_eq!(b.sockets.recv(h, &mut buf, 0), Err(error), "a program's own is kept");
    }
}

#[test]
fn a_syn_whose_data_was_too_much_for_the_path_goes_again_bare_and_is_no_loss() {
    let mut b = client();
    let (_, sent, syn) = open_with(&mut b, &[1; 5000]);
    assert_eq!((sent, syn.data.len()), (Ok(1420), 1420));
    refused(&mut b, &syn, icmpv4::FRAGMENTATION_NEEDED, 1000);
    let again = b.one();
    let options = &again.seg.options;
    assert_eq!((again.seg.flags, again.seg.seq, again.data.len()), (SYN, syn.seg.seq, 0));
    assert_eq!((options.mss, &options.fast_open), (Some(960), &None));
    // What the SYN had taken goes in segments that the path takes, all at once.
    b.put(&syn_ack(&again.seg, 0, None), b"");
    let out = b.take();
    let lens: Vec<_> = out.iter().map(|o| o.data.len()).filter(|n| *n > 0).collect();
    assert_eq!(lens, [948, 472]);
    // The next to the same peer knows.
    let (_, sent, syn) = open_with(&mut b, &[1; 5000]);
    assert!(sent == Ok(syn.data.len()) && syn.data.len() > 500 && syn.data.len() < 960, "{sent:?}");
}

/// A router says that the receiver of this segment cannot be reached.
fn unreachable(b: &mut Bed, of: &Out) {
    refused(b, of, icmpv4::HOST, 0);
}

/// A router's message about this segment.
fn refused(b: &mut Bed, of: &Out, code: u8, mtu: u16) {
    let mut body = ipv4::Header::new(OURS, PEER, ipv4::TCP, 40, 64, 0, 7, 0).as_bytes().to_vec();
    body.extend(of.seg.src_port.to_be_bytes());
    body.extend(of.seg.dst_port.to_be_bytes());
    body.extend(of.seg.seq.to_be_bytes());
    let mut out = [0; 64];
    let len = icmpv4::build(&mut out, icmpv4::UNREACHABLE, code, 0, mtu, &body);
    let h = ipv4::Header::new(PEER, OURS, ipv4::ICMP, len, 64, 0, 7, 0);
    b.packet(&[h.as_bytes(), &out[..len]].concat());
}
