//! The mirror of the kernel's addresses, routes, neighbours and interface, and
//! what asking it for neighbours does. Needs root.

mod bed;

use bed::{Bed, TempFile, enter, ip};
use ringroad::device::xdp::Interface;
use ringroad::runtime::kernel::{Change, Netlink};
use ringroad::stack::Neighbor;
use ringroad::wire::ethernet::Mac;
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn open() -> Netlink {
    Netlink::open(Interface::query(Bed::OUR_IF).unwrap().index).unwrap()
}

/// Polls until a change satisfies `wanted`, for five seconds at most.
#[track_caller]
fn wait(mirror: &mut Netlink, wanted: impl Fn(&Change) -> bool) -> Change {
    let give_up = Instant::now() + Duration::from_secs(5);
    let mut seen = Vec::new();
    loop {
        for change in mirror.poll().unwrap() {
            if wanted(&change) {
                return change;
            }
            seen.push(change);
        }
        assert!(Instant::now() < give_up, "only {seen:?}");
        let mut fd = libc::pollfd { fd: mirror.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives through the call.
        unsafe { libc::poll(&mut fd, 1, 100) };
    }
}

fn peer_mac(bed: &Bed) -> Mac {
    let (tx, peer) = (std::sync::mpsc::channel(), bed.peer.clone());
    std::thread::spawn(move || {
        enter(&peer);
        tx.0.send(Interface::query(Bed::PEER_IF).unwrap().mac).unwrap();
    });
    Mac(tx.1.recv().unwrap())
}

#[test]
fn the_first_look_is_complete() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    ip(&format!("route add default via {}", Bed::PEER_IP));
    ip("route add 192.0.2.0/24 via 10.7.0.9 metric 7 mtu 1300 src 10.7.0.1");
    ip("route add 198.51.100.0/24 nexthop via 10.7.0.2 nexthop via 10.7.0.3");
    ip("route add blackhole 203.0.113.0/24");
    let mirror = open();
    assert_eq!(mirror.addresses(), [(addr(Bed::OUR_IP), 24)]);
    let link = mirror.link();
    assert!(link.exists && link.up && link.running);
    assert_eq!(link.mtu, 1500);
    assert_eq!(link.mac, Mac(Interface::query(Bed::OUR_IF).unwrap().mac));
    let find = |net: &str, prefix: u8| {
        let found = mirror.routes().iter().find(|r| (r.destination, r.prefix) == (addr(net), prefix));
        found.cloned().unwrap_or_else(|| panic!("no route to {net} in {:?}", mirror.routes()))
    };
    assert_eq!(find("0.0.0.0", 0).gateway, Some(addr(Bed::PEER_IP)));
    let link_route = find("10.7.0.0", 24);
    assert_eq!((link_route.gateway, link_route.source), (None, Some(addr(Bed::OUR_IP))));
    let metered = find("192.0.2.0", 24);
    assert_eq!((metered.metric, metered.mtu), (7, Some(1300)));
    assert_eq!((metered.gateway, metered.source), (Some(addr("10.7.0.9")), Some(addr(Bed::OUR_IP))));
    assert_eq!(find("198.51.100.0", 24).gateway, Some(addr(Bed::PEER_IP)));
    assert_eq!(mirror.routes().len(), 4);
}

