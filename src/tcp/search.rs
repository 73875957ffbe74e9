//! The search for the largest packets that the path takes, with the program's own
//! data and without a router's word (RFC 4821). It begins where full segments
//! vanished, or with the connection, as configured.
//!
//! A probe is one segment of data that was not sent yet, larger than the others.
//! Acknowledged, it raises the segment size. Alone missing it was too large: that
//! says nothing of congestion, and the next is sent only after as many round trips
//! as the window has segments (7.6.2).

use super::Config;
use super::connection::{Bits, Connection, limit};
use super::jumbo::limits;
use super::loss::Recovery;
use super::burst::Stop;
use super::output::Along;
use super::seq;
use super::types::{Discover, Env};
use crate::time::{Duration, Instant};

/// Segments that are cut anew at most when the segment size changes.
const RECUT: usize = 64;
/// The least MTU of IPv6 (RFC 8200, 5).
const LEAST_V6: u16 = 1280;

/// When larger segments are searched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtuProbing {
    /// Never, and segments that vanish stay as large as they are.
    Off,
    /// From where full segments vanished.
    #[default]
    BlackHole,
    /// From the beginning of each connection.
    Always,
}

/// A probe that is under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    size: u16,
    seq: u32,
    end: u32,
}

/// How far the search is. Sizes are those of packets, with all headers from IP on.
#[derive(Debug)]
pub(super) struct Search {
    /// What the route itself takes.
    full: u16,
    /// Gets through, or is hoped to (7.1, search_low).
    low: u16,
    /// No more than this gets through (search_high).
    high: u16,
    /// This size itself was not tried, or a router says it.
    open: bool,
    /// Something larger than at the start got through.
    climbs: bool,
    probe: Option<Probe>,
    /// No probe leaves before.
    next: Instant,
    /// What was too large is tried again then: paths change (7.3).
    renew: Instant,
}

impl Search {
    /// The size of the next probe; none where it would not tell enough (7.3). The
    /// middle at first; where that gets through most likely all does.
    fn next_size(&self, threshold: u16) -> Option<u16> {
        let range = self.high.saturating_sub(self.low);
        if range < threshold.max(1) {
            return None;
        }
        let whole = self.open && self.climbs;
        Some(if whole { self.high } else { self.low + range / 2 }).filter(|size| *size > self.low)
    }

    fn is_too_large(&mut self, env: &Env, size: u16) {
        (self.high, self.open) = (size - 1, false);
        self.renew = env.now + env.config.probe_interval;
    }

    /// The path takes no more than this.
    pub fn shrink(&mut self, env: &Env, mtu: u16) {
        self.is_too_large(env, mtu + 1);
        self.low = self.low.min(mtu);
        (self.open, self.climbs, self.probe) = (true, false, None);
    }
}

impl Connection {
    fn search(&mut self) -> Option<&mut Search> {
        self.extra.as_mut()?.path.search.as_mut()
    }

