//! Frames lent by the short ways, and what came in sent back in its own frame.

use super::*;
use crate::frame::Frame;

/// What `a` wrote arrives at `b`, whose program is next.
fn ask(net: &mut Net, client: Handle, data: &[u8]) {
    assert_eq!(net.a.send(client, data, 0), Ok(data.len()));
    net.a.turn(net.now);
    assert!(carry(&mut net.a, &mut net.b, net.now, false));
}

/// A connection whose window is open, and whose ends have lent a frame before.
fn open(net: &mut Net) -> (Handle, Handle, Handle) {
    let (client, server, listener) = net.connected(80);
    set(&mut net.a, client, IPPROTO_TCP, TCP_NODELAY, 1).unwrap();
    assert!(net.b.zc_recv_now(server, 0).is_none() && net.b.zc_alloc_now(server).is_none(), "there are no books yet");
    let first = net.b.zc_alloc(server).unwrap();
    net.b.zc_release(server, first).unwrap();
    ask(net, client, b"first");
    net.run();
    assert_eq!(recv(&mut net.b, server), Ok(b"first".to_vec()));
    net.pass(Duration::from_secs(1));
    (client, server, listener)
}

/// [`Sockets::zc_send_now`] of all of a frame's range: it comes back where that does nothing.
fn send_now(s: &mut Sockets, h: Handle, frame: Frame, flags: i32) -> Option<Frame> {
    let (len, mut given) = (frame.len() as u16, Some(frame));
    s.zc_send_now(h, &mut given, len, flags);
    given
}

fn release_now(s: &mut Sockets, h: Handle, frame: Frame) -> Option<Frame> {
    let mut given = Some(frame);
    s.zc_release_now(h, &mut given);
    given
}

fn bytes(s: &Sockets, frame: &Frame) -> Vec<u8> {
    s.stack.core.pool.bytes(frame).to_vec()
}

/// Bytes that were copied, in and out.
fn copied(s: &Sockets) -> u64 {
    s.stack.core.counters.rx_copied_bytes + s.stack.core.counters.tx_copied_bytes
}

#[test]
fn frames_are_lent_by_the_short_ways_and_books_are_kept() {
    let mut net = Net::new();
    let (client, server, listener) = open(&mut net);
    assert!(net.b.zc_recv_now(server, 0).is_none(), "there is nothing");
    assert!(net.b.zc_alloc_now(listener).is_none() && net.b.zc_recv_now(listener, 0).is_none());
    let before = copied(&net.b);
    ask(&mut net, client, b"question");
    for flags in [MSG_PEEK, MSG_OOB, MSG_TRUNC] {
        assert!(net.b.zc_recv_now(server, flags).is_none());
    }
    let read = net.b.zc_recv_now(server, MSG_DONTWAIT).unwrap();
    assert_eq!((bytes(&net.b, &read), net.b.lent_frames()), (b"question".to_vec(), 1));
    let mut written = net.b.zc_alloc_now(server).unwrap();
    assert!(written.len() >= 1448);
    net.b.stack.assert_conserved();
    written.truncate(6);
    net.b.stack.core.pool.bytes_mut(&mut written).copy_from_slice(b"answer");
    let written = send_now(&mut net.b, server, written, MSG_MORE).expect("not with such a flag");
    let written = send_now(&mut net.b, listener, written, 0).expect("not by another socket");
    assert!(send_now(&mut net.b, server, written, MSG_NOSIGNAL).is_none());
    let read = release_now(&mut net.b, listener, read).expect("not to another socket");
    assert!(release_now(&mut net.b, server, read).is_none());
    assert_eq!((net.b.lent_frames(), copied(&net.b)), (0, before), "no byte was copied");
    net.run();
    assert_eq!(recv(&mut net.a, client), Ok(b"answer".to_vec()));
    // Unsent, and too much, and behind what is not acknowledged.
    let unsent = net.b.zc_alloc_now(server).unwrap();
    assert!(release_now(&mut net.b, server, unsent).is_none());
    let mut large = net.b.zc_alloc_now(server).unwrap();
    large.truncate(97);
    let large = send_now(&mut net.b, server, large, 0).expect("too much");
    net.b.zc_send(server, large).unwrap();
    let mut second = net.b.zc_alloc_now(server).unwrap();
    second.truncate(3);
    let second = send_now(&mut net.b, server, second, 0).expect("one is under way");
    net.b.zc_send(server, second).unwrap();
    net.run();
    assert_eq!((recv(&mut net.a, client).unwrap().len(), net.b.lent_frames()), (100, 0));
    // What is no loan of the socket's any more.
    let stale = net.b.zc_alloc_now(server).unwrap();
    net.b.close(server).unwrap();
    assert!(net.b.zc_recv_now(server, 0).is_none() && net.b.zc_alloc_now(server).is_none(), "closed");
    let stale = send_now(&mut net.b, server, stale, 0).expect("closed");
    let stale = release_now(&mut net.b, server, stale).expect("closed");
    assert_eq!(net.b.zc_release(server, stale), Ok(()));
    let stolen = net.b.stack.core.pool.alloc().unwrap();
    let stolen = release_now(&mut net.b, server, stolen).expect("never lent");
    net.b.stack.core.pool.free(stolen);
    assert_eq!(net.b.lent_frames(), 0);
    net.b.stack.assert_conserved();
}