#[test]
fn changes_are_followed() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut mirror = open();
    assert_eq!(mirror.poll().unwrap(), []);

    ip(&format!("addr add 10.8.0.1/16 dev {}", Bed::OUR_IF));
    wait(&mut mirror, |c| *c == Change::Route);
    assert_eq!(mirror.addresses(), [(addr(Bed::OUR_IP), 24), (addr("10.8.0.1"), 16)]);
    assert!(mirror.routes().iter().any(|r| r.destination == addr("10.8.0.0")));

    ip("route add default via 10.8.0.2");
    wait(&mut mirror, |c| *c == Change::Route);
    ip("route replace default via 10.8.0.3");
    wait(&mut mirror, |c| *c == Change::Route);
    let defaults: Vec<_> = mirror.routes().iter().filter(|r| r.prefix == 0).collect();
    assert_eq!(defaults.len(), 1);
    assert_eq!(defaults[0].gateway, Some(addr("10.8.0.3")));

    ip("route add 192.0.2.0/24 via 10.7.0.9 src 10.8.0.1");
    wait(&mut mirror, |c| *c == Change::Route);
    assert_eq!(mirror.routes().len(), 4);

    // The kernel takes routes away with the address, without a word.
    ip(&format!("addr del 10.8.0.1/16 dev {}", Bed::OUR_IF));
    wait(&mut mirror, |c| *c == Change::Address);
    mirror.poll().unwrap();
    assert_eq!(mirror.addresses(), [(addr(Bed::OUR_IP), 24)]);
    assert_eq!(ip("-4 route show").lines().count(), 2, "{}", ip("-4 route show"));
    assert_eq!(mirror.routes().len(), 2, "{:?}", mirror.routes());

    ip(&format!("link set {} mtu 1400", Bed::OUR_IF));
    wait(&mut mirror, |c| matches!(c, Change::Link(link) if link.mtu == 1400));
    ip(&format!("link set {} address 02:00:00:00:00:07", Bed::OUR_IF));
    wait(&mut mirror, |c| matches!(c, Change::Link(l) if l.mac == Mac([2, 0, 0, 0, 0, 7])));
}

#[test]
fn the_interface_goes_down_comes_back_and_is_deleted() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut mirror = open();
    ip(&format!("link set {} down", Bed::OUR_IF));
    wait(&mut mirror, |c| matches!(c, Change::Link(link) if !link.up && link.exists));
    mirror.poll().unwrap();
    assert!(mirror.routes().is_empty(), "{:?}", mirror.routes());
    ip(&format!("link set {} up", Bed::OUR_IF));
    wait(&mut mirror, |c| matches!(c, Change::Link(link) if link.up));
    let give_up = Instant::now() + Duration::from_secs(5);
    while mirror.routes().is_empty() {
        assert!(Instant::now() < give_up);
        mirror.poll().unwrap();
    }
    ip(&format!("link del {}", Bed::OUR_IF));
    wait(&mut mirror, |c| matches!(c, Change::Link(link) if !link.exists));
    mirror.poll().unwrap();
    assert!(mirror.addresses().is_empty() && mirror.routes().is_empty());
    assert!(Netlink::open(77_777).is_err());
}

#[test]
fn a_neighbour_is_found_kept_and_let_go() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut mirror = open();
    let peer = addr(Bed::PEER_IP);
    assert_eq!(mirror.neighbor(peer), Neighbor::Gone);
    assert_eq!(mirror.ask_neighbor(peer).unwrap(), None);
    let mac = peer_mac(&bed);
    wait(&mut mirror, |c| *c == Change::Neighbor(peer, Neighbor::Known(mac)));
    assert!(ip("neigh show").contains("managed"), "{}", ip("neigh show"));
    // Asked again, it is known at once; so it is for another mirror.
    assert_eq!(mirror.ask_neighbor(peer).unwrap(), Some(Neighbor::Known(mac)));
    assert_eq!(open().neighbor(peer), Neighbor::Known(mac));

    // It moves, and the kernel hears of it: so do we.
    ip(&format!("neigh replace {peer} lladdr 02:00:00:00:00:99 dev {} nud stale", Bed::OUR_IF));
    let moved = Mac([2, 0, 0, 0, 0, 0x99]);
    wait(&mut mirror, |c| *c == Change::Neighbor(peer, Neighbor::Known(moved)));

    drop(mirror);
    assert!(!ip("neigh show").contains("managed"), "{}", ip("neigh show"));
}

