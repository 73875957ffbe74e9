//! `ringroad echo` on a real wire against the kernel's clients, with an address
//! shared with the kernel and one of its own.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::capture::Capture;
use common::peer::{connect, datagrams, echo_stream, exchange, reset_on_close};
use common::{Bed, CLIENT, Mode, Program, RINGROAD, Side, run, run_failing};

const ECHO: [&str; 4] = ["--tcp", "7", "--udp", "7"];

fn at(mode: Mode, port: u16) -> String {
    format!("{}:{port}", mode.address())
}

#[test]
fn ping_of_any_size_is_answered() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 1_000);
        for size in ["0", "56", "1400", "1472", "4000"] {
            bed.shell(Side::Client, &format!("ping -q -c 3 -i 0.05 -W 2 -s {size} {}", mode.address()));
        }
        capture.check(mode.address());
    }
}

#[test]
fn where_no_napi_is_known_interrupts_stay_as_they_are() {
    let bed = Bed::new();
    let values = "cat /sys/class/net/veth0/napi_defer_hard_irqs /sys/class/net/veth0/gro_flush_timeout";
    let before = bed.shell(Side::Server, values);
    let spinning = [&ECHO[..], &["--wait", "spin"]].concat();
    let server = bed.serve("echo", Mode::Owned, &spinning);
    let why = "no busy polling (queue 0: the kernel knows of no NAPI)";
    assert!(server.output().contains(why), "{}", server.output());
    assert_eq!(bed.shell(Side::Server, values), before);
    drop(server);
    // Who sleeps is woken by interrupts, and has nothing to say about polling.
    let server = bed.serve("echo", Mode::Owned, &ECHO);
    assert!(!server.output().contains("polling"), "{}", server.output());
    drop(server);
    let mut demanding = bed.command(Side::Server, RINGROAD);
    demanding.args(["echo", "-i", "veth0", "--tcp", "7", "--wait", "spin"]).env("RINGROAD_BUSY_POLL", "on");
    // What the command line says holds, and is judged alone.
    demanding.env("RINGROAD_WAIT", "block");
    let refused = run_failing(&mut demanding);
    assert!(refused.contains("veth0: busy polling: queue 0: the kernel knows of no NAPI"), "{refused}");
}

#[test]
fn what_the_rings_could_not_take_is_told_at_the_end() {
    let bed = Bed::new();
    let mut command = bed.command(Side::Server, RINGROAD);
    command.args(["echo", "-i", "veth0", "--udp", "7"]).env("RINGROAD_FRAMES", "512"); // rings of 128
    let mut server = Program::start(command);
    server.wait_for("ready");
    let socket = datagrams(&bed, &at(Mode::Shared, 7));
    let mut buffer = [0; 64];
    socket.send(&[7; 64]).unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap(), 64);
    server.pause();
    // No faster than XDP looks at them: what waits for it is lost in the interface instead.
    let seen = || bed.shell(Side::Server, "cat /sys/class/net/veth0/statistics/rx_packets").trim().parse::<u32>().unwrap();
    for _ in 0..10 {
        let before = seen();
        (0..50).for_each(|_| assert_eq!(socket.send(&[7; 64]).unwrap(), 64));
        let start = Instant::now();
        while seen() < before + 50 {
            assert!(start.elapsed() < Duration::from_secs(10), "{} of 50 were seen", seen() - before);
        }
    }
    server.signal(libc::SIGCONT);
    let told = server.stop();
    let line = told.lines().find(|l| l.starts_with("lost or sent again: ")).unwrap_or_else(|| panic!("{told}"));
    let lost = line.split([' ', ',']).skip_while(|w| *w != "xsk_rx_dropped").nth(1).unwrap().parse::<u32>();
    assert!((500 - 128..500).contains(&lost.unwrap()), "{told}");
    assert!(told.contains("RINGROAD_FRAMES"), "{told}");

    let mut server = bed.serve("echo", Mode::Shared, &ECHO);
    socket.send(&[7; 64]).unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap(), 64);
    let told = server.stop();
    assert!(!told.contains("lost"), "{told}");
}

