//! TCP Fast Open's two sides above a connection (RFC 7413): the cookies that we
//! give and check, and those that peers gave us.

use super::hash::Keyed;
use super::passive::Syn;
use super::{Marks, Table};
use crate::rng::Rng;
use crate::stack::core::Core;
use crate::stack::lru::Lru;
use crate::tcp::Learned;
use crate::telemetry::Counters;
use crate::time::{Duration, Instant};
use crate::wire::tcp::Cookie;
use core::hash::Hasher;
use core::net::IpAddr;
use hashbrown::HashMap;
use siphasher::sip::SipHasher24;

/// How long a destination is spared after its second SYN with data was lost, as a
/// power of two of this; each further one doubles it.
const SPARED: Duration = Duration::from_secs(60);
/// It does not double more often.
const MAX_LOSSES: u8 = 10;

/// The keys that cookies are made with: the first makes them, the second was the
/// first before, and what it made still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastOpenKeys {
    /// Makes and checks.
    pub first: [u8; 16],
    /// Checks.
    pub second: Option<[u8; 16]>,
}

impl FastOpenKeys {
    /// Cookies of 8 bytes: SipHash-2-4 of the addresses, as Linux makes them, so
    /// that hosts behind one address can share a key.
    fn make(key: &[u8; 16], peer: IpAddr, ours: IpAddr) -> Cookie {
        let mut hash = SipHasher24::new_with_key(key);
        for ip in [peer, ours] {
            match ip {
                IpAddr::V4(ip) => hash.write(&ip.octets()),
                IpAddr::V6(ip) => hash.write(&ip.octets()),
            }
        }
        Cookie::new(&hash.finish().to_le_bytes()).unwrap_or_default()
    }
}

/// What a SYN's option comes to.
pub(super) enum Verdict {
    /// Nothing.
    Plain,
    /// It is given this cookie, and no more.
    Give(Cookie),
    /// Its data is taken; with a new cookie where the old one's key is going.
    Early(Option<Cookie>),
}

/// What is known of a destination.
#[derive(Clone, Copy, Debug)]
struct Peer {
    ip: IpAddr,
    cookie: Option<Cookie>,
    /// The segment size that it announced; 0: not known.
    mss: u16,
    /// How it was asked for a cookie, in vain.
    asked: Asked,
    /// SYNs with data that were lost, in a row.
    losses: u8,
    lost_at: Instant,
}

/// With which option a destination was asked that gave no cookie: the one that Fast
/// Open has, and then, once, the one that it had before (as Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
enum Asked {
    #[default]
    Never,
    Once,
    /// By the old option too.
    Twice,
}

/// What the cache says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is to be asked for a cookie, by this option; its segment size, or 0.
    Nothing(Cookie, u16),
    /// It, or the way to it, does not take SYNs with data.
    Spared,
    /// It gave this cookie, and this segment size.
    Cookie(Cookie, u16),
}

/// Cookies of peers, those not used for the longest time leave first; and ours.
#[derive(Debug)]
pub(super) struct FastOpens {
    keys: Option<FastOpenKeys>,
    peers: Vec<Peer>,
    by_ip: HashMap<IpAddr, u32, Keyed>,
    lru: Lru,
}

impl FastOpens {
    pub fn new(keys: Option<FastOpenKeys>, key: Keyed) -> Self {
        let by_ip = HashMap::with_hasher(key);
        Self { keys, peers: Vec::new(), by_ip, lru: Lru::default() }
    }

    /// The stack's keys; drawn where the configuration has none.
    pub fn keys(&mut self, rng: &mut Rng) -> FastOpenKeys {
        *self.keys.get_or_insert_with(|| FastOpenKeys { first: rng.key(), second: None })
    }

    /// New cookies are made with this key from now on; old ones stay good until
    /// the next.
    pub fn rotate(&mut self, first: [u8; 16]) {
        self.keys = Some(FastOpenKeys { first, second: self.keys.map(|k| k.first) });
    }

    pub fn known(&mut self, now: Instant, ip: IpAddr) -> Known {
        let Some(&slot) = self.by_ip.get(&ip) else { return Known::Nothing(Cookie::default(), 0) };
        self.lru.touch(slot);
        let peer = &self.peers[slot as usize];
        let spared = Duration::from_secs((SPARED.as_nanos() / 1_000_000_000) << peer.losses);
        if peer.losses > 1 && now.since(peer.lost_at) < spared {
            return Known::Spared;
        }
        let ask = match peer.asked {
            Asked::Once => Cookie::default().experimental(),
            _ => Cookie::default(),
        };
        peer.cookie.map_or(Known::Nothing(ask, peer.mss), |cookie| Known::Cookie(cookie, peer.mss))
    }

