//! Epoll sets and watching.

use super::*;

#[test]
fn level_triggered_members_are_reported_while_they_are_ready() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    let ep = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, 7).unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, listener, EPOLLIN, 8).unwrap();
    assert_eq!(events(&mut net.b, ep), []);
    net.a.send(client, b"abc", 0).unwrap();
    net.run();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
    recv(&mut net.b, server).unwrap();
    assert_eq!(events(&mut net.b, ep), []);
    assert!(!net.b.epoll_may_be_ready(ep));
    let second = tcp(&mut net.a);
    let _ = net.a.connect(second, addr(2, 80));
    net.run();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 8)]);
    net.a.close(client).unwrap();
    net.run();
    let mut got = events(&mut net.b, ep);
    got.sort_unstable();
    assert_eq!(got, [(EPOLLIN, 7), (EPOLLIN, 8)]);
}

#[test]
fn edge_triggered_members_are_reported_once_an_event() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let ep = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN | EPOLLET, 7).unwrap();
    for _ in 0..2 {
        net.a.send(client, b"abc", 0).unwrap();
        net.run();
        // New data is a new event, though the old was not read.
        assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
        assert_eq!(events(&mut net.b, ep), []);
    }
    // A modification looks again.
    net.b.epoll_ctl(ep, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLOUT | EPOLLET, 9).unwrap();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN | EPOLLOUT, 9)]);
    assert_eq!(events(&mut net.b, ep), []);
}

#[test]
fn one_shot_members_are_reported_until_they_are_armed_again() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let ep = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN | EPOLLONESHOT, 7).unwrap();
    net.a.send(client, b"abc", 0).unwrap();
    net.run();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
    net.a.close(client).unwrap();
    net.run();
    assert_eq!(events(&mut net.b, ep), []);
    net.b.epoll_ctl(ep, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLONESHOT, 7).unwrap();
    assert_eq!(events(&mut net.b, ep), [(EPOLLIN, 7)]);
}

#[test]
fn room_to_send_is_an_event() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let ep = net.a.epoll_create().unwrap();
    let data = vec![0; 1 << 16];
    while net.a.send(client, &data, 0).is_ok() {
        net.run();
    }
    net.a.epoll_ctl(ep, EPOLL_CTL_ADD, client, EPOLLOUT | EPOLLET, 1).unwrap();
    assert_eq!(events(&mut net.a, ep), []);
    while recv(&mut net.b, server).is_ok() {
        net.run();
    }
    net.pass(Duration::from_secs(1));
    assert_eq!(events(&mut net.a, ep), [(EPOLLOUT, 1)]);
}

#[test]
fn a_refused_connection_is_an_event() {
    let mut net = Net::new();
    let client = tcp(&mut net.a);
    let ep = net.a.epoll_create().unwrap();
    net.a.epoll_ctl(ep, EPOLL_CTL_ADD, client, EPOLLOUT, 1).unwrap();
    assert_eq!(events(&mut net.a, ep), [(EPOLLOUT | EPOLLHUP, 1)]);
    let _ = net.a.connect(client, addr(2, 81));
    assert_eq!(events(&mut net.a, ep), []);
    net.run();
    assert_eq!(events(&mut net.a, ep), [(EPOLLOUT | EPOLLERR | EPOLLHUP, 1)]);
}

