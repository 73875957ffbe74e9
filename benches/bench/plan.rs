//! What there is to do: servers, the work that is put on them, and who does what
//! in which row.

use super::bed::Kind;
use super::memory::Done;

/// Which sockets a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    Kernel,
    /// Ours.
    Stack,
}

impl Over {
    pub const BOTH: [Self; 2] = [Self::Kernel, Self::Stack];

    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Stack => "stack",
        }
    }

    /// For titles.
    pub fn client(self) -> &'static str {
        match self {
            Self::Kernel => "kernel client",
            Self::Stack => "our client",
        }
    }
}

/// The programs that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// The `ringroad` command.
    Ringroad,
    /// `benches/peers/kernel_echo.c` on the kernel's sockets.
    KernelEcho,
    /// The same source on ringroad's, called from a thread of its own.
    ThreadEcho,
    /// This program, by another subcommand.
    Own,
    Nginx,
    /// DPDK's, over its AF_XDP driver.
    Testpmd,
}

/// When a server counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It prints "ready".
    Says,
    /// Something listens on TCP port 80.
    Port80,
    /// It says that it forwards packets.
    Forwards,
}

/// A server, and how it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub tool: Tool,
    pub args: Vec<String>,
    /// It runs on the core for threads beside the worker's, if there is one.
    pub beside: bool,
    pub ready: Ready,
    /// It serves once, and its last line says how that went.
    pub once: bool,
    /// It has frames, and the raw reflector rings, for thousands under way.
    pub large: bool,
}

impl Server {
    pub fn new(tool: Tool, args: &[&str]) -> Self {
        let args = args.iter().map(|a| (*a).to_string()).collect();
        Self { tool, args, beside: false, ready: Ready::Says, once: false, large: false }
    }
}

/// How fast requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Each connection has one under way at any time.
    Closed,
    /// So much of the rate that the kernel's server reaches with this client.
    PartOfKernel(f64),
}

/// What is put on a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// `ringroad load`.
    Load {
        over: Over,
        /// `tcp`, `udp` or `http`.
        proto: &'static str,
        to: String,
        connections: usize,
        size: usize,
        rate: Rate,
        /// A connection for each request.
        one_shot: bool,
    },
    /// The raw client, with so many frames under way, as long as TCP's with
    /// `size` bytes.
    Ask { window: usize, size: usize },
    /// A transfer from this program on the client's side; the server reports.
    Transfer { args: Vec<String> },
    /// wrk with so many requests at once on each connection.
    Wrk { depth: usize },
    /// None: how much of its core does the server take?
    Nothing,
    /// None, and nobody: how long do threads on both cores stand still?
    Pauses,
    /// Idle connections in memory, without a bed.
    Memory { connections: usize, done: Done },
    /// Round trips in memory, without a bed.
    MemoryEcho { connections: usize, trips: usize },
    /// Echo by workers in memory, without a bed, with so many clients each.
    Workers { team: Team, connections: usize },
    /// Checksums; `words`: by a loop of words.
    Sums { bytes: usize, words: bool },
}

/// Workers in memory, and who runs their program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Team {
    /// One worker, on the server's core, that runs the program itself.
    One,
    /// Two of one program, on the server's and the client's core.
    Two,
    /// Two programs with one each, on the same cores.
    TwoPrograms,
    /// One, and the program on a thread that spins, on the client's core.
    Thread,
    /// The same, where the thread sleeps when there is nothing to do.
    SleepingThread,
}

/// A piece of work of one arm in one row.
#[derive(Clone, Debug)]
pub struct Job {
    pub row: String,
    pub group: &'static str,
    pub title: String,
    pub arm: &'static str,
    pub bed: Kind,
    pub server: Option<Server>,
    pub work: Work,
}

impl Job {
    /// Requests that are under way together, at least.
    pub fn under_way(&self) -> usize {
        match self.work {
            Work::Load { connections, .. } => connections,
            Work::Ask { window, .. } => window,
            _ => 1,
        }
    }

    /// Its bed is no good for others afterwards: see [`Job::is_last_on_its_bed`]; or a
    /// program of another's may still be attached to its interface.
    pub fn leaves_its_bed(&self) -> bool {
        self.is_last_on_its_bed() || self.server.as_ref().is_some_and(|s| s.tool == Tool::Testpmd)
    }

    /// It leaves connections in TIME-WAIT behind. A client of ours that is started
    /// anew has other timestamps (RFC 7323, 5.5), older by chance than those, and its
    /// SYNs from the same ports are then refused for a second: so no other job may
    /// come after it on the same bed.
    pub fn is_last_on_its_bed(&self) -> bool {
        matches!(self.work, Work::Load { one_shot: true, .. })
    }