#[test]
fn what_came_in_goes_out_in_its_own_frame() {
    let mut net = Net::new();
    let (client, server, _) = open(&mut net);
    let (before, sent) = (copied(&net.b), net.a.stack.core.counters.tx_copied_bytes);
    let long = &[9; 1448][..];
    for (round, text) in [&b"change me"[..], b"once more", long].into_iter().enumerate() {
        ask(&mut net, client, text);
        let mut frame = net.b.zc_recv(server).unwrap();
        let index = frame.index();
        net.b.stack.core.pool.bytes_mut(&mut frame)[0] = b'C';
        let refused = match round {
            0 => net.b.zc_send(server, frame).map_or_else(|(_, frame)| Some(frame), |()| None),
            _ => send_now(&mut net.b, server, frame, 0),
        };
        if let Some(frame) = refused {
            assert_eq!(round, 2, "it is too long for the short way alone");
            net.b.zc_send(server, frame).unwrap();
        }
        assert_eq!(net.b.lent_frames(), 0);
        net.b.turn(net.now);
        let (pool, queue) = net.b.tx();
        assert!(queue.iter().any(|d| d.index() == index && pool.tx_bytes(d).ends_with(&text[1..])), "as it lies");
        // It is lost, and the frame is kept until it has arrived.
        net.lose = [false, true];
        net.step();
        net.lose = [false; 2];
        net.pass(Duration::from_secs(2));
        let got = recv(&mut net.a, client).unwrap();
        assert_eq!((got[0], &got[1..]), (b'C', &text[1..]));
        net.b.stack.assert_conserved();
        assert_eq!(net.b.stack.core.pool.counts().held, 0, "acknowledged, it is free");
    }
    assert_eq!(copied(&net.b), before, "no byte was copied, not even for a retransmission");
    assert_eq!(net.a.stack.core.counters.tx_copied_bytes - sent, 18 + 1448);
}

#[test]
fn what_is_sent_back_opens_the_window_as_what_is_released_does() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    set(&mut net.b, server, SOL_SOCKET, SO_RCVBUF, 8192).unwrap();
    let mut data = vec![0; 100_000];
    data.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 7 % 251) as u8);
    let (mut asked, mut got) = (0, Vec::new());
    for _ in 0..20_000 {
        if got.len() == data.len() {
            break;
        }
        if let Ok(n) = net.a.send(client, &data[asked..], 0) {
            asked += n;
        }
        net.step();
        while let Ok(frame) = net.b.zc_recv(server) {
            match net.b.zc_send(server, frame) {
                Ok(()) => {}
                Err((Errno::EMSGSIZE | Errno::EAGAIN, frame)) => {
                    // By the way that fits all: copied.
                    let copy = bytes(&net.b, &frame);
                    net.b.zc_release(server, frame).unwrap();
                    assert_eq!(net.b.send(server, &copy, 0), Ok(copy.len()));
                }
                Err((error, _)) => panic!("{error:?}"),
            }
        }
        while let Ok(read) = recv(&mut net.a, client) {
            got.extend(read);
        }
        net.now += Duration::from_micros(500);
    }
    assert_eq!(got.len(), data.len(), "the window shut for good");
    assert!(got == data && net.b.lent_frames() == 0);
    net.b.stack.assert_conserved();
}

