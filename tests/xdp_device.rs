//! The AF_XDP device on a veth pair against the kernel. Needs root.

mod bed;

use bed::{Bed, enter, foreign_program, ip, run};
use ringroad::device::Device;
use ringroad::device::xdp::{
    self, Addresses, Attach, ErrorKind, Interface, Mode, Protocol, Query, Steering, XdpConfig, XdpDevice,
};
use ringroad::frame::{Batch, Pool, TxQueue};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 7000;

fn shared() -> Addresses {
    Addresses::Shared(vec![Bed::OUR_IP.parse().unwrap()])
}

fn config(queues: u32) -> XdpConfig {
    let mut config = XdpConfig::new(Bed::OUR_IF, shared());
    config.queues = (0..queues).collect();
    config.frames_per_queue = 1024;
    (config.rx_ring, config.tx_ring, config.fill_ring) = (256, 256, 256);
    config.tx_reserve = 128;
    config.huge_pages = Some(false); // so that the test of them finds as many as it saw
    config
}

/// One worker that sends every UDP packet back where it came from.
struct Echo {
    device: XdpDevice,
    pool: Pool,
    queue: TxQueue,
    echoed: u64,
}

impl Echo {
    fn new((device, pool): (XdpDevice, Pool)) -> Self {
        Self { device, pool, queue: TxQueue::new(256), echoed: 0 }
    }

    fn turn(&mut self) {
        let mut batch = Batch::new();
        self.device.reap(&mut self.pool);
        self.device.receive(&mut self.pool, &mut batch);
        for mut packet in batch.drain(..) {
            assert!(packet.rest.is_none());
            assert_eq!(packet.head.offset(), 0);
            let bytes = self.pool.bytes_mut(&mut packet.head);
            let (macs, rest) = bytes.split_at_mut(14);
            let (dst, src) = macs.split_at_mut(6);
            dst.swap_with_slice(&mut src[..6]);
            let (src, dst) = rest[12..].split_at_mut(4);
            src.swap_with_slice(&mut dst[..4]);
            let (src, dst) = rest[20..].split_at_mut(2);
            src.swap_with_slice(&mut dst[..2]);
            let len = packet.head.len();
            self.queue.push(self.pool.transmit_and_free(packet.head, len));
            self.echoed += 1;
        }
        self.device.transmit(&mut self.pool, &mut self.queue);
        self.device.refill(&mut self.pool);
        self.pool.assert_conserved();
    }

    /// Turns until `done`, for ten seconds at most.
    fn turn_until(&mut self, mut done: impl FnMut() -> bool) {
        let give_up = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < give_up, "{:?} {:?}", self.device, self.device.statistics());
            self.turn();
        }
    }
}

/// Sends `count` datagrams of `size` bytes and expects each back; returns how many came.
fn exchange(count: usize, size: usize) -> usize {
    let socket = UdpSocket::bind((Bed::PEER_IP, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut back = 0;
    for i in 0..count {
        let data = vec![i as u8; size];
        socket.send_to(&data, (Bed::OUR_IP, PORT)).unwrap();
        match socket.recv(&mut buffer) {
            Ok(n) if buffer[..n] == data => back += 1,
            Ok(n) => panic!("{n} other bytes came back"),
            Err(_) => {}
        }
    }
    back
}

fn attached_id() -> Option<u32> {
    let interface = Interface::query(Bed::OUR_IF).unwrap();
    xdp::attached(interface.index).unwrap().map(|program| program.id)
}

/// Hugepages of 2 MiB that a mapping can have.
fn free_huge_pages() -> usize {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let value = |name: &str| info.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse::<usize>().ok());
    let reserved = value("HugePages_Rsvd:").unwrap_or(0);
    let free = value("HugePages_Free:").unwrap_or(0).saturating_sub(reserved);
    if value("Hugepagesize:") == Some(2048) { free } else { 0 }
}

#[test]
fn frames_lie_on_hugepages_where_there_are_some() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut config = config(1); // 4 MiB
    config.huge_pages = None;
    let enough = free_huge_pages() >= 2;
    let huge = |config: &XdpConfig| Ok::<_, xdp::Error>(xdp::open(config)?.1[0].0.huge_pages());
    assert_eq!(huge(&config).unwrap(), enough);
    config.huge_pages = Some(false);
    assert!(!huge(&config).unwrap());
    config.huge_pages = Some(true);
    match huge(&config) {
        Ok(huge) => assert!(huge && enough),
        Err(why) => assert!(!enough && why.to_string().contains("vm.nr_hugepages"), "{why}"),
    }
    // Half a page is left over.
    (config.huge_pages, config.frames_per_queue) = (None, 768);
    assert!(!huge(&config).unwrap());
}

