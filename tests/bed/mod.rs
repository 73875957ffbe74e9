//! A test bed of network namespaces and veth pairs, removed when it is dropped
//! (a panic included). Needs root and iproute2.

#![allow(dead_code)] // each test file uses a part of it

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs a program and returns its standard output.
///
/// # Panics
/// With what it printed, if it fails.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let out = try_run(program, args);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {}: {errors}", args.join(" "));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs a program, whatever comes of it.
#[track_caller]
pub fn try_run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|why| panic!("{program}: {why}"))
}

/// `ip`, its arguments split at blanks.
#[track_caller]
pub fn ip(args: &str) -> String {
    run("ip", &args.split_whitespace().collect::<Vec<_>>())
}

/// Joins the text of both outputs.
pub fn text_of(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A file in the temporary folder that goes when this is dropped.
pub struct TempFile(std::path::PathBuf);

impl TempFile {
    /// A name of its own that ends in `name`; there is no file yet.
    pub fn new(name: &str) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringroad-{}-{n}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An object with an XDP program named `somebody_elses` that passes everything.
#[track_caller]
pub fn foreign_program() -> TempFile {
    let file = TempFile::new("foreign.o");
    let source = "__attribute__((section(\"xdp\"), used)) int somebody_elses(void *c) { return 2; }
                  char L[] __attribute__((section(\"license\"), used)) = \"GPL\";";
    let mut clang = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-x", "c", "-c", "-", "-o", file.path()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("clang runs");
    let mut input = clang.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut input, source.as_bytes()).expect("clang reads");
    drop(input);
    assert!(clang.wait().expect("clang ends").success());
    file
}

/// Enters a network namespace with the calling thread, for good.
#[track_caller]
pub fn enter(name: &str) {
    let file = File::open(format!("/var/run/netns/{name}")).expect("the namespace exists");
    // SAFETY: takes no pointers; the descriptor is open.
    let n = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(n, 0, "setns: {}", std::io::Error::last_os_error());
}

/// Two namespaces joined by a veth pair: `ours`, where the stack runs, and
/// `peer`, where the kernel plays the other side.
pub struct Bed {
    /// The stack's namespace.
    pub ours: String,
    /// The kernel's namespace.
    pub peer: String,
}

impl Bed {
    /// The stack's interface.
    pub const OUR_IF: &'static str = "rr0";
    /// The peer's interface.
    pub const PEER_IF: &'static str = "rr1";
    /// The stack's address.
    pub const OUR_IP: &'static str = "10.7.0.1";
    /// The peer's address.
    pub const PEER_IP: &'static str = "10.7.0.2";

    /// A bed of so many queues on each side; checksums are computed on both.
    pub fn new(queues: u32) -> Self {
        let stem = format!("rrx{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let bed = Self { ours: format!("{stem}a"), peer: format!("{stem}b") };
        ip(&format!("netns add {}", bed.ours));
        ip(&format!("netns add {}", bed.peer));
        let q = format!("numrxqueues {queues} numtxqueues {queues}");
        ip(&format!(
            "link add {} netns {} {q} type veth peer name {} netns {} {q}",
            Self::OUR_IF, bed.ours, Self::PEER_IF, bed.peer
        ));
        for (ns, interface, address) in [
            (&bed.ours, Self::OUR_IF, Self::OUR_IP),
            (&bed.peer, Self::PEER_IF, Self::PEER_IP),
        ] {
            ip(&format!("-n {ns} addr add {address}/24 dev {interface}"));
            ip(&format!("-n {ns} link set {interface} up"));
            ip(&format!("-n {ns} link set lo up"));
            // No ND chatter between the lines of a test.
            run("ip", &["netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
            run("ip", &["netns", "exec", ns, "ethtool", "-K", interface, "tx", "off"]);
        }
        bed
    }

    /// Runs a program in the peer's namespace.
    pub fn in_peer(&self, program: &str, args: &[&str]) -> Output {
        let mut all = vec!["netns", "exec", &self.peer, program];
        all.extend(args);
        try_run("ip", &all)
    }

    /// Runs a program in the stack's namespace.
    pub fn in_ours(&self, program: &str, args: &[&str]) -> Output {
        let mut all = vec!["netns", "exec", &self.ours, program];
        all.extend(args);
        try_run("ip", &all)
    }

    /// Runs `work` on a thread of its own in the peer's namespace.
    pub fn at_peer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let name = self.peer.clone();
        std::thread::spawn(move || {
            enter(&name);
            work()
        })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for name in [&self.ours, &self.peer] {
            let _ = try_run("ip", &["netns", "del", name]);
        }
    }
}
