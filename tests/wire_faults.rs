//! What happens when something goes wrong under a running server, and that the
//! kernel's own traffic goes on beside it whatever happens.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::peer::{PATIENCE, PingPong, connect, datagrams, exchange};
use common::{Bed, Mode, Program, Side, run, unique, wait_until};

const ECHO: [&str; 2] = ["--tcp", "7"];

/// Names of XDP programs on the server's interface, as `ip` shows them.
fn attached(bed: &Bed) -> bool {
    bed.shell(Side::Server, "ip -d link show veth0").contains("prog/xdp")
}

#[test]
fn a_killed_server_leaves_the_kernel_alone_and_starts_again() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let talk = PingPong::start(&bed, 9_000);
        let mut command = bed.command(Side::Client, "ping");
        command.args(["-q", "-i", "0.01", "-c", "100000", common::SHARED]);
        let mut ping = Program::start(command);
        for _ in 0..3 {
            let mut server = bed.serve("echo", mode, &ECHO);
            let to = format!("{}:7", mode.address());
            let mut stream = connect(&bed, &to);
            exchange(&mut stream, b"before");
            talk.check();
            server.kill();
            wait_until("the program is detached", Duration::from_secs(5), || !attached(&bed));
            talk.check();
            if mode == Mode::Shared {
                // The kernel has the port again, and tells the peer that there is nobody.
                let _ = stream.write_all(b"after");
                let gone = stream.read(&mut [0; 16]);
                assert!(matches!(gone, Ok(0) | Err(_)), "{gone:?}");
            }
        }
        let mut server = bed.serve("echo", mode, &ECHO);
        exchange(&mut connect(&bed, &format!("{}:7", mode.address())), b"again");
        server.stop();
        assert!(!attached(&bed));
        talk.finish();
        ping.signal(libc::SIGINT);
        let (_, said) = ping.end(Duration::from_secs(5));
        assert!(said.contains(" 0% packet loss") || lost(&said) < 2, "{said}");
    }
}

/// Echo requests without answer; the last one may be under way when ping is stopped.
fn lost(said: &str) -> u64 {
    let number = |after: &str| -> Option<u64> {
        let at = said.find(after)?;
        said[..at].rsplit([' ', ',']).find(|w| !w.is_empty())?.parse().ok()
    };
    number(" packets transmitted").unwrap_or(0) - number(" received").unwrap_or(0)
}

/// An XDP program that lets everything pass, compiled for the test.
fn foreign_program() -> PathBuf {
    let source = std::env::temp_dir().join(format!("{}.c", unique()));
    let object = source.with_extension("o");
    let text = "__attribute__((section(\"xdp\"), used)) int foreign(void *c) { return 2; }\n\
                char _license[] __attribute__((section(\"license\"), used)) = \"GPL\";\n";
    fs::write(&source, text).unwrap();
    run(Command::new("clang").args(["-O2", "-g", "-target", "bpf", "-c"]).arg(&source).arg("-o").arg(&object));
    let _ = fs::remove_file(&source);
    object
}

#[test]
fn a_foreign_program_is_named_and_stays() {
    let bed = Bed::new();
    let object = foreign_program();
    bed.shell(Side::Server, &format!("ip link set dev veth0 xdp obj {} sec xdp", object.display()));
    let _ = fs::remove_file(&object);
    let mut ours = bed.start_ours("echo", Mode::Shared, &ECHO);
    let (well, said) = ours.end(Duration::from_secs(20));
    assert!(!well, "{said}");
    assert!(said.contains("foreign") && said.contains("veth0"), "names the program: {said}");
    assert!(attached(&bed), "the foreign program is still there");
    bed.shell(Side::Server, "ip link set dev veth0 xdp off");
    let _server = bed.serve("echo", Mode::Shared, &ECHO);
    exchange(&mut connect(&bed, "10.77.0.1:7"), b"free now");
}

#[test]
fn a_second_ringroad_is_refused_by_name() {
    let bed = Bed::new();
    let _first = bed.serve("echo", Mode::Shared, &ECHO);
    let mut second = bed.start_ours("echo", Mode::Shared, &["--tcp", "8"]);
    let (well, said) = second.end(Duration::from_secs(20));
    assert!(!well && said.contains("veth0") && said.contains("another ringroad"), "{said}");
    exchange(&mut connect(&bed, "10.77.0.1:7"), b"the first one serves on");
}