#[test]
fn frames_are_echoed_and_the_kernel_keeps_the_rest() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let (steering, mut devices) = xdp::open(&config(1)).unwrap();
    assert_eq!(steering.mode(), Some(Mode::Native));
    assert!(steering.is_attached());
    assert_eq!(attached_id(), steering.program_id());
    let mut echo = Echo::new(devices.pop().unwrap());
    assert!(!echo.device.zero_copy(), "veth copies");
    assert!(echo.device.capabilities().partial_checksums);
    assert_eq!(echo.device.capabilities().mtu, 1500);

    // Nothing is ours before a port is held, and ping is the kernel's throughout.
    steering.hold_port(Protocol::Udp, PORT);
    let peer = bed.at_peer(|| {
        [1, 64, 1000, 1472].iter().map(|size| exchange(100, *size)).sum::<usize>()
    });
    echo.turn_until(|| peer.is_finished());
    assert_eq!(peer.join().unwrap(), 400);
    assert_eq!(echo.echoed, 400);
    let pinged = bed.in_peer("ping", &["-c1", "-W2", Bed::OUR_IP]);
    assert!(pinged.status.success());
    assert_eq!(steering.counters().get("redirect_udp"), 400);

    let statistics = echo.device.statistics().unwrap();
    assert_eq!(statistics.tx_invalid, 0);
    assert_eq!(statistics.rx_ring_full + statistics.rx_dropped + statistics.rx_invalid, 0);

    // Released: the kernel answers (nobody listens there: ICMP port unreachable).
    steering.release_port(Protocol::Udp, PORT);
    let peer = bed.at_peer(|| {
        let socket = UdpSocket::bind((Bed::PEER_IP, 0)).unwrap();
        socket.connect((Bed::OUR_IP, PORT)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        socket.send(b"x").unwrap();
        socket.recv(&mut [0; 8]).map_err(|why| why.kind())
    });
    assert_eq!(peer.join().unwrap(), Err(std::io::ErrorKind::ConnectionRefused));

    drop(echo);
    assert!(!steering.is_attached());
    assert_eq!(attached_id(), None);
}

#[test]
fn a_burst_beyond_the_rings_is_sent_whole() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let (_steering, mut devices) = xdp::open(&config(1)).unwrap();
    let (mut device, mut pool) = devices.pop().unwrap();
    let mac = device.capabilities().mac;
    let counted = || {
        let out = bed.in_peer("cat", &[&format!("/sys/class/net/{}/statistics/rx_packets", Bed::PEER_IF)]);
        String::from_utf8_lossy(&out.stdout).trim().parse::<u64>().unwrap()
    };
    let before = counted();
    let mut queue = TxQueue::new(2048);
    let mut sent = 0;
    let give_up = Instant::now() + Duration::from_secs(10);
    while sent < 2000 || !queue.is_empty() || !device.is_quiet() {
        assert!(Instant::now() < give_up, "{device:?}");
        device.reap(&mut pool);
        while sent < 2000 {
            let Some(mut frame) = pool.alloc() else { break };
            let buffer = pool.buffer_mut(&mut frame);
            buffer[..6].fill(0xff);
            buffer[6..12].copy_from_slice(&mac);
            buffer[12..60].fill(0x88);
            queue.push(pool.transmit_and_free(frame, 60));
            sent += 1;
        }
        device.transmit(&mut pool, &mut queue);
    }
    device.reap(&mut pool);
    pool.assert_conserved();
    assert_eq!(pool.counts().tx, 0, "{device:?}");
    assert_eq!(counted() - before, 2000);
    assert_eq!(device.statistics().unwrap().tx_invalid, 0);
}

