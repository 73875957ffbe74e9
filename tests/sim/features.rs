//! Which features a seed has at all. A seed with everything a little hides what
//! a seed with few things much shows (swarm testing), so each is on or off.

use crate::draw::Draw;
use bitflags::bitflags;

bitflags! {
    /// Things that a run can have.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Has: u64 {
        // The wire.
        const LOSS = 1;
        const REORDER = 1 << 1;
        const DUPLICATE = 1 << 2;
        const CORRUPT = 1 << 3;
        const TRUNCATE = 1 << 4;
        const DELAY = 1 << 5;
        const JITTER = 1 << 6;
        /// A rate, and a queue before it.
        const RATE = 1 << 7;
        /// Times in which all is lost.
        const BURSTS = 1 << 8;
        /// Congestion marks.
        const MARKS = 1 << 9;
        /// The wire is cut for some seconds, wholly or between some hosts.
        const CUT = 1 << 10;
        const CUT_FOR_EVER = 1 << 11;
        /// Three to eight hosts.
        const HOSTS = 1 << 12;
        const RAW_IP = 1 << 13;
        /// Gateways with a smaller packet size; routes that lead over them and back.
        const GATEWAYS = 1 << 14;
        // The devices.
        const SLOW_COMPLETIONS = 1 << 15;
        const SMALL_RINGS = 1 << 16;
        const LATE_WORKER = 1 << 17;
        // The stacks.
        const FEW_FRAMES = 1 << 18;
        const SMALL_TABLES = 1 << 19;
        const SMALL_BUFFERS = 1 << 20;
        const SMALL_SEGMENTS = 1 << 21;
        /// Options of the protocol off in some hosts.
        const PLAIN = 1 << 22;
        /// Timers at the edges of what they can be.
        const ODD_TIMES = 1 << 23;
        /// Short user time-outs, keepalive every second, few retries.
        const IMPATIENT = 1 << 24;
        /// Sequence numbers that begin shortly before 2^32.
        const WRAP = 1 << 25;
        // What happens.
        const RESTARTS = 1 << 26;
        const REOPENED = 1 << 27;
        const ADDRESSES = 1 << 28;
        const MTU = 1 << 29;
        // The programs.
        const ABORTS = 1 << 30;
        const EARLY_CLOSE = 1 << 31;
        const READ_PAUSES = 1 << 32;
        const WRITE_PAUSES = 1 << 33;
        /// A reader that stops for long: zero windows.
        const LONG_PAUSES = 1 << 34;
        const MANY = 1 << 35;
        const BIG = 1 << 36;
        const OPTIONS = 1 << 37;
        /// Options that change while a connection runs.
        const CHANGES = 1 << 38;
        const ZERO_COPY = 1 << 39;
        /// Peeks, vectors, MSG_MORE.
        const FLAGS = 1 << 40;
        const DATAGRAMS = 1 << 41;
        const LOOPBACK = 1 << 42;
        /// Ports bound by the client, and used again.
        const BOUND = 1 << 43;
        const KEEPALIVE = 1 << 44;
        /// Listeners whose program is slow to accept.
        const SLOW_ACCEPT = 1 << 45;
        /// Listeners that answer with SYN cookies, or that never do.
        const COOKIES = 1 << 46;
        /// Opens with data in the SYN.
        const FAST_OPEN = 1 << 47;
        /// Listeners that wait for data.
        const DEFERRED = 1 << 48;
        /// Bytes that are sent as urgent.
        const URGENT = 1 << 49;
        /// Connections that begin where one like them is in TIME-WAIT.
        const REUSE = 1 << 50;
        /// Hosts that ask for ECN, and such that do not grant it.
        const ECN = 1 << 51;
        /// The user timeout option.
        const USER_TIMEOUT = 1 << 52;
    }
}

/// Kinds of scenarios. All but the last have their features given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing goes wrong.
    Perfect,
    /// Up to a few percent of everything.
    Bad,
    /// Up to 15 percent of everything.
    Terrible,
    /// A bottleneck with little room before it.
    Slow,
    /// Pools that run dry.
    FewFrames,
    /// Programs close early and abort.
    Aborts,
    /// Nothing passes for some seconds.
    Cut,
    /// From some time on nothing passes.
    CutForEver,
    /// Many small connections.
    Many,
    /// Sequence numbers across 2^32.
    Wrap,
    /// Large transfers.
    Big,
    /// Hosts that restart, listeners that close, addresses and routes that change.
    Upheaval,
    /// Urgent bytes, read in line and apart.
    Urgent,
    /// Connections that begin where one like them is in TIME-WAIT.
    Reuse,
    /// Data in the SYN, cookies, ECN.
    Opens,
    /// Timers at their edges, and options that change: congestion control, keepalive,
    /// user time-outs.
    Settings,
    /// Any of it, drawn from the seed.
    Swarm,
}

impl Class {
    pub const ALL: [Self; 17] = [
        Self::Perfect,
        Self::Bad,
        Self::Terrible,
        Self::Slow,
        Self::FewFrames,
        Self::Aborts,
        Self::Cut,
        Self::CutForEver,
        Self::Many,
        Self::Wrap,
        Self::Big,
        Self::Upheaval,
        Self::Urgent,
        Self::Reuse,
        Self::Opens,
        Self::Settings,
        Self::Swarm,
    ];

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| format!("{c:?}").eq_ignore_ascii_case(name))
    }
}

/// What a run has, and how bad its wire is.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub has: Has,
    /// The largest probability of each kind of damage.
    pub damage: f64,
}

