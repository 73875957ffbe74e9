//! What a stack is set up with. Every bound has its default here.

use super::route::Route;
use crate::time::Duration;
use crate::wire::ethernet::Mac;
use core::net::IpAddr;

/// Whose the addresses are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The kernel has them too: it keeps ARP, ping and every port that we do not
    /// hold; neighbours and routes come from it.
    #[default]
    Shared,
    /// Ours alone: the stack answers ARP and ping itself.
    Owned,
}

/// One core's stack.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose the addresses are. Default: shared.
    pub mode: Mode,
    /// Our addresses, each with the length of its subnet's prefix. The first of
    /// a family is the source where nothing else decides.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Our hardware address.
    pub mac: Mac,
    /// Largest IP packet in bytes, 68 (RFC 791) to 65,535. Default: 1500.
    pub mtu: usize,
    /// The device takes packets of several frames, and gives such: the MTU may be
    /// more than a frame holds. Default: false.
    pub multi_buffer: bool,
    /// Where everything goes that is not on a subnet of ours.
    pub gateway: Option<IpAddr>,
    /// More routes.
    pub routes: Vec<Route>,
    /// Frames are IP packets without a link header (simulation).
    pub raw_ip: bool,
    /// Accept TCP and UDP packets that carry just the pseudo-header's sum in the
    /// checksum field, as senders on this host leave them to their virtual
    /// hardware. Default: no.
    pub partial_checksums: bool,
    /// Time to live of what we send. Default: 64 (RFC 1700).
    pub ttl: u8,
    /// Packets that wait for the device, at most. Default: 4096.
    pub transmit_queue: usize,
    /// Packets to ourselves that wait, at most. Default: 1024.
    pub loop_queue: usize,
    /// Routes, at most. Default: 1024.
    pub max_routes: usize,
    /// Ports that connect and an unbound send choose from, both included.
    /// Default: 32768 to 60999, as Linux.
    pub ephemeral_ports: (u16, u16),
    /// Neighbours and ARP.
    pub neighbor: NeighborConfig,
    /// Fragments.
    pub fragment: FragmentConfig,
    /// ICMP.
    pub icmp: IcmpConfig,
    /// UDP and ICMP sockets.
    pub datagram: DatagramConfig,
    /// TCP connections.
    pub tcp: crate::tcp::Config,
    /// The table of connections.
    pub table: super::tcp::TableConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Shared,
            addresses: Vec::new(),
            mac: Mac([0x02, 0, 0, 0, 0, 1]),
            mtu: 1500,
            multi_buffer: false,
            gateway: None,
            routes: Vec::new(),
            raw_ip: false,
            partial_checksums: false,
            ttl: 64,
            transmit_queue: 4096,
            loop_queue: 1024,
            max_routes: 1024,
            ephemeral_ports: (32768, 60999),
            neighbor: NeighborConfig::default(),
            fragment: FragmentConfig::default(),
            icmp: IcmpConfig::default(),
            datagram: DatagramConfig::default(),
            tcp: crate::tcp::Config::default(),
            table: super::tcp::TableConfig::default(),
        }
    }
}

/// Neighbours: the hardware addresses of next hops.
#[derive(Clone, Debug)]
pub struct NeighborConfig {
    /// Entries; beyond it the least recently used goes. Default: 1024.
    pub max_entries: usize,
    /// Packets that wait for one neighbour; beyond it the oldest is dropped.
    /// Default: 64.
    pub max_queue: usize,
    /// Connections that wait for one neighbour; beyond it they fail at once.
    /// Default: 65,536.
    pub max_waiters: usize,
    /// Time between requests. Default: 1 s (RFC 1122, 2.3.2.1 allows no more
    /// than one a second).
    pub retry: Duration,
    /// Requests before a neighbour counts as failed. Default: 3.
    pub max_requests: u8,
    /// How long an answer is good before it is asked again. Default: 30 s.
    pub reachable: Duration,
    /// An entry does not change its address again for so long. Default: 1 s.
    pub lock: Duration,
    /// ARP packets sent a second, and at once. Default: 1000 and 100.
    pub rate: Rate,
    /// Say who we are at the start, twice (RFC 5227, 2.3), where the address is
    /// owned. Default: yes.
    pub announce: bool,
}

