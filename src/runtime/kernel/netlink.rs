//! Netlink sockets and the form of their messages (`netlink(7)`, `rtnetlink(7)`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const HEADER: usize = 16;

/// One message: its type, its flags and what follows the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram. Ends at the first that cannot be.
pub(super) fn messages(mut data: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(data, 0)? as usize;
        let body = data.get(HEADER..len)?;
        let message = Message {
            kind: u16_at(data, 4)?,
            flags: u16_at(data, 6)?,
            sequence: u32_at(data, 8)?,
            body,
        };
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `data`: (type without flag bits, value).
pub(super) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(data, 0)?);
        let kind = u16_at(data, 2)? & 0x3fff;
        let value = data.get(4..len)?;
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

/// An address attribute of either family.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// The bytes of an address, and its family.
pub(super) fn address_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (libc::AF_INET as u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6 as u8, v6.octets().to_vec()),
    }
}

/// A message under construction.
pub(super) struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket of this protocol (NETLINK_*) that is told of the changes of
    /// `groups` (0: of none).
    pub fn new(protocol: i32, groups: u32) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeros is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { core::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: the address lives through the call and its size is given.
        let n = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as u32,
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        // Room for bursts of changes; the limit does not bind a privileged one.
        let size: libc::c_int = 1 << 20;
        for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
            // SAFETY: the value lives through the call and its size is given.
            let n = unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const size).cast(),
                    size_of::<libc::c_int>() as u32,
                )
            };
            if n == 0 {
                break;
            }
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; 32 * 1024] })
    }

    /// Sends a request without waiting for its answer; its sequence number.
    pub fn send(&mut self, request: Request) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let bytes = request.finish(self.sequence);
        // SAFETY: the buffer lives through the call and its length is given.
        let n = unsafe {
            libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT)
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(self.sequence) }
    }

    /// The next datagram; `wait` for one, or `None` where there is none.
    pub fn receive(&mut self, wait: bool) -> io::Result<Option<&[u8]>> {
        let flags = libc::MSG_TRUNC | if wait { 0 } else { libc::MSG_DONTWAIT };
        loop {
            // SAFETY: the buffer lives through the call and its length is given.
            let n = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    flags,
                )
            };
            if n >= 0 {
                let n = n as usize;
                if n > self.buffer.len() {
                    // Cut off: as bad as lost.
                    self.buffer.resize(n.next_power_of_two(), 0);
                    return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
                }
                return Ok(Some(&self.buffer[..n]));
            }
            let why = io::Error::last_os_error();
            match why.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Ok(None),
                _ => return Err(why),
            }
        }
    }

    /// Sends a request and hands every message of its answer to `each`.
    pub fn ask(&mut self, request: Request, mut each: impl FnMut(Message<'_>)) -> io::Result<()> {
        let sequence = self.send(request)?;
        loop {
            let Some(data) = self.receive(true)? else { continue };
            for message in messages(data).filter(|m| m.sequence == sequence) {
                if message.flags & libc::NLM_F_DUMP_INTR as u16 != 0 {
                    return Err(io::Error::from_raw_os_error(libc::EINTR));
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = u32_at(message.body, 0).unwrap_or(0) as i32;
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(io::Error::from_raw_os_error(-code))
                        };
                    }
                    _ => each(message),
                }
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back() {
        let request = Request::new(28, libc::NLM_F_CREATE, &[1, 2, 3])
            .attribute(1, &[10, 0, 0, 1])
            .attribute(15, &[7]);
        let bytes = request.finish(9);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].kind, all[0].sequence), (28, 9));
        let attributes: Vec<_> = attributes(&all[0].body[4..]).collect();
        assert_eq!(attributes, [(1, &[10, 0, 0, 1][..]), (15, &[7][..])]);
    }

    #[test]
    fn nonsense_ends_the_walk() {
        assert_eq!(messages(&[0; 15]).count(), 0);
        assert_eq!(messages(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
        assert_eq!(messages(&[255; 64]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[255; 12]).count(), 0);
        assert_eq!(attributes(&[0; 3]).count(), 0);
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