#[test]
fn ipv6_addresses_are_no_hindrance_and_no_help() {
    let bed = Bed::new();
    let add = "sysctl -qw net.ipv6.conf.veth0.disable_ipv6=0; ip -6 address add fe80::77/64 dev veth0 nodad
        ip -6 address add fd77::1/64 dev veth0 nodad; ip -6 -o address show dev veth0";
    let shown = bed.shell(Side::Server, add);
    assert!(shown.contains("fe80::77/64") && shown.contains("fd77::1/64"), "{shown}");
    let server = bed.serve("echo", Mode::Shared, &ECHO);
    echo_stream(connect(&bed, &at(Mode::Shared, 7)), 8, true);
    // Their ports stay with the kernel, as what comes to them does.
    bed.inside(Side::Server, || drop(std::net::TcpListener::bind("[fd77::1]:7").unwrap()));
    drop(server);
    bed.shell(Side::Server, "ip -4 address flush dev veth0");
    let refused = run_failing(bed.command(Side::Server, RINGROAD).args(["echo", "-i", "veth0", "--tcp", "7"]));
    assert!(refused.contains("veth0: there is no IPv4 address; give the interface one"), "{refused}");
}

#[test]
fn datagrams_come_back_whole() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 10_000);
        let socket = datagrams(&bed, &at(mode, 7));
        let mut buffer = vec![0; 70_000];
        // The last two are cut into fragments, which a shared address steers by their first.
        for size in [1, 18, 64, 1_000, 1_472, 1_473, 8_000] {
            let message: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            socket.send(&message).unwrap();
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{mode:?}, {size} bytes: {e}"));
            assert!(buffer[..n] == message, "{mode:?}: {size} bytes differ");
        }
        capture.check(mode.address());
    }
}

#[test]
fn programs_of_every_day_talk_to_it() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 10_000);
        let to = mode.address();
        let udp = bed.shell(Side::Client, &format!("printf hello | socat -t1 - UDP:{to}:7"));
        assert_eq!(udp, "hello", "socat over UDP");
        let tcp = bed.shell(Side::Client, &format!("printf hello | socat -t1 - TCP:{to}:7"));
        assert_eq!(tcp, "hello", "socat over TCP");
        let nc = bed.shell(Side::Client, &format!("printf hello | nc -N -w 5 {to} 7"));
        assert_eq!(nc, "hello", "nc");
        // An echoed query is no answer, but dig reads and prints it: its bytes came back.
        let dig = bed.shell(Side::Client, &format!("dig @{to} -p 7 +tries=1 +time=3 ringroad.example TXT 2>&1"));
        assert!(dig.contains("ringroad.example.") && dig.contains("opcode: QUERY"), "{dig}");
        capture.check(to);
    }
}

#[test]
fn a_hundred_megabytes_go_both_ways_unharmed() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 20_000);
        echo_stream(connect(&bed, &at(mode, 7)), 100 * 1024 / 64, true);
        capture.check(mode.address());
    }
}

#[test]
fn a_reader_that_stops_closes_the_window_and_opens_it_again() {
    let bed = Bed::new();
    let _server = bed.serve("echo", Mode::Shared, &ECHO);
    let mut stream = connect(&bed, &at(Mode::Shared, 7));
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    // The echo comes back until our buffers are full, then the server's, then it stops taking more.
    let stuck = loop {
        match stream.write(&block) {
            Ok(n) => sent += n,
            Err(e) => break e,
        }
        assert!(sent < 1 << 30, "the server takes everything and nobody reads it");
    };
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    std::thread::sleep(Duration::from_secs(2));
    let mut left = sent;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let n = stream.read(&mut buffer).expect("the rest of the echo");
        assert!(n > 0, "{left} bytes are missing");
        assert!(buffer[..n].iter().all(|b| *b == b'x'));
        left -= n;
    }
    exchange(&mut stream, b"and on");
}

#[test]
fn a_thousand_connections_open_talk_and_close() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 50_000);
        for i in 0..500u32 {
            exchange(&mut connect(&bed, &at(mode, 7)), &i.to_be_bytes());
        }
        let mut open: Vec<TcpStream> = (0..500).map(|_| connect(&bed, &at(mode, 7))).collect();
        for (i, stream) in open.iter_mut().enumerate() {
            exchange(stream, &i.to_be_bytes());
        }
        for stream in open.iter_mut().rev() {
            exchange(stream, b"still there");
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
        capture.check(mode.address());
    }
}

