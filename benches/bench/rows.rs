//! The rows: which work is done, and by which arms.

use super::bed::{Kind, OWNED, PLAIN, SERVER};
use super::inside;
use super::plan::{Job, Over, Rate, Ready, Scope, Server, Tool, Work};

/// The arms, as tables call them.
pub const SPIN: &str = "ringroad, spin";
pub const ADAPTIVE: &str = "ringroad, adaptive";
pub const BLOCK: &str = "ringroad, block";
pub const THREAD: &str = "ringroad, any thread";
pub const KERNEL_SPIN: &str = "kernel, spinning epoll";
pub const KERNEL_BLOCK: &str = "kernel, blocking epoll";
pub const KERNEL_BARE: &str = "kernel, spinning, no offloads";
pub const RAW: &str = "raw AF_XDP, no stack";
pub const TESTPMD: &str = "DPDK testpmd on AF_XDP, no stack";
pub const NGINX: &str = "nginx";
pub const SMOLTCP: &str = "smoltcp on our AF_XDP device";
pub const SMOLTCP_PACKET: &str = "smoltcp on AF_PACKET";

/// The bed without offloads.
const BARE: Kind = Kind { mtu: 1500, offloads: false };
/// Connections of the open loop, and of one request each.
const OPEN_CONNECTIONS: usize = 64;
const CHURN_CONNECTIONS: usize = 64;
const HTTP_CONNECTIONS: usize = 64;
/// Requests that wrk sends at once, where it pipelines.
const PIPELINE: usize = 16;
/// Parts of the kernel's capacity, in percent, that the open loop asks for.
pub const PARTS: [usize; 4] = [25, 50, 75, 90];

/// All jobs of a round that the scope wants, in the order of the table.
pub fn all(scope: &Scope) -> Vec<Job> {
    let groups = [echo, pauses, open, churn, bulk, http, idle, inside::threads, inside::workers, inside::memory, inside::sums];
    let mut jobs: Vec<Job> = groups.iter().flat_map(|group| group(scope)).collect();
    jobs.retain(|job| scope.wants(job.group, &job.row));
    jobs
}

fn ringroad(wait: &str) -> Server {
    Server::new(Tool::Ringroad, &["echo", "-i", "veth0", "--tcp", "7", "--udp", "7", "--wait", wait])
}

fn any_thread() -> Server {
    Server { beside: true, ..Server::new(Tool::ThreadEcho, &["7"]) }
}

fn kernel(spin: bool) -> Server {
    Server::new(Tool::KernelEcho, if spin { &["--spin", "7"] } else { &["7"] })
}

fn reflector() -> Server {
    Server::new(Tool::Own, &["reflect", "-i", "veth0", "--address", SERVER, "--port", "7"])
}

fn testpmd() -> Server {
    Server { ready: Ready::Forwards, ..Server::new(Tool::Testpmd, &[]) }
}

fn smoltcp(medium: &str) -> Server {
    Server::new(Tool::Own, &["smoltcp", "--medium", medium, "-i", "veth0", "--address", OWNED, "--port", "7"])
}

/// The server that finds the capacity by which the open loop goes.
pub fn capacity(over: Over) -> Job {
    Job {
        row: format!("capacity-{}", over.name()),
        group: "open",
        title: format!("capacity: TCP 64 B, {OPEN_CONNECTIONS} connections, {}", over.client()),
        arm: KERNEL_SPIN,
        bed: PLAIN,
        server: Some(kernel(true)),
        work: load(over, "tcp", 64, OPEN_CONNECTIONS, Rate::Closed),
    }
}

fn load(over: Over, proto: &'static str, size: usize, connections: usize, rate: Rate) -> Work {
    Work::Load { over, proto, to: format!("{SERVER}:7"), connections, size, rate, one_shot: false }
}

/// The name of an echo row.
pub fn echo_row(proto: &str, size: usize, connections: usize, over: Over) -> String {
    format!("{proto}-{size}-x{connections}-{}", over.name())
}

