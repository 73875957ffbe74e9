//! What each program must see, whatever the stack does: what can happen to a
//! connection, which errors each such thing allows, and what has to be true in
//! the end.

use crate::features::{Features, Has};
use crate::program::Program;
use crate::scenario::ConnPlan;
use bitflags::bitflags;
use ringroad::errno::Errno;
use ringroad::time::{Duration, Instant};

bitflags! {
    /// What happened to a connection, or may have.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Cause: u32 {
        /// A program aborted it, or closed before it had read all.
        const ABORTED = 1;
        /// Packets can get lost: ARP may fail, which ends an open that is under way.
        const LOSSY = 1 << 1;
        /// Nothing came through for longer than some timer allows.
        const SILENCE = 1 << 2;
        /// Its listener was closed at some time before it was accepted.
        const REFUSED = 1 << 3;
        /// A host of it restarted.
        const RESTARTED = 1 << 4;
        /// A host of it lost its address at some time before it was open.
        const ADDRESS = 1 << 5;
        /// A table of one of its hosts may have been full.
        const TABLE = 1 << 6;
        /// Its timers are so short that a bad wire or a pause may end it.
        const IMPATIENT = 1 << 7;
        /// A SYN cookie takes only the segment after the SYN: if another comes first,
        /// the connection is reset.
        const COOKIE = 1 << 8;
        /// The connection before it, of the same ports, may still be there.
        const REUSED = 1 << 9;
        /// It stood still for long while its host had no frames.
        const STARVED = 1 << 10;
    }
}

/// Each cause with the errors that a program may see of it.
const ALLOWED: [(Cause, &[Errno]); 11] = {
    use Errno::*;
    [
        (Cause::ABORTED, &[ECONNRESET, EPIPE, ECONNREFUSED]),
        (Cause::LOSSY, &[EHOSTUNREACH]),
        (Cause::SILENCE, &[ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ECONNRESET, EPIPE]),
        (Cause::REFUSED, &[ECONNREFUSED, ECONNRESET, EPIPE]),
        (Cause::RESTARTED, &[ECONNRESET, EPIPE, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH]),
        (Cause::ADDRESS, &[EHOSTUNREACH, ENETUNREACH, EADDRNOTAVAIL, ETIMEDOUT, ECONNRESET, EPIPE]),
        (Cause::TABLE, &[ENOBUFS, ETIMEDOUT, EHOSTUNREACH, ECONNRESET, EPIPE]),
        // Refused: its listener was closed when its SYN came once more.
        (Cause::IMPATIENT, &[ETIMEDOUT, ECONNRESET, EPIPE, ECONNREFUSED]),
        (Cause::COOKIE, &[ECONNRESET, EPIPE, ECONNREFUSED]),
        (Cause::REUSED, &[EADDRNOTAVAIL]),
        (Cause::STARVED, &[ECONNABORTED, ECONNRESET, EPIPE]),
    ]
};

/// A connection as the model knows it.
#[derive(Debug)]
pub struct Record {
    pub causes: Cause,
    /// Where its programs are, once they are.
    pub programs: [Option<usize>; 2],
}

/// What may happen to any connection of a run with these features.
pub fn general(features: &Features) -> Cause {
    let has = features.has;
    let mut causes = Cause::empty();
    causes.set(Cause::LOSSY, features.lossy());
    causes.set(Cause::TABLE, has.intersects(Has::SMALL_TABLES | Has::COOKIES | Has::FAST_OPEN));
    let reordered = features.lossy() || has.intersects(Has::REORDER | Has::DUPLICATE | Has::GATEWAYS | Has::MTU);
    causes.set(Cause::COOKIE, has.contains(Has::COOKIES) && reordered);
    let trouble = features.lossy() || has.intersects(Has::LONG_PAUSES | Has::MTU | Has::GATEWAYS);
    let silence = Has::CUT | Has::ADDRESSES | Has::BURSTS | Has::GATEWAYS | Has::MTU;
    let short = has.contains(Has::IMPATIENT) && (trouble || has.intersects(Has::DELAY | Has::LATE_WORKER | Has::SLOW_COMPLETIONS | Has::READ_PAUSES | Has::SLOW_ACCEPT | Has::JITTER | Has::REORDER));
    // On a bad wire the peer's user timeout, five minutes (RFC 5482), is a few time-outs,
    // and so is a handshake's after a cut.
    let few = has.intersects(Has::USER_TIMEOUT | Has::CUT) && features.lossy() && features.damage > 0.1;
    let short = short || few;
    causes.set(Cause::IMPATIENT, short || has.contains(Has::ODD_TIMES) && has.intersects(silence | Has::LONG_PAUSES));
    causes.set(Cause::STARVED, has.contains(Has::FEW_FRAMES | Has::LONG_PAUSES));
    causes.set(Cause::SILENCE, has.contains(Has::CUT_FOR_EVER));
    causes
}