#[test]
fn a_received_frame_is_sent_back_once_by_its_socket_and_no_more_of_it_than_came() {
    let mut net = Net::new();
    let (client, server, listener) = open(&mut net);
    let (_, other) = net.join(listener, 80);
    ask(&mut net, client, b"mine");
    let frame = net.b.zc_recv(server).unwrap();
    let (error, mut frame) = net.b.zc_send(other, frame).unwrap_err();
    assert_eq!(error, Errno::EINVAL, "another socket's");
    let at = frame.offset();
    for len in [0, 5] {
        frame.set_range(at, len);
        frame = send_now(&mut net.b, server, frame, 0).expect("nothing, or more than there is");
        let (error, back) = net.b.zc_send(server, frame).unwrap_err();
        assert_eq!(error, Errno::EINVAL);
        frame = back;
    }
    frame.set_range(at, 2);
    net.b.zc_send(server, frame).unwrap();
    net.run();
    assert_eq!(recv(&mut net.a, client), Ok(b"mi".to_vec()));
    // Longer than a segment: several that came while nobody read, in one frame.
    for _ in 0..20 {
        ask(&mut net, client, &[1; 90]);
    }
    let frame = net.b.zc_recv(server).unwrap();
    assert!(frame.len() > 1448);
    let (error, frame) = net.b.zc_send(server, frame).unwrap_err();
    assert_eq!(error, Errno::EMSGSIZE);
    net.b.zc_release(server, frame).unwrap();
    // After the last of its own, and after the end.
    ask(&mut net, client, b"late");
    let frame = net.b.zc_recv(server).unwrap();
    net.b.shutdown(server, SHUT_WR).unwrap();
    let frame = send_now(&mut net.b, server, frame, 0).expect("it was shut");
    let (error, frame) = net.b.zc_send(server, frame).unwrap_err();
    assert_eq!(error, Errno::EPIPE);
    net.b.close(server).unwrap();
    let (error, frame) = net.b.zc_send(server, frame).unwrap_err();
    assert_eq!(error, Errno::EBADF);
    net.b.zc_release(server, frame).unwrap();
    // A datagram says not where it came from.
    let (u, v) = (udp(&mut net.a), udp(&mut net.b));
    net.b.bind(v, addr(2, 9)).unwrap();
    net.a.connect(u, addr(2, 9)).unwrap();
    net.a.send(u, b"datagram", 0).unwrap();
    net.run();
    let frame = net.b.zc_recv(v).unwrap();
    let (error, frame) = net.b.zc_send(v, frame).unwrap_err();
    assert_eq!(error, Errno::EINVAL);
    net.b.zc_release(v, frame).unwrap();
    assert_eq!(net.b.lent_frames(), 0);
    net.b.stack.assert_conserved();
}

#[test]
fn a_frame_without_room_or_of_another_worker_goes_back_as_a_copy() {
    let mut net = Net::new();
    let arena = crate::frame::Arena::heap(4096, 2048);
    let mut far = Pool::new(arena.clone(), 4000, 96);
    net.b = Sockets::new(Stack::new(config(2), Pool::new(arena, 0, 4000), 2));
    let (client, server, _) = open(&mut net);
    // Behind 64 bytes, as some drivers leave them, and in another's frame.
    for foreign in [false, true] {
        net.pass(Duration::from_secs(1));
        net.a.send(client, b"text", 0).unwrap();
        net.a.turn(net.now);
        let (pool, queue) = net.a.tx();
        let desc = queue.pop().unwrap();
        let packet = pool.tx_bytes(&desc).to_vec();
        pool.complete(desc.index());
        let at = if foreign { 0 } else { 64 };
        let home = if foreign { &mut far } else { &mut net.b.stack.core.pool };
        let mut frame = home.alloc().unwrap();
        frame.set_range(at, packet.len());
        home.bytes_mut(&mut frame).copy_from_slice(&packet);
        let mut batch = Batch::new();
        batch.push(Packet::single(frame));
        net.b.receive(net.now, &mut batch);
        let before = net.b.stack.core.counters.tx_copied_bytes;
        let mut frame = net.b.zc_recv(server).unwrap();
        assert_eq!(far.is_home(&frame), foreign);
        net.b.stack.core.pool.arena().bytes_mut(&mut frame)[0] = b'n';
        match send_now(&mut net.b, server, frame, 0) {
            Some(frame) => net.b.zc_send(server, frame).unwrap(),
            None => assert!(!foreign, "the frame has to go home"),
        }
        net.b.turn(net.now);
        carry(&mut net.b, &mut net.a, net.now, false);
        net.a.turn(net.now);
        assert_eq!(recv(&mut net.a, client), Ok(b"next".to_vec()));
        assert_eq!(net.b.stack.core.counters.tx_copied_bytes - before, 4);
        let home: Vec<_> = net.b.stack.core.pool.take_foreign().collect();
        assert_eq!(home.len(), usize::from(foreign));
        home.into_iter().for_each(|frame| far.free(frame));
        far.assert_conserved();
    }
}

