//! AF_XDP: the interface's queues as devices, and the program that steers frames
//! to them.
//!
//! [`open`] makes one UMEM, cuts it into a [`Pool`] for each worker, gives each
//! worker a queue's rings, and attaches the steering program last, when
//! everything is there to take frames. The way back is the reverse: the program
//! goes first (by the drop of the first device, of the last [`Steering`], or the
//! death of the process, as the link dies with it), then the sockets.

mod attach;
mod error;
mod interface;
mod join;
pub mod privileges;
mod queue;
mod steer;
mod umem;

pub use attach::{Attach, Attached, Features, Mode, Steering, attached, features};
pub use error::{Error, ErrorKind, Result};
pub use interface::{Interface, Query};
pub use queue::{Figures, Kept, Statistics, XdpDevice};
pub use steer::{
    Addresses, FRAGS_PROGRAM_NAME, PROGRAM_NAME, Protocol, STEER_REASONS, SteerCounters,
};

use crate::frame::Pool;
use umem::{CAPACITY, RingSizes, Umem};

/// Bytes before an IP packet in a frame.
const ETHERNET: usize = 14;

/// The largest MTU in bytes whose packets fit in one frame.
pub const MAX_SINGLE_MTU: usize = CAPACITY - ETHERNET;

/// The largest MTU that packets of several frames are made for: cards' jumbo frames.
pub const MAX_CHAIN_MTU: usize = 9216;

/// The largest MTU that drivers take without knowing packets of several buffers: a
/// page less the head room, what the kernel puts behind a packet, Ethernet's header
/// and a VLAN tag.
pub const MAX_PLAIN_MTU: usize = 3498;

/// How a queue's socket is to be bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// Zero-copy if the driver can, else copy; [`XdpDevice::zero_copy`] says which.
    #[default]
    Auto,
    /// Zero-copy, or not at all.
    ZeroCopy,
    /// The kernel copies.
    Copy,
}

/// How an interface is opened.
#[derive(Clone, Debug)]
pub struct XdpConfig {
    /// The interface's name.
    pub interface: String,
    /// The queues to serve, one worker each. Default: queue 0.
    pub queues: Vec<u32>,
    /// Frames are steered for these addresses.
    pub addresses: Addresses,
    /// Frames of each worker, 4096 bytes each. Default 8192.
    pub frames_per_queue: u32,
    /// Entries of the RX ring, a power of two. Default 2048.
    pub rx_ring: u32,
    /// Entries of the TX ring, a power of two. Default 2048.
    pub tx_ring: u32,
    /// Entries of the fill ring, a power of two and at least the RX ring's.
    /// Default 2048. So many frames wait for packets.
    pub fill_ring: u32,
    /// Free frames that are never given to the fill ring, so that receiving
    /// cannot starve what is to be sent. Default 1024.
    pub tx_reserve: u32,
    /// Zero-copy or copy. Default: what the driver can.
    pub bind: Bind,
    /// Native or generic. Default: what the driver can.
    pub attach: Attach,
    /// Let the driver sleep until it is woken (XDP_USE_NEED_WAKEUP). Default true.
    pub need_wakeup: bool,
    /// Packets of more than one frame (XDP_USE_SG and an `xdp.frags` program, Linux
    /// 6.6). Default `None`: where the MTU is above [`MAX_PLAIN_MTU`].
    pub multi_buffer: Option<bool>,
    /// Put the frames on hugepages; `true`: or fail. Default `None`: where enough of
    /// them are free (`vm.nr_hugepages`) and the frames fill them.
    pub huge_pages: Option<bool>,
    /// SO_SNDBUF of the sockets in bytes. Default 16 MiB.
    pub send_buffer: u32,
    /// Whether received checksums may be partial. Default `None`: on drivers
    /// known to leave them so.
    pub partial_checksums: Option<bool>,
    /// Serve fewer queues than the interface receives on. Flows of the other
    /// queues then stay with the kernel, which knows nothing of our ports.
    /// Default false: refused.
    pub leave_queues: bool,
}

impl XdpConfig {
    /// Queue 0 of the interface, for these addresses, with the defaults.
    pub fn new(interface: impl Into<String>, addresses: Addresses) -> Self {
        Self {
            interface: interface.into(),
            queues: vec![0],
            addresses,
            frames_per_queue: 8192,
            rx_ring: 2048,
            tx_ring: 2048,
            fill_ring: 2048,
            tx_reserve: 1024,
            bind: Bind::Auto,
            attach: Attach::Auto,
            need_wakeup: true,
            multi_buffer: None,
            huge_pages: None,
            send_buffer: 16 << 20,
            partial_checksums: None,
            leave_queues: false,
        }
    }

