//! What a runtime is started with: from a program, or from `RINGROAD_*` in the
//! environment. Every value has a default but the interface.

use super::error::{Error, Result};
use crate::stack::tcp::{SynCookies, TableConfig};
use crate::tcp;
use crate::time::Duration;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

/// How a worker waits when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Never sleeps: lowest latency, one core always busy.
    Spin,
    /// Spins for [`Config::spin`], then sleeps in the kernel until a packet, a
    /// timer or another thread needs it; at once where waits of late were longer
    /// than that.
    #[default]
    Adaptive,
    /// Sleeps as soon as there is nothing to do.
    Block,
}

impl FromStr for Wait {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "spin" => Ok(Self::Spin),
            "adaptive" => Ok(Self::Adaptive),
            "block" => Ok(Self::Block),
            _ => Err(Error::config(
                format!("wait mode `{s}` is unknown"),
                "use spin, adaptive or block",
            )),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
            Self::Block => "block",
        })
    }
}

/// How the steering program is attached and its sockets are bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The best that the driver offers.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the kernel's generic hook: slower, for every driver.
    Generic,
}

impl FromStr for Mode {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            _ => Err(Error::config(
                format!("XDP mode `{s}` is unknown"),
                "use auto, native or generic",
            )),
        }
    }
}

/// Everything that can be chosen when a runtime starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interface whose queues are served. No default.
    pub interface: String,
    /// Addresses that the stack owns alone, with their prefix lengths. Empty
    /// (default): it shares the interface's own addresses with the kernel.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The next hop for what is not on-link, for owned addresses. Default: none
    /// (shared addresses follow the kernel's routes).
    pub gateway: Option<IpAddr>,
    /// Workers, one per queue: 1..=64. Default 1.
    pub workers: usize,
    /// How workers wait. Default adaptive.
    pub wait: Wait,
    /// How long an adaptive worker spins before it sleeps. Default 50 us.
    pub spin: Duration,
    /// How long a program's thread spins in a blocking call before it sleeps,
    /// where there are more cores than workers. Default 10 us.
    pub thread_spin: Duration,
    /// The cores workers are pinned to, in order. Empty (default): the last
    /// cores of those that the process may use.
    pub cpus: Vec<usize>,
    /// Frames of each worker, a power of two in 512..=1,048,576. Default 8,192.
    pub frames: u32,
    /// Frames that a thread keeps ready for sending, for each worker that it
    /// sends through: 4..=256. Default 32.
    pub thread_frames: u32,
    /// Ports reserved ahead for connections that we open, on a shared address;
    /// each costs a kernel socket per address. 0..=16,384. Default 2,048.
    pub active_ports: u16,
    /// How the steering program is attached. Default auto.
    pub mode: Mode,
    /// Bind zero-copy or fail (`Some(true)`), never (`Some(false)`), or where
    /// the driver can (`None`, default).
    pub zero_copy: Option<bool>,
    /// Busy polling: each turn of a worker has the kernel poll the driver, and interrupts
    /// are put off. `None` (default): of workers that spin, where the driver can, which is
    /// zero-copy with one NAPI for both ways of a queue. `Some(true)`: of adaptive ones,
    /// too, or the start fails. `Some(false)`: never.
    pub busy_poll: Option<bool>,
    /// Seed of every random choice. Default: from the kernel's random numbers.
    pub seed: Option<u64>,
    /// Limits and times of TCP.
    pub tcp: tcp::Config,
    /// Bounds of each worker's table of connections; what listeners do with SYNs.
    pub table: TableConfig,
}

/// ACKs of bulk data are so far apart, where workers do not sleep at once: some ten
/// segments at 5 Gbit/s. An ACK of its own for every second segment costs the sender's
/// core, over veth, a tenth of its time.
pub(super) const ACK_SPACING: Duration = Duration::from_micros(25);
/// More than that is no gathering but a delay: an ACK's own is the connection's.
pub(super) const MOST_ACK_SPACING: Duration = Duration::from_millis(1);

impl Default for Config {
    fn default() -> Self {
        Self {
            interface: String::new(),
            addresses: Vec::new(),
            gateway: None,
            workers: 1,
            wait: Wait::Adaptive,
            spin: Duration::from_micros(50),
            thread_spin: Duration::from_micros(10),
            cpus: Vec::new(),
            frames: 8192,
            thread_frames: 32,
            active_ports: 2048,
            mode: Mode::Auto,
            zero_copy: None,
            busy_poll: None,
            seed: None,
            tcp: tcp::Config::default(),
            table: TableConfig { ack_spacing: ACK_SPACING, ..TableConfig::default() },
        }
    }
}

/// Parses `ADDR/PREFIX`, or several with commas between them.
///
/// # Errors
/// A message that names the part that cannot be.
pub fn parse_addresses(s: &str) -> Result<Vec<(IpAddr, u8)>> {
    let one = |part: &str| {
        let bad = || {
            Error::config(
                format!("`{part}` cannot be an address of ours"),
                "use ADDRESS/PREFIX, such as 10.0.0.2/24, several with commas between them",
            )
        };
        let (addr, prefix) = part.split_once('/').ok_or_else(bad)?;
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        if prefix > max || addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
            return Err(bad());
        }
        Ok((addr, prefix))
    };
    s.split(',').map(str::trim).filter(|p| !p.is_empty()).map(one).collect()
}

