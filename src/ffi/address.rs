//! `struct sockaddr` and back.

use crate::errno::{Errno, Result};
use core::ffi::c_int;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use libc::{sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// Bytes of a `struct sockaddr_in`.
const V4: usize = size_of::<sockaddr_in>();
/// Bytes of a `struct sockaddr_in6`.
const V6: usize = size_of::<sockaddr_in6>();
/// Its length without the scope (RFC 2133), which Linux still takes.
const V6_SHORT: usize = V6 - 4;

/// What a program passed where an address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// No address: a length of 0.
    None,
    /// `AF_UNSPEC`: take the association away.
    Unspec,
    /// An address of the internet.
    Ip(SocketAddr),
}

/// Reads an address as the kernel does.
///
/// # Errors
/// EINVAL for an impossible length, EFAULT for a null pointer, EAFNOSUPPORT for
/// a family that is not ours.
///
/// # Safety
/// `addr` is null or points to `len` readable bytes.
pub(super) unsafe fn read(addr: *const sockaddr, len: socklen_t) -> Result<Given> {
    if len as c_int == 0 {
        return Ok(Given::None);
    }
    let len = usize::try_from(len as c_int).map_err(|_| Errno::EINVAL)?;
    if len > size_of::<sockaddr_storage>() {
        return Err(Errno::EINVAL);
    }
    if addr.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the caller's promise.
    parse(unsafe { core::slice::from_raw_parts(addr.cast(), len) })
}