#[test]
fn a_neighbour_that_is_set_for_good_stays_so() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let peer = addr(Bed::PEER_IP);
    let set = |mac: &str| ip(&format!("neigh replace {peer} lladdr {mac} dev {} nud permanent", Bed::OUR_IF));
    let stays = |mac: &str| {
        let shown = ip("neigh show");
        assert!(shown.contains(mac) && shown.contains("PERMANENT") && !shown.contains("managed"), "{shown}");
    };
    set("02:00:00:00:00:77");
    let mut mirror = open();
    let known = Neighbor::Known(Mac([2, 0, 0, 0, 0, 0x77]));
    assert_eq!(mirror.ask_neighbor(peer).unwrap(), Some(known));
    stays("02:00:00:00:00:77");
    drop(mirror);
    stays("02:00:00:00:00:77");

    // Also one that was being looked after when it was set.
    ip(&format!("neigh del {peer} dev {}", Bed::OUR_IF));
    let mut mirror = open();
    mirror.ask_neighbor(peer).unwrap();
    wait(&mut mirror, |c| matches!(c, Change::Neighbor(ip, Neighbor::Known(_)) if *ip == peer));
    set("02:00:00:00:00:78");
    let moved = Neighbor::Known(Mac([2, 0, 0, 0, 0, 0x78]));
    wait(&mut mirror, |c| *c == Change::Neighbor(peer, moved));
    mirror.release_neighbor(peer).unwrap();
    let shown = ip("neigh show");
    assert!(shown.contains("02:00:00:00:00:78") && shown.contains("PERMANENT"), "{shown}");
}

#[test]
fn a_neighbour_that_does_not_answer_fails() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut mirror = open();
    let nobody = addr("10.7.0.77");
    assert_eq!(mirror.ask_neighbor(nobody).unwrap(), None);
    wait(&mut mirror, |c| *c == Change::Neighbor(nobody, Neighbor::Failed));
    // A later question is a new one, and is answered anew.
    assert_eq!(mirror.ask_neighbor(nobody).unwrap(), None);
    wait(&mut mirror, |c| *c == Change::Neighbor(nobody, Neighbor::Failed));
    // What nobody asked for is not told.
    ip(&format!("neigh add 10.7.0.88 lladdr 02:00:00:00:00:88 dev {}", Bed::OUR_IF));
    std::thread::sleep(Duration::from_millis(50));
    let told = mirror.poll().unwrap();
    assert!(!told.iter().any(|c| matches!(c, Change::Neighbor(ip, _) if *ip == addr("10.7.0.88"))));
    assert_eq!(mirror.neighbor(addr("10.7.0.88")), Neighbor::Known(Mac([2, 0, 0, 0, 0, 0x88])));
}

#[test]
fn more_changes_than_the_socket_holds_are_not_lost() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut mirror = open();
    // Some 20,000 changes at about 100 bytes in a socket that holds 2 MB.
    let mut batch = String::new();
    for i in 0..20_000u32 {
        let (a, b) = (i / 250 % 250, i % 250);
        batch += &format!("route replace 172.16.{a}.{b}/32 via 10.7.0.2 metric {}\n", 1 + i / 62_500);
    }
    let file = TempFile::new("routes");
    std::fs::write(file.path(), batch).unwrap();
    let out = bed.in_ours("ip", &["-batch", file.path()]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let give_up = Instant::now() + Duration::from_secs(20);
    while mirror.routes().len() != 20_001 {
        assert!(Instant::now() < give_up, "{} routes", mirror.routes().len());
        mirror.poll().unwrap();
    }
}

#[test]
fn without_the_privilege_the_refusal_is_told() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut mirror = open();
    let mac = peer_mac(&bed);
    drop_privileges();
    let why = mirror.ask_neighbor(addr(Bed::PEER_IP)).unwrap_err();
    assert_eq!(why.raw_os_error(), Some(libc::EPERM));
    // What the kernel finds for itself is seen all the same.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(&[], (Bed::PEER_IP, 9)).unwrap();
    wait(&mut mirror, |c| *c == Change::Neighbor(addr(Bed::PEER_IP), Neighbor::Known(mac)));
}

/// Takes all effective capabilities from the calling thread.
fn drop_privileges() {
    let header = [0x2008_0522u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this thread
    let mut sets = [0u32; 6]; // effective, permitted, inheritable; low words first
    // SAFETY: both arrays have the layout of that version.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        (sets[0], sets[3]) = (0, 0);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}