#[test]
fn ctl_has_linuxs_errors() {
    let mut net = Net::new();
    let s = &mut net.a;
    let (ep, h, gone) = (s.epoll_create().unwrap(), tcp(s), tcp(s));
    s.close(gone).unwrap();
    let mut ctl = |op, h, events| s.epoll_ctl(ep, op, h, events, 0);
    assert_eq!(ctl(EPOLL_CTL_MOD, h, EPOLLIN), Err(Errno::ENOENT));
    assert_eq!(ctl(EPOLL_CTL_DEL, h, EPOLLIN), Err(Errno::ENOENT));
    assert_eq!(ctl(EPOLL_CTL_ADD, h, EPOLLIN), Ok(()));
    assert_eq!(ctl(EPOLL_CTL_ADD, h, EPOLLIN), Err(Errno::EEXIST));
    assert_eq!(ctl(99, h, EPOLLIN), Err(Errno::EINVAL));
    assert_eq!(ctl(EPOLL_CTL_ADD, gone, EPOLLIN), Err(Errno::EBADF));
    assert_eq!(ctl(EPOLL_CTL_ADD, ep, EPOLLIN), Err(Errno::EINVAL));
    assert_eq!(ctl(EPOLL_CTL_MOD, h, EPOLLIN | EPOLLEXCLUSIVE), Err(Errno::EINVAL));
    assert_eq!(ctl(EPOLL_CTL_DEL, h, 0), Ok(()));
    assert_eq!(ctl(EPOLL_CTL_ADD, h, EPOLLONESHOT | EPOLLEXCLUSIVE), Err(Errno::EINVAL));
    assert_eq!(ctl(EPOLL_CTL_ADD, h, EPOLLIN | EPOLLEXCLUSIVE), Ok(()));
    assert_eq!(s.epoll_ctl(h, EPOLL_CTL_ADD, ep, EPOLLIN, 0), Err(Errno::EINVAL));
    assert_eq!(s.epoll_wait(h, &mut Vec::new(), 1), Err(Errno::EINVAL));
    assert_eq!(s.epoll_wait(ep, &mut Vec::new(), 0), Err(Errno::EINVAL));
    assert_eq!(s.send(ep, b"x", 0), Err(Errno::ENOTSOCK));
    assert_eq!(recv(s, ep), Err(Errno::ENOTSOCK));
}

#[test]
fn sets_nest_but_not_in_circles() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let s = &mut net.b;
    let sets: Vec<_> = (0..6).map(|_| s.epoll_create().unwrap()).collect();
    s.epoll_ctl(sets[0], EPOLL_CTL_ADD, server, EPOLLIN, 1).unwrap();
    s.epoll_ctl(sets[1], EPOLL_CTL_ADD, sets[0], EPOLLIN, 2).unwrap();
    assert_eq!(s.epoll_ctl(sets[0], EPOLL_CTL_ADD, sets[1], EPOLLIN, 3), Err(Errno::ELOOP));
    assert_eq!(events(s, sets[1]), []);
    net.a.send(client, b"abc", 0).unwrap();
    net.run();
    let s = &mut net.b;
    assert_eq!(events(s, sets[1]), [(EPOLLIN, 2)]);
    assert_eq!(events(s, sets[0]), [(EPOLLIN, 1)]);
    recv(s, server).unwrap();
    assert_eq!(events(s, sets[1]), []);
    let mut deepest = Ok(());
    for pair in sets[1..].windows(2) {
        deepest = deepest.and(s.epoll_ctl(pair[1], EPOLL_CTL_ADD, pair[0], EPOLLIN, 0));
    }
    assert_eq!(deepest, Err(Errno::ELOOP));
    for set in sets {
        s.close(set).unwrap();
    }
    s.close(server).unwrap();
}

#[test]
fn a_closed_member_leaves_its_sets_and_a_closed_set_its_members() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let (one, two) = (net.b.epoll_create().unwrap(), net.b.epoll_create().unwrap());
    for ep in [one, two] {
        net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, 1).unwrap();
    }
    net.a.send(client, b"abc", 0).unwrap();
    net.run();
    net.b.close(one).unwrap();
    assert_eq!(events(&mut net.b, two), [(EPOLLIN, 1)]);
    net.b.close(server).unwrap();
    assert_eq!(events(&mut net.b, two), []);
    // The places are used again, and right.
    let h = udp(&mut net.b);
    net.b.epoll_ctl(two, EPOLL_CTL_ADD, h, EPOLLOUT, 5).unwrap();
    assert_eq!(events(&mut net.b, two), [(EPOLLOUT, 5)]);
}

