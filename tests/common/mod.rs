//! Helpers of the tests on real interfaces: a bed of two network namespaces
//! joined by a veth pair, programs run in it, captures judged by tshark.
//! Everything is taken down when its value is dropped, also when a test fails.
#![allow(dead_code)] // each test file uses its own part of this

pub mod capture;
pub mod peer;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The server's address, shared with its kernel.
pub const SHARED: &str = "10.77.0.1";
/// An address of the server's side that its kernel does not have.
pub const OWNED: &str = "10.77.0.9";
/// The client's address.
pub const CLIENT: &str = "10.77.0.2";
/// The command under test.
pub const RINGROAD: &str = env!("CARGO_BIN_EXE_ringroad");

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name that no other bed or file of this or another test process has.
pub fn unique() -> String {
    format!("rrt{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// How the stack gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Owned,
}

impl Mode {
    pub const BOTH: [Self; 2] = [Self::Shared, Self::Owned];

    /// The address at which servers of ours are reached.
    pub fn address(self) -> &'static str {
        if self == Self::Shared { SHARED } else { OWNED }
    }

    /// What a command of ours needs to be told.
    pub fn args(self) -> &'static [&'static str] {
        if self == Self::Shared { &[] } else { &["--address", "10.77.0.9/24"] }
    }
}

/// One side of a bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

/// Two namespaces and the veth pair between them.
pub struct Bed {
    name: String,
}

impl Bed {
    /// One queue, MTU 1500, full checksums from the kernel.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// As [`Bed::new`], with further arguments to `scripts/netns up`.
    pub fn with(args: &[&str]) -> Self {
        let bed = Self { name: unique() };
        let mut up = bed.script("up");
        up.args(["--tx-checksum", "off"]).args(args);
        run(&mut up);
        bed
    }

    fn script(&self, action: &str) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/netns"));
        command.args([action, "--name", &self.name]);
        command
    }

    pub fn namespace(&self, side: Side) -> String {
        let side = if side == Side::Server { "server" } else { "client" };
        format!("{}-{side}", self.name)
    }

    /// A command that will run in a side's namespace.
    pub fn command(&self, side: Side, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side), program]);
        command
    }

    /// Run a shell line in a side's namespace; its output. Fails the test if it fails.
    #[track_caller]
    pub fn shell(&self, side: Side, line: &str) -> String {
        run(self.command(side, "sh").args(["-ec", line]))
    }

    /// Run `body` on a new thread inside a side's namespace: sockets that it
    /// makes belong there, wherever they are used later.
    pub fn inside<T: Send>(&self, side: Side, body: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace(side));
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let file = fs::File::open(&path).expect(&path);
                // SAFETY: setns takes a descriptor, which lives through the call, and
                // moves only this thread.
                let moved = unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&file), libc::CLONE_NEWNET) };
                assert_eq!(moved, 0, "setns {path}: {}", std::io::Error::last_os_error());
                body()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Start `ringroad COMMAND -i veth0 ...` on the server's side and wait until it serves.
    #[track_caller]
    pub fn serve(&self, command: &str, mode: Mode, args: &[&str]) -> Program {
        let mut program = self.start_ours(command, mode, args);
        program.wait_for("ready");
        program
    }

    /// As [`Bed::serve`], without waiting.
    #[track_caller]
    pub fn start_ours(&self, command: &str, mode: Mode, args: &[&str]) -> Program {
        let mut run = self.command(Side::Server, RINGROAD);
        run.args([command, "-i", "veth0"]).args(mode.args()).args(args);
        Program::start(run)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.script("down").status();
    }
}

/// Run a command to its end; what it printed. Fails the test if it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// Run a command that must fail; what it said.
#[track_caller]
pub fn run_failing(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = [output.stdout, output.stderr].map(|o| String::from_utf8_lossy(&o).into_owned()).concat();
    assert!(!output.status.success(), "{command:?} succeeded:\n{text}");
    text
}

/// Wait until `done` holds; fails the test after `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A program that runs beside the test; killed when dropped.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let log = std::env::temp_dir().join(format!("{}.log", unique()));
        let file = fs::File::create(&log).unwrap();
        let errors = file.try_clone().unwrap();
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{name}: {e}")), name, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        let mut text = String::new();
        let _ = fs::File::open(&self.log).and_then(|mut f| f.read_to_string(&mut text));
        text
    }

    /// Wait until it has printed `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let start = Instant::now();
        while !self.output().contains(text) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended ({status}) before it said \"{text}\":\n{}", self.name, self.output());
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{}: no \"{text}\":\n{}", self.name, self.output());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointers; the process is our child and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Stop it as Ctrl-Z does, and wait until each of its threads stands.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let stands = |stat: String| stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'));
        let all_stand = || {
            let mut tasks = fs::read_dir(&tasks).unwrap().filter_map(Result::ok);
            tasks.all(|task| fs::read_to_string(task.path().join("stat")).is_ok_and(stands))
        };
        let start = Instant::now();
        while !all_stand() {
            assert!(start.elapsed() < Duration::from_secs(20), "{} goes on after SIGSTOP", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kill it as `kill -9` does, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Wait for its end; whether it succeeded, and what it printed.
    #[track_caller]
    pub fn end(&mut self, limit: Duration) -> (bool, String) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.success(), self.output());
            }
            assert!(start.elapsed() < limit, "{} still runs after {limit:?}:\n{}", self.name, self.output());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ask it to stop (SIGTERM): it must end by itself, and well.
    #[track_caller]
    pub fn stop(&mut self) -> String {
        self.signal(libc::SIGTERM);
        let (well, output) = self.end(Duration::from_secs(10));
        assert!(well, "{} did not stop well:\n{output}", self.name);
        output
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {}:\n{}", self.name, self.output());
        }
        let _ = fs::remove_file(&self.log);
    }
}