impl Default for NeighborConfig {
    fn default() -> Self {
        Self {
            max_entries: 1024,
            max_queue: 64,
            max_waiters: 65_536,
            retry: Duration::from_secs(1),
            max_requests: 3,
            reachable: Duration::from_secs(30),
            lock: Duration::from_secs(1),
            rate: Rate { per_second: 1000, burst: 100 },
            announce: true,
        }
    }
}

/// A token bucket's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come in a second; zero lets nothing pass.
    pub per_second: u32,
    /// Tokens that it holds.
    pub burst: u32,
}

/// Reassembly of IPv4 datagrams.
#[derive(Clone, Debug)]
pub struct FragmentConfig {
    /// Datagrams put together at a time; beyond it the least recently touched
    /// goes. Default: 64.
    pub max_datagrams: usize,
    /// Frames that they take together; beyond it the least recently touched
    /// goes. Default: 512.
    pub max_frames: usize,
    /// How long a datagram may take. Default: 30 s (as Linux; RFC 791 says 15 s,
    /// RFC 1122 60 to 120 s, RFC 8900 advises against long times).
    pub timeout: Duration,
    /// Gaps in one datagram; beyond it the datagram goes. Default: 64.
    pub max_holes: usize,
}

impl Default for FragmentConfig {
    fn default() -> Self {
        Self {
            max_datagrams: 64,
            max_frames: 512,
            timeout: Duration::from_secs(30),
            max_holes: 64,
        }
    }
}

/// ICMP.
#[derive(Clone, Debug)]
pub struct IcmpConfig {
    /// Errors sent. Default: 1000 a second, 50 at once.
    pub error_rate: Rate,
    /// Echo replies sent. Default: 100,000 a second, 10,000 at once.
    pub echo_rate: Rate,
    /// How long a path's MTU that an ICMP error told is believed. Default:
    /// 10 min (RFC 1191, 6.3).
    pub path_mtu_age: Duration,
    /// Paths whose MTU is remembered; beyond it the least recently used goes.
    /// Default: 1024.
    pub max_path_mtus: usize,
    /// The least MTU that an ICMP error is believed to tell. Default: 552, as
    /// Linux (RFC 5927 and common sense against forged small ones).
    pub min_path_mtu: usize,
}

impl Default for IcmpConfig {
    fn default() -> Self {
        Self {
            error_rate: Rate { per_second: 1000, burst: 50 },
            echo_rate: Rate { per_second: 100_000, burst: 10_000 },
            path_mtu_age: Duration::from_secs(600),
            max_path_mtus: 1024,
            min_path_mtu: 552,
        }
    }
}

/// UDP and ICMP sockets.
#[derive(Clone, Debug)]
pub struct DatagramConfig {
    /// Sockets of each kind. Default: 65,536.
    pub max_sockets: usize,
    /// Payload bytes that a socket's receive queue holds, until SO_RCVBUF says
    /// otherwise. Default: 212,992, as Linux.
    pub receive_buffer: usize,
    /// The most that SO_RCVBUF can ask for. Default: 16 MiB.
    pub max_receive_buffer: usize,
    /// Datagrams that a socket's receive queue holds. Default: 1024.
    pub max_datagrams: usize,
    /// Where fewer frames than this part of the pool (in 1/256) are free,
    /// received payloads are copied so that queues do not pin frames.
    /// Default: 64 (a quarter).
    pub copy_below: u32,
}

impl Default for DatagramConfig {
    fn default() -> Self {
        Self {
            max_sockets: 65_536,
            receive_buffer: 212_992,
            max_receive_buffer: 16 << 20,
            max_datagrams: 1024,
            copy_below: 64,
        }
    }
}
