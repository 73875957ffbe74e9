//! Options of a socket: Linux's numbers, byte layouts and rules.
//!
//! Here they are kept and checked; [`super::tcp`] and [`super::datagram`] hand
//! them on to what they act on.

use super::linux::*;
use crate::errno::{Errno, Result};
use crate::stack::tcp::{FastOpenKeys, Reuse};
use crate::tcp::{Algorithm, ConnOptions};

/// The least values that SO_SNDBUF and SO_RCVBUF take, as in Linux.
const MIN_SNDBUF: usize = 4608;
const MIN_RCVBUF: usize = 2304;
/// The limits of TCP_MAXSEG.
const MIN_MSS: i32 = 88;
const MAX_MSS: i32 = 32767;

/// A socket's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// SO_REUSEADDR and SO_REUSEPORT.
    pub reuse: Reuse,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// SO_BROADCAST.
    pub broadcast: bool,
    /// SO_OOBINLINE.
    pub oob_inline: bool,
    /// SO_LINGER: on, and for how many seconds.
    pub linger: Option<i32>,
    /// SO_SNDBUF as it is read (twice what was set); 0: the stack's default.
    pub sndbuf: usize,
    /// SO_RCVBUF, likewise.
    pub rcvbuf: usize,
    /// SO_RCVLOWAT in bytes.
    pub rcvlowat: i32,
    /// SO_RCVTIMEO in microseconds; 0: none. The runtime's blocking calls obey it.
    pub rcvtimeo_us: u64,
    /// SO_SNDTIMEO, likewise.
    pub sndtimeo_us: u64,
    /// IP_TOS.
    pub tos: u8,
    /// IP_TTL; `None`: the stack's default.
    pub ttl: Option<u8>,
    /// IP_MTU_DISCOVER.
    pub mtu_discover: i32,
    /// IP_PKTINFO: the program wants to know where datagrams were sent to.
    pub pktinfo: bool,
    /// IP_RECVTOS.
    pub recv_tos: bool,
    /// IP_RECVTTL.
    pub recv_ttl: bool,
    /// IP_FREEBIND: bind takes addresses that are not the host's.
    pub free_bind: bool,
    /// TCP_WINDOW_CLAMP; 0: none.
    pub window_clamp: u32,
    /// TCP_NODELAY.
    pub nodelay: bool,
    /// TCP_CORK.
    pub cork: bool,
    /// TCP_QUICKACK was set before there was a connection.
    pub quick_ack: bool,
    /// TCP_CONGESTION; `None`: the stack's default.
    pub congestion: Option<Algorithm>,
    /// TCP_MAXSEG; 0: the stack's default.
    pub max_segment: u16,
    /// TCP_KEEPIDLE in seconds.
    pub keep_idle: u16,
    /// TCP_KEEPINTVL in seconds.
    pub keep_interval: u16,
    /// TCP_KEEPCNT.
    pub keep_count: u8,
    /// The user timeout option (RFC 5482); `None`: the stack's default.
    pub user_timeout_option: Option<bool>,
    /// TCP_USER_TIMEOUT in milliseconds; 0: none.
    pub user_timeout_ms: u32,
    /// TCP_SYNCNT; 0: the stack's default.
    pub syn_count: u8,
    /// TCP_DEFER_ACCEPT, in transmissions of the SYN-ACK.
    pub defer_accept: u8,
    /// TCP_FASTOPEN: the bound of a listener's pending connections.
    pub fast_open: u32,
    /// TCP_FASTOPEN_CONNECT.
    pub fast_open_connect: bool,
    /// TCP_FASTOPEN_KEY.
    pub fast_open_keys: Option<FastOpenKeys>,
    /// TCP_FASTOPEN_NO_COOKIE.
    pub fast_open_no_cookie: bool,
    /// SO_MAX_PACING_RATE in bytes a second; all ones: any.
    pub max_pacing_rate: u64,
    /// TCP_INQ: recvmsg tells what is left to read.
    pub inq: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reuse: Reuse::default(),
            keepalive: false,
            broadcast: false,
            oob_inline: false,
            linger: None,
            sndbuf: 0,
            rcvbuf: 0,
            rcvlowat: 1,
            rcvtimeo_us: 0,
            sndtimeo_us: 0,
            tos: 0,
            ttl: None,
            mtu_discover: IP_PMTUDISC_WANT,
            pktinfo: false,
            recv_tos: false,
            recv_ttl: false,
            free_bind: false,
            window_clamp: 0,
            nodelay: false,
            cork: false,
            quick_ack: false,
            congestion: None,
            max_segment: 0,
            keep_idle: 7200,
            keep_interval: 75,
            keep_count: 9,
            user_timeout_option: None,
            user_timeout_ms: 0,
            syn_count: 0,
            defer_accept: 0,
            fast_open: 0,
            fast_open_connect: false,
            fast_open_keys: None,
            fast_open_no_cookie: false,
            max_pacing_rate: u64::MAX,
            inq: false,
        }
    }
}

