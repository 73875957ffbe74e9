//! ICMP errors about a connection (RFC 9293, 3.9.2.2; RFC 5461; RFC 5927).

use super::connection::{Bits, Connection};
use super::seq;
use super::types::{Disposition, Env, Events, IcmpError, State};
use crate::errno::Errno;
use crate::telemetry::DropReason;

/// Sizes that routers which do not say their MTU are likely to have (RFC 1191, 7.1).
const PLATEAUS: [u16; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

impl Connection {
    /// An ICMP error quotes a segment of ours that began at `quoted_seq`. It is
    /// believed only if that is outstanding (RFC 5927, 4.1). Unreachable is soft
    /// (MUST-56): it is kept as the reason should the connection time out. Port
    /// and protocol unreachable end a connection that is not established yet
    /// (SHLD-26); afterwards they are soft too (RFC 5927, 5.2).
    pub fn icmp_error(&mut self, env: &mut Env, error: IcmpError, quoted_seq: u32) -> Disposition {
        let h = &self.hot;
        let outstanding = seq::le(h.snd_una, quoted_seq) && seq::lt(quoted_seq, h.snd_nxt);
        if !outstanding || matches!(h.state, State::Closed | State::TimeWait) {
            env.counters.drop(DropReason::IcmpQuoteInvalid);
            return Disposition::NONE;
        }
        let opening = h.state == State::SynSent || h.state == State::SynReceived;
        let (errno, hard) = match error {
            IcmpError::PacketTooBig { mtu } => return self.path_mtu(env, mtu),
            IcmpError::Unreachable => (Errno::EHOSTUNREACH, false),
            IcmpError::NetworkUnreachable => (Errno::ENETUNREACH, false),
            IcmpError::ProtocolUnreachable => (Errno::ENOPROTOOPT, true),
            IcmpError::PortUnreachable => (Errno::ECONNREFUSED, true),
        };
        if hard && opening {
            env.counters.tcp_aborted += 1;
            return self.end(env, Some(errno));
        }
        self.cold.soft_error = Some(errno);
        Disposition::NONE
    }

    /// The path takes packets of `mtu` bytes at most (RFC 1191): what was larger
    /// goes again, cut. The window stays: nothing was congested.
    fn path_mtu(&mut self, env: &mut Env, mtu: u16) -> Disposition {
        let now = self.cold.mtu;
        let mtu = if mtu == 0 {
            PLATEAUS.into_iter().find(|p| *p < now).unwrap_or(68)
        } else {
            mtu
        };
        let least = self.template.l3_len() as u16 + 20 + self.cold.min_mss;
        if mtu >= now {
            return Disposition::NONE;
        }
        self.cold.mtu = mtu.max(least).min(now);
        self.set_mss(env.pool.arena().capacity());
        self.larger_are_lost();
        Disposition { events: Events::empty(), flush: self.hot.send.lost() > 0 }
    }

    /// The packet size that the path is known to take, in bytes.
    pub fn mtu(&self) -> usize {
        self.cold.mtu.into()
    }

    /// The route's MTU changed. A larger one counts from the next write on.
    pub fn set_mtu(&mut self, env: &mut Env, mtu: usize) -> Disposition {
        let mtu = mtu.clamp(68, 65_535) as u16;
        if mtu < self.cold.mtu {
            return self.path_mtu(env, mtu);
        }
        self.cold.mtu = mtu;
        self.set_mss(env.pool.arena().capacity());
        Disposition::NONE
    }

    /// Ends the connection for a reason that the stack found: the neighbour does
    /// not answer, the device is gone. A connection past its handshake keeps the
    /// first kind as a soft error.
    pub fn fail(&mut self, env: &mut Env, errno: Errno) -> Disposition {
        let soft = matches!(errno, Errno::EHOSTUNREACH | Errno::ENETUNREACH);
        let opening = matches!(self.hot.state, State::SynSent | State::SynReceived);
        if self.hot.state == State::Closed {
            return Disposition::NONE;
        }
        if soft && !opening {
            self.cold.soft_error = Some(errno);
            return Disposition::NONE;
        }
        self.hot.bits -= Bits::PATH;
        env.counters.tcp_aborted += 1;
        self.end(env, Some(errno))
    }
}