/// What is echoed: (protocol, bytes, connections).
type Shape = (&'static str, usize, usize);

/// The shapes of arms that do all, and of arms that do the most telling ones.
fn shapes(scope: &Scope) -> (Vec<Shape>, Vec<Shape>) {
    let few = vec![("tcp", 64, 1), ("tcp", 64, 256), ("udp", 64, 1)];
    let mut usual: Vec<Shape> = [1, 16, 256, 4096].map(|n| ("tcp", 64, n)).to_vec();
    for size in [16, 512, 1400] {
        usual.extend([("tcp", size, 1), ("tcp", size, 256)]);
    }
    usual.extend([("udp", 64, 1), ("udp", 64, 16), ("udp", 64, 256), ("udp", 1400, 16)]);
    let mut full = Vec::new();
    for proto in ["tcp", "udp"] {
        for size in [16, 64, 512, 1400] {
            full.extend([1, 16, 256, 4096].map(|n| (proto, size, n)));
        }
    }
    let quick = vec![("tcp", 64, 1), ("tcp", 1400, 16), ("udp", 64, 16)];
    scope.pick((quick, vec![("tcp", 64, 1)]), (usual, few), (full.clone(), full))
}

fn echo(scope: &Scope) -> Vec<Job> {
    let (all, few) = shapes(scope);
    let streams = |list: &[Shape]| list.iter().copied().filter(|s| s.0 == "tcp").collect::<Vec<_>>();
    let small = scope.pick(vec![("tcp", 64, 1)], vec![("tcp", 64, 1), ("tcp", 64, 16), ("tcp", 64, 256)], {
        // It looks at every socket for every packet: thousands of them would be no measurement.
        streams(&all).into_iter().filter(|s| s.2 <= 256).collect()
    });
    let arms: Vec<(&'static str, Server, Kind, &[Shape])> = vec![
        (SPIN, ringroad("spin"), PLAIN, &all),
        (KERNEL_SPIN, kernel(true), PLAIN, &all),
        (KERNEL_BLOCK, kernel(false), PLAIN, &all),
        (ADAPTIVE, ringroad("adaptive"), PLAIN, &few),
        (BLOCK, ringroad("block"), PLAIN, &few),
        (THREAD, any_thread(), PLAIN, &few),
        (KERNEL_BARE, kernel(true), BARE, &few),
        (SMOLTCP, smoltcp("xdp"), PLAIN, &small),
        (SMOLTCP_PACKET, smoltcp("packet"), PLAIN, &small),
    ];
    let mut jobs = Vec::new();
    for (arm, server, bed, shapes) in arms {
        for over in Over::BOTH {
            for &(proto, size, connections) in shapes {
                let mut work = load(over, proto, size, connections, Rate::Closed);
                let owns = server.args.first().is_some_and(|a| a == "smoltcp");
                if let (Work::Load { to, .. }, true) = (&mut work, owns) {
                    *to = format!("{OWNED}:7");
                }
                jobs.push(echo_job(arm, bed, &server, proto, size, connections, over, work));
            }
        }
    }
    jobs.extend(raw_echo(RAW, &reflector(), &all));
    let small: Vec<Shape> = all.iter().copied().filter(|s| s.2 <= 256).collect();
    jobs.extend(raw_echo(TESTPMD, &testpmd(), &small));
    // Those of the same server beside each other, so that it is started once.
    let arms = [SPIN, KERNEL_SPIN, KERNEL_BLOCK, ADAPTIVE, BLOCK, THREAD, KERNEL_BARE, SMOLTCP, SMOLTCP_PACKET, RAW, TESTPMD];
    jobs.sort_by_key(|job| (arms.iter().position(|arm| *arm == job.arm), job.is_large()));
    jobs
}

/// The floor: the raw client in the rows of our client over TCP, and both clients
/// over UDP, which a reflector turns round like any other frame. testpmd leaves a
/// checksum as it was, which kernel senders on veth have not filled in.
fn raw_echo(arm: &'static str, server: &Server, shapes: &[Shape]) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &(proto, size, connections) in shapes {
        let job = |over, work| echo_job(arm, PLAIN, server, proto, size, connections, over, work);
        if proto == "tcp" {
            jobs.push(job(Over::Stack, Work::Ask { window: connections, size }));
            continue;
        }
        for over in Over::BOTH {
            if over == Over::Stack || arm == RAW {
                jobs.push(job(over, load(over, proto, size, connections, Rate::Closed)));
            }
        }
    }
    jobs
}

fn echo_job(
    arm: &'static str,
    bed: Kind,
    server: &Server,
    proto: &str,
    size: usize,
    connections: usize,
    over: Over,
    work: Work,
) -> Job {
    let what = if proto == "udp" { "socket" } else { "connection" };
    let s = if connections == 1 { "" } else { "s" };
    let proto_name = proto.to_uppercase();
    let mut job = Job {
        row: echo_row(proto, size, connections, over),
        group: "echo",
        title: format!("{proto_name} echo, {size} B, {connections} {what}{s}, {}", over.client()),
        arm,
        bed,
        server: None,
        work,
    };
    job.server = Some(Server { large: job.is_large(), ..server.clone() });
    job
}

/// The name of the row of pauses, and its arm.
pub const PAUSES_ROW: &str = "pauses";
pub const CLOCK: &str = "threads that read the clock";

/// What of the open loop's tails is the machine's.
fn pauses(_: &Scope) -> Vec<Job> {
    let title = "no load: the wait for a core that stands still, at random moments".into();
    vec![Job { row: PAUSES_ROW.into(), group: "pauses", title, arm: CLOCK, bed: PLAIN, server: None, work: Work::Pauses }]
}