/// The largest buffers that SO_SNDBUF and SO_RCVBUF may ask for, in bytes, and
/// what is read where nothing was asked.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bound on what may be asked for.
    pub max_sndbuf: usize,
    /// Bound on what may be asked for.
    pub max_rcvbuf: usize,
    /// The largest that a stream's receive buffer grows to.
    pub max_window: usize,
    /// Default as it acts (read as it is).
    pub sndbuf: usize,
    /// Default as it acts (read as it is).
    pub rcvbuf: usize,
    /// Default time to live.
    pub ttl: u8,
}

/// The `int` at the front of an option's value.
///
/// # Errors
/// `EINVAL` if there are fewer than four bytes.
pub fn int(value: &[u8]) -> Result<i32> {
    let bytes = value.first_chunk::<4>().ok_or(Errno::EINVAL)?;
    Ok(i32::from_ne_bytes(*bytes))
}

/// As [`int`], or a single byte, which the options of IP take too.
fn int_or_byte(value: &[u8]) -> Result<i32> {
    match value {
        [] => Err(Errno::EINVAL),
        [byte, ..] if value.len() < 4 => Ok(i32::from(*byte)),
        _ => int(value),
    }
}

/// `struct timeval` in microseconds.
fn timeval(value: &[u8]) -> Result<u64> {
    let (sec, rest) = value.split_first_chunk::<8>().ok_or(Errno::EINVAL)?;
    let usec = i64::from_ne_bytes(*rest.first_chunk::<8>().ok_or(Errno::EINVAL)?);
    let sec = i64::from_ne_bytes(*sec);
    if !(0..1_000_000).contains(&usec) {
        return Err(Errno::EDOM);
    }
    if sec < 0 {
        return Ok(0);
    }
    Ok((sec as u64).saturating_mul(1_000_000).saturating_add(usec as u64))
}

/// Bytes a second: an `unsigned long`, or an `unsigned int` as it was first. All
/// ones: any.
fn pacing_rate(value: &[u8]) -> Result<u64> {
    match value.first_chunk::<8>() {
        Some(long) => Ok(u64::from_ne_bytes(*long)),
        None => Ok(match int(value)? as u32 {
            u32::MAX => u64::MAX,
            rate => rate.into(),
        }),
    }
}

fn put_pacing_rate(out: &mut [u8], rate: u64) -> usize {
    if out.len() >= 8 {
        return put(out, &rate.to_ne_bytes());
    }
    put_int(out, rate.min(u32::MAX.into()) as u32 as i32)
}

/// A number in `low..=high`.
fn within(v: i32, low: i32, high: i32) -> Result<i32> {
    if (low..=high).contains(&v) { Ok(v) } else { Err(Errno::EINVAL) }
}

/// Writes an option's value to the front of `out`, cut to what fits.
pub fn put(out: &mut [u8], value: &[u8]) -> usize {
    let n = value.len().min(out.len());
    out[..n].copy_from_slice(&value[..n]);
    n
}

/// Writes an `int`.
pub fn put_int(out: &mut [u8], value: i32) -> usize {
    put(out, &value.to_ne_bytes())
}

fn put_timeval(out: &mut [u8], us: u64) -> usize {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&((us / 1_000_000) as i64).to_ne_bytes());
    value[8..].copy_from_slice(&((us % 1_000_000) as i64).to_ne_bytes());
    put(out, &value)
}

/// One key of Fast Open cookies, or two: the one in use and the one before.
fn keys(value: &[u8]) -> Result<FastOpenKeys> {
    let (first, rest) = value.split_first_chunk::<16>().ok_or(Errno::EINVAL)?;
    let second = match rest {
        [] => None,
        rest => Some(*<&[u8; 16]>::try_from(rest).map_err(|_| Errno::EINVAL)?),
    };
    Ok(FastOpenKeys { first: *first, second })
}

