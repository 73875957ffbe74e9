//! What a connection can say, and has to bear, where memory is short.

use super::connection::Connection;
use super::types::{Disposition, Env};
use crate::errno::Errno;
use crate::time::Instant;

impl Connection {
    /// Since when the peer's shut window holds data back; `None` where it does not.
    pub fn stalled_since(&self) -> Option<Instant> {
        let h = &self.hot;
        let held = h.snd_wnd == 0 && h.state.is_synchronized() && self.queued() > 0;
        Some(self.stalled()).filter(|&since| held && since != Instant::NEVER)
    }

    /// Ends a connection whose memory others need (RFC 6429, 4).
    pub fn starve(&mut self, env: &mut Env) -> Disposition {
        self.send_reset(env, self.acceptable_seq(), Some(self.hot.rcv_nxt));
        env.counters.tcp_aborted += 1;
        self.end(env, Some(Errno::ECONNABORTED))
    }
}
