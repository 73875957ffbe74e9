//! `ringroad load`: drive a server and measure how long its answers take.

mod driver;
mod engine;
mod kernel;
mod reply;
mod stack;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use ringroad::runtime::Wait;
use ringroad::telemetry::latency::{Latency, Report};

use crate::{names, sys};
use driver::Driver;
use engine::{Engine, Plan, Protocol};

/// The largest payload of a UDP datagram over IPv4.
const DATAGRAM_LIMIT: usize = 65_507;
/// The largest request over TCP.
const STREAM_LIMIT: usize = 1 << 30;

/// Which sockets carry the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Over {
    /// The kernel's sockets.
    Kernel,
    /// Our stack's, on an interface named by -i.
    Stack,
}

/// Drive an echo or HTTP server, and report requests per second and latency.
///
/// Without --rate every connection has one request under way at any time (a
/// closed loop). With --rate requests leave on a schedule whatever the server
/// does, and latency counts from the time a request was due, so that a stall is
/// charged to all it delayed (corrected for coordinated omission). With --one-shot
/// every request has a connection of its own. Echoed bytes
/// are checked. A warm-up of a fifth of the duration, at most a second, is not
/// counted.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the server is: address or host name, port number or service name;
    /// for http, a path may follow (10.0.0.1:80/index.html)
    #[arg(long, value_name = "ADDR:PORT")]
    to: String,
    /// The sockets that carry the load
    #[arg(long, value_enum)]
    over: Over,
    /// With --over stack: the interface whose queue is served
    #[arg(short, long, value_name = "IFACE", required_if_eq("over", "stack"))]
    interface: Option<String>,
    /// With --over stack: an address that the stack owns by itself, as
    /// ADDRESS/PREFIX; without it the interface's own is shared with the kernel
    #[arg(long, value_name = "CIDR")]
    address: Option<String>,
    /// What is sent: tcp and udp want an echo server
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    proto: Protocol,
    /// Connections (udp: sockets)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Bytes in a request (tcp, udp) [default: 64]
    #[arg(long, value_name = "B")]
    size: Option<usize>,
    /// Requests per second over all connections, on a schedule (open loop)
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,
    /// A connection for each request, which the server has to end after its
    /// answer (tcp, http); latency counts from the connection's beginning
    #[arg(long, conflicts_with = "rate")]
    one_shot: bool,
    /// Seconds measured, after the warm-up
    #[arg(long, value_name = "S", default_value = "10", value_parser = positive)]
    duration: f64,
    /// Write the histogram in HdrHistogram's percentile format, in microseconds
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// Write the whole report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n > 0.0 => Ok(n),
        _ => Err("a number above 0 is wanted".to_string()),
    }
}

/// Run the command.
///
/// # Errors
/// A sentence for the person who ran it.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let plan = plan(args)?;
    let target = plan.target;
    if args.over == Over::Kernel && (args.interface.is_some() || args.address.is_some()) {
        return Err("-i and --address go with --over stack; kernel sockets take what the routes say".into());
    }
    let files = sys::raise_file_limit();
    if args.over == Over::Kernel && u64::from(args.connections) + 16 > files {
        return Err(format!(
            "{} connections need as many open files, and the limit is {files}; raise it (ulimit -n) or ask for fewer",
            args.connections
        ));
    }
    // Files that cannot be written are found out before the run, not after it.
    let histogram = args.histogram.as_deref().map(create).transpose()?;
    let json = args.json.as_deref().map(create).transpose()?;
    sys::catch_stop_signals();
    let make = |live: bool| Engine::new(plan, live);
    let (driver, over) = match args.over {
        Over::Kernel => (over_kernel(Driver::new(make, sys::stop_requested), target)?, "kernel sockets".to_string()),
        Over::Stack => over_stack(args, Driver::new(make, sys::stop_requested), target)?,
    };
    let (report, latency) = driver.engine.report(over);
    write_files(&report, latency, histogram, json)
        .map_err(|e| format!("cannot write the report: {e}"))?;
    if report.requests > 0 || report.unanswered > 0 {
        println!("{report}");
    }
    if report.requests > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(match driver.last_error() {
        Some(e) => why(e, target),
        None => format!("{target}: no answer came; is an echo (tcp, udp) or HTTP server there?"),
    })
}

fn over_kernel(mut driver: Driver, target: SocketAddr) -> Result<Driver, String> {
    match kernel::run(&mut driver) {
        Ok(()) => Ok(driver),
        Err(e) => Err(why(&e, target)),
    }
}

fn over_stack(args: &Args, driver: Driver, target: SocketAddr) -> Result<(Driver, String), String> {
    if !target.is_ipv4() {
        return Err(format!("{target}: IPv6 over the stack is not there yet; use --over kernel"));
    }
    let interface = args.interface.as_deref().unwrap_or("");
    let mut config = crate::stack::configuration(interface, args.address.as_deref())?;
    config.workers = 1;
    config.wait = Wait::Spin;
    config.validate().map_err(|e| e.to_string())?;
    let (driver, result, mode) = stack::run(config, driver)?;
    result.map_err(|e| why(&e, target))?;
    Ok((driver, format!("our stack on {interface}, one worker, spinning; {mode}")))
}

fn plan(args: &Args) -> Result<Plan, String> {
    let (to, path) = match args.to.split_once('/') {
        Some((to, path)) if args.proto == Protocol::Http => (to, format!("/{path}")),
        Some(_) => return Err(format!("\"{}\": a path goes with --proto http only", args.to)),
        None => (args.to.as_str(), "/".to_string()),
    };
    if args.one_shot && args.proto == Protocol::Udp {
        return Err("--one-shot goes with tcp and http; datagrams have no connections".into());
    }
    let protocol_name = if args.proto == Protocol::Udp { "udp" } else { "tcp" };
    let target = names::socket_address(to, protocol_name)?;
    let size = match (args.proto, args.size) {
        (Protocol::Http, Some(_)) => {
            return Err("--size goes with tcp and udp; in http the server decides".into());
        }
        (_, Some(0)) => return Err("--size 0: a request has at least one byte".into()),
        (Protocol::Udp, Some(n)) if n > DATAGRAM_LIMIT => {
            return Err(format!("--size {n}: a datagram holds at most {DATAGRAM_LIMIT} bytes"));
        }
        (_, Some(n)) if n > STREAM_LIMIT => {
            return Err(format!("--size {n}: at most {STREAM_LIMIT} bytes"));
        }
        (_, size) => size.unwrap_or(64),
    };
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    Ok(Plan {
        protocol: args.proto,
        target,
        path,
        connections: args.connections as usize,
        size,
        rate: args.rate,
        one_shot: args.one_shot,
        warm_up_ns: ns((args.duration / 5.0).min(1.0)),
        measure_ns: ns(args.duration),
    })
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn write_files(
    report: &Report,
    latency: &Latency,
    hgrm: Option<File>,
    json: Option<File>,
) -> io::Result<()> {
    if let Some(file) = hgrm {
        let mut out = BufWriter::new(file);
        latency.write_hgrm(&mut out)?;
        out.flush()?;
    }
    if let Some(file) = json {
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, report)?;
        out.flush()?;
    }
    Ok(())
}

/// An error of the network, with what to do about it.
fn why(error: &io::Error, target: SocketAddr) -> String {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "nothing listens on that port; start the server, or check the port"
        }
        io::ErrorKind::TimedOut => {
            "nothing answers at that address; check it, and any firewall between"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "check the address and the routes (ip route)"
        }
        _ => "the load could not be run",
    };
    format!("{target}: {error}; {advice}")
}