/// The address in these bytes of a `struct sockaddr`.
fn parse(bytes: &[u8]) -> Result<Given> {
    let Some((family, rest)) = bytes.split_first_chunk() else { return Err(Errno::EINVAL) };
    let port = |rest: &[u8]| u16::from_be_bytes([rest[0], rest[1]]);
    match c_int::from(u16::from_ne_bytes(*family)) {
        libc::AF_UNSPEC => Ok(Given::Unspec),
        libc::AF_INET if bytes.len() < V4 => Err(Errno::EINVAL),
        libc::AF_INET => {
            let ip = Ipv4Addr::from(first::<4>(&rest[2..]));
            Ok(Given::Ip(SocketAddrV4::new(ip, port(rest)).into()))
        }
        libc::AF_INET6 if bytes.len() < V6_SHORT => Err(Errno::EINVAL),
        libc::AF_INET6 => {
            let flow = u32::from_ne_bytes(first(&rest[2..]));
            let ip = Ipv6Addr::from(first::<16>(&rest[6..]));
            let scope = rest.get(22..26).map_or(0, |s| u32::from_ne_bytes(first(s)));
            Ok(Given::Ip(SocketAddrV6::new(ip, port(rest), flow, scope).into()))
        }
        _ if bytes.len() < V4 => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// An address in the bytes of its `struct sockaddr`, and how many they are.
pub(super) fn bytes(addr: &SocketAddr) -> ([u8; V6], usize) {
    let mut out = [0; V6];
    out[2..4].copy_from_slice(&addr.port().to_be_bytes());
    let (family, len) = match addr.ip() {
        IpAddr::V4(ip) => {
            out[4..8].copy_from_slice(&ip.octets());
            (libc::AF_INET, V4)
        }
        IpAddr::V6(ip) => {
            out[8..24].copy_from_slice(&ip.octets());
            (libc::AF_INET6, V6)
        }
    };
    if let SocketAddr::V6(v6) = addr {
        out[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
        out[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
    }
    out[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    (out, len)
}

/// Writes an address where the program wants it: as much as its buffer holds,
/// and the whole length to `len`. No address is a length of 0.
///
/// # Errors
/// EFAULT for null pointers, EINVAL for a negative length.
///
/// # Safety
/// `len` is null or valid; `out` is null or points to `*len` writable bytes.
pub(super) unsafe fn write(
    addr: Option<&SocketAddr>,
    out: *mut sockaddr,
    len: *mut socklen_t,
) -> Result<()> {
    if len.is_null() {
        return Err(Errno::EFAULT);
    }
    let (bytes, whole) = addr.map_or(([0; V6], 0), bytes);
    // SAFETY: not null, so valid by the caller's promise.
    let room = unsafe { len.read_unaligned() } as c_int;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?.min(whole);
    if room > 0 {
        if out.is_null() {
            return Err(Errno::EFAULT);
        }
        // SAFETY: not null, so `*len` bytes by the caller's promise.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), room) };
    }
    // SAFETY: as for the read.
    unsafe { len.write_unaligned(whole as socklen_t) };
    Ok(())
}

/// The address of an IPv4 socket, where a program passed a whole one; `None` where
/// [`read`] has to look.
///
/// # Safety
/// `addr` is null or points to `len` readable bytes.
#[inline(always)]
pub(super) unsafe fn read_v4(addr: *const sockaddr, len: socklen_t) -> Option<SocketAddrV4> {
    if addr.is_null() || !(V4..=size_of::<sockaddr_storage>()).contains(&(len as usize)) {
        return None;
    }
    // SAFETY: not null, and as many bytes by the caller's promise.
    let addr = unsafe { addr.cast::<sockaddr_in>().read_unaligned() };
    let ip = Ipv4Addr::from_bits(u32::from_be(addr.sin_addr.s_addr));
    (c_int::from(addr.sin_family) == libc::AF_INET).then(|| SocketAddrV4::new(ip, u16::from_be(addr.sin_port)))
}

/// Where a program wants an address, and has room for one of an IPv4 socket; or wants
/// none.
pub(super) struct PlaceV4 {
    /// Null: it wants none.
    out: *mut sockaddr,
    len: *mut socklen_t,
}

impl PlaceV4 {
    /// `None` where [`write()`] has to look.
    ///
    /// # Safety
    /// `out` is null, or `len` is null or valid and `out` has `*len` writable bytes.
    #[inline(always)]
    pub unsafe fn of(out: *mut sockaddr, len: *mut socklen_t) -> Option<Self> {
        // SAFETY: not null, so valid by the caller's promise.
        let fits = || !len.is_null() && unsafe { len.read_unaligned() } as c_int >= V4 as c_int;
        (out.is_null() || fits()).then_some(Self { out, len })
    }

    /// Writes the address there.
    #[inline(always)]
    pub fn put(self, addr: SocketAddrV4) {
        if self.out.is_null() {
            return;
        }
        let name = sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: addr.port().to_be(),
            sin_addr: libc::in_addr { s_addr: addr.ip().to_bits().to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: there is room for it, and the length is valid, as `of` found and was
        // promised.
        unsafe {
            self.out.cast::<sockaddr_in>().write_unaligned(name);
            self.len.write_unaligned(V4 as socklen_t);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(text: &str) {
        let addr: SocketAddr = text.parse().unwrap();
        let (bytes, len) = bytes(&addr);
        assert_eq!(parse(&bytes[..len]), Ok(Given::Ip(addr)));
    }

    #[test]
    fn addresses_go_there_and_back() {
        there_and_back("192.0.2.1:80");
        there_and_back("0.0.0.0:0");
        there_and_back("[2001:db8::1]:65535");
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 9, 0x0102_0304, 3).into();
        let (bytes, len) = bytes(&scoped);
        assert_eq!(parse(&bytes[..len]), Ok(Given::Ip(scoped)));
    }

    #[test]
    fn the_bytes_are_those_of_the_c_struct() {
        let mut c = sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 8080u16.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([10, 1, 2, 3]) },
            sin_zero: [0; 8],
        };
        // SAFETY: the struct and its length.
        let given = unsafe { read((&raw const c).cast(), V4 as socklen_t) };
        assert_eq!(given, Ok(Given::Ip("10.1.2.3:8080".parse().unwrap())));
        c.sin_port = 0;
        let mut len = V4 as socklen_t;
        let addr = "10.9.8.7:5".parse().unwrap();
        // SAFETY: as above.
        unsafe { write(Some(&addr), (&raw mut c).cast(), &raw mut len) }.unwrap();
        assert_eq!((c.sin_port, c.sin_addr.s_addr.to_ne_bytes()), (5u16.to_be(), [10, 9, 8, 7]));
    }

    #[test]
    fn bad_lengths_families_and_pointers_are_refused() {
        let bytes = [0u8; 200];
        let ask = |family: c_int, len: u32| {
            let mut bytes = bytes;
            bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
            // SAFETY: no length below is beyond the array and valid.
            unsafe { read(bytes.as_ptr().cast(), len) }
        };
        assert_eq!(ask(libc::AF_INET, 15), Err(Errno::EINVAL));
        assert_eq!(ask(libc::AF_INET, 1), Err(Errno::EINVAL));
        assert_eq!(ask(libc::AF_INET, 129), Err(Errno::EINVAL));
        assert_eq!(ask(libc::AF_INET, u32::MAX), Err(Errno::EINVAL));
        assert_eq!(ask(libc::AF_INET6, 23), Err(Errno::EINVAL));
        assert!(ask(libc::AF_INET6, 24).is_ok());
        assert_eq!(ask(libc::AF_UNIX, 110), Err(Errno::EAFNOSUPPORT));
        assert_eq!(ask(libc::AF_UNSPEC, 2), Ok(Given::Unspec));
        assert_eq!(ask(libc::AF_INET, 0), Ok(Given::None));
        // SAFETY: null is what is tested.
        assert_eq!(unsafe { read(core::ptr::null(), 16) }, Err(Errno::EFAULT));
    }

    #[test]
    fn a_short_buffer_gets_what_fits_and_the_whole_length() {
        let addr = "192.0.2.1:80".parse().unwrap();
        let mut out = [0xEEu8; 8];
        let mut len: socklen_t = 6;
        // SAFETY: six bytes are there.
        unsafe { write(Some(&addr), out.as_mut_ptr().cast(), &raw mut len) }.unwrap();
        assert_eq!((len, out[4..6].to_vec(), out[6]), (16, vec![192, 0], 0xEE));
        len = u32::MAX;
        // SAFETY: refused before anything is written.
        let refused = unsafe { write(Some(&addr), out.as_mut_ptr().cast(), &raw mut len) };
        assert_eq!(refused, Err(Errno::EINVAL));
    }

    #[test]
    fn a_whole_address_of_ipv4_is_read_at_once_and_anything_else_is_not() {
        let SocketAddr::V4(addr) = "10.0.0.7:4711".parse().unwrap() else { unreachable!("it is one") };
        let (name, len) = bytes(&addr.into());
        let read = |name: &[u8], len: c_int| {
            assert!(name.len() >= len.clamp(0, 28) as usize);
            // SAFETY: so many bytes are there.
            unsafe { read_v4(name.as_ptr().cast(), len as socklen_t) }
        };
        assert_eq!((read(&name, len as c_int), read(&name, 28)), (Some(addr), Some(addr)));
        assert_eq!([15, 0, -1].map(|len| read(&name, len)), [None; 3]);
        let (other, len) = bytes(&"[::1]:53".parse().unwrap());
        assert_eq!(read(&other, len as c_int), None);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { read_v4(core::ptr::null(), 16) }, None);
    }

    #[test]
    fn an_address_of_ipv4_is_put_where_there_is_room_for_it() {
        let SocketAddr::V4(addr) = "10.0.0.7:4711".parse().unwrap() else { unreachable!("it is one") };
        let put = |room: socklen_t| {
            let (mut out, mut len) = ([0xa5; 20], room);
            // SAFETY: there is as much room, or none is used.
            let place = unsafe { PlaceV4::of(out.as_mut_ptr().cast(), &mut len) };
            place.map(|place| place.put(addr)).map(|()| (out, len))
        };
        let (name, _) = bytes(&addr.into());
        for room in [16, 20] {
            let (out, len) = put(room).unwrap();
            assert_eq!((&out[..16], &out[16..], len), (&name[..16], &[0xa5; 4][..], 16));
        }
        assert_eq!((put(15), put(0), put(u32::MAX)), (None, None, None));
        let nowhere = core::ptr::null_mut();
        // SAFETY: null is allowed.
        assert!(unsafe { PlaceV4::of([0; 16].as_mut_ptr().cast(), nowhere) }.is_none());
        // SAFETY: likewise.
        let none = unsafe { PlaceV4::of(core::ptr::null_mut(), nowhere) };
        none.unwrap().put(addr);
    }
}