    /// The first of the programs that it needs which `installed` does not find, with
    /// the package that has it. (Those that are built are there.)
    pub fn lacks(&self, installed: impl Fn(&str) -> bool) -> Option<(&'static str, &'static str)> {
        let server = match self.server.as_ref().map(|s| s.tool) {
            Some(Tool::Testpmd) => Some((super::runner::TESTPMD, "dpdk-dev")),
            Some(Tool::Nginx) => Some(("nginx", "nginx-light")),
            _ => None,
        };
        let client = matches!(self.work, Work::Wrk { .. }).then_some(("wrk", "wrk"));
        [server, client].into_iter().flatten().find(|(name, _)| !installed(name))
    }

    /// More of them than the usual rings hold.
    pub fn is_large(&self) -> bool {
        self.under_way() > 1024
    }
}

/// How much is to be done.
#[derive(Clone, Debug)]
pub struct Scope {
    pub size: Size,
    /// Groups, or parts of rows' names; empty: all.
    pub only: Vec<String>,
    /// The path of the files that HTTP servers serve, and nginx's configuration.
    pub root: String,
    pub nginx_conf: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Quick,
    Usual,
    Full,
}

impl Scope {
    /// One of three by the size of the run.
    pub fn pick<T>(&self, quick: T, usual: T, full: T) -> T {
        match self.size {
            Size::Quick => quick,
            Size::Usual => usual,
            Size::Full => full,
        }
    }

    /// Whether a row is wanted.
    pub fn wants(&self, group: &str, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o == group || row.contains(o.as_str()))
    }
}

/// Neighbouring jobs that share a server, in order: indexes into `jobs`.
pub fn blocks(jobs: &[Job]) -> Vec<std::ops::Range<usize>> {
    let mut all: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, job) in jobs.iter().enumerate() {
        let once = job.server.as_ref().is_none_or(|s| s.once) || job.is_last_on_its_bed();
        match all.last_mut() {
            Some(last) if !once && jobs[last.start].server == job.server && jobs[last.start].bed == job.bed => {
                last.end = i + 1;
            }
            _ => all.push(i..i + 1),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::bed::PLAIN;
    use super::*;

    fn job(args: &[&str], once: bool, mtu: u32) -> Job {
        Job {
            row: "r".into(),
            group: "g",
            title: String::new(),
            arm: "a",
            bed: Kind { mtu, ..PLAIN },
            server: Some(Server { once, ..Server::new(Tool::Own, args) }),
            work: Work::Nothing,
        }
    }

    #[test]
    fn jobs_share_a_server_on_the_same_bed_unless_it_serves_once() {
        let one_shot = Work::Load {
            over: Over::Stack,
            proto: "tcp",
            to: String::new(),
            connections: 1,
            size: 1,
            rate: Rate::Closed,
            one_shot: true,
        };
        let jobs = [
            job(&["a"], false, 1500),
            job(&["a"], false, 1500),
            job(&["a"], false, 9000),
            job(&["b"], true, 9000),
            job(&["b"], true, 9000),
            Job { server: None, ..job(&[], false, 1500) },
            Job { server: None, ..job(&[], false, 1500) },
            job(&["a"], false, 1500),
            Job { work: one_shot.clone(), ..job(&["a"], false, 1500) },
            Job { work: one_shot, ..job(&["a"], false, 1500) },
        ];
        assert_eq!(blocks(&jobs), [0..2, 2..3, 3..4, 4..5, 5..6, 6..7, 7..8, 8..9, 9..10]);
    }

    #[test]
    fn programs_that_are_not_there_are_named() {
        let nginx = Job { server: Some(Server::new(Tool::Nginx, &[])), work: Work::Wrk { depth: 1 }, ..job(&[], false, 1500) };
        assert_eq!(nginx.lacks(|_| false), Some(("nginx", "nginx-light")));
        assert_eq!(nginx.lacks(|name| name == "nginx"), Some(("wrk", "wrk")));
        assert_eq!(nginx.lacks(|_| true), None);
        assert_eq!(job(&[], false, 1500).lacks(|_| false), None);
    }

    #[test]
    fn rows_are_wanted_by_group_or_part_of_their_name() {
        let mut scope =
            Scope { size: Size::Quick, only: vec![], root: String::new(), nginx_conf: String::new() };
        assert!(scope.wants("echo", "tcp-64-x1-kernel"));
        scope.only = vec!["bulk".into(), "x1-".into()];
        assert!(scope.wants("echo", "tcp-64-x1-kernel") && scope.wants("bulk", "anything"));
        assert!(!scope.wants("echo", "tcp-64-x16-kernel"));
    }
}