/// The name of a row of the open loop.
pub fn open_row(part: usize, over: Over) -> String {
    format!("open-{part}-{}", over.name())
}

fn open(scope: &Scope) -> Vec<Job> {
    let mut arms = vec![
        (SPIN, ringroad("spin")),
        (ADAPTIVE, ringroad("adaptive")),
        (BLOCK, ringroad("block")), // what a request costs where nobody spins
        (KERNEL_SPIN, kernel(true)),
        (KERNEL_BLOCK, kernel(false)),
    ];
    arms.extend(scope.pick(None, None, Some((THREAD, any_thread()))));
    let parts = scope.pick(&[75][..], &PARTS[..], &PARTS[..]);
    let mut jobs = Vec::new();
    for (arm, server) in arms {
        for over in Over::BOTH {
            for &part in parts {
                let rate = Rate::PartOfKernel(part as f64 / 100.0);
                jobs.push(Job {
                    row: open_row(part, over),
                    group: "open",
                    title: format!("open loop at {part} % of the kernel's capacity, TCP 64 B, {}", over.client()),
                    arm,
                    bed: PLAIN,
                    server: Some(server.clone()),
                    work: load(over, "tcp", 64, OPEN_CONNECTIONS, rate),
                });
            }
        }
    }
    jobs
}

fn churn(_: &Scope) -> Vec<Job> {
    let ours = Server::new(Tool::Own, &["once", "-i", "veth0", "--port", "7"]);
    let kernel = |args| Server::new(Tool::KernelEcho, args);
    let arms = [
        (SPIN, ours),
        (KERNEL_SPIN, kernel(&["--once", "--spin", "7"])),
        (KERNEL_BLOCK, kernel(&["--once", "7"])),
    ];
    let mut jobs = Vec::new();
    for (arm, server) in arms {
        for over in Over::BOTH {
            let mut work = load(over, "tcp", 64, CHURN_CONNECTIONS, Rate::Closed);
            if let Work::Load { one_shot, .. } = &mut work {
                *one_shot = true;
            }
            jobs.push(Job {
                row: format!("churn-{}", over.name()),
                group: "churn",
                title: format!("connect, 64 B there and back, close; {CHURN_CONNECTIONS} at a time, {}", over.client()),
                arm,
                bed: PLAIN,
                server: Some(server.clone()),
                work,
            });
        }
    }
    jobs
}

/// The arms of bulk rows: who sends to whom.
pub const BULK_OURS: &str = "ringroad to ringroad";
pub const BULK_LENT: &str = "ringroad to ringroad, no copies";
pub const BULK_OUT: &str = "ringroad to kernel";
pub const BULK_IN: &str = "kernel to ringroad";
pub const BULK_KERNEL: &str = "kernel to kernel";
pub const BULK_BARE: &str = "kernel to kernel, no offloads";
/// What any transfer of data does, whatever carries it: the floor above the floor.
pub const RAW_DATA: &str = "raw AF_XDP, payload written and read";

/// The MTUs of bulk rows.
pub const MTUS: [u32; 3] = [1500, 3498, 9000];

fn bulk(scope: &Scope) -> Vec<Job> {
    let mut jobs = Vec::new();
    for &mtu in scope.pick(&MTUS[..2], &MTUS[..], &MTUS[..]) {
        let text = mtu.to_string();
        let to = format!("{SERVER}:5001");
        let sink = |extra: &[&str]| {
            let args = [&["bulk-sink", "--port", "5001"], extra].concat();
            Server { once: true, ..Server::new(Tool::Own, &args) }
        };
        let send = |extra: &[&str]| {
            let args = [&["bulk-send", "--to", &to], extra].concat();
            Work::Transfer { args: args.iter().map(|a| (*a).to_string()).collect() }
        };
        let (ours, lent) = (["-i", "veth0"], ["-i", "veth0", "--lent"]);
        let raw_sink = |extra: &[&str]| {
            let args = [&["raw-sink", "-i", "veth0", "--address", SERVER, "--port", "7"], extra].concat();
            Server { once: true, ..Server::new(Tool::Own, &args) }
        };
        let raw_send = |extra: &[&str]| {
            let args = ["raw-send", "-i", "veth0", "--address", super::bed::CLIENT, "--to", "10.77.0.1:7", "--mtu", &text];
            Work::Transfer { args: args.iter().chain(extra).map(|a| (*a).to_string()).collect() }
        };
        let arms = [
            (BULK_OURS, true, sink(&ours), send(&ours)),
            (BULK_LENT, true, sink(&lent), send(&lent)),
            (BULK_OUT, true, sink(&[]), send(&ours)),
            (BULK_IN, true, sink(&ours), send(&[])),
            (BULK_KERNEL, true, sink(&[]), send(&[])),
            (BULK_BARE, false, sink(&[]), send(&[])),
            (RAW, true, raw_sink(&[]), raw_send(&[])),
            (RAW_DATA, true, raw_sink(&["--payload"]), raw_send(&["--payload"])),
        ];
        jobs.extend(arms.into_iter().map(|(arm, offloads, server, work)| Job {
            row: format!("bulk-{mtu}"),
            group: "bulk",
            title: format!("bulk, one flow, MTU {mtu}"),
            arm,
            bed: Kind { mtu, offloads },
            server: Some(server),
            work,
        }));
    }
    jobs
}

