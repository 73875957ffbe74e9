//! The path's MTU: what routers say of it (RFC 1191, with the care of RFC 5927),
//! what silence says (RFC 4821, 7.7), and what age makes of both.

use super::connection::{Bits, Connection};
use super::search::{MtuProbing, Search};
use super::seq;
use super::types::{Discover, Disposition, Env, Events, State};
use crate::telemetry::DropReason;
use crate::time::Instant;

/// Sizes that routers which do not say their MTU are likely to have (RFC 1191, 7.1).
const PLATEAUS: [u16; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

/// What is known of a path beside its MTU.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// A router's claim that contradicts what was acknowledged, and the segment
    /// that it quotes: it counts if that does not get through (RFC 5927, 7.2).
    claim: Option<(u16, u32)>,
    /// The route's own MTU, and when it is tried again.
    pub(super) raise: Option<(u16, Instant)>,
    /// The search for larger packets, which takes the place of that.
    pub(super) search: Option<Search>,
    /// The next identification, where packets may be fragmented.
    ident: u16,
}

impl Connection {
    /// A router says that the path takes packets of `mtu` bytes at most; it
    /// quotes an outstanding segment that begins at `quoted`.
    pub(super) fn path_mtu(&mut self, env: &mut Env, mtu: u16, quoted: u32) -> Disposition {
        if let Some(probe) = self.probe_refused(env, mtu, quoted) {
            return self.one_is_lost(probe);
        }
        let now = self.cold.mtu;
        let mtu = match mtu {
            0 => PLATEAUS.into_iter().find(|p| *p < now).unwrap_or(68),
            mtu => mtu,
        };
        if mtu >= now || self.cold.discover == Discover::Dont {
            env.counters.drop(DropReason::IcmpQuoteInvalid);
            return Disposition::NONE;
        }
        let headers = self.template.l3_len() as u16 + 20;
        let seen = self.cold.acked_mss + headers;
        if self.cold.acked_mss > 0 && mtu < seen {
            // Larger ones got through before: only if this one does not.
            self.extra().path.claim = Some((mtu, quoted));
            return Disposition::NONE;
        }
        self.shrink_path(env, mtu)
    }

    /// The path takes less: what is outstanding and larger goes again, cut. The
    /// window stays: nothing was congested. Never below the floor, where packets
    /// may be fragmented rather.
    fn shrink_path(&mut self, env: &mut Env, mtu: u16) -> Disposition {
        let (now, full) = (self.cold.mtu, self.full_mtu());
        let least = self.least_packet(env.config);
        if mtu < least {
            // Where packets may be fragmented nothing can be found out.
            self.may_fragment(true);
            self.extra().path.search = None;
        }
        let mtu = mtu.max(least).min(now);
        self.cold.mtu = mtu;
        self.cold.acked_mss = 0;
        let until = env.now + env.config.path_mtu_age;
        let path = &mut self.extra().path;
        match &mut path.search {
            Some(search) => search.shrink(env, mtu),
            None => path.raise = Some((full, until)),
        }
        path.claim = None;
        self.hot.bits |= Bits::CARE;
        self.set_mss(env.pool.arena().capacity());
        if self.hot.state == State::SynSent {
            return self.open_smaller();
        }
        self.larger_are_lost();
        Disposition { events: Events::empty(), flush: self.hot.send.lost() > 0 }
    }

    /// A SYN with data was too large: it goes again at once, without. The way back is
    /// likely to take no more.
    #[cold]
    fn open_smaller(&mut self) -> Disposition {
        let headers = self.template.l3_len() as u16 + 20;
        self.warm.adv_mss = self.warm.adv_mss.min(self.cold.mtu.saturating_sub(headers));
        let sent = self.hot.snd_nxt != self.cold.iss;
        self.hot.bits.set(Bits::SYN_DUE, sent);
        Disposition { events: Events::empty(), flush: sent }
    }

    /// The retransmission timer expired `retries` times: a claim that was held
    /// back counts now, and where full segments vanish without a word smaller
    /// ones are tried.
    #[cold]
    pub(super) fn path_timeout(&mut self, env: &mut Env) {
        let una = self.hot.snd_una;
        self.probe_timed_out(env);
        if let Some((mtu, quoted)) = self.extra.as_mut().and_then(|e| e.path.claim.take()) {
            if seq::ge(quoted, una) {
                let _ = self.shrink_path(env, mtu);
                return;
            }
            env.counters.drop(DropReason::IcmpQuoteInvalid);
        }
        let config = env.config;
        if config.mtu_probing == MtuProbing::Off || self.hot.retries < config.black_hole_retries {
            return;
        }
        let Some(mtu) = self.next_fall(env) else { return };
        let full = self.full_mtu();
        let _ = self.shrink_path(env, mtu);
        self.begin_search(env, mtu, full);
        env.counters.tcp_black_holes += 1;
    }

    /// What was learned is old: the route's own MTU is tried again (RFC 1191, 6.3).
    /// Returns whether there is something to wait for.
    pub(super) fn path_ages(&mut self, env: &Env) -> bool {
        let Some(extra) = &mut self.extra else { return false };
        match extra.path.raise {
            Some((full, at)) if at <= env.now => {
                extra.path.raise = None;
                self.cold.mtu = full;
                self.may_fragment(false);
                self.set_mss(env.pool.arena().capacity());
                self.search_from_start(env);
                false
            }
            raise => raise.is_some(),
        }
    }

    /// DF off or on; IP_PMTUDISC_DONT keeps it off.
    fn may_fragment(&mut self, may: bool) {
        let may = may || self.cold.discover == Discover::Dont;
        self.template.set_df(!may);
        if may {
            self.hot.bits |= Bits::CARE;
        }
    }

    /// The identification of a data packet that may be fragmented (RFC 6864, 4.3);
    /// others need none.
    pub(super) fn next_ident(&mut self) -> Option<u16> {
        if !self.hot.bits.contains(Bits::CARE) || self.template.has_df() {
            return None;
        }
        // One connection's are apart for as long as the counter needs to wrap;
        // where it begins the peer cannot know.
        let start = self.warm.ts_offset as u16;
        let path = &mut self.extra().path;
        path.ident = path.ident.wrapping_add(1);
        Some(path.ident.wrapping_add(start))
    }

    /// IP_MTU_DISCOVER.
    pub fn set_discover(&mut self, discover: Discover) {
        self.cold.discover = discover;
        self.may_fragment(false);
        if let Some(extra) = self.extra.as_mut().filter(|_| discover == Discover::Dont) {
            // Nothing can be found out where packets may be fragmented.
            extra.path.search = None;
        }
    }

    /// The packet size that the path is known to take, in bytes.
    pub fn mtu(&self) -> usize {
        self.cold.mtu.into()
    }

    /// The route's MTU changed. A larger one counts from the next write on.
    pub fn set_mtu(&mut self, env: &mut Env, mtu: usize) -> Disposition {
        let mtu = mtu.clamp(68, 65_535) as u16;
        if mtu < self.cold.mtu {
            let d = self.shrink_path(env, mtu);
            self.extra().path.raise = None;
            let _ = self.search_to(env, mtu);
            return d;
        }
        if self.search_to(env, mtu) {
            return Disposition::NONE;
        }
        self.cold.mtu = mtu;
        self.set_mss(env.pool.arena().capacity());
        Disposition::NONE
    }
}