#[test]
fn two_queues_have_their_own_rings_over_one_memory() {
    let bed = Bed::new(2);
    enter(&bed.ours);
    let refused = xdp::open(&config(1)).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Config, "{refused}");
    assert!(refused.to_string().contains("receives on 2 queues"), "{refused}");

    let (steering, devices) = xdp::open(&config(2)).unwrap();
    steering.hold_port(Protocol::Udp, PORT);
    let mut echoes: Vec<_> = devices.into_iter().map(Echo::new).collect();
    assert_eq!(echoes[0].pool.arena().count(), 2048);
    // The flow's hash chooses the queue: enough flows reach both.
    let peers: Vec<_> = (0..2)
        .map(|_| bed.at_peer(|| (0..12).map(|_| exchange(20, 64)).sum::<usize>()))
        .collect();
    let give_up = Instant::now() + Duration::from_secs(20);
    while !peers.iter().all(|p| p.is_finished()) {
        assert!(Instant::now() < give_up);
        echoes.iter_mut().for_each(Echo::turn);
    }
    assert_eq!(peers.into_iter().map(|p| p.join().unwrap()).sum::<usize>(), 480);
    assert_eq!(echoes.iter().map(|e| e.echoed).sum::<u64>(), 480);
    assert!(echoes.iter().all(|e| e.echoed > 0), "a queue received nothing");
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let interface = Interface::query(Bed::OUR_IF).unwrap();
    for mode in ["xdpdrv", "xdpgeneric"] {
        let object = foreign_program();
        let object = object.path();
        run("ip", &["link", "set", "dev", Bed::OUR_IF, mode, "obj", object, "sec", "xdp"]);
        let program = xdp::attached(interface.index).unwrap().unwrap();
        let refused = xdp::open(&config(1)).unwrap_err();
        assert_eq!(
            *refused.kind(),
            ErrorKind::ForeignProgram { id: program.id, name: "somebody_elses".into() }
        );
        let text = refused.to_string();
        assert!(text.contains(&format!("(id {}, name somebody_elses", program.id)), "{text}");
        assert_eq!(attached_id(), Some(program.id), "it was displaced");
        run("ip", &["link", "set", "dev", Bed::OUR_IF, mode, "off"]);
    }
    drop(xdp::open(&config(1)).unwrap());
}

#[test]
fn generic_mode_is_said_and_works() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut config = config(1);
    config.attach = Attach::Generic;
    let (steering, mut devices) = xdp::open(&config).unwrap();
    assert_eq!(steering.mode(), Some(Mode::Generic));
    steering.hold_port(Protocol::Udp, PORT);
    let mut echo = Echo::new(devices.pop().unwrap());
    let peer = bed.at_peer(|| exchange(50, 500));
    echo.turn_until(|| peer.is_finished());
    assert_eq!(peer.join().unwrap(), 50);
}

#[test]
fn what_an_interface_cannot_do_is_said() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut zero_copy = config(1);
    zero_copy.bind = xdp::Bind::ZeroCopy;
    let refused = xdp::open(&zero_copy).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(refused.to_string().contains("(veth) has no zero-copy"), "{refused}");

    let mut beyond = config(1);
    beyond.queues = vec![3];
    assert_eq!(*xdp::open(&beyond).unwrap_err().kind(), ErrorKind::Config);
    let mut small = config(1);
    small.frames_per_queue = 300;
    assert_eq!(*xdp::open(&small).unwrap_err().kind(), ErrorKind::Config);
    let mut odd = config(1);
    odd.tx_ring = 300;
    assert_eq!(*xdp::open(&odd).unwrap_err().kind(), ErrorKind::Config);

    ip(&format!("link set {} mtu 9000", Bed::OUR_IF));
    let mut single = config(1);
    single.multi_buffer = Some(false);
    let refused = xdp::open(&single).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Mtu);
    assert!(refused.to_string().contains("MTU of 9000"), "{refused}");
    assert!(refused.to_string().contains("mtu 3498"), "{refused}");
    ip(&format!("link set {} mtu 65535", Bed::OUR_IF));
    let refused = xdp::open(&config(1)).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Mtu, "{refused}");
    assert!(refused.to_string().contains("mtu 9000"), "{refused}");
    ip(&format!("link set {} mtu 1500", Bed::OUR_IF));
    ip(&format!("link set {} down", Bed::OUR_IF));
    assert_eq!(*xdp::open(&config(1)).unwrap_err().kind(), ErrorKind::Down);
    let mut lo = config(1);
    lo.interface = "lo".into();
    assert_eq!(*xdp::open(&lo).unwrap_err().kind(), ErrorKind::Unsupported);
    let mut none = config(1);
    none.interface = "rr9".into();
    assert_eq!(*xdp::open(&none).unwrap_err().kind(), ErrorKind::NoInterface);
    assert_eq!(attached_id(), None);
}