    /// True while the search has to be looked after.
    pub(super) fn searches(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.path.search.is_some())
    }

    /// Bytes of a packet beside a data segment's payload.
    fn packet_headers(&self) -> u16 {
        let options = if self.hot.bits.contains(Bits::TIMESTAMPS) { 12 } else { 0 };
        self.template.l3_len() as u16 + 20 + options
    }

    /// No smaller packets are tried than this.
    pub(super) fn least_packet(&self, config: &Config) -> u16 {
        let family = if self.template.is_v6() { LEAST_V6 } else { 0 };
        config.min_path_mtu.max(family).max(self.template.l3_len() as u16 + 20 + self.cold.min_mss)
    }

    /// The packet that nearly every path takes (7.2).
    fn base_packet(&self, config: &Config) -> u16 {
        config.base_mss.saturating_add(self.packet_headers()).max(self.least_packet(config))
    }

    /// The largest packet that the route, the peer, the program and frames allow.
    fn most_packet(&self, env: &Env, full: u16) -> u16 {
        let headers = self.template.l3_len() as u16 + 20;
        let mss = self.cold.peer_mss.min(limit(self.cold.max_segment));
        let most = limits(env.pool.frame_capacity(), self.room()).0 + usize::from(self.packet_headers());
        full.min(mss.saturating_add(headers)).min(most.min(65_535) as u16)
    }

    /// The search begins at packets of `low` bytes, on a route of `full`.
    pub(super) fn begin_search(&mut self, env: &Env, low: u16, full: u16) {
        let high = self.most_packet(env, full);
        let search = Search {
            full,
            low: low.min(high),
            high,
            open: true,
            climbs: false,
            probe: None,
            next: env.now,
            renew: Instant::NEVER,
        };
        let path = &mut self.extra().path;
        (path.search, path.raise) = (Some(search), None);
        self.hot.bits |= Bits::CARE;
    }

    /// The handshake told what the peer takes: where each connection searches, this
    /// one begins with the base.
    #[inline]
    pub(super) fn search_from_start(&mut self, env: &Env) {
        if env.config.mtu_probing != MtuProbing::Always || self.cold.discover != Discover::Do {
            return;
        }
        let (base, full) = (self.base_packet(env.config), self.full_mtu());
        if base < self.most_packet(env, full) {
            self.begin_search(env, base, full);
            self.cold.mtu = base;
            self.set_mss(env.pool.arena().capacity());
        }
    }

    /// What the route itself takes, as far as it is known.
    pub(super) fn full_mtu(&self) -> u16 {
        let path = self.extra.as_ref().map(|e| &e.path);
        let raise = path.and_then(|p| p.raise.map(|(full, _)| full));
        path.and_then(|p| p.search.as_ref().map(|s| s.full)).or(raise).unwrap_or(self.cold.mtu)
    }

    /// The route's own MTU changed, to something larger. True where the search has to
    /// find out about it.
    pub(super) fn search_to(&mut self, env: &Env, full: u16) -> bool {
        let high = self.most_packet(env, full);
        let Some(s) = self.search() else { return false };
        (s.full, s.high, s.open, s.next) = (full, high, true, env.now);
        self.hot.bits |= Bits::CARE;
        true
    }

    /// Full segments vanished: what to go on with, or none where the oldest is small
    /// enough for any path. At first the base, then half each time (7.7).
    pub(super) fn next_fall(&self, env: &Env) -> Option<u16> {
        let config = env.config;
        let headers = self.packet_headers();
        let front = self.hot.send.front()?.len().saturating_add(headers.into()).min(65_535) as u16;
        let (base, least) = (self.base_packet(config), self.least_packet(config));
        let to = match front > base {
            true => base,
            false if self.cold.mtu <= base => headers + (self.cold.mtu - headers) / 2,
            false => return None,
        };
        Some(to.max(least)).filter(|to| *to < front)
    }

    /// The probe's time-out: it was the oldest outstanding, or more was lost (7.6.3).
    pub(super) fn probe_timed_out(&mut self, env: &mut Env) {
        let (una, wait) = (self.hot.snd_una, self.probe_pause());
        let Some(s) = self.search() else { return };
        let Some(probe) = s.probe.take() else { return };
        s.next = env.now + wait;
        if probe.seq == una {
            s.is_too_large(env, probe.size);
            env.counters.tcp_mtu_probes_lost += 1;
        }
    }

    /// How long no probe may leave after a loss: the time to the next loss by
    /// congestion as a rule of thumb has it (7.6.2).
    fn probe_pause(&self) -> Duration {
        let segments = u64::from(self.warm.congestion.window / u32::from(self.hot.mss).max(1)) + 1;
        Duration::from_micros(u64::from(self.warm.rtt.smoothed()) * segments)
    }

    /// Losses came to light. True where it is the probe alone: that is not congestion
    /// (7.6.2). Among others it tells nothing (7.6.4).
    #[cold]
    pub(super) fn is_probe_lost(&mut self, env: &mut Env, r: &Recovery) -> bool {
        let alone = r.board.lost.first().filter(|run| run.1.wrapping_sub(run.0) == r.board.lost.bytes());
        let trouble = self.hot.bits.intersects(Bits::RECOVERY | Bits::LOSS);
        let wait = self.probe_pause();
        let Some(s) = self.search() else { return false };
        let Some(probe) = s.probe else { return false };
        if trouble || alone != Some((probe.seq, probe.end)) {
            return false;
        }
        (s.probe, s.next) = (None, env.now + wait);
        s.is_too_large(env, probe.size);
        env.counters.tcp_mtu_probes_lost += 1;
        true
    }

    /// What begins at `seq` is sent again, for whatever reason: was it the probe, its
    /// acknowledgment tells nothing any more.
    #[cold]
    pub(super) fn probe_resent(&mut self, env: &Env, seq: u32) {
        let wait = self.probe_pause();
        let Some(s) = self.search() else { return };
        if s.probe.is_some_and(|p| p.seq == seq) {
            (s.probe, s.next) = (None, env.now + wait);
        }
    }

    /// A router says that the probe was larger than the `mtu` that it takes. Returns
    /// the probe's number where that is so.
    pub(super) fn probe_refused(&mut self, env: &mut Env, mtu: u16, quoted: u32) -> Option<u32> {
        let s = self.search()?;
        let probe = s.probe.filter(|p| p.seq == quoted && mtu < p.size)?;
        if mtu == 0 {
            // It does not say how large.
            s.probe = None;
            s.is_too_large(env, probe.size);
        } else if mtu >= s.low {
            s.shrink(env, mtu);
            s.climbs = true;
        } else {
            return None;
        }
        // On at once: nothing was congested.
        s.next = env.now;
        env.counters.tcp_mtu_probes_lost += 1;
        Some(probe.seq)
    }

    /// Looks after the search before new data leaves, and sends a probe where it is
    /// time for one. True where all else waits until there is room for it (7.4).
    #[cold]
    #[inline(never)]
    pub(super) fn search_path(&mut self, env: &mut Env) -> Result<bool, Stop> {
        if !self.searches() {
            return Ok(false);
        }
        self.probe_arrived(env);
        let Some(size) = self.next_probe(env) else { return Ok(false) };
        let (mss, len) = (u32::from(self.hot.mss), u32::from(size - self.packet_headers()));
        // The probe, and enough behind it that its loss shows.
        let degree = u32::from(self.cold.reordering.degree);
        let needed = len + (degree + 1) * mss;
        let h = &self.hot;
        let usable = seq::distance(h.snd_nxt, h.snd_una.wrapping_add(h.snd_wnd));
        let ready = usable >= needed
            && self.warm.congestion.window >= needed
            && self.unsent() >= needed
            && h.send.unsent_in_a_row(len as usize) >= len as usize;
        if !ready || self.is_held_back(env.now) {
            return Ok(false);
        }
        if self.pipe() + len > self.warm.congestion.window {
            return Ok(self.pipe() > 0);
        }
        self.send_path_probe(env, size, len as usize)?;
        Ok(false)
    }

    fn send_path_probe(&mut self, env: &mut Env, size: u16, len: usize) -> Result<(), Stop> {
        let (room, mss) = (self.room(), usize::from(self.hot.mss));
        self.hot.send.recut(env.pool, room, len, mss, RECUT);
        let Some(i) = self.hot.send.first_unsent() else { return Ok(()) };
        if self.hot.send.get(i).len() as usize != len || self.hot.send.is_last(i) {
            return Ok(());
        }
        let seq = self.hot.send.get(i).seq;
        self.send_segment(env, i, Along::default())?;
        env.counters.tcp_mtu_probes += 1;
        if let Some(s) = self.search() {
            s.probe = Some(Probe { size, seq, end: seq.wrapping_add(len as u32) });
        }
        Ok(())
    }

    /// The probe was acknowledged: so much gets through (7.6.1).
    fn probe_arrived(&mut self, env: &mut Env) {
        let (una, now) = (self.hot.snd_una, env.now);
        let Some(s) = self.search() else { return };
        let Some(probe) = s.probe.filter(|p| seq::ge(una, p.end)) else { return };
        (s.probe, s.low, s.climbs, s.next) = (None, probe.size, true, now);
        env.counters.tcp_mtu_probes_passed += 1;
        if probe.size > self.cold.mtu {
            self.cold.mtu = probe.size;
            self.set_mss(env.pool.arena().capacity());
            let (room, mss) = (self.room(), usize::from(self.hot.mss));
            self.hot.send.recut(env.pool, room, mss, mss, RECUT);
        }
    }

    /// The size of the probe that is due; none where nothing is to be tried now.
    fn next_probe(&mut self, env: &Env) -> Option<u16> {
        let h = &self.hot;
        let calm = !h.bits.intersects(Bits::TROUBLE | Bits::PROBE_DUE | Bits::FIN_LOST)
            && h.send.lost() + h.send.sacked() == 0;
        if !calm || !self.template.has_df() || self.urgent_out() {
            return None;
        }
        let high = self.most_packet(env, self.full_mtu());
        let s = self.search().filter(|s| s.probe.is_none() && s.next <= env.now)?;
        if s.renew <= env.now {
            (s.high, s.open, s.renew) = (high, true, Instant::NEVER);
        }
        let size = s.next_size(env.config.probe_threshold);
        if size.is_none() {
            s.next = s.renew.min(env.now + env.config.probe_interval);
        }
        size
    }
}