/// Whether a program may have seen this error.
fn allows(causes: Cause, error: Errno) -> bool {
    ALLOWED.iter().any(|(cause, errors)| causes.intersects(*cause) && errors.contains(&error))
}

/// A connection's end, all in all.
pub struct Verdict<'a> {
    pub number: usize,
    pub plan: &'a ConnPlan,
    pub causes: Cause,
    pub client: &'a Program,
    pub server: Option<&'a Program>,
    /// Why, where it is not as it must be.
    pub present: String,
}

impl Verdict<'_> {
    /// Checks it. True where it had to be whole, and was.
    pub fn check(mut self) -> bool {
        let number = self.number;
        for p in [Some(self.client), self.server].into_iter().flatten() {
            assert!(p.is_done(), "{} did not end:\n{}", p.name(), self.present);
            if p.aborted || p.closed_early {
                self.causes |= Cause::ABORTED;
            }
        }
        let (client, causes) = (self.client, self.causes);
        for p in [Some(client), self.server].into_iter().flatten() {
            if let Some(error) = p.error {
                assert!(allows(causes, error), "{}: {error:?} after {causes:?}", p.name());
            }
        }
        let Some(server) = self.server else {
            let left = client.error.is_some() || client.killed || client.aborted || client.finished;
            assert!(left, "connection {number} was not accepted, and its client saw nothing");
            let unseen = client.error.is_none() && client.finished && !client.eof;
            assert!(!unseen || !causes.is_empty(), "connection {number} was never accepted");
            return false;
        };
        for (from, to) in [(client, server), (server, client)] {
            assert!(to.received <= from.sent, "{}: more than was sent", to.name());
            // A SYN with data or a cookie that comes again after an abort makes a
            // connection anew (RFC 7413, 6.1).
            let anew = causes.contains(Cause::TABLE) && from.aborted;
            if to.eof && !anew {
                assert!(from.finished, "{}: an end that nobody sent", to.name());
                assert_eq!(to.received, from.sent, "{}: an end before all arrived", to.name());
            }
            let whole = to.eof && to.finished || to.aborted || to.closed_early || to.killed;
            assert!(whole || to.error.is_some(), "{}: neither whole nor failed", to.name());
        }
        let strict = causes - (Cause::LOSSY | Cause::TABLE | Cause::REUSED);
        if !strict.is_empty() {
            return false;
        }
        self.check_whole(client, server);
        true
    }

    /// Nothing happened that could end it: every byte arrived both ways, and in time.
    fn check_whole(&self, client: &Program, server: &Program) {
        for (from, to) in [(client, server), (server, client)] {
            assert_eq!(to.error, None, "{}", to.name());
            assert!(to.eof && to.finished, "{}: no end", to.name());
            assert_eq!((from.sent, to.received), (from.plan.send, from.plan.send), "{}", to.name());
            let took = to.ended.since(client.began);
            assert!(took <= self.patience(), "{} took {took:?}", to.name());
        }
    }

    /// How long it may take at most: the pauses of its programs, four bytes a
    /// millisecond, and two hours of time-outs that double.
    fn patience(&self) -> Duration {
        let mut ms = 7_200_000;
        for side in &self.plan.sides {
            let calls = |chunk: usize| side.send.max(self.plan.sides[0].send) / chunk.max(1) as u64 + 1;
            ms += side.stop.map_or(0, |(_, pause)| pause.as_millis());
            ms += side.write_pause.as_millis() * calls(1);
            ms += side.read_pause.as_millis() * self.plan.sides.iter().map(|s| s.send).sum::<u64>();
            ms += side.send / 4;
        }
        Duration::from_millis(ms)
    }
}

/// When a run has taken too long whatever its connections do.
pub fn longest() -> Instant {
    Instant::ZERO + Duration::from_secs(24 * 3600)
}