/// Not a test of its own: the process that `a_killed_process_leaves_nothing`
/// starts and kills. It says when it is up, and then waits for ever.
#[test]
fn holder() {
    let Ok(namespace) = std::env::var("RINGROAD_TEST_HOLD") else { return };
    enter(&namespace);
    let (steering, _devices) = xdp::open(&config(1)).unwrap();
    steering.hold_port(Protocol::Udp, PORT);
    println!("holding {}", steering.program_id().unwrap());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[test]
fn a_killed_process_leaves_nothing() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder", "--nocapture"])
        .env("RINGROAD_TEST_HOLD", &bed.ours)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let id = lines
        .find_map(|line| line.unwrap().split("holding ").nth(1)?.trim().parse::<u32>().ok())
        .expect("the holder came up");
    assert_eq!(attached_id(), Some(id));

    // While it lives, a second one is refused, by name.
    let refused = xdp::open(&config(1)).unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::AnotherRingroad { pid: Some(child.id()) });
    let text = refused.to_string();
    assert!(text.contains(&format!("another ringroad in process {}", child.id())), "{text}");

    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    let give_up = Instant::now() + Duration::from_secs(5);
    while attached_id().is_some() {
        assert!(Instant::now() < give_up, "the program outlived its process");
        std::thread::sleep(Duration::from_millis(10));
    }
    // And the next one starts at once, waiting for the queue where it must.
    let (steering, mut devices) = xdp::open(&config(1)).unwrap();
    steering.hold_port(Protocol::Udp, PORT);
    let mut echo = Echo::new(devices.pop().unwrap());
    let peer = bed.at_peer(|| exchange(10, 100));
    echo.turn_until(|| peer.is_finished());
    assert_eq!(peer.join().unwrap(), 10);
}

#[test]
fn a_deleted_interface_is_noticed() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let (steering, mut devices) = xdp::open(&config(1)).unwrap();
    let (mut device, mut pool) = devices.pop().unwrap();
    ip(&format!("link set {} down", Bed::OUR_IF));
    let mut queue = TxQueue::new(8);
    let mut send = |device: &mut XdpDevice, pool: &mut Pool| {
        let mut frame = pool.alloc().unwrap();
        pool.buffer_mut(&mut frame)[..60].fill(0xff);
        queue.push(pool.transmit_and_free(frame, 60));
        device.transmit(pool, &mut queue);
        device.reap(pool);
    };
    send(&mut device, &mut pool);
    assert!(device.is_down());
    assert!(steering.is_attached());
    // Up again: what waited in the ring goes out.
    ip(&format!("link set {} up", Bed::OUR_IF));
    send(&mut device, &mut pool);
    assert!(!device.is_down());
    assert_eq!(pool.counts().tx, 0);

    ip(&format!("link del {}", Bed::OUR_IF));
    assert!(!steering.is_attached());
    send(&mut device, &mut pool);
    assert!(device.is_down());
    drop(device);
    steering.detach();
    assert!(Steering::load(1, false).is_ok());
}

#[test]
fn vlan_stripping_is_off_while_we_steer() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let stripping = || Query::new(Bed::OUR_IF).unwrap().rx_vlan_stripping();
    assert_eq!(stripping(), Some(true), "veth has it on");
    let opened = xdp::open(&config(1)).unwrap();
    assert_eq!(stripping(), Some(false));
    drop(opened);
    assert_eq!(stripping(), Some(true));
}