fn http(scope: &Scope) -> Vec<Job> {
    let args = ["http", "-i", "veth0", "--port", "80", "--root", &scope.root];
    let nginx = Server::new(Tool::Nginx, &["-c", &scope.nginx_conf]);
    let arms = [
        (SPIN, Server::new(Tool::Ringroad, &args)),
        (NGINX, Server { ready: Ready::Port80, ..nginx }),
    ];
    let mut jobs = Vec::new();
    for (arm, server) in arms {
        let job = |row: &str, how: &str, work| Job {
            row: row.to_string(),
            group: "http",
            title: format!("HTTP, 560 B file, {HTTP_CONNECTIONS} connections, {how}"),
            arm,
            bed: PLAIN,
            server: Some(server.clone()),
            work,
        };
        jobs.push(job("http-wrk", "wrk, keep-alive", Work::Wrk { depth: 1 }));
        let deep = format!("wrk, {PIPELINE} requests at once");
        jobs.push(job("http-wrk-pipelined", &deep, Work::Wrk { depth: PIPELINE }));
        let work = |over, one_shot| Work::Load {
            over,
            proto: "http",
            to: format!("{SERVER}:80"),
            connections: HTTP_CONNECTIONS,
            size: 0,
            rate: Rate::Closed,
            one_shot,
        };
        for over in Over::BOTH {
            jobs.push(job(&format!("http-load-{}", over.name()), over.client(), work(over, false)));
        }
        for over in Over::BOTH {
            let how = format!("{}, a connection for each request", over.client());
            jobs.push(job(&format!("http-churn-{}", over.name()), &how, work(over, true)));
        }
    }
    jobs
}

fn idle(_: &Scope) -> Vec<Job> {
    let arms = [(ADAPTIVE, ringroad("adaptive")), (BLOCK, ringroad("block")), (KERNEL_BLOCK, kernel(false))];
    let job = |(arm, server)| Job {
        row: "idle".to_string(),
        group: "idle",
        title: "an echo server that nobody asks".to_string(),
        arm,
        bed: PLAIN,
        server: Some(server),
        work: Work::Nothing,
    };
    arms.into_iter().map(job).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::Size;
    use super::*;

    fn scope(size: Size) -> Scope {
        Scope { size, only: Vec::new(), root: "/root".into(), nginx_conf: "/conf".into() }
    }

    #[test]
    fn no_arm_is_twice_in_a_row_and_all_arms_are_in_every_size() {
        let arms = |size| {
            let mut seen = std::collections::BTreeSet::new();
            let jobs = all(&scope(size));
            let cells: std::collections::BTreeSet<_> = jobs.iter().map(|j| (j.row.clone(), j.arm)).collect();
            assert_eq!(cells.len(), jobs.len(), "{size:?}");
            seen.extend(jobs.iter().map(|j| j.arm));
            seen
        };
        assert_eq!(arms(Size::Quick), arms(Size::Usual));
        assert_eq!(arms(Size::Usual), arms(Size::Full));
    }

    #[test]
    fn the_full_run_is_the_whole_cross() {
        let jobs = all(&scope(Size::Full));
        for over in Over::BOTH {
            for proto in ["tcp", "udp"] {
                for size in [16, 64, 512, 1400] {
                    for connections in [1, 16, 256, 4096] {
                        let row = echo_row(proto, size, connections, over);
                        for arm in [SPIN, ADAPTIVE, BLOCK, THREAD, KERNEL_SPIN, KERNEL_BLOCK, KERNEL_BARE] {
                            assert!(jobs.iter().any(|j| j.row == row && j.arm == arm), "{row} {arm}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_is_asked_for() {
        let jobs = all(&Scope { only: vec!["churn".into(), "bulk-1500".into()], ..scope(Size::Usual) });
        assert!(jobs.iter().all(|j| j.row.contains("churn") || j.row == "bulk-1500"));
        assert!(jobs.iter().any(|j| j.row == "churn-stack") && jobs.iter().any(|j| j.row == "bulk-1500"));
    }
}
