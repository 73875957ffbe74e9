//! What an interface is: its number, addresses, limits, driver and queues.

use super::error::{Error, ErrorKind, Result};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// What is known of an interface at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// The hardware address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes.
    pub mtu: usize,
    /// Administratively up.
    pub up: bool,
    /// Up and with a carrier.
    pub running: bool,
    /// It is the loopback interface.
    pub loopback: bool,
    /// The driver's name (`veth`, `ixgbe`, ...); empty where it does not say.
    pub driver: String,
    /// Receive queues in use (at least 1).
    pub rx_queues: u32,
    /// Transmit queues in use (at least 1).
    pub tx_queues: u32,
}

/// A socket to ask about interfaces of the caller's network namespace.
pub struct Query {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
    text: String,
}

#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Query {
    /// Prepares questions about the interface `name`.
    ///
    /// # Errors
    /// The name is not one an interface can have, or there is no socket left.
    pub fn new(name: &str) -> Result<Self> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(no_such(name));
        }
        let mut field = [0; libc::IFNAMSIZ];
        for (to, from) in field.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        // SAFETY: socket() takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Error::system(format!("{name}: query"), io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { socket, name: field, text: name.into() })
    }

    /// Prepares questions about the interface of this number, whatever its name is now.
    ///
    /// # Errors
    /// It is gone, or there is no socket left.
    pub fn of(index: u32) -> Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // SAFETY: the array is as long as a name may be, its zero included.
        if unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null() {
            return Err(no_such(&format!("number {index}")));
        }
        let text = name.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect::<String>();
        Self::new(&text)
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    fn ioctl(&self, number: libc::c_ulong) -> Result<libc::ifreq> {
        let mut request = self.request();
        // SAFETY: these requests read the name and write into the same ifreq,
        // which lives until the call returns.
        let n = unsafe { libc::ioctl(self.socket.as_raw_fd(), number as _, &mut request) };
        if n < 0 {
            let why = io::Error::last_os_error();
            return Err(match why.raw_os_error() {
                Some(libc::ENODEV) => no_such(&self.text),
                _ => Error::system(format!("{}: query", self.text), why),
            });
        }
        Ok(request)
    }

    /// Asks the driver by an ethtool request, whose structure `T` begins with
    /// the command's number.
    ///
    /// # Safety
    /// `T` must be the plain-data structure of that command, at least as large
    /// as what the kernel writes for it.
    pub unsafe fn ethtool<T>(&self, data: &mut T) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = core::ptr::from_mut(data).cast();
        // SAFETY: the kernel reads the name and reads and writes `data`, which
        // the caller vouches for; both live until the call returns.
        let n = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Asks for a single number by one of ethtool's older commands (ETHTOOL_G...,
    /// those that take a `struct ethtool_value`). `None`: the driver does not say.
    pub fn value(&self, cmd: u32) -> Option<u32> {
        let mut value = Value { cmd, data: 0 };
        // Other commands write more than a Value holds.
        if !matches!(cmd, 0x14 | 0x16 | 0x18 | 0x1e | 0x23 | 0x25 | 0x2b) {
            return None;
        }
        // SAFETY: these commands take a struct ethtool_value, which Value is.
        unsafe { self.ethtool(&mut value) }.ok().map(|()| value.data)
    }

    /// Up and with a carrier, now.
    ///
    /// # Errors
    /// The interface is gone, or the system refuses.
    pub fn running(&self) -> Result<bool> {
        let flags = self.ioctl(libc::SIOCGIFFLAGS)?;
        // SAFETY: the request wrote this member of the union.
        let flags = i32::from(unsafe { flags.ifr_ifru.ifru_flags });
        Ok(flags & libc::IFF_RUNNING != 0)
    }

    /// Whether the driver merges received packets (LRO); `None`: it does not say.
    pub fn lro(&self) -> Option<bool> {
        self.value(ETHTOOL_GFLAGS).map(|flags| flags & ETH_FLAG_LRO != 0)
    }

    /// Whether VLAN tags are taken out of received frames, where an XDP program
    /// does not see them; `None`: the driver does not say.
    pub fn rx_vlan_stripping(&self) -> Option<bool> {
        self.value(ETHTOOL_GFLAGS).map(|flags| flags & ETH_FLAG_RXVLAN != 0)
    }

    /// Switches that stripping.
    ///
    /// # Errors
    /// EOPNOTSUPP where the driver cannot, EPERM without CAP_NET_ADMIN.
    pub fn set_rx_vlan_stripping(&self, on: bool) -> io::Result<()> {
        let unsupported = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let flags = self.value(ETHTOOL_GFLAGS).ok_or_else(unsupported)?;
        let data = if on { flags | ETH_FLAG_RXVLAN } else { flags & !ETH_FLAG_RXVLAN };
        if data == flags {
            return Ok(());
        }
        let mut value = Value { cmd: ETHTOOL_SFLAGS, data };
        // SAFETY: Value has the layout of struct ethtool_value.
        unsafe { self.ethtool(&mut value) }?;
        if self.rx_vlan_stripping() == Some(on) { Ok(()) } else { Err(unsupported()) }
    }

    fn driver(&self) -> String {
        // SAFETY: all zeros is a valid DriverInfo.
        let mut info: DriverInfo = unsafe { core::mem::zeroed() };
        info.cmd = ETHTOOL_GDRVINFO;
        // SAFETY: DriverInfo has the layout of struct ethtool_drvinfo.
        if unsafe { self.ethtool(&mut info) }.is_err() {
            return String::new();
        }
        let end = info.driver.iter().position(|b| *b == 0).unwrap_or(info.driver.len());
        String::from_utf8_lossy(&info.driver[..end]).into_owned()
    }

    fn queues(&self) -> (u32, u32) {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        // SAFETY: Channels has the layout of struct ethtool_channels.
        if unsafe { self.ethtool(&mut channels) }.is_err() {
            return (1, 1);
        }
        let rx = channels.rx + channels.combined;
        let tx = channels.tx + channels.combined;
        (rx.max(1), tx.max(1))
    }
}