#[test]
fn what_is_sent_back_leaves_frames_for_others() {
    let mut net = Net::new();
    let (client, server, _) = open(&mut net);
    ask(&mut net, client, b"text");
    let frame = net.b.zc_recv(server).unwrap();
    let reserve = net.b.stack.core.config.tcp.send_reserve();
    let pool = &mut net.b.stack.core.pool;
    let hoard: Vec<_> = core::iter::from_fn(|| (pool.available() > reserve).then(|| pool.alloc()).flatten()).collect();
    // The first may: it was received, and takes none.
    net.b.zc_send(server, frame).unwrap();
    net.b.turn(net.now);
    ask(&mut net, client, b"more");
    let frame = net.b.zc_recv(server).unwrap();
    let frame = send_now(&mut net.b, server, frame, 0).expect("few are free");
    let (error, frame) = net.b.zc_send(server, frame).unwrap_err();
    assert_eq!((error, net.b.readiness(server).contains(Readiness::OUT)), (Errno::EAGAIN, false));
    hoard.into_iter().for_each(|frame| net.b.stack.core.pool.free(frame));
    net.b.turn(net.now);
    assert!(net.b.readiness(server).contains(Readiness::OUT));
    net.b.zc_send(server, frame).unwrap();
    net.run();
    assert_eq!(recv(&mut net.a, client), Ok(b"textmore".to_vec()));
}

#[test]
fn another_workers_frame_that_is_refused_is_told_of_room_later() {
    let mut net = Net::new();
    let arena = crate::frame::Arena::heap(4096, 2048);
    let mut far = Pool::new(arena.clone(), 4000, 96);
    net.b = Sockets::new(Stack::new(config(2), Pool::new(arena, 0, 4000), 2));
    let (client, server, _) = open(&mut net);
    net.a.send(client, b"text", 0).unwrap();
    net.a.turn(net.now);
    let (pool, queue) = net.a.tx();
    let desc = queue.pop().unwrap();
    let mut frame = far.alloc().unwrap();
    frame.set_range(0, pool.tx_bytes(&desc).len());
    far.bytes_mut(&mut frame).copy_from_slice(pool.tx_bytes(&desc));
    pool.complete(desc.index());
    let mut batch = Batch::new();
    batch.push(Packet::single(frame));
    net.b.receive(net.now, &mut batch);
    let frame = net.b.zc_recv(server).unwrap();
    let reserve = net.b.stack.core.config.tcp.send_reserve();
    let pool = &mut net.b.stack.core.pool;
    let hoard: Vec<_> = core::iter::from_fn(|| (pool.available() > reserve).then(|| pool.alloc()).flatten()).collect();
    // Nothing is under way whose ACK would tell.
    let (error, frame) = net.b.zc_send(server, frame).unwrap_err();
    assert_eq!((error, net.b.readiness(server).contains(Readiness::OUT)), (Errno::EAGAIN, false));
    hoard.into_iter().for_each(|frame| net.b.stack.core.pool.free(frame));
    net.b.turn(net.now);
    assert!(net.b.readiness(server).contains(Readiness::OUT));
    net.b.zc_send(server, frame).unwrap();
    net.run();
    assert_eq!(recv(&mut net.a, client), Ok(b"text".to_vec()));
    net.b.stack.core.pool.take_foreign().for_each(|frame| far.free(frame));
    far.assert_conserved();
}
