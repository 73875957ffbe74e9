//! More connections than stay in the caches.

use super::*;

/// So many that batches are looked up before they are worked off.
const MANY: u16 = 600;

fn many() -> (Net, Vec<(Handle, Handle)>) {
    let mut net = Net::new();
    let listener = listen(&mut net.b, 80, 16);
    let all = (0..MANY).map(|_| net.join(listener, 80)).collect();
    assert!(net.b.stack.tcp.is_spread());
    (net, all)
}

#[test]
fn each_of_many_hears_what_it_was_told() {
    let (mut net, all) = many();
    let ep = net.b.epoll_create().unwrap();
    for (n, &(_, server)) in (0u64..).zip(&all) {
        net.b.epoll_ctl(ep, EPOLL_CTL_ADD, server, EPOLLIN, n).unwrap();
    }
    for round in 0..3u16 {
        // In an order that is not theirs; some twice, some with a bare ACK between.
        let order: Vec<u16> = (0..MANY).map(|i| i * 7 % MANY).collect();
        for &n in &order {
            let (client, _) = all[usize::from(n)];
            net.a.send(client, &(n + round).to_be_bytes(), 0).unwrap();
            if n % 5 == 0 {
                net.a.send(client, b"!", 0).unwrap();
            }
        }
        net.run();
        let mut seen = 0;
        while seen < MANY {
            for (_, n) in events(&mut net.b, ep) {
                let got = recv(&mut net.b, all[n as usize].1).unwrap();
                assert_eq!(got[..2], (n as u16 + round).to_be_bytes());
                assert_eq!(got[2..], *(if n % 5 == 0 { &b"!"[..] } else { b"" }));
                seen += 1;
            }
        }
        net.run();
        assert!(events(&mut net.b, ep).is_empty());
    }
}

#[test]
fn a_batch_is_looked_up_before_it_is_worked_off() {
    let (mut net, all) = many();
    for &(client, _) in &all[100..160] {
        net.a.send(client, b"x", 0).unwrap();
    }
    net.a.turn(net.now);
    // What is no segment of anybody's: too short, and not TCP.
    let mut batch = Batch::new();
    let mut put = |net: &mut Net, bytes: &[u8]| {
        let mut frame = net.b.stack.core.pool.alloc().unwrap();
        net.b.stack.core.pool.buffer_mut(&mut frame)[..bytes.len()].copy_from_slice(bytes);
        frame.set_range(0, bytes.len());
        batch.push(Packet::single(frame));
    };
    put(&mut net, &[0x45; 53]);
    put(&mut net, &[0x11; 200]);
    let mut ports = Vec::new();
    while let Some(desc) = net.a.tx().1.pop() {
        let bytes = net.a.tx().0.tx_bytes(&desc).to_vec();
        ports.push(u16::from_be_bytes([bytes[34], bytes[35]]));
        put(&mut net, &bytes);
        net.a.tx().0.complete(desc.index());
    }
    assert_eq!(ports.len(), 60);
    let Stack { core, tcp, .. } = &mut net.b.stack;
    tcp.look_ahead(&core.pool, &batch);
    // It is taken from the end.
    let found: Vec<u32> = tcp.found_ahead().iter().rev().copied().collect();
    assert_eq!(found[..2], [crate::stack::tcp::NONE; 2]);
    let right = ports.iter().zip(&found[2..]).filter(|&(port, id)| tcp.remote(*id).port() == *port);
    assert!(right.count() >= 50, "nearly all are the right ones");
    tcp.forget_ahead();
    net.b.receive(net.now, &mut batch);
    for &(_, server) in &all[100..160] {
        assert_eq!(recv(&mut net.b, server).unwrap(), b"x");
    }
    net.b.stack.assert_conserved();
}