/// Parses a list of cores: `2`, `0,2`, `2-5`.
///
/// # Errors
/// A message that names the part that cannot be.
pub fn parse_cpus(s: &str) -> Result<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in s.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < 4096 => cpus.extend(first..=last),
            _ => {
                return Err(Error::config(
                    format!("`{part}` is no list of cores"),
                    "use numbers and ranges, such as 2,4-5",
                ));
            }
        }
    }
    Ok(cpus)
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.trim().parse().map_err(|_| {
        Error::config(format!("{name}: `{value}` is no number that fits"), "use a plain number")
    })
}

/// What [`Config::set`] knows.
const NAMES: [&str; 17] = [
    "INTERFACE", "ADDRESS", "GATEWAY", "WORKERS", "CPUS", "WAIT", "SPIN_US", "THREAD_SPIN_US", "FRAMES", "THREAD_FRAMES",
    "ACTIVE_PORTS", "MODE", "ZERO_COPY", "BUSY_POLL", "SYN_COOKIES", "FAST_OPEN", "SEED",
];

impl Config {
    /// The defaults, on this interface.
    pub fn new(interface: impl Into<String>) -> Self {
        Self { interface: interface.into(), ..Self::default() }
    }

    /// From the process's environment: `RINGROAD_INTERFACE`, `_ADDRESS`,
    /// `_GATEWAY`, `_WORKERS`, `_WAIT`, `_SPIN_US`, `_THREAD_SPIN_US`, `_CPUS`,
    /// `_FRAMES`, `_THREAD_FRAMES`, `_ACTIVE_PORTS`, `_MODE`, `_ZERO_COPY`, `_BUSY_POLL`, `_SEED`,
    /// `_SYN_COOKIES`, `_FAST_OPEN` (both as Linux's sysctls).
    ///
    /// # Errors
    /// A value that cannot be, by name; a `RINGROAD_` variable that is unknown.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        }))
    }

    /// As [`Config::from_env`], from these variables.
    ///
    /// # Errors
    /// As there.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut config = Self::default();
        for (name, value) in vars {
            if let Some(key) = name.strip_prefix("RINGROAD_") {
                config.set(key, &value).map_err(|e| e.within(&name))?;
            }
        }
        Ok(config)
    }

    /// Sets one value by its name in the environment, without `RINGROAD_`.
    ///
    /// # Errors
    /// An unknown name, or a value that cannot be.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "INTERFACE" => self.interface = value.trim().to_owned(),
            "ADDRESS" => self.addresses = parse_addresses(value)?,
            "GATEWAY" => {
                self.gateway = Some(value.trim().parse().map_err(|_| {
                    Error::config(format!("`{value}` is no IP address"), "use one such as 10.0.0.1")
                })?);
            }
            "WORKERS" => self.workers = number(key, value)?,
            "WAIT" => self.wait = value.trim().parse()?,
            "SPIN_US" => self.spin = micros(key, value)?,
            "THREAD_SPIN_US" => self.thread_spin = micros(key, value)?,
            "CPUS" => self.cpus = parse_cpus(value)?,
            "FRAMES" => self.frames = number(key, value)?,
            "THREAD_FRAMES" => self.thread_frames = number(key, value)?,
            "ACTIVE_PORTS" => self.active_ports = number(key, value)?,
            "MODE" => self.mode = value.trim().parse()?,
            "ZERO_COPY" => self.zero_copy = choice(value)?,
            "BUSY_POLL" => self.busy_poll = choice(value)?,
            "SYN_COOKIES" => {
                self.table.syn_cookies = match number::<u32>(key, value)? {
                    0 => SynCookies::Off,
                    1 => SynCookies::Auto,
                    2 => SynCookies::Always,
                    _ => return Err(Error::config(format!("`{value}` is no choice"), "use 0, 1 or 2")),
                }
            }
            "FAST_OPEN" => {
                let bits: u32 = number(key, value)?;
                if bits > 3 {
                    return Err(Error::config(format!("`{value}` is no choice"), "use 0 to 3"));
                }
                (self.table.fast_open_client, self.table.fast_open_server) = (bits & 1 != 0, bits & 2 != 0);
            }
            "SEED" => self.seed = Some(number(key, value)?),
            _ => {
                return Err(Error::config(
                    format!("there is no setting RINGROAD_{key}"),
                    format!("use one of {}, with RINGROAD_ before it", NAMES.join(", ")),
                ));
            }
        }
        Ok(())
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first one that cannot be, what it may be, and what to do.
    pub fn validate(&self) -> Result<()> {
        let no = |why: String, what: &str| Err(Error::config(why, what));
        if self.interface.is_empty() {
            return no(
                "no interface was named".into(),
                "name one (-i, rr_config.interface, or RINGROAD_INTERFACE)",
            );
        }
        if self.interface.len() > 15 || self.interface.contains(['/', '\0', ' ']) {
            return no(
                format!("`{}` is no interface name", self.interface),
                "see `ip link` for the names",
            );
        }
        if !(1..=64).contains(&self.workers) {
            return no(format!("{} workers are too few or too many", self.workers), "use 1 to 64");
        }
        if !self.cpus.is_empty() && self.cpus.len() < self.workers {
            return no(
                format!("{} cores for {} workers are too few", self.cpus.len(), self.workers),
                "name a core for each worker, or none",
            );
        }
        if !(512..=1 << 20).contains(&self.frames) || !self.frames.is_power_of_two() {
            return no(
                format!("{} frames for each worker do not work", self.frames),
                "use a power of two from 512 to 1048576",
            );
        }
        if !(4..=256).contains(&self.thread_frames) {
            return no(
                format!("{} frames for each thread are too few or too many", self.thread_frames),
                "use 4 to 256",
            );
        }
        if self.active_ports > 16_384 {
            return no(
                format!("{} reserved ports are too many", self.active_ports),
                "use at most 16384",
            );
        }
        if self.busy_poll == Some(true) && self.wait == Wait::Block {
            return no(
                "busy polling does not go with wait mode block: a worker that sleeps does not poll".into(),
                "wait by spin or adaptive, or leave busy polling",
            );
        }
        if self.gateway.is_some() && self.addresses.is_empty() {
            return no(
                "a gateway goes with an address of our own only".into(),
                "name an address too, or leave the gateway to the kernel's routes",
            );
        }
        Ok(())
    }
}

