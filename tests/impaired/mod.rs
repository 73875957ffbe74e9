//! A road with potholes: two end hosts and a router between them, each a network
//! namespace. What comes in from an end host is dropped, duplicated, reordered or
//! corrupted by `impair.bpf.c`, then goes through a rate limit with a stated queue
//! (tbf) and a delay line, each way by itself.
//!
//! ```text
//! left host          middle                                             right host
//! 10.77.1.1 -- left [impair] -> fwd (tbf) -> delay line -> right ------ 10.77.2.1
//!           ------- left <- delay line <- (tbf) back <- [impair] right --
//! ```
//!
//! Segmentation offloads are off everywhere; the largest frame that the BPF
//! program saw tells whether that is so. Everything goes when the road is dropped.
#![allow(dead_code)] // each user uses its own part of this

pub mod delay;
pub mod transfer;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, TC_INGRESS, TcHookBuilder};

use crate::common::{run, unique};
use delay::{DelayLine, Lane, tun};

/// The left host's address: ringroad's, where one end is ringroad.
pub const LEFT: &str = "10.77.1.1";
/// The right host's address.
pub const RIGHT: &str = "10.77.2.1";
/// The largest IP packet on every link.
pub const MTU: u64 = 1500;

/// What the road is like, each way.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The bottleneck, in Mbit/s of IP packets.
    pub rate_mbit: u32,
    /// The bytes that wait for it at most; the rest is dropped.
    pub queue_bytes: u32,
    /// How long a packet takes besides.
    pub delay: Duration,
    /// How much longer a reordered one takes.
    pub late: Duration,
}

/// How likely a segment is to suffer what; at most one of these befalls it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Harm {
    pub drop: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub corrupt: f64,
}

impl Harm {
    /// So many segments are lost, nine in ten of them dropped and one in ten
    /// corrupted; a tenth as many are duplicated, and as many reordered.
    pub fn of_loss(p: f64) -> Self {
        Self { drop: 0.9 * p, corrupt: 0.1 * p, duplicate: 0.1 * p, reorder: 0.1 * p }
    }
}

/// What the BPF program counted on one leg, in the order of its `struct counters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub segments: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
    pub others: u64,
    pub largest: u64,
    pub failures: u64,
}

const COUNTERS: usize = size_of::<Counters>() / 8;

/// A probability in parts of 2^32.
fn part(p: f64) -> u32 {
    (p * f64::from(u32::MAX)) as u32
}

/// What befalls the first so many segments under this seed: it depends on nothing else.
pub fn fate(harm: Harm, seed: u64, segments: u64) -> [u64; 4] {
    let parts = [harm.drop, harm.duplicate, harm.reorder, harm.corrupt].map(part);
    let mut befell = [0; 4];
    for n in 1..=segments {
        let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mut x = (z ^ (z >> 31)) as u32;
        for (count, part) in befell.iter_mut().zip(parts) {
            if x < part {
                *count += 1;
                break;
            }
            x -= part;
        }
    }
    befell
}

impl Counters {
    /// Dropped, duplicated, reordered, corrupted.
    pub fn befell(&self) -> [u64; 4] {
        [self.dropped, self.duplicated, self.reordered, self.corrupted]
    }
}

/// The program on one leg.
struct Leg {
    object: Object,
    slow_lane: u32,
}