    fn forget(&mut self) {
        self.peers.clear();
        self.by_ip.clear();
        self.lru = Lru::default();
    }

    /// Notes what an open with the option taught.
    pub fn learn(&mut self, now: Instant, ip: IpAddr, learned: &Learned, most: usize) {
        let lost = learned.lost && learned.tried && !learned.taken && learned.cookie.is_none();
        let known = self.by_ip.get(&ip).copied();
        // Who neither answered nor lost anything is not worth a place.
        if known.is_none() && learned.mss.is_none() && !lost || most == 0 {
            return;
        }
        let slot = known.unwrap_or_else(|| self.place(ip, most));
        self.lru.touch(slot);
        let peer = &mut self.peers[slot as usize];
        peer.mss = learned.mss.unwrap_or(peer.mss);
        if learned.cookie.is_some() {
            peer.cookie = learned.cookie;
        } else if learned.mss.is_some()
            && !learned.lost
            && let Some(asked) = learned.option.filter(|option| option.is_empty())
        {
            let asked = if asked.is_experimental() { Asked::Twice } else { Asked::Once };
            peer.asked = if asked > peer.asked { asked } else { peer.asked };
        }
        if lost {
            peer.losses = (peer.losses + 1).min(MAX_LOSSES);
            peer.lost_at = now;
        } else {
            peer.losses = 0;
        }
    }

    /// A place for another destination.
    fn place(&mut self, ip: IpAddr, most: usize) -> u32 {
        let asked = Asked::Never;
        let peer = Peer { ip, cookie: None, mss: 0, asked, losses: 0, lost_at: Instant::ZERO };
        let slot = match self.lru.oldest().filter(|_| self.peers.len() >= most) {
            Some(oldest) => {
                self.lru.remove(oldest);
                let old = core::mem::replace(&mut self.peers[oldest as usize], peer);
                self.by_ip.remove(&old.ip);
                oldest
            }
            None => {
                self.peers.push(peer);
                self.peers.len() as u32 - 1
            }
        };
        self.lru.insert(slot);
        self.by_ip.insert(ip, slot);
        slot
    }
}

impl Table {
    /// A new key for Fast Open's cookies; those of the one before stay good.
    pub fn rotate_fast_open_key(&mut self, key: [u8; 16]) {
        self.fast_opens.rotate(key);
    }

    /// Other keys from now on.
    pub(in crate::stack) fn set_fast_open_keys(&mut self, keys: FastOpenKeys) {
        self.fast_opens.keys = Some(keys);
    }

    #[cfg(test)]
    pub(in crate::stack) fn fast_open_keys(&mut self, core: &mut Core) -> FastOpenKeys {
        self.fast_opens.keys(&mut core.rng)
    }

    /// Destinations' cookies are forgotten, and what else is known of how they open.
    pub(in crate::stack) fn forget_cookies(&mut self) {
        self.fast_opens.forget();
    }

    /// What the Fast Open option of a SYN comes to.
    pub(super) fn fast_open_verdict(&mut self, core: &mut Core, syn: &Syn) -> Verdict {
        let table = &core.config.table;
        let asked = syn.seg.options.fast_open;
        let now = core.now;
        let Some(l) = self.listeners.get_mut(syn.listener) else { return Verdict::Plain };
        let trusted = table.fast_open_no_cookie || l.inherit.fast_open_no_cookie;
        let trusted = trusted && syn.seg.payload_len > 0;
        if !table.fast_open_server || asked.is_none() && !trusted {
            return Verdict::Plain;
        }
        let own = l.inherit.fast_open as usize;
        let limit = if own == 0 && core.config.table.fast_open_listeners { l.backlog } else { own };
        if limit == 0 {
            return Verdict::Plain;
        }
        if l.early.len(now) >= limit {
            core.counters.tcp_fast_open_full += 1;
            return Verdict::Plain;
        }
        let Some(theirs) = asked.filter(|_| !trusted) else { return Verdict::Early(None) };
        let keys = l.inherit.fast_open_keys.unwrap_or_else(|| self.fast_opens.keys(&mut core.rng));
        let (peer, ours) = (syn.key.remote().ip(), syn.key.local().ip());
        let make = |key: &[u8; 16]| FastOpenKeys::make(key, peer, ours).as_in(theirs);
        let right = make(&keys.first);
        if theirs == right {
            return Verdict::Early(None);
        }
        let old = keys.second.map(|key| make(&key));
        if old == Some(theirs) {
            return Verdict::Early(Some(right));
        }
        if theirs.is_empty() {
            core.counters.tcp_fast_open_asked += 1;
        } else {
            core.counters.tcp_fast_open_refused += 1;
        }
        Verdict::Give(right)
    }