    fn check(&self, interface: &Interface) -> Result<()> {
        let refuse = |kind, why: String, remedy: String| {
            Err(Error::new(kind, &self.interface, why, remedy))
        };
        if interface.loopback {
            let why = "the loopback interface has no XDP road".to_string();
            return refuse(ErrorKind::Unsupported, why, "use an Ethernet interface".into());
        }
        if !interface.up {
            let remedy = format!("`ip link set dev {} up`", self.interface);
            return refuse(ErrorKind::Down, "the interface is down".into(), remedy);
        }
        if self.queues.is_empty() || self.frames_per_queue == 0 {
            return refuse(ErrorKind::Config, "no queue or no frame".into(), "ask for some".into());
        }
        if let Some(queue) = self.queues.iter().find(|q| **q >= interface.rx_queues) {
            let why = format!("there is no queue {queue}, it has {}", interface.rx_queues);
            let remedy = format!("`ethtool -L {}` sets the number", self.interface);
            return refuse(ErrorKind::Config, why, remedy);
        }
        if self.queues.len() < interface.rx_queues as usize && !self.leave_queues {
            let (has, serves) = (interface.rx_queues, self.queues.len());
            return refuse(
                ErrorKind::Config,
                format!("it receives on {has} queues, of which {serves} would be served"),
                format!(
                    "use {has} workers, or `ethtool -L {} rx {serves}` (or `combined {serves}`)",
                    self.interface
                ),
            );
        }
        if self.fill_ring < self.rx_ring {
            let why = "the fill ring is smaller than the RX ring".to_string();
            return refuse(ErrorKind::Config, why, "make it as large".into());
        }
        if self.frames_per_queue < self.fill_ring + self.tx_ring {
            let why = format!("{} frames do not fill the rings", self.frames_per_queue);
            let least = self.fill_ring + self.tx_ring;
            return refuse(ErrorKind::Config, why, format!("use at least {least}"));
        }
        if interface.mtu > MAX_SINGLE_MTU && !self.needs_chains(interface) {
            let why = format!("its MTU of {} is more than a frame holds", interface.mtu);
            return refuse(ErrorKind::Mtu, why, smaller_mtu(&self.interface));
        }
        if interface.mtu > MAX_CHAIN_MTU {
            let why = format!("its MTU of {} is more than {MAX_CHAIN_MTU}", interface.mtu);
            let remedy = format!("`ip link set dev {} mtu 9000`", self.interface);
            return refuse(ErrorKind::Mtu, why, remedy);
        }
        Ok(())
    }

    /// Whether packets are to be of several frames on this interface.
    fn needs_chains(&self, interface: &Interface) -> bool {
        self.multi_buffer.unwrap_or(interface.mtu > MAX_PLAIN_MTU)
    }
}

fn smaller_mtu(interface: &str) -> String {
    format!("`ip link set dev {interface} mtu {MAX_PLAIN_MTU}` or less")
}

/// The kernel or the driver refuses packets of several buffers.
fn no_chains(interface: &Interface, why: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::Mtu,
        &interface.name,
        format!(
            "its MTU of {} needs packets of several buffers (XDP_USE_SG), which the kernel (before \
             Linux 6.6) or the driver ({}) does not have: {why}",
            interface.mtu, interface.driver
        ),
        smaller_mtu(&interface.name),
    )
}

/// Opens the interface: one UMEM, a device and a pool for each queue in the
/// order of `config.queues`, and the attached steering program.
///
/// No port is held yet: until [`Steering::hold_port`], or an owned address,
/// every frame goes on to the kernel.
///
/// # Errors
/// What failed, why, and what to do; see [`ErrorKind`].
pub fn open(config: &XdpConfig) -> Result<(Steering, Vec<(XdpDevice, Pool)>)> {
    let interface = Interface::query(&config.interface)?;
    config.check(&interface)?;
    Steering::check_free(&interface)?;
    let last = config.queues.iter().max().copied().unwrap_or(0);
    let chains = config.needs_chains(&interface);
    // Before Linux 5.18 no program can be for several buffers.
    let steering = Steering::load(last + 1, chains).map_err(|why| match why.raw_os_error() {
        Some(libc::EINVAL) if chains => no_chains(&interface, &std::io::Error::from_raw_os_error(libc::EINVAL)),
        _ => why,
    })?;
    steering.set_mac(interface.mac);
    steering.set_addresses(&config.addresses)?;
    let rings = RingSizes { fill: config.fill_ring, completion: config.tx_ring };
    let frames = config.frames_per_queue * config.queues.len() as u32;
    let umem = Umem::new(frames, rings, config.huge_pages)?;
    let mut devices = Vec::with_capacity(config.queues.len());
    for (i, queue) in config.queues.iter().enumerate() {
        let first = i as u32 * config.frames_per_queue;
        let mut pool = Pool::new(umem.arena().clone(), first, config.frames_per_queue);
        let device = XdpDevice::open(config, &interface, &umem, &steering, *queue, &mut pool)?;
        devices.push((device, pool));
    }
    steering.stop_vlan_stripping(&interface)?;
    steering.attach(&interface, config.attach)?;
    Ok((steering, devices))
}
