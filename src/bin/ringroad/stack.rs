//! What the commands that run our stack have in common: their arguments, how
//! sockets that listen are made, and how they say that they are ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use ringroad::runtime::{self, App, Config, Losses, Runtime, Wait};
use ringroad::socket::linux::{AF_INET, SO_REUSEPORT, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET};
use ringroad::socket::{Handle, Sockets};
use ringroad::time::{Duration, Instant};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often a server looks whether it is to stop, when nothing else wakes it.
pub const LOOK: Duration = Duration::from_millis(100);
/// How long connections that were closed may take to end when the runtime does.
pub const GOODBYE: std::time::Duration = std::time::Duration::from_millis(500);
/// How long a server stays after its last connection was closed, so that its
/// peers hear of it even where a packet is lost.
pub const LINGER: Duration = Duration::from_millis(100);

/// Where the stack runs. Further settings (RINGROAD_CPUS, RINGROAD_SPIN_US,
/// RINGROAD_MODE, ...) come from the environment.
#[derive(clap::Args, Debug)]
pub struct StackArgs {
    /// The interface whose queues are served
    #[arg(short, long, value_name = "IFACE")]
    interface: String,
    /// An address that the stack owns by itself, as ADDRESS/PREFIX; without it
    /// the interface's own address is shared with the kernel
    #[arg(long, value_name = "CIDR")]
    address: Option<String>,
    /// Workers, each with a core and a queue of the interface: as many as it has
    /// receive queues [default: 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// How a worker waits for packets: spin (lowest latency), adaptive (spins,
    /// then sleeps) or block [default: adaptive]
    #[arg(long, value_name = "spin|adaptive|block")]
    wait: Option<Wait>,
}

impl StackArgs {
    /// The runtime's configuration that they ask for.
    ///
    /// # Errors
    /// A sentence about the value that cannot be.
    pub fn config(&self) -> Result<Config, String> {
        let mut config = configuration(&self.interface, self.address.as_deref())?;
        config.workers = self.workers.unwrap_or(config.workers);
        config.wait = self.wait.unwrap_or(config.wait);
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }
}

/// A configuration from the environment, with this interface and address; to be
/// validated with what else the command line says.
///
/// # Errors
/// A sentence about the value that cannot be.
pub fn configuration(interface: &str, address: Option<&str>) -> Result<Config, String> {
    let mut config = Config::from_env().map_err(|e| e.to_string())?;
    config.interface = interface.to_string();
    if let Some(address) = address {
        config.addresses = runtime::config::parse_addresses(address).map_err(|e| format!("--address: {e}"))?;
    }
    Ok(config)
}

/// Run a server on every worker until a stop signal; `make` gives each worker
/// its own. `what` says what is served, once all of them are ready.
///
/// # Errors
/// A sentence for the person who started it.
pub fn serve<A: App + 'static>(
    config: Config,
    what: &str,
    make: impl Fn(&mut Sockets) -> Result<A, String> + Send + Sync,
) -> Result<ExitCode, String> {
    crate::sys::catch_stop_signals();
    let runtime = Runtime::start(config).map_err(|e| e.to_string())?;
    let missing = AtomicUsize::new(runtime.workers());
    let (failed, failure) = mpsc::channel();
    let made = |_worker: usize, sockets: &mut Sockets| match make(sockets) {
        Ok(app) => {
            if missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                println!("{what}; {}; ready", runtime.mode());
            }
            Server { app: Some(app) }
        }
        Err(why) => {
            let _ = failed.send(why);
            Server { app: None }
        }
    };
    let result = runtime.run(made);
    tell(&runtime.shutdown(GOODBYE));
    match failure.try_recv() {
        Ok(why) => Err(why),
        Err(_) => result.map(|()| ExitCode::SUCCESS).map_err(|e| e.to_string()),
    }
}

/// What is told of that is no packet.
const NO_PACKETS: [&str; 2] = ["polling_given_up", Losses::INTERRUPTS_LEFT];

/// Says what was lost, if anything was.
pub fn tell(losses: &Losses) {
    lines(losses).iter().for_each(|line| println!("{line}"));
}