    /// An active open that was just begun is to carry data, or waits for some
    /// where `data` is `None`; with `trusted` it needs no cookie for that (RFC 7413,
    /// 6.2.1). Returns how many bytes the SYN takes, or with `all` the send buffer
    /// too, and whether it waits.
    pub fn open_early(
        &mut self,
        core: &mut Core,
        id: u32,
        data: Option<&[u8]>,
        (trusted, all): (bool, bool),
    ) -> (usize, bool) {
        let remote = self.slots[id as usize].key.remote().ip();
        let trusted = trusted || core.config.table.fast_open_client_no_cookie;
        let known = self.fast_opens.known(core.now, remote);
        let (option, mss, waits) = match known {
            Known::Nothing(_, mss) | Known::Cookie(_, mss) if trusted => (None, mss, true),
            Known::Spared => (None, 0, false),
            Known::Nothing(ask, _) => (Some(ask), 0, false),
            Known::Cookie(cookie, mss) => (Some(cookie), mss, true),
        };
        let waits = waits && data.is_none();
        if known != Known::Spared {
            self.conn_mut(id).fast_open(option, mss, waits);
        }
        (data.map_or(0, |data| self.send_early(core, id, data, all)), waits)
    }

    /// The first data of an open that waits for it; how much the SYN takes, or with
    /// `all` the send buffer too.
    pub fn send_early(&mut self, core: &mut Core, id: u32, data: &[u8], all: bool) -> usize {
        let looped = self.slots[id as usize].marks.contains(Marks::LOOPED);
        let n = self.conn_mut(id).send_early(&mut super::env(core, looped), data, all);
        self.touch(id);
        n
    }

    /// A connection with Fast Open's option opened, or ended.
    #[cold]
    pub(super) fn fast_open_over(&mut self, core: &mut Core, id: u32, reset: bool) {
        let slot = &mut self.slots[id as usize];
        let Some(conn) = &mut slot.conn else { return };
        if let Some(learned) = conn.take_learned() {
            count(&mut core.counters, &learned);
            let most = core.config.table.fast_open_cache;
            self.fast_opens.learn(core.now, slot.key.remote().ip(), &learned, most);
        } else if let Some((listener, serial)) = conn.take_owner()
            && let Some(l) = self.listeners.get_mut(listener)
            && l.serial == serial
        {
            l.early.end(core.now, reset);
        }
    }
}

fn count(counters: &mut Counters, learned: &Learned) {
    if learned.tried {
        counters.tcp_fast_open_active += u64::from(learned.taken);
        counters.tcp_fast_open_active_failed += u64::from(!learned.taken);
    }
}

/// A listener's connections that the program has, and whose handshake is not over.
#[derive(Debug, Default)]
pub(super) struct Early {
    open: usize,
    /// Ends of the time that ones still count which were reset: an attacker with
    /// a stolen cookie and another's address would have the victim's RST make
    /// room for the next (RFC 7413, 5.1).
    reset: std::collections::VecDeque<Instant>,
}

impl Early {
    /// How long a reset one counts.
    const COUNTS: Duration = Duration::from_secs(60);

    pub fn begin(&mut self) {
        self.open += 1;
    }

    fn len(&mut self, now: Instant) -> usize {
        while self.reset.front().is_some_and(|end| *end <= now) {
            self.reset.pop_front();
        }
        self.open + self.reset.len()
    }