impl Leg {
    /// Loads the program for a leg and attaches it in the middle's namespace.
    fn new(object: &Path, middle: &str, interface: &str, slow_lane: &str) -> Self {
        let object = ObjectBuilder::default().open_file(object).and_then(|o| o.load());
        let object = object.expect("the impairment program loads");
        let program = object.progs().find(|p| p.name() == "impair").expect("its program");
        let attach = |fd: BorrowedFd<'_>| {
            let index = |name: &str| {
                let name = CString::new(name).expect("a plain name");
                // SAFETY: a string that ends in zero and lives through the call.
                unsafe { libc::if_nametoindex(name.as_ptr()) }
            };
            let mut builder = TcHookBuilder::new(fd);
            builder.ifindex(index(interface) as i32).replace(true).handle(1).priority(1);
            let mut hook = builder.hook(TC_INGRESS);
            hook.create().and_then(|mut h| h.attach()).expect("clsact ingress");
            index(slow_lane)
        };
        let fd = program.as_fd();
        let slow_lane = inside(middle, || attach(fd));
        Self { object, slow_lane }
    }

    fn map<T>(&self, name: &str, with: impl FnOnce(&libbpf_rs::Map<'_>) -> T) -> T {
        let map = self.object.maps().find(|m| m.name() == name).expect("a map of the program");
        with(&map)
    }

    /// Sets what befalls segments from now on, and all counters to zero.
    fn set(&self, harm: Harm, seed: u64) {
        let parts = [harm.drop, harm.duplicate, harm.reorder, harm.corrupt].map(|p| part(p).to_ne_bytes());
        let value = [&seed.to_ne_bytes()[..], &parts.concat(), &self.slow_lane.to_ne_bytes(), &[0; 4]].concat();
        let zero = 0u32.to_ne_bytes();
        self.map("settings", |m| m.update(&zero, &value, MapFlags::ANY)).expect("settings");
        self.map("counters", |m| m.update(&zero, &[0; COUNTERS * 8], MapFlags::ANY)).expect("counters");
    }

    fn counters(&self) -> Counters {
        let raw = self.map("counters", |m| m.lookup(&0u32.to_ne_bytes(), MapFlags::ANY));
        let raw = raw.expect("counters").expect("an array has every entry");
        let mut words = raw.chunks_exact(8).map(|b| u64::from_ne_bytes(b.try_into().expect("eight")));
        let mut word = || words.next().expect("as many as there are");
        Counters {
            segments: word(),
            bytes: word(),
            dropped: word(),
            duplicated: word(),
            reordered: word(),
            corrupted: word(),
            others: word(),
            largest: word(),
            failures: word(),
        }
    }
}

/// Runs `body` on a thread inside a namespace.
fn inside<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // SAFETY: takes a descriptor, which is open, and moves this thread only.
            let moved = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(moved, 0, "setns: {}", std::io::Error::last_os_error());
            body()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn compile() -> PathBuf {
    let object = std::env::temp_dir().join(format!("{}.o", unique()));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/impaired/impair.bpf.c");
    let mut clang = Command::new(std::env::var("CLANG").unwrap_or_else(|_| "clang".into()));
    clang.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3"]);
    clang.arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH));
    run(clang.args(["-c", source, "-o"]).arg(&object));
    object
}

/// The two ends and the middle.
pub struct Road {
    name: String,
    legs: Option<[Leg; 2]>,
    delay: Option<DelayLine>,
}

/// An end of the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Left,
    Right,
}

impl End {
    pub fn address(self) -> &'static str {
        if self == Self::Left { LEFT } else { RIGHT }
    }

    pub fn other(self) -> Self {
        if self == Self::Left { Self::Right } else { Self::Left }
    }
}

/// The settings of the middle; `@` stands for its `ip -n` or `tc -n`.
const MIDDLE: &str = "\
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
        net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
    for lane in fwd back fwd-slow back-slow; do
        sysctl -qw net.ipv4.conf.$lane.rp_filter=0
        ip link set $lane mtu 1500 txqueuelen 4000 up
    done
    ip rule add iif left lookup 101
    ip rule add iif right lookup 102
    ip route add default dev fwd table 101
    ip route add default dev back table 102";