/// Make the client's kernel send everything by this queue from now on (a
/// connection moves when nothing of it is under way).
fn force_queue(bed: &Bed, queue: u32) {
    let line = format!(
        "all=$(printf %x $(( (1 << $(nproc)) - 1 ))); cd /sys/class/net/veth0/queues; \
         echo 0 > tx-{}/xps_cpus; echo $all > tx-{queue}/xps_cpus",
        1 - queue
    );
    bed.shell(Side::Client, &line);
}

/// Packets that XDP saw on a queue of the server's interface.
fn seen(bed: &Bed, queue: u32) -> u64 {
    let name = format!("rx_queue_{queue}_xdp_packets: ");
    let statistics = bed.shell(Side::Server, "ethtool -S veth0");
    let value = statistics.lines().find_map(|l| l.trim().strip_prefix(&name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name}in {statistics}"))
}

#[test]
fn connections_survive_a_change_of_queue_under_two_workers() {
    for mode in Mode::BOTH {
        let bed = Bed::with(&["--queues", "2"]);
        let _server = bed.serve("echo", mode, &["--tcp", "7", "--udp", "7", "--workers", "2"]);
        let to = format!("{}:7", mode.address());
        force_queue(&bed, 0);
        let mut streams: Vec<TcpStream> = (0..8).map(|_| connect(&bed, &to)).collect();
        let socket = datagrams(&bed, &to);
        force_queue(&bed, 1);
        streams.extend((0..8).map(|_| connect(&bed, &to)));
        for round in 0..6 {
            force_queue(&bed, round % 2);
            let before = [seen(&bed, 0), seen(&bed, 1)];
            for stream in &mut streams {
                exchange(stream, format!("round {round}").as_bytes());
                exchange(stream, &vec![round as u8; 20_000]);
            }
            socket.send(b"and a datagram").unwrap();
            assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 14);
            let moved: Vec<u64> = (0..2).map(|q| seen(&bed, q) - before[q as usize]).collect();
            let (to, other) = (moved[(round % 2) as usize], moved[(1 - round % 2) as usize]);
            assert!(to > 10 * other.max(10), "round {round}: the traffic did not change its queue: {moved:?}");
        }
    }
}

#[test]
fn another_hardware_address_under_open_connections() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let to = format!("{}:7", mode.address());
        let mut stream = connect(&bed, &to);
        exchange(&mut stream, b"before");
        bed.shell(Side::Server, "ip link set veth0 address 02:00:00:00:77:01");
        // As a peer does by itself after a while.
        bed.shell(Side::Client, "ip neigh flush all");
        exchange(&mut stream, b"after");
        exchange(&mut connect(&bed, &to), b"a new one");
        let seen = bed.shell(Side::Client, &format!("ip neigh show to {}", mode.address()));
        assert!(seen.contains("02:00:00:00:77:01"), "{seen}");
    }
}

#[test]
fn down_and_up_again() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &ECHO);
        let to = format!("{}:7", mode.address());
        let mut stream = connect(&bed, &to);
        exchange(&mut stream, b"before");
        bed.shell(Side::Server, "ip link set veth0 down");
        std::thread::sleep(Duration::from_millis(300));
        bed.shell(Side::Server, "ip link set veth0 up");
        let start = Instant::now();
        // A new connection works once the link is up again; the old one either goes on or ended cleanly.
        exchange(&mut connect(&bed, &to), b"a new one");
        assert!(start.elapsed() < PATIENCE);
        stream.write_all(b"after").ok();
        let mut answer = [0; 5];
        match stream.read_exact(&mut answer) {
            Ok(()) => assert_eq!(&answer, b"after"),
            Err(e) => assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "the old connection hangs"),
        }
    }
}

#[test]
fn deleted_under_open_sockets() {
    let bed = Bed::new();
    let mut server = bed.serve("echo", Mode::Shared, &ECHO);
    let mut stream = connect(&bed, "10.77.0.1:7");
    exchange(&mut stream, b"before");
    bed.shell(Side::Server, "ip link delete veth0");
    let (well, said) = server.end(Duration::from_secs(10));
    assert!(!well && said.contains("veth0"), "it ends and says why: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_stop_signal_ends_it_with_open_connections() {
    let bed = Bed::new();
    let mut server = bed.serve("echo", Mode::Shared, &ECHO);
    let mut stream = connect(&bed, "10.77.0.1:7");
    exchange(&mut stream, b"before");
    server.stop();
    let end = stream.read(&mut [0; 8]);
    assert!(matches!(end, Ok(0) | Err(_)), "the peer is told: {end:?}");
    assert!(!attached(&bed));
}
