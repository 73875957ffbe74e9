//! The steering program in the kernel and the memory shared with it.

use super::error::{Error, ErrorKind, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle, libbpf_sys};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
#[allow(clippy::undocumented_unsafe_blocks, single_use_lifetimes)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
}

/// The name that the kernel shows for the steering program.
pub const PROGRAM_NAME: &str = "ringroad_steer";
/// The name of its variant for packets of several buffers.
pub const FRAGS_PROGRAM_NAME: &str = "ringroad_frags";

/// Why the program sent a frame where it did: (name, what it means), in the
/// order of `enum reason` in `bpf/steer.bpf.c`. The names that begin with
/// `redirect` went to our rings, the others to the kernel.
pub const STEER_REASONS: [(&str, &str); 19] = [
    ("redirect_tcp", "TCP to a port that we hold"),
    ("redirect_udp", "UDP to a port that we hold"),
    ("redirect_icmp_error", "an ICMP error about a packet that a port of ours sent"),
    ("redirect_fragment", "a further fragment of a packet of ours"),
    ("redirect_owned", "a packet for an address that we own"),
    ("redirect_arp", "ARP for an address that we own"),
    ("pass_truncated", "shorter than its headers"),
    ("pass_mac", "not to our MAC address"),
    ("pass_vlan", "with a VLAN tag"),
    ("pass_ipv6", "IPv6"),
    ("pass_ethertype", "another protocol than IP and ARP"),
    ("pass_arp", "ARP that is not for an address that we own"),
    ("pass_malformed", "an IPv4 header that cannot be"),
    ("pass_address", "not to an address of ours"),
    ("pass_protocol", "an IP protocol that stays with the kernel"),
    ("pass_port", "a port that we do not hold"),
    ("pass_icmp", "ICMP that stays with the kernel"),
    ("pass_fragment", "a fragment whose first one was not seen (lost if it was ours)"),
    ("pass_no_socket", "ours, but its queue has no socket"),
];

/// How many frames the program sent where, by reason, since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SteerCounters([u64; STEER_REASONS.len()]);

impl SteerCounters {
    /// The count of the reason of this name; zero for a name there is not.
    pub fn get(&self, name: &str) -> u64 {
        let at = STEER_REASONS.iter().position(|(n, _)| *n == name);
        at.map_or(0, |i| self.0[i])
    }

    /// Every reason's name, meaning and count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        STEER_REASONS.iter().zip(self.0).map(|((name, text), n)| (*name, *text, n))
    }

    /// Frames that went to our rings.
    pub fn redirected(&self) -> u64 {
        self.iter().filter(|(name, ..)| name.starts_with("redirect")).map(|(.., n)| n).sum()
    }

    /// Frames that went to the kernel.
    pub fn passed(&self) -> u64 {
        self.0.iter().sum::<u64>() - self.redirected()
    }
}

/// The transport protocols whose ports are steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The addresses that frames are steered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Addresses of the interface itself: only ports that are held are ours.
    Shared(Vec<IpAddr>),
    /// Addresses that nobody else has: everything for them is ours.
    Owned(Vec<IpAddr>),
}

impl Addresses {
    /// The addresses themselves.
    pub fn list(&self) -> &[IpAddr] {
        match self {
            Self::Shared(list) | Self::Owned(list) => list,
        }
    }

    fn ownership(&self) -> u32 {
        match self {
            Self::Shared(_) => 1,
            Self::Owned(_) => 2,
        }
    }
}

/// Memory of a BPF_F_MMAPABLE array, mapped for reading and writing.
#[derive(Debug)]
struct Mapped {
    base: *mut libc::c_void,
    len: usize,
}

// SAFETY: the memory is reached through atomics only.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(map: &MapHandle, what: &str) -> Result<Self> {
        // SAFETY: sysconf takes no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let stride = (map.value_size() as usize).next_multiple_of(8);
        let len = (stride * map.max_entries() as usize).next_multiple_of(page);
        // SAFETY: a fresh shared mapping of a map's descriptor; no address is asked for.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            let why = io::Error::last_os_error();
            return Err(Error::system(format!("mapping the table of {what}"), why));
        }
        Ok(Self { base, len })
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        assert!((index + 1) * 4 <= self.len);
        // SAFETY: inside the mapping (checked), aligned (the base is a page), and
        // only ever reached as atomics, by us and by the program in the kernel.
        unsafe { AtomicU32::from_ptr(self.base.cast::<u32>().add(index)) }
    }

    fn long(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * 8 <= self.len);
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.base.cast::<u64>().add(index)) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, unmapped once.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// The program, loaded into the kernel, with its maps. It lives as long as this
/// does, or as a link holds it.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
    name: &'static str,
    ports: Mapped,
    settings: Mapped,
    addresses: MapHandle,
    counters: MapHandle,
    xsks: MapHandle,
}

fn bpf_error(what: &str, why: libbpf_rs::Error) -> Error {
    // libbpf's own error loses the number; the kind keeps what matters.
    let number = match why.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => libc::EPERM,
        _ => io::Error::last_os_error().raw_os_error().unwrap_or(0),
    };
    if number == libc::EPERM || number == libc::EACCES {
        return Error::system(what, io::Error::from_raw_os_error(number));
    }
    Error::new(
        ErrorKind::System,
        what,
        format!("{why}"),
        "the kernel must know BPF, XDP and AF_XDP (Linux 5.11 or later)",
    )
}