    fn end(&mut self, now: Instant, reset: bool) {
        self.open = self.open.saturating_sub(1);
        if reset {
            self.reset.push_back(now + Self::COUNTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn learned(cookie: u8) -> Learned {
        let (cookie, option) = (Cookie::new(&[cookie; 8]), Some(Cookie::default()));
        Learned { cookie, option, mss: Some(1000), lost: false, tried: false, taken: false }
    }

    fn cache() -> FastOpens {
        FastOpens::new(None, Keyed::new([1; 16]))
    }

    #[test]
    fn cookies_are_those_that_linux_makes() {
        // Of the kernel's own scripts: sysctl tcp_fastopen_key, and the cookie that
        // 192.168.0.1 gives 192.0.2.1 under it.
        let key: Vec<u8> = [0xa1a1_a1a1u32, 0xb2b2_b2b2, 0xc3c3_c3c3, 0xd4d4_d4d4]
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        let (peer, ours) = ([192, 0, 2, 1].into(), [192, 168, 0, 1].into());
        let cookie = FastOpenKeys::make(key[..].try_into().unwrap(), peer, ours);
        assert_eq!(cookie.as_slice(), [0x30, 0x21, 0xb9, 0xd8, 0x89, 0x01, 0x7e, 0xeb]);
    }

    #[test]
    fn the_destination_not_used_for_the_longest_time_is_forgotten() {
        let (mut c, now) = (cache(), Instant::ZERO);
        for n in 1..=3 {
            c.learn(now, ip(n), &learned(n), 3);
        }
        assert_eq!(c.known(now, ip(1)), Known::Cookie(Cookie::new(&[1; 8]).unwrap(), 1000));
        c.learn(now, ip(4), &learned(4), 3);
        assert_eq!(c.known(now, ip(2)), Known::Nothing(Cookie::default(), 0));
        for n in [1, 3, 4] {
            assert!(matches!(c.known(now, ip(n)), Known::Cookie(..)), "{n}");
        }
        assert_eq!((c.peers.len(), c.by_ip.len()), (3, 3));
    }

    #[test]
    fn a_destination_that_loses_syns_with_data_is_spared_for_longer_each_time() {
        let mut c = cache();
        let mut now = Instant::ZERO;
        c.learn(now, ip(1), &learned(1), 8);
        let lost = Learned { cookie: None, lost: true, tried: true, ..learned(1) };
        c.learn(now, ip(1), &lost, 8);
        assert!(matches!(c.known(now, ip(1)), Known::Cookie(..)), "one may be chance");
        for minutes in [4, 8, 16] {
            c.learn(now, ip(1), &lost, 8);
            now += Duration::from_secs(60 * minutes - 1);
            assert_eq!(c.known(now, ip(1)), Known::Spared);
            now += Duration::from_secs(1);
            assert!(matches!(c.known(now, ip(1)), Known::Cookie(..)));
        }
        c.learn(now, ip(1), &Learned { tried: true, taken: true, cookie: None, ..learned(1) }, 8);
        c.learn(now, ip(1), &lost, 8);
        assert!(matches!(c.known(now, ip(1)), Known::Cookie(..)));
    }

    #[test]
    fn who_gives_no_cookie_is_asked_by_the_old_option_once() {
        let (mut c, now, plain) = (cache(), Instant::ZERO, Cookie::default());
        let old = plain.experimental();
        let mut vain = Learned { cookie: None, ..learned(1) };
        for (option, next) in [(plain, old), (old, plain), (plain, plain)] {
            vain.option = Some(option);
            c.learn(now, ip(1), &vain, 8);
            assert_eq!(c.known(now, ip(1)), Known::Nothing(next, 1000));
        }
        // Nobody who lost the SYN has answered the question.
        c.learn(now, ip(2), &Learned { lost: true, option: Some(plain), ..vain }, 8);
        assert_eq!(c.known(now, ip(2)), Known::Nothing(plain, 1000));
        c.forget();
        assert_eq!(c.known(now, ip(1)), Known::Nothing(plain, 0));
        assert!(c.by_ip.is_empty());
    }

    #[test]
    fn a_segment_size_is_learnt_without_a_cookie() {
        let (mut c, now) = (cache(), Instant::ZERO);
        c.learn(now, ip(1), &learned(1), 8);
        c.learn(now, ip(1), &Learned { cookie: None, mss: Some(940), ..learned(1) }, 8);
        assert_eq!(c.known(now, ip(1)), Known::Cookie(Cookie::new(&[1; 8]).unwrap(), 940));
        // Who does not answer says nothing of it.
        c.learn(now, ip(1), &Learned { cookie: None, mss: None, ..learned(1) }, 8);
        assert_eq!(c.known(now, ip(1)), Known::Cookie(Cookie::new(&[1; 8]).unwrap(), 940));
    }

    #[test]
    fn one_that_was_reset_counts_for_a_minute() {
        let (mut e, now) = (Early::default(), Instant::ZERO);
        e.begin();
        e.begin();
        e.end(now, false);
        assert_eq!(e.len(now), 1);
        e.end(now, true);
        assert_eq!(e.len(now + Duration::from_secs(59)), 1);
        assert_eq!(e.len(now + Duration::from_secs(60)), 0);
    }
}