/// `auto`, `on` or `off`.
fn choice(value: &str) -> Result<Option<bool>> {
    match value.trim() {
        "auto" => Ok(None),
        "1" | "on" => Ok(Some(true)),
        "0" | "off" => Ok(Some(false)),
        _ => Err(Error::config(format!("`{value}` is no choice"), "use auto, on or off")),
    }
}

fn micros(name: &str, value: &str) -> Result<Duration> {
    let us: u32 = number(name, value)?;
    Ok(Duration::from_micros(us.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(list: &[(&str, &str)]) -> Result<Config> {
        Config::from_vars(list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_environment_is_read() {
        let config = vars(&[
            ("PATH", "/bin"),
            ("RINGROAD_INTERFACE", "veth0"),
            ("RINGROAD_ADDRESS", "10.0.0.2/24, fd00::2/64"),
            ("RINGROAD_WORKERS", "2"),
            ("RINGROAD_WAIT", "block"),
            ("RINGROAD_CPUS", "1,3-4"),
            ("RINGROAD_SPIN_US", "7"),
            ("RINGROAD_ZERO_COPY", "off"),
            ("RINGROAD_BUSY_POLL", "off"),
        ])
        .unwrap();
        config.validate().unwrap();
        assert_eq!(config.addresses.len(), 2);
        assert_eq!((config.workers, config.wait, config.spin.as_micros()), (2, Wait::Block, 7));
        assert_eq!((config.cpus, config.zero_copy, config.busy_poll), (vec![1, 3, 4], Some(false), Some(false)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (name, value) in [
            ("RINGROAD_ADDRESS", "10.0.0.2"),
            ("RINGROAD_ADDRESS", "10.0.0.2/33"),
            ("RINGROAD_ADDRESS", "127.0.0.1/8"),
            ("RINGROAD_GATEWAY", "gw"),
            ("RINGROAD_WORKERS", "many"),
            ("RINGROAD_WAIT", "sleep"),
            ("RINGROAD_CPUS", "4-2"),
            ("RINGROAD_MODE", "fast"),
            ("RINGROAD_ZERO_COPY", "maybe"),
            ("RINGROAD_BUSY_POLL", "2"),
            ("RINGROAD_INTERFACES", "veth0"),
        ] {
            let message = vars(&[(name, value)]).unwrap_err().to_string();
            assert!(message.starts_with(name), "{message}");
        }
    }

    #[test]
    fn an_unknown_setting_is_told_the_known_ones() {
        let message = |name| Config::default().set(name, "?").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message("QUEUES").contains("INTERFACE, ADDRESS,"), "{}", message("QUEUES"));
        for name in NAMES {
            assert!(!message(name).contains("no setting"), "{name}");
        }
    }

    #[test]
    fn bounds_are_checked() {
        let good = Config::new("veth0");
        good.validate().unwrap();
        let bad = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(bad(|c| c.interface.clear()).contains("no interface"));
        assert!(bad(|c| c.interface = "much-too-long-a-name".into()).contains("much-too-long"));
        assert!(bad(|c| c.workers = 0).contains("0 workers"));
        assert!(bad(|c| c.workers = 65).contains("65 workers"));
        assert!(bad(|c| (c.workers, c.cpus) = (2, vec![1])).contains("too few"));
        assert!(bad(|c| c.frames = 1000).contains("1000 frames"));
        assert!(bad(|c| c.thread_frames = 1).contains("each thread"));
        assert!(bad(|c| c.gateway = Some([10, 0, 0, 1].into())).contains("gateway"));
    }
}