fn no_such(name: &str) -> Error {
    Error::new(
        ErrorKind::NoInterface,
        name,
        "there is no such interface",
        "`ip link` lists the interfaces",
    )
}

impl Interface {
    /// Looks at the interface `name` of the caller's network namespace.
    ///
    /// # Errors
    /// It does not exist, or the system refuses.
    pub fn query(name: &str) -> Result<Self> {
        let query = Query::new(name)?;
        let index = query.ioctl(libc::SIOCGIFINDEX)?;
        let mac = query.ioctl(libc::SIOCGIFHWADDR)?;
        let mtu = query.ioctl(libc::SIOCGIFMTU)?;
        let flags = query.ioctl(libc::SIOCGIFFLAGS)?;
        // SAFETY: each request wrote the member of the union that is read here.
        let (index, mac, mtu, flags) = unsafe {
            (
                index.ifr_ifru.ifru_ifindex as u32,
                mac.ifr_ifru.ifru_hwaddr.sa_data,
                mtu.ifr_ifru.ifru_mtu as usize,
                i32::from(flags.ifr_ifru.ifru_flags),
            )
        };
        let (rx_queues, tx_queues) = query.queues();
        Ok(Self {
            name: name.into(),
            index,
            mac: core::array::from_fn(|i| mac[i] as u8),
            mtu,
            up: flags & libc::IFF_UP != 0,
            running: flags & libc::IFF_RUNNING != 0,
            loopback: flags & libc::IFF_LOOPBACK != 0,
            driver: query.driver(),
            rx_queues,
            tx_queues,
        })
    }

    /// The name as C wants it.
    pub(super) fn c_name(&self) -> CString {
        CString::new(self.name.as_str()).expect("a queried name holds no NUL")
    }

    /// True where the driver hands packets over whose checksums were left to
    /// hardware that does not exist (veth and its like).
    pub fn leaves_checksums_partial(&self) -> bool {
        matches!(self.driver.as_str(), "veth" | "tun" | "virtio_net")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_seen() {
        let lo = Interface::query("lo").expect("every namespace has lo");
        assert_eq!(lo.index, 1);
        assert!(lo.loopback);
        assert_eq!(lo.mac, [0; 6]);
        assert_eq!(Query::new("lo").unwrap().running().unwrap(), lo.running);
        assert_eq!(Query::of(1).unwrap().running().unwrap(), lo.running);
    }

    #[test]
    fn a_missing_interface_is_named() {
        for name in ["nosuchif0", "", "a-name-that-is-far-too-long"] {
            let error = Interface::query(name).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::NoInterface);
            assert!(error.to_string().contains("no such interface"));
        }
        assert!(Query::of(u32::MAX).is_err());
    }
}