fn lines(losses: &Losses) -> Vec<String> {
    let (events, packets) = losses.0.iter().map(|(name, n)| (*name, *n)).partition(|(name, _)| NO_PACKETS.contains(name));
    let (events, packets) = (Losses(events), Losses(packets));
    let mut lines = Vec::new();
    if !packets.0.is_empty() {
        lines.push(format!("lost or sent again: {packets}"));
    }
    if !events.0.is_empty() {
        lines.push(format!("worth a look: {events}"));
    }
    if events.0.contains_key(Losses::INTERRUPTS_LEFT) {
        let text = "the interface's interrupts stay put off, as they could not be put back without privileges: \
                    the next start with them puts them back, or write the values that `ringroad doctor` shows";
        lines.push(text.to_owned());
    }
    if packets.0.contains_key("xsk_rx_dropped") || packets.0.contains_key("xsk_rx_ring_full") {
        let text = "packets came while the rings were full: more frames (RINGROAD_FRAMES) make them longer";
        lines.push(text.to_owned());
    }
    lines
}

/// An app, or none where it could not be made: that worker ends at once, and the
/// others with it.
struct Server<A> {
    app: Option<A>,
}

impl<A: App> App for Server<A> {
    #[inline]
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()> {
        match &mut self.app {
            Some(app) => app.turn(now, sockets),
            None => {
                crate::sys::request_stop();
                ControlFlow::Break(())
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.app.as_ref().and_then(App::next_deadline)
    }
}

/// A socket bound to `port` of every address, on each worker.
fn bound(sockets: &mut Sockets, kind: i32, port: u16) -> ringroad::errno::Result<Handle> {
    let socket = sockets.socket(AF_INET, kind, 0)?;
    sockets.set_option(socket, SOL_SOCKET, SO_REUSEPORT, &1i32.to_ne_bytes())?;
    sockets.bind(socket, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    Ok(socket)
}

/// A TCP socket that listens on `port`.
///
/// # Errors
/// A sentence that names the port.
pub fn listener(sockets: &mut Sockets, port: u16) -> Result<Handle, String> {
    let socket = bound(sockets, SOCK_STREAM, port);
    let listening = socket.and_then(|s| sockets.listen(s, BACKLOG).map(|()| s));
    listening.map_err(|e| format!("TCP port {port}: {e}{}", advice(e, port)))
}

/// A UDP socket on `port`.
///
/// # Errors
/// A sentence that names the port.
pub fn datagrams(sockets: &mut Sockets, port: u16) -> Result<Handle, String> {
    bound(sockets, SOCK_DGRAM, port).map_err(|e| format!("UDP port {port}: {e}{}", advice(e, port)))
}

fn advice(error: ringroad::errno::Errno, port: u16) -> String {
    match error {
        ringroad::errno::Errno::EADDRINUSE => {
            format!("; a program of this host holds it (ss -lntup 'sport = :{port}' shows which); stop it, or take another port")
        }
        ringroad::errno::Errno::EACCES => "; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_string(),
        _ => String::new(),
    }
}

/// A stop signal, noticed by a worker, and the time its server has left.
#[derive(Debug, Default)]
pub struct Stopping {
    until: Option<Instant>,
}

impl Stopping {
    /// True once, when the stop signal has come. The server may then stay for `time`.
    #[inline]
    pub fn begins(&mut self, now: Instant, time: Duration) -> bool {
        if self.until.is_some() || !crate::sys::stop_requested() {
            return false;
        }
        self.until = Some(now + time);
        true
    }

    /// The server has nothing left to do: it stays for `time` at most.
    pub fn hurry(&mut self, now: Instant, time: Duration) {
        self.until = self.until.map(|until| until.min(now + time));
    }

    /// The time is up.
    #[inline]
    pub fn over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// The signal has come.
    #[inline]
    pub fn begun(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_packet_is_not_said_to_be_lost() {
        let lines = |list: &[(&'static str, u64)]| lines(&Losses(list.iter().copied().collect()));
        assert!(lines(&[]).is_empty());
        assert_eq!(lines(&[("polling_given_up", 1)]), ["worth a look: polling_given_up 1"]);
        let both = lines(&[("polling_given_up", 1), ("tx_dropped", 2), ("xsk_rx_dropped", 3)]);
        assert_eq!(both[..2], ["lost or sent again: tx_dropped 2, xsk_rx_dropped 3", "worth a look: polling_given_up 1"]);
        assert!(both[2].contains("RINGROAD_FRAMES"));
        let left = lines(&[(Losses::INTERRUPTS_LEFT, 1)]);
        assert_eq!(left[0], "worth a look: interrupts_left_put_off 1");
        assert!(left[1].contains("ringroad doctor"));
    }
}
