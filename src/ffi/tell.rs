//! The ancillary data of what was received.

use super::message::{self, Control};
use super::target::Target;
use crate::socket::linux::{TCP_CM_INQ, TCP_INQ};
use crate::socket::{Figure, RecvMeta};
use core::ffi::c_int;
use core::net::IpAddr;

/// Writes the ancillary data that a datagram socket's options ask for.
pub(super) fn tell(target: Target, fd: c_int, meta: &RecvMeta, control: &mut Control<'_>) {
    let ip = |name| target.is_on(fd, libc::IPPROTO_IP, name);
    match meta.to {
        IpAddr::V4(to) if ip(libc::IP_PKTINFO) => {
            control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &message::pktinfo(to, 0));
        }
        IpAddr::V6(to) if target.is_on(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) => {
            let data = message::pktinfo6(to, 0);
            control.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
        }
        _ => {}
    }
    if ip(libc::IP_RECVTTL) {
        control.put(libc::IPPROTO_IP, libc::IP_TTL, &c_int::from(meta.ttl).to_ne_bytes());
    }
    if ip(libc::IP_RECVTOS) {
        control.put(libc::IPPROTO_IP, libc::IP_TOS, &[meta.tos]);
    }
}

/// Writes how much of a stream is left to read, where TCP_INQ asks for it; 1 at the
/// end, so that the program reads that too, as in Linux.
pub(super) fn tell_unread(target: Target, fd: c_int, control: &mut Control<'_>) {
    if !target.is_on(fd, libc::IPPROTO_TCP, TCP_INQ) {
        return;
    }
    let left = match target.figure(fd, Figure::Unread) {
        Ok(0) => target.figure(fd, Figure::Ended),
        left => left,
    };
    if let Ok(left) = left {
        let left = c_int::try_from(left).unwrap_or(c_int::MAX);
        control.put(libc::IPPROTO_TCP, TCP_CM_INQ, &left.to_ne_bytes());
    }
}