impl Program {
    /// Loads the program for queues `0 .. queues`; `frags`: the variant for
    /// packets of several buffers.
    pub(super) fn load(queues: u32, frags: bool) -> Result<Self> {
        let what = "loading the steering program";
        let mut object = MaybeUninit::uninit();
        let mut open = skel::SteerSkelBuilder::default()
            .open(&mut object)
            .map_err(|why| bpf_error(what, why))?;
        open.maps
            .xsks
            .set_max_entries(queues.max(1))
            .map_err(|why| bpf_error(what, why))?;
        open.progs.ringroad_steer.set_autoload(!frags);
        open.progs.ringroad_frags.set_autoload(frags);
        let loaded = open.load().map_err(|why| bpf_error(what, why))?;
        let (program, name) = match frags {
            false => (&loaded.progs.ringroad_steer, PROGRAM_NAME),
            true => (&loaded.progs.ringroad_frags, FRAGS_PROGRAM_NAME),
        };
        let fd = program.as_fd().try_clone_to_owned().map_err(|why| Error::system(what, why))?;
        let handle = |map: &libbpf_rs::MapMut<'_>| {
            MapHandle::try_from(&**map).map_err(|why| bpf_error(what, why))
        };
        Ok(Self {
            fd,
            name,
            ports: Mapped::new(&handle(&loaded.maps.ports)?, "ports")?,
            settings: Mapped::new(&handle(&loaded.maps.settings)?, "settings")?,
            addresses: handle(&loaded.maps.addresses)?,
            counters: handle(&loaded.maps.counters)?,
            xsks: handle(&loaded.maps.xsks)?,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// How many users the port has. `bpf/steer.bpf.c` reads the same word.
    pub(super) fn port_users(&self, protocol: Protocol, port: u16) -> &AtomicU32 {
        let base = match protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => 1 << 16,
        };
        self.ports.word(base + usize::from(port))
    }

    pub(super) fn set_mac(&self, mac: [u8; 6]) {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&mac);
        self.settings.long(0).store(u64::from_ne_bytes(bytes), Ordering::Release);
    }

    /// Steers for these addresses, and no longer for others.
    pub(super) fn set_addresses(&self, addresses: &Addresses) -> Result<()> {
        let what = "telling the steering program its addresses";
        let wanted: Vec<[u8; 16]> = addresses.list().iter().map(|a| key_of(*a)).collect();
        let value = addresses.ownership().to_ne_bytes();
        for key in &wanted {
            self.addresses
                .update(key, &value, MapFlags::ANY)
                .map_err(|why| bpf_error(what, why))?;
        }
        let stale: Vec<Vec<u8>> =
            self.addresses.keys().filter(|k| !wanted.iter().any(|w| w[..] == k[..])).collect();
        for key in stale {
            self.addresses.delete(&key).map_err(|why| bpf_error(what, why))?;
        }
        Ok(())
    }

    /// Names the AF_XDP socket that frames of the queue go to.
    pub(super) fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let fd = socket.as_raw_fd();
        self.xsks
            .update(&queue.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .map_err(|why| bpf_error(&format!("steering queue {queue}"), why))
    }

    pub(super) fn clear_socket(&self, queue: u32) {
        // Where the socket is closed already, the kernel took it out itself.
        let _ = self.xsks.delete(&queue.to_ne_bytes());
    }

    pub(super) fn counters(&self) -> SteerCounters {
        let mut counters = SteerCounters::default();
        for (i, counter) in counters.0.iter_mut().enumerate() {
            let key = (i as u32).to_ne_bytes();
            let Ok(Some(per_cpu)) = self.counters.lookup_percpu(&key, MapFlags::ANY) else {
                continue;
            };
            *counter = per_cpu
                .iter()
                .filter_map(|v| v.get(..8)?.try_into().ok().map(u64::from_ne_bytes))
                .sum();
        }
        counters
    }

    /// Asks the kernel what the program would do with this frame.
    pub(super) fn try_frame(&self, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        let mut out = vec![0u8; frame.len() + 512];
        // SAFETY: all zeros is a valid bpf_test_run_opts.
        let mut options: libbpf_sys::bpf_test_run_opts = unsafe { core::mem::zeroed() };
        options.sz = size_of::<libbpf_sys::bpf_test_run_opts>() as _;
        options.data_in = frame.as_ptr().cast();
        options.data_size_in = frame.len() as u32;
        options.data_out = out.as_mut_ptr().cast();
        options.data_size_out = out.len() as u32;
        options.repeat = 1;
        // SAFETY: both buffers live through the call, with the lengths given.
        let n = unsafe { libbpf_sys::bpf_prog_test_run_opts(self.fd.as_raw_fd(), &mut options) };
        if n < 0 {
            return Err(io::Error::from_raw_os_error(-n));
        }
        out.truncate(options.data_size_out as usize);
        Ok((options.retval, out))
    }
}

fn key_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ip_versions_have_keys_that_differ() {
        let v4 = key_of("10.0.0.1".parse().unwrap());
        assert_eq!(v4, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        assert_ne!(v4, key_of("::10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_reasons_are_those_of_the_program() {
        let source = include_str!("../../../bpf/steer.bpf.c");
        let list = source.split("enum reason {").nth(1).and_then(|s| s.split("REASONS,").next());
        let names: Vec<String> = list
            .expect("the enum is there")
            .split(',')
            .map(|name| name.trim().to_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        let ours: Vec<&str> = STEER_REASONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ours);
    }
}