#[test]
fn a_wait_reports_no_more_than_asked_and_takes_turns() {
    let mut net = Net::new();
    let ep = net.a.epoll_create().unwrap();
    for data in 0..5 {
        let h = udp(&mut net.a);
        net.a.epoll_ctl(ep, EPOLL_CTL_ADD, h, EPOLLOUT, data).unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        let mut out = Vec::new();
        assert_eq!(net.a.epoll_wait(ep, &mut out, 2), Ok(2));
        seen.extend(out.iter().map(|e| e.data));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
}

#[test]
fn watched_sockets_are_found_once_a_change() {
    let mut net = Net::new();
    let (client, server, _) = net.connected(80);
    let mut out = Vec::new();
    net.b.watch(server, 42);
    net.b.take_watched(&mut out);
    assert_eq!(out, [(42, server, Readiness::OUT)]);
    out.clear();
    net.b.take_watched(&mut out);
    assert_eq!(out, []);
    net.a.send(client, b"abc", 0).unwrap();
    net.run();
    net.a.send(client, b"def", 0).unwrap();
    net.run();
    net.b.take_watched(&mut out);
    assert_eq!(out, [(42, server, Readiness::IN | Readiness::OUT)]);
    out.clear();
    net.b.unwatch(server);
    net.a.close(client).unwrap();
    net.run();
    net.b.take_watched(&mut out);
    assert_eq!(out, []);
}

#[test]
fn a_hang_up_is_told_to_who_asked_for_nothing_else() {
    let mut net = Net::new();
    let (client, server, listener) = net.connected(80);
    let ep = net.b.epoll_create().unwrap();
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLET, 7).unwrap();
    net.b.shutdown(server, SHUT_WR).unwrap();
    assert_eq!(events(&mut net.b, ep), []);
    net.a.shutdown(client, SHUT_WR).unwrap();
    net.run();
    assert_eq!(events(&mut net.b, ep), [(EPOLLHUP, 7)]);

    // Shut down both ways by its own program.
    let (_, server) = net.join(listener, 80);
    net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLET, 8).unwrap();
    net.b.shutdown(server, SHUT_RDWR).unwrap();
    assert_eq!(events(&mut net.b, ep), [(EPOLLHUP, 8)]);
    assert!(net.b.readiness(server).contains(Readiness::HUP | Readiness::RDHUP | Readiness::IN));
}

#[test]
fn a_larger_send_buffer_is_room_to_send() {
    let mut net = Net::new();
    let (client, _, _) = net.connected(80);
    set(&mut net.a, client, SOL_SOCKET, SO_SNDBUF, 20_000).unwrap();
    let ep = net.a.epoll_create().unwrap();
    net.a.epoll_ctl(ep, EPOLL_CTL_ADD, client, EPOLLOUT | EPOLLET, 7).unwrap();
    while net.a.send(client, &[0; 10_000], 0).is_ok() {}
    events(&mut net.a, ep);
    assert_eq!(events(&mut net.a, ep), []);
    set(&mut net.a, client, SOL_SOCKET, SO_SNDBUF, 200_000).unwrap();
    assert_eq!(events(&mut net.a, ep), [(EPOLLOUT, 7)]);
}

#[test]
fn whoever_is_closed_while_it_is_ready_leaves_the_others_on_the_list() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut net = Net::new();
        let ep = net.b.epoll_create().unwrap();
        let listener = listen(&mut net.b, 80, 16);
        let mut members: Vec<_> = (0..3).map(|_| net.join(listener, 80)).collect();
        for &(client, server) in &members {
            net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, server.to_raw()).unwrap();
            net.a.send(client, b"x", 0).unwrap();
        }
        net.run();
        let mut left: Vec<_> = members.iter().map(|m| m.1.to_raw()).collect();
        for n in order {
            let mut events = Vec::new();
            assert_eq!(net.b.epoll_wait(ep, &mut events, 8), Ok(left.len()));
            let mut found: Vec<_> = events.iter().map(|e| e.data).collect();
            found.sort_unstable();
            assert_eq!(found, left, "{order:?}");
            net.b.close(members[n].1).unwrap();
            left.retain(|raw| *raw != members[n].1.to_raw());
        }
        assert_eq!(net.b.epoll_wait(ep, &mut Vec::new(), 8), Ok(0));
        // Their places are others' now, which have nothing to be told of.
        members = (0..3).map(|_| net.join(listener, 80)).collect();
        for &(_, server) in &members {
            net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, server.to_raw()).unwrap();
        }
        assert_eq!(net.b.epoll_wait(ep, &mut Vec::new(), 8), Ok(0));
        net.a.send(members[1].0, b"y", 0).unwrap();
        net.run();
        let mut events = Vec::new();
        assert_eq!(net.b.epoll_wait(ep, &mut events, 8), Ok(1));
        assert_eq!(events[0].data, members[1].1.to_raw());
    }
}