#[test]
fn a_jumbo_packet_is_several_frames_both_ways() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    ip(&format!("-n {} link set {} mtu 9000", bed.ours, Bed::OUR_IF));
    ip(&format!("-n {} link set {} mtu 9000", bed.peer, Bed::PEER_IF));
    let mut config = config(1);
    config.multi_buffer = Some(true);
    let (steering, mut devices) = xdp::open(&config).unwrap();
    assert_eq!(steering.mode(), Some(Mode::Native));
    steering.hold_port(Protocol::Udp, PORT);
    let (mut device, mut pool) = devices.pop().unwrap();
    let peer = bed.at_peer(|| {
        let socket = UdpSocket::bind((Bed::PEER_IP, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let data: Vec<u8> = (0..8500u32).map(|i| (i % 251) as u8).collect();
        socket.send_to(&data, (Bed::OUR_IP, PORT)).unwrap();
        let mut buffer = vec![0; 65_536];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(n, 8500);
        buffer[..n] == data
    });
    let mut batch = Batch::new();
    let give_up = Instant::now() + Duration::from_secs(5);
    while batch.is_empty() {
        assert!(Instant::now() < give_up, "{device:?} {:?}", device.statistics());
        device.receive(&mut pool, &mut batch);
    }
    assert_eq!(device.held_frames(), 0);
    let mut packet = batch.pop().unwrap();
    assert_eq!(packet.len(), 14 + 20 + 8 + 8500);
    assert_eq!(packet.frames(), 3);
    // Back to the sender: swap the addresses, and the ports; no sum changes.
    let head = pool.bytes_mut(&mut packet.head);
    for (a, b, n) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        (0..n).for_each(|i| head.swap(a + i, b + i));
    }
    let mut queue = TxQueue::new(8);
    let frames = std::iter::once(packet.head).chain(packet.rest.into_iter().flat_map(|r| *r));
    let frames: Vec<_> = frames.collect();
    let last = frames.len() - 1;
    for (i, frame) in frames.into_iter().enumerate() {
        let len = frame.len();
        let mut desc = pool.transmit_and_free(frame, len);
        desc.more = i < last;
        queue.push(desc);
    }
    device.transmit(&mut pool, &mut queue);
    assert!(peer.join().unwrap(), "other bytes came back");
    device.reap(&mut pool);
    pool.assert_conserved();
    assert_eq!(pool.counts().tx, 0);
    assert_eq!(device.statistics().unwrap().tx_invalid, 0);
}

#[test]
fn a_packet_of_several_frames_is_refused_whole_where_the_queue_takes_none() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let (_steering, mut devices) = xdp::open(&config(1)).unwrap();
    let (mut device, mut pool) = devices.pop().unwrap();
    assert!(!device.multi_buffer());
    let mut queue = TxQueue::new(8);
    for more in [true, true, false, false] {
        let mut frame = pool.alloc().unwrap();
        pool.buffer_mut(&mut frame)[..60].fill(0xff);
        let mut desc = pool.transmit_and_free(frame, 60);
        desc.more = more;
        queue.push(desc);
    }
    device.transmit(&mut pool, &mut queue);
    device.reap(&mut pool);
    assert_eq!(device.figures().tx_invalid, 3, "the packet behind them is none of them");
    assert_eq!(pool.counts().tx, 0, "{device:?}");
    assert_eq!(device.statistics().unwrap().tx_invalid, 0);
    pool.assert_conserved();
}

#[test]
fn a_queue_is_free_again_while_somebody_still_holds_the_memory() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let (steering, devices) = xdp::open(&config(1)).unwrap();
    let arena = devices[0].1.arena().clone();
    drop((devices, steering));
    let (_steering, again) = xdp::open(&config(1)).unwrap();
    assert_eq!(again.len(), 1);
    drop(arena);
}

#[test]
fn a_forked_child_neither_keeps_the_program_attached_nor_detaches_it() {
    let bed = Bed::new(1);
    enter(&bed.ours);
    let interface = Interface::query(Bed::OUR_IF).unwrap();
    let (steering, devices) = xdp::open(&config(1)).unwrap();
    // SAFETY: the child makes system calls only.
    let child = unsafe { libc::fork() };
    if child == 0 {
        steering.detach();
        // SAFETY: sleeps, and ends the child at once.
        unsafe {
            libc::sleep(30);
            libc::_exit(0)
        };
    }
    std::thread::sleep(Duration::from_millis(100));
    let attached = xdp::attached(interface.index).unwrap();
    // As when this process is killed: its own descriptor goes, without a word.
    let ours = format!("prog_id:\t{}", steering.program_id().unwrap());
    let link = std::fs::read_dir("/proc/self/fd").unwrap().flatten().find(|file| {
        let info = format!("/proc/self/fdinfo/{}", file.file_name().to_string_lossy());
        std::fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().contains("bpf_link"))
            && std::fs::read_to_string(info).is_ok_and(|info| info.lines().any(|line| line == ours))
    });
    let link: i32 = link.unwrap().file_name().to_str().unwrap().parse().unwrap();
    // SAFETY: takes no pointers; another descriptor takes the link's place.
    unsafe { libc::dup3(0, link, libc::O_CLOEXEC) };
    let after = xdp::attached(interface.index).unwrap();
    // SAFETY: the child made above.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, core::ptr::null_mut(), 0);
    }
    assert!(attached.is_some(), "the child took its parent's program off");
    assert!(after.is_none(), "the child keeps it attached");
    drop((devices, steering));
}