#[test]
fn each_side_closes_on_its_own() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 10_000);
        let mut stream = connect(&bed, &at(mode, 7));
        stream.write_all(&[b'z'; 100_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, vec![b'z'; 100_000], "what was sent before the end came back after it");
        capture.check(mode.address());
        let fins = capture.select(&format!("ip.src == {} && tcp.flags.fin == 1", mode.address()));
        assert!(!fins.is_empty(), "the server ended its side by FIN");
    }
}

#[test]
fn resets_end_one_connection_and_nothing_else() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut other = connect(&bed, &at(mode, 7));
        for _ in 0..50 {
            let mut stream = connect(&bed, &at(mode, 7));
            exchange(&mut stream, b"about to be cut off");
            stream.write_all(b"unread").unwrap();
            reset_on_close(&stream);
        }
        exchange(&mut other, b"untouched");
    }
}

#[test]
fn closed_ports_refuse() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let mut capture = Capture::start(&bed, 1_000);
        let closed = at(mode, 4_444).parse().unwrap();
        let refused = bed.inside(Side::Client, || TcpStream::connect_timeout(&closed, Duration::from_secs(5)));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{mode:?}");
        let socket = datagrams(&bed, &at(mode, 4_444));
        socket.send(b"anybody?").unwrap();
        let refused = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{mode:?}: port unreachable");
        capture.check(mode.address());
    }
}

#[test]
fn a_port_that_a_program_holds_is_refused_and_the_other_way_round() {
    let bed = Bed::new();
    let holder = bed.inside(Side::Server, || std::net::TcpListener::bind("0.0.0.0:7")).unwrap();
    let mut ours = bed.start_ours("echo", Mode::Shared, &ECHO);
    let (well, said) = ours.end(Duration::from_secs(20));
    assert!(!well && said.contains('7') && said.to_lowercase().contains("in use"), "{said}");
    drop(holder);
    let mut ours = bed.serve("echo", Mode::Shared, &ECHO);
    let taken = bed.inside(Side::Server, || std::net::TcpListener::bind("0.0.0.0:7"));
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse, "held against the kernel");
    ours.stop();
    bed.inside(Side::Server, || std::net::TcpListener::bind("0.0.0.0:7")).expect("free again");
}

#[test]
fn small_mtu_and_partial_checksums() {
    // The kernel's client leaves its checksums to a device that is not there.
    let bed = Bed::with(&["--mtu", "600", "--tx-checksum", "on"]);
    let _server = bed.serve("echo", Mode::Shared, &ECHO);
    echo_stream(connect(&bed, &at(Mode::Shared, 7)), 64, true);
    let socket = datagrams(&bed, &at(Mode::Shared, 7));
    let mut buffer = [0; 2_000];
    for size in [10, 500, 572] {
        socket.send(&vec![3; size]).unwrap();
        assert_eq!(socket.recv(&mut buffer).unwrap(), size);
    }
}

#[test]
fn these_capabilities_are_enough() {
    let bed = Bed::new();
    // Root's number, with no more than what is left in the bounding set.
    let with = |capabilities: &str| {
        let mut command = bed.command(Side::Server, "setpriv");
        let set = format!("-all,{capabilities}");
        command.args(["--bounding-set", &set, "--inh-caps", &set, RINGROAD, "echo", "-i", "veth0", "--tcp", "7"]);
        command
    };
    let needed = "+net_raw,+net_admin,+bpf,+perfmon";
    let mut server = Program::start(with(&format!("{needed},+ipc_lock,+net_bind_service")));
    server.wait_for("ready");
    exchange(&mut connect(&bed, &at(Mode::Shared, 7)), b"not all of root");
    server.stop();
    let refused = run_failing(&mut with(&format!("{needed},+ipc_lock")));
    assert!(refused.contains("need root or CAP_NET_BIND_SERVICE"), "{refused}");
    let refused = run_failing(&mut with("+net_raw,+net_admin,+bpf,+ipc_lock,+net_bind_service"));
    assert!(refused.contains("missing: CAP_PERFMON") && !refused.contains("libbpf"), "{refused}");
}

#[test]
fn the_neighbour_is_left_alone() {
    let bed = Bed::new();
    let _server = bed.serve("echo", Mode::Owned, &ECHO);
    // The kernel's own address still answers, beside ours on the same wire.
    bed.shell(Side::Client, "ping -q -c 2 -i 0.05 -W 2 10.77.0.1");
    run(bed.command(Side::Server, "ping").args(["-q", "-c", "2", "-i", "0.05", "-W", "2", CLIENT]));
}