impl Road {
    /// Builds it; `name` begins the names of its namespaces.
    pub fn new(name: &str, shape: Shape) -> Self {
        let mut road = Self { name: name.to_string(), legs: None, delay: None };
        let middle = road.namespace(None);
        for end in [Some(End::Left), Some(End::Right), None] {
            run(Command::new("ip").args(["netns", "add", &road.namespace(end)]));
            road.shell(end, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; ip link set lo up");
        }
        for (end, leg, net) in [(End::Left, "left", "10.77.1"), (End::Right, "right", "10.77.2")] {
            let host = road.namespace(Some(end));
            run(Command::new("ip").args(["link", "add", "veth0", "netns", &host, "mtu", "1500", "type", "veth"])
                .args(["peer", "name", leg, "netns", &middle, "mtu", "1500"]));
            let off = |interface: &str| format!("ethtool -K {interface} tx off tso off gso off gro off >/dev/null");
            // What a connection learned must not help the next one.
            road.shell(Some(end), &format!(
                "{}; sysctl -qw net.ipv4.tcp_no_metrics_save=1; ip addr add {net}.1/24 dev veth0
                 ip link set veth0 up; ip route add default via {net}.254",
                off("veth0")
            ));
            road.shell(None, &format!("{}; ip addr add {net}.254/24 dev {leg}; ip link set {leg} up", off(leg)));
        }
        let lanes = inside(&middle, || ["fwd", "back", "fwd-slow", "back-slow"].map(tun));
        road.shell(None, MIDDLE);
        for lane in ["fwd", "back"] {
            let Shape { rate_mbit, queue_bytes, .. } = shape;
            road.shell(None, &format!(
                "tc qdisc replace dev {lane} root tbf rate {rate_mbit}mbit burst 6000 limit {queue_bytes}"
            ));
        }
        let copy = |file: &File| file.try_clone().expect("another descriptor");
        let [fwd, back, fwd_slow, back_slow] = lanes;
        let late = shape.delay + shape.late;
        road.delay = Some(DelayLine::start(vec![
            Lane { to: copy(&fwd), from: fwd_slow, hold: late },
            Lane { to: copy(&back), from: back_slow, hold: late },
            Lane { to: copy(&fwd), from: fwd, hold: shape.delay },
            Lane { to: copy(&back), from: back, hold: shape.delay },
        ]));
        let object = compile();
        road.legs = Some([("left", "fwd-slow"), ("right", "back-slow")].map(|(l, s)| Leg::new(&object, &middle, l, s)));
        let _ = std::fs::remove_file(&object);
        road.set(Harm::default(), 0);
        road
    }

    /// The namespace of an end, or of the middle.
    pub fn namespace(&self, end: Option<End>) -> String {
        let part = end.map_or("middle", |e| if e == End::Left { "left" } else { "right" });
        format!("{}-{part}", self.name)
    }

    /// A command that will run at an end, or in the middle.
    pub fn command(&self, end: Option<End>, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(end), program]);
        command
    }

    /// Runs a shell line; its output.
    #[track_caller]
    pub fn shell(&self, end: Option<End>, line: &str) -> String {
        run(self.command(end, "sh").args(["-ec", line]))
    }

    fn leg(&self, end: End) -> &Leg {
        &self.legs.as_ref().expect("it is whole")[usize::from(end == End::Right)]
    }

    /// What befalls segments from now on, on both legs, with all counters at zero.
    pub fn set(&self, harm: Harm, seed: u64) {
        for end in [End::Left, End::Right] {
            self.leg(end).set(harm, Self::seed(end, seed));
        }
    }

    /// The seed of an end's leg.
    pub fn seed(end: End, seed: u64) -> u64 {
        if end == End::Left { seed } else { !seed }
    }

    /// What befell the segments of one end.
    pub fn counters(&self, end: End) -> Counters {
        loop {
            let counters = self.leg(end).counters();
            thread::sleep(Duration::from_millis(20));
            // Twice the same: no segment was being counted.
            if self.leg(end).counters() == counters {
                return counters;
            }
        }
    }

    /// Packets that the queue before the bottleneck refused so far, in what one end sends.
    pub fn queue_drops(&self, from: End) -> u64 {
        let lane = if from == End::Left { "fwd" } else { "back" };
        let said = self.shell(None, &format!("tc -s -j qdisc show dev {lane} root"));
        let json: serde_json::Value = serde_json::from_str(&said).expect("JSON of tc");
        json[0]["drops"].as_u64().expect("tbf counts its drops")
    }

    /// Packets lost where none may be: in the delay line and before it.
    pub fn lost_by_the_bed(&self) -> u64 {
        let said = self.shell(None, "cat /sys/class/net/fwd*/statistics/tx_dropped /sys/class/net/back*/statistics/tx_dropped");
        let before: u64 = said.split_whitespace().map(|n| n.parse::<u64>().expect("a number")).sum();
        before + self.delay.as_ref().map_or(0, DelayLine::lost)
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.delay = None;
        for end in [Some(End::Left), Some(End::Right), None] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(end)]).output();
        }
    }
}