const WIRE: Has = Has::LOSS
    .union(Has::REORDER)
    .union(Has::DUPLICATE)
    .union(Has::CORRUPT)
    .union(Has::TRUNCATE)
    .union(Has::DELAY);
/// What a program may do in any class.
const PROGRAMS: Has = Has::OPTIONS.union(Has::READ_PAUSES).union(Has::FLAGS).union(Has::ZERO_COPY);

impl Features {
    pub fn draw(class: Class, d: &mut Draw) -> Self {
        let mut has = match class {
            Class::Perfect => Has::DELAY | PROGRAMS | Has::DATAGRAMS,
            Class::Bad | Class::Terrible => WIRE | PROGRAMS | Has::DATAGRAMS,
            Class::Slow => Has::RATE | Has::DELAY | PROGRAMS | Has::MARKS | Has::ECN,
            Class::FewFrames => WIRE | Has::FEW_FRAMES | PROGRAMS,
            Class::Aborts => WIRE | PROGRAMS | Has::ABORTS | Has::EARLY_CLOSE | Has::KEEPALIVE,
            Class::Cut => WIRE | PROGRAMS | Has::CUT,
            Class::CutForEver => WIRE | PROGRAMS | Has::CUT_FOR_EVER,
            Class::Many => WIRE | PROGRAMS | Has::MANY,
            Class::Wrap => WIRE | PROGRAMS | Has::WRAP,
            Class::Big => Has::BIG | Has::DELAY | Has::OPTIONS,
            Class::Upheaval => {
                let all = [Has::RESTARTS, Has::REOPENED, Has::ADDRESSES, Has::MTU, Has::GATEWAYS];
                Has::DELAY | Has::HOSTS | PROGRAMS | d.pick(&all) | d.pick(&all)
            }
            Class::Urgent => WIRE | PROGRAMS | Has::URGENT,
            Class::Reuse => WIRE | PROGRAMS | Has::REUSE,
            Class::Opens => Has::DELAY | PROGRAMS | if d.one_in(2) { WIRE } else { Has::empty() } | Has::FAST_OPEN | Has::COOKIES | Has::ECN | Has::MARKS | Has::DEFERRED,
            Class::Settings => {
                let times = Has::ODD_TIMES | Has::LONG_PAUSES | Has::KEEPALIVE | Has::USER_TIMEOUT;
                // Both together may end any connection.
                let times = times - d.pick(&[Has::ODD_TIMES, Has::LONG_PAUSES]);
                Has::DELAY | PROGRAMS | Has::CHANGES | times
            }
            Class::Swarm => return Self::swarm(d),
        };
        // Some of what a class can have.
        let some = if class == Class::Settings { Has::FLAGS | Has::ZERO_COPY } else { WIRE | PROGRAMS };
        for feature in some.iter() {
            if d.one_in(3) && !(class == Class::Perfect && feature == Has::DELAY) {
                has.remove(feature);
            }
        }
        let extras = [Has::JITTER, Has::RAW_IP, Has::SLOW_COMPLETIONS, Has::SMALL_RINGS];
        let extras = extras.into_iter().chain([Has::PLAIN, Has::LOOPBACK, Has::KEEPALIVE, Has::SMALL_BUFFERS]);
        for feature in extras {
            has.set(feature, has.contains(feature) || d.one_in(4));
        }
        let damage = if class == Class::Terrible { 0.15 } else { 0.04 };
        Self { has: Self::sensible(has), damage }
    }

    fn swarm(d: &mut Draw) -> Self {
        let mut has = Has::empty();
        for feature in Has::all().iter() {
            // How often: never so often that nothing is left to be checked strictly.
            let one_in = match feature {
                Has::CUT_FOR_EVER | Has::RESTARTS | Has::ADDRESSES | Has::IMPATIENT => 10,
                Has::ABORTS | Has::EARLY_CLOSE | Has::REOPENED | Has::SMALL_TABLES => 6,
                Has::MANY => 12,
                Has::BIG => 60,
                Has::CUT | Has::BURSTS | Has::FEW_FRAMES | Has::LONG_PAUSES | Has::RAW_IP => 5,
                _ => 3,
            };
            has.set(feature, d.one_in(one_in));
        }
        let damage = d.pick(&[0.002, 0.01, 0.04, 0.15]);
        Self { has: Self::sensible(has), damage }
    }

    /// Without what does not go together.
    fn sensible(mut has: Has) -> Has {
        if has.contains(Has::RAW_IP) {
            has.remove(Has::GATEWAYS);
        }
        if has.contains(Has::BIG) {
            // Large and slow takes too long.
            has.remove(Has::MANY | Has::SMALL_SEGMENTS | Has::SMALL_BUFFERS | Has::FEW_FRAMES);
        }
        if has.contains(Has::CUT_FOR_EVER) {
            has.remove(Has::DATAGRAMS | Has::CUT);
        }
        has
    }

    /// Packets can get lost, so that ARP and short patience may fail.
    pub fn lossy(&self) -> bool {
        self.has.intersects(
            Has::LOSS
                | Has::CORRUPT
                | Has::TRUNCATE
                | Has::BURSTS
                | Has::RATE
                | Has::CUT
                | Has::CUT_FOR_EVER
                | Has::FEW_FRAMES
                | Has::SMALL_RINGS
                | Has::SMALL_TABLES
                | Has::MANY
                | Has::ADDRESSES
                | Has::RESTARTS,
        )
    }
}
