//! ICMP errors about a connection (RFC 9293, 3.9.2.2; RFC 5461; RFC 5927).

use super::connection::{Bits, Connection};
use super::seq;
use super::types::{Disposition, Env, IcmpError, State};
use crate::errno::Errno;
use core::num::NonZeroU8;
use crate::telemetry::DropReason;

impl Connection {
    /// An ICMP error quotes a segment of ours that began at `quoted_seq`. It is
    /// believed only if that is outstanding (RFC 5927, 4.1). Unreachable is soft
    /// (MUST-56): it is kept as the reason should the connection time out. Port
    /// and protocol unreachable end a connection that is not established yet
    /// (SHLD-26); afterwards they are soft too (RFC 5927, 5.2).
    /// Of one that is `pending`, which no program has, soft errors are hard.
    pub fn icmp_error(
        &mut self,
        env: &mut Env,
        error: IcmpError,
        quoted_seq: u32,
        pending: bool,
    ) -> Disposition {
        let h = &self.hot;
        let outstanding = seq::le(h.snd_una, quoted_seq) && seq::lt(quoted_seq, h.snd_nxt);
        if !outstanding || matches!(h.state, State::Closed | State::TimeWait) {
            env.counters.drop(DropReason::IcmpQuoteInvalid);
            return Disposition::NONE;
        }
        let opening = h.state == State::SynSent || h.state == State::SynReceived;
        let (errno, hard) = match error {
            IcmpError::PacketTooBig { mtu } => return self.path_mtu(env, mtu, quoted_seq),
            IcmpError::Unreachable => (Errno::EHOSTUNREACH, false),
            IcmpError::NetworkUnreachable => (Errno::ENETUNREACH, false),
            IcmpError::ProtocolUnreachable => (Errno::ENOPROTOOPT, true),
            IcmpError::PortUnreachable => (Errno::ECONNREFUSED, true),
        };
        if hard && opening || pending {
            env.counters.tcp_aborted += 1;
            return self.end(env, Some(errno));
        }
        self.cold.soft_error = NonZeroU8::new(errno as u8);
        Disposition::NONE
    }

    /// Ends the connection for a reason that the stack found: the neighbour does
    /// not answer, the device is gone. A connection past its handshake keeps the
    /// first kind as a soft error, and so does one whose SYN-ACK has left: to its
    /// peer it may be open.
    pub fn fail(&mut self, env: &mut Env, errno: Errno) -> Disposition {
        let soft = matches!(errno, Errno::EHOSTUNREACH | Errno::ENETUNREACH);
        let h = &self.hot;
        let opening = h.state == State::SynSent || h.state == State::SynReceived && h.snd_nxt == h.snd_una;
        if h.state == State::Closed {
            return Disposition::NONE;
        }
        if soft && !opening {
            self.cold.soft_error = NonZeroU8::new(errno as u8);
            return Disposition::NONE;
        }
        self.hot.bits -= Bits::PATH;
        env.counters.tcp_aborted += 1;
        self.end(env, Some(errno))
    }
}