fn put_keys(out: &mut [u8], keys: Option<FastOpenKeys>) -> usize {
    let Some(keys) = keys else { return 0 };
    let first = put(out, &keys.first);
    first + keys.second.map_or(0, |second| put(&mut out[first..], &second))
}

impl Options {
    /// What a new socket starts with, where connections start with this.
    pub fn of(o: &ConnOptions) -> Self {
        let seconds = |n: u32| n.clamp(1, 32_767) as u16;
        Self {
            nodelay: o.nodelay,
            cork: o.cork,
            keepalive: o.keepalive,
            keep_idle: seconds(o.keep_idle),
            keep_interval: seconds(o.keep_interval),
            keep_count: o.keep_count.clamp(1, 127),
            user_timeout_ms: o.user_timeout,
            window_clamp: o.window_clamp,
            oob_inline: o.oob_inline,
            ..Self::default()
        }
    }

    /// Sets an option of any socket, of IP, or (`stream`) of TCP.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for unknown ones, `EINVAL` and `EDOM` for bad values.
    pub fn set(&mut self, level: i32, name: i32, v: &[u8], stream: bool, limits: &Limits) -> Result<()> {
        match level {
            SOL_SOCKET => self.set_socket(name, v, limits),
            IPPROTO_IP => self.set_ip(name, v, stream),
            IPPROTO_TCP if stream => self.set_tcp(name, v),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_socket(&mut self, name: i32, value: &[u8], limits: &Limits) -> Result<()> {
        let on = || Ok(int(value)? != 0);
        // Negative sizes are taken for huge ones, as in Linux.
        let size = |max: usize| Ok::<_, Errno>((int(value)? as u32 as usize).min(max));
        match name {
            SO_REUSEADDR => self.reuse.addr = on()?,
            SO_REUSEPORT => self.reuse.port = on()?,
            SO_KEEPALIVE => self.keepalive = on()?,
            SO_BROADCAST => self.broadcast = on()?,
            SO_OOBINLINE => self.oob_inline = on()?,
            SO_SNDBUF => self.sndbuf = (2 * size(limits.max_sndbuf)?).max(MIN_SNDBUF),
            SO_RCVBUF => self.rcvbuf = (2 * size(limits.max_rcvbuf)?).max(MIN_RCVBUF),
            SO_RCVLOWAT => self.rcvlowat = self.low_water(int(value)?, limits),
            SO_RCVTIMEO => self.rcvtimeo_us = timeval(value)?,
            SO_SNDTIMEO => self.sndtimeo_us = timeval(value)?,
            SO_MAX_PACING_RATE => self.max_pacing_rate = pacing_rate(value)?,
            SO_LINGER => {
                let on = int(value)? != 0;
                let seconds = int(value.get(4..).ok_or(Errno::EINVAL)?)?;
                self.linger = on.then_some(seconds);
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// Bounded by half the buffer as it is read, a negative one being huge and none
    /// being one, as in Linux.
    fn low_water(&self, bytes: i32, limits: &Limits) -> i32 {
        let buffer = if self.rcvbuf > 0 { self.rcvbuf } else { limits.max_window };
        let most = (buffer / 2).min(i32::MAX as usize) as i32;
        let bytes = if bytes < 0 { i32::MAX } else { bytes };
        bytes.min(most).max(1)
    }

    fn set_ip(&mut self, name: i32, value: &[u8], stream: bool) -> Result<()> {
        let v = int_or_byte(value);
        match name {
            // The two low bits of a stream's are ECN's, and TCP's own.
            IP_TOS => self.tos = if stream { v? as u8 & !3 } else { v? as u8 },
            IP_TTL => {
                self.ttl = match v? {
                    -1 => None,
                    v => Some(within(v, 1, 255)? as u8),
                }
            }
            IP_MTU_DISCOVER => {
                let most = if stream { IP_PMTUDISC_PROBE } else { IP_PMTUDISC_DO };
                self.mtu_discover = within(v?, IP_PMTUDISC_DONT, most)?;
            }
            IP_PKTINFO => self.pktinfo = v? != 0,
            IP_RECVTOS => self.recv_tos = v? != 0,
            IP_RECVTTL => self.recv_ttl = v? != 0,
            IP_FREEBIND => self.free_bind = v? != 0,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn set_tcp(&mut self, name: i32, value: &[u8]) -> Result<()> {
        let v = int(value);
        match name {
            TCP_NODELAY => self.nodelay = v? != 0,
            TCP_CORK => self.cork = v? != 0,
            TCP_WINDOW_CLAMP if v? == 0 => self.window_clamp = 0,
            TCP_WINDOW_CLAMP => self.window_clamp = v?.max(MIN_RCVBUF as i32 / 2) as u32,
            TCP_QUICKACK => self.quick_ack = v? != 0,
            // 0 takes the wish back.
            TCP_MAXSEG if v? == 0 => self.max_segment = 0,
            TCP_MAXSEG => self.max_segment = within(v?, MIN_MSS, MAX_MSS)? as u16,
            TCP_KEEPIDLE => self.keep_idle = within(v?, 1, 32767)? as u16,
            TCP_KEEPINTVL => self.keep_interval = within(v?, 1, 32767)? as u16,
            TCP_KEEPCNT => self.keep_count = within(v?, 1, 127)? as u8,
            RR_TCP_UTO => self.user_timeout_option = Some(v? != 0),
            TCP_USER_TIMEOUT => self.user_timeout_ms = within(v?, 0, i32::MAX)? as u32,
            TCP_SYNCNT => self.syn_count = within(v?, 1, 127)? as u8,
            TCP_DEFER_ACCEPT => self.defer_accept = crate::tcp::deferral_transmissions(v?),
            TCP_FASTOPEN => self.fast_open = within(v?, 0, i32::MAX)? as u32,
            TCP_FASTOPEN_CONNECT => self.fast_open_connect = within(v?, 0, 1)? != 0,
            TCP_FASTOPEN_KEY => self.fast_open_keys = Some(keys(value)?),
            TCP_INQ => self.inq = within(v?, 0, 1)? != 0,
            TCP_FASTOPEN_NO_COOKIE => self.fast_open_no_cookie = within(v?, 0, 1)? != 0,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// Reads an option that is kept here.
    ///
    /// # Errors
    /// `ENOPROTOOPT` for unknown ones.
    pub fn get(&self, level: i32, name: i32, out: &mut [u8], stream: bool, limits: &Limits) -> Result<usize> {
        match level {
            SOL_SOCKET => self.get_socket(name, out, limits),
            IPPROTO_IP => self.get_ip(name, out, limits),
            IPPROTO_TCP if stream => self.get_tcp(name, out),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn get_socket(&self, name: i32, out: &mut [u8], limits: &Limits) -> Result<usize> {
        let size = |set: usize, default: usize| if set == 0 { default } else { set } as i32;
        let value = match name {
            SO_REUSEADDR => self.reuse.addr.into(),
            SO_REUSEPORT => self.reuse.port.into(),
            SO_KEEPALIVE => self.keepalive.into(),
            SO_BROADCAST => self.broadcast.into(),
            SO_OOBINLINE => self.oob_inline.into(),
            SO_SNDBUF => size(self.sndbuf, limits.sndbuf),
            SO_RCVBUF => size(self.rcvbuf, limits.rcvbuf),
            SO_RCVLOWAT => self.rcvlowat,
            // A write is never held back for more.
            SO_SNDLOWAT => 1,
            SO_RCVTIMEO => return Ok(put_timeval(out, self.rcvtimeo_us)),
            SO_SNDTIMEO => return Ok(put_timeval(out, self.sndtimeo_us)),
            SO_MAX_PACING_RATE => return Ok(put_pacing_rate(out, self.max_pacing_rate)),
            SO_LINGER => {
                let mut value = [0; 8];
                value[..4].copy_from_slice(&i32::from(self.linger.is_some()).to_ne_bytes());
                value[4..].copy_from_slice(&self.linger.unwrap_or(0).to_ne_bytes());
                return Ok(put(out, &value));
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(out, value))
    }

    fn get_ip(&self, name: i32, out: &mut [u8], limits: &Limits) -> Result<usize> {
        let value = match name {
            IP_TOS => self.tos.into(),
            IP_TTL => self.ttl.unwrap_or(limits.ttl).into(),
            IP_MTU_DISCOVER => self.mtu_discover,
            IP_PKTINFO => self.pktinfo.into(),
            IP_RECVTOS => self.recv_tos.into(),
            IP_RECVTTL => self.recv_ttl.into(),
            IP_FREEBIND => self.free_bind.into(),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        // As in Linux: a short buffer gets the value as one byte.
        if (1..4).contains(&out.len()) && (0..=255).contains(&value) {
            return Ok(put(out, &[value as u8]).min(1));
        }
        Ok(put_int(out, value))
    }

    fn get_tcp(&self, name: i32, out: &mut [u8]) -> Result<usize> {
        let value = match name {
            TCP_NODELAY => self.nodelay.into(),
            TCP_CORK => self.cork.into(),
            TCP_WINDOW_CLAMP => self.window_clamp as i32,
            TCP_QUICKACK => self.quick_ack.into(),
            TCP_KEEPIDLE => self.keep_idle.into(),
            TCP_KEEPINTVL => self.keep_interval.into(),
            TCP_KEEPCNT => self.keep_count.into(),
            RR_TCP_UTO => self.user_timeout_option.unwrap_or(false).into(),
            TCP_USER_TIMEOUT => self.user_timeout_ms as i32,
            TCP_DEFER_ACCEPT => crate::tcp::deferral_seconds(self.defer_accept),
            TCP_FASTOPEN => self.fast_open as i32,
            TCP_FASTOPEN_CONNECT => self.fast_open_connect.into(),
            TCP_INQ => self.inq.into(),
            TCP_FASTOPEN_KEY => return Ok(put_keys(out, self.fast_open_keys)),
            TCP_FASTOPEN_NO_COOKIE => self.fast_open_no_cookie.into(),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(put_int(out, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        max_sndbuf: 1 << 20,
        max_rcvbuf: 1 << 20,
        max_window: 1 << 20,
        sndbuf: 87_380,
        rcvbuf: 131_072,
        ttl: 64,
    };

    fn set(o: &mut Options, level: i32, name: i32, v: i32) -> Result<()> {
        o.set(level, name, &v.to_ne_bytes(), true, &LIMITS)
    }

    fn get(o: &Options, level: i32, name: i32) -> i32 {
        let mut out = [0; 4];
        assert_eq!(o.get(level, name, &mut out, true, &LIMITS), Ok(4));
        i32::from_ne_bytes(out)
    }

    #[test]
    fn what_is_set_is_read() {
        let mut o = Options::default();
        for (level, name, v) in [
            (SOL_SOCKET, SO_REUSEADDR, 1),
            (SOL_SOCKET, SO_REUSEPORT, 1),
            (SOL_SOCKET, SO_KEEPALIVE, 1),
            (SOL_SOCKET, SO_BROADCAST, 1),
            (SOL_SOCKET, SO_OOBINLINE, 1),
            (IPPROTO_IP, IP_TOS, 0x10),
            (IPPROTO_IP, IP_TTL, 3),
            (IPPROTO_IP, IP_PKTINFO, 1),
            (IPPROTO_IP, IP_RECVTOS, 1),
            (IPPROTO_IP, IP_RECVTTL, 1),
            (IPPROTO_IP, IP_FREEBIND, 1),
            (IPPROTO_TCP, TCP_INQ, 1),
            (IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO),
            (IPPROTO_TCP, TCP_NODELAY, 1),
            (IPPROTO_TCP, TCP_CORK, 1),
            (IPPROTO_TCP, TCP_KEEPIDLE, 11),
            (IPPROTO_TCP, TCP_KEEPINTVL, 12),
            (IPPROTO_TCP, TCP_KEEPCNT, 13),
            (IPPROTO_TCP, TCP_USER_TIMEOUT, 14),
            (IPPROTO_TCP, TCP_WINDOW_CLAMP, 5000),
            (IPPROTO_TCP, RR_TCP_UTO, 1),
        ] {
            assert_ne!(get(&o, level, name), v, "{level} {name}");
            set(&mut o, level, name, v).unwrap();
            assert_eq!(get(&o, level, name), v, "{level} {name}");
        }
    }

    #[test]
    fn buffers_are_doubled_and_bounded() {
        let mut o = Options::default();
        assert_eq!(get(&o, SOL_SOCKET, SO_RCVBUF), 131_072);
        set(&mut o, SOL_SOCKET, SO_RCVBUF, 10_000).unwrap();
        assert_eq!(get(&o, SOL_SOCKET, SO_RCVBUF), 20_000);
        set(&mut o, SOL_SOCKET, SO_SNDBUF, 1).unwrap();
        assert_eq!(get(&o, SOL_SOCKET, SO_SNDBUF), 4608);
        set(&mut o, SOL_SOCKET, SO_SNDBUF, i32::MAX).unwrap();
        assert_eq!(get(&o, SOL_SOCKET, SO_SNDBUF), 2 << 20);
    }

    #[test]
    fn bad_values_and_names_are_refused() {
        let mut o = Options::default();
        for (level, name, v, errno) in [
            (IPPROTO_IP, IP_TTL, 0, Errno::EINVAL),
            (IPPROTO_IP, IP_TTL, 256, Errno::EINVAL),
            (IPPROTO_TCP, TCP_MAXSEG, 87, Errno::EINVAL),
            (IPPROTO_TCP, TCP_KEEPCNT, 128, Errno::EINVAL),
            (IPPROTO_TCP, TCP_INQ, 2, Errno::EINVAL),
            (IPPROTO_TCP, TCP_USER_TIMEOUT, -1, Errno::EINVAL),
            (IPPROTO_TCP, 9999, 1, Errno::ENOPROTOOPT),
            (SOL_SOCKET, SO_TYPE, 1, Errno::ENOPROTOOPT),
            (SOL_SOCKET, SO_ERROR, 1, Errno::ENOPROTOOPT),
            (12345, 1, 1, Errno::ENOPROTOOPT),
        ] {
            assert_eq!(set(&mut o, level, name, v), Err(errno), "{level} {name} {v}");
        }
        assert_eq!(o, Options::default());
        assert_eq!(o.set(SOL_SOCKET, SO_REUSEADDR, &[1], true, &LIMITS), Err(Errno::EINVAL));
        assert_eq!(o.set(IPPROTO_TCP, TCP_NODELAY, &[1; 4], false, &LIMITS), Err(Errno::ENOPROTOOPT));
    }

    #[test]
    fn layouts_are_linuxs() {
        let mut o = Options::default();
        let mut linger = [0; 8];
        linger[0] = 1;
        linger[4] = 9;
        o.set(SOL_SOCKET, SO_LINGER, &linger, true, &LIMITS).unwrap();
        assert_eq!(o.linger, Some(9));
        let mut out = [0; 8];
        assert_eq!(o.get(SOL_SOCKET, SO_LINGER, &mut out, true, &LIMITS), Ok(8));
        assert_eq!(out, linger);

        let mut time = [0; 16];
        time[..8].copy_from_slice(&2i64.to_ne_bytes());
        time[8..].copy_from_slice(&500_000i64.to_ne_bytes());
        o.set(SOL_SOCKET, SO_RCVTIMEO, &time, true, &LIMITS).unwrap();
        assert_eq!(o.rcvtimeo_us, 2_500_000);
        let mut out = [0; 16];
        assert_eq!(o.get(SOL_SOCKET, SO_RCVTIMEO, &mut out, true, &LIMITS), Ok(16));
        assert_eq!(out, time);
        time[8..].copy_from_slice(&1_000_000i64.to_ne_bytes());
        assert_eq!(o.set(SOL_SOCKET, SO_SNDTIMEO, &time, true, &LIMITS), Err(Errno::EDOM));

        let (rate, mut long) = (5_000_000_000u64.to_ne_bytes(), [0; 8]);
        assert_eq!(o.max_pacing_rate, u64::MAX);
        o.set(SOL_SOCKET, SO_MAX_PACING_RATE, &rate, true, &LIMITS).unwrap();
        assert_eq!(o.get(SOL_SOCKET, SO_MAX_PACING_RATE, &mut long, true, &LIMITS), Ok(8));
        assert_eq!((long, get(&o, SOL_SOCKET, SO_MAX_PACING_RATE)), (rate, -1));
        set(&mut o, SOL_SOCKET, SO_MAX_PACING_RATE, 70_000).unwrap();
        assert_eq!(o.max_pacing_rate, 70_000);
        set(&mut o, SOL_SOCKET, SO_MAX_PACING_RATE, -1).unwrap();
        assert_eq!(o.max_pacing_rate, u64::MAX);

        o.set(IPPROTO_IP, IP_TOS, &[0x20], false, &LIMITS).unwrap();
        let mut byte = [0];
        assert_eq!(o.get(IPPROTO_IP, IP_TOS, &mut byte, false, &LIMITS), Ok(1));
        assert_eq!(byte, [0x20]);
    }
}
