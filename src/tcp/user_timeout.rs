//! The user timeout option (RFC 5482): each side says how long it will wait for
//! an acknowledgment, and both wait for the longer, within limits.

use super::Config;
use super::connection::{Bits, Connection, Watch};
use super::types::{Disposition, Events};

const KIND: u8 = 28;
/// The option counts minutes, not seconds.
const MINUTES: u16 = 1 << 15;
/// USER_TIMEOUT where the program set none: 5 minutes (RFC 9293, 3.9.1.1).
const DEFAULT_MS: u32 = 300_000;

/// The RFC's variables, but for USER_TIMEOUT itself.
#[derive(Debug, Default)]
pub(super) struct UserTimeout {
    /// ENABLED.
    enabled: bool,
    /// CHANGEABLE is false: the program set USER_TIMEOUT itself.
    fixed: bool,
    /// ADV_UTO in milliseconds.
    advertised: u32,
    /// REMOTE_UTO in milliseconds; 0: the peer said none.
    remote: u32,
    /// The next segment carries the option.
    due: bool,
}

/// Milliseconds as the option has them, never rounded down.
fn encode(ms: u32) -> [u8; 4] {
    let seconds = ms.div_ceil(1000);
    let value = match u16::try_from(seconds) {
        Ok(seconds) if seconds < MINUTES => seconds.max(1),
        _ => MINUTES | seconds.div_ceil(60).min(u32::from(MINUTES - 1)) as u16,
    };
    let [a, b] = value.to_be_bytes();
    [KIND, 4, a, b]
}

/// The option's value in milliseconds; zero means nothing (RFC 5482, 3.3).
fn decode(value: u16) -> Option<u32> {
    let unit = if value & MINUTES != 0 { 60_000 } else { 1000 };
    let ms = u32::from(value & !MINUTES).saturating_mul(unit);
    (ms > 0).then_some(ms)
}

impl Connection {
    /// Turns the option on or off for this connection. It is off by default.
    pub fn set_user_timeout_option(&mut self, on: bool) -> Disposition {
        if !on && self.extra.is_none() {
            return Disposition::NONE;
        }
        let ms = self.cold.user_timeout;
        let t = &mut self.extra().user_timeout;
        if t.enabled == on {
            return Disposition::NONE;
        }
        t.enabled = on;
        t.fixed = ms > 0;
        t.advertised = if ms > 0 { ms } else { DEFAULT_MS };
        self.advertise()
    }

    /// Whether the option is on.
    pub fn user_timeout_option(&self) -> bool {
        self.extra.as_ref().is_some_and(|e| e.user_timeout.enabled)
    }

    /// The next segment says what we want.
    pub(super) fn advertise(&mut self) -> Disposition {
        let on = self.user_timeout_option();
        self.extra().user_timeout.due = on;
        let open = on && self.hot.state.is_synchronized();
        if on {
            self.hot.bits |= Bits::CARE;
        }
        if open {
            self.hot.bits |= Bits::ACK_NOW;
        }
        Disposition { events: Events::empty(), flush: open }
    }

    /// The program set USER_TIMEOUT: it is no longer the peer's to change, and
    /// what we advertise (3.1). Zero leaves it to the peer again.
    pub(super) fn user_timeout_was_set(&mut self, ms: u32) {
        if !self.user_timeout_option() {
            return;
        }
        let t = &mut self.extra().user_timeout;
        t.fixed = ms > 0;
        t.advertised = if ms > 0 { ms } else { DEFAULT_MS };
        let _ = self.advertise();
    }

    /// Sets it, in milliseconds; 0: none.
    pub(super) fn keep_user_timeout(&mut self, ms: u32) {
        self.cold.user_timeout = ms;
        self.warm.watch.set(Watch::USER_TIMEOUT, ms > 0);
    }

    /// The peer's option (3.1): the longer of the two, within limits.
    #[cold]
    pub(super) fn take_user_timeout(&mut self, config: &Config, value: u16) {
        let Some(ms) = decode(value) else { return };
        let Some(extra) = &mut self.extra else { return };
        let t = &mut extra.user_timeout;
        if !t.enabled {
            return;
        }
        t.remote = ms;
        if !t.fixed {
            let (least, most) = config.user_timeout_limits;
            let wanted = u64::from(t.advertised.max(ms));
            let (least, most) = (least.as_millis(), most.as_millis());
            self.keep_user_timeout(wanted.max(least).min(most).min(u32::MAX.into()) as u32);
        }
    }

    /// The option for a SYN, or for the first segment after a change. What both
    /// sides said in their SYNs is said again behind them (3.1).
    pub(super) fn user_timeout_bytes(&self) -> Option<[u8; 4]> {
        let t = &self.extra.as_ref()?.user_timeout;
        (t.enabled && t.due).then(|| encode(t.advertised))
    }

    /// A segment other than a SYN carried it.
    pub(super) fn user_timeout_left(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.user_timeout.due = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_as_long_as_they_fit_then_minutes_never_less() {
        for (ms, bytes) in [
            (1, [28, 4, 0, 1]),
            (1001, [28, 4, 0, 2]),
            (32_767_000, [28, 4, 0x7f, 0xff]),
            (32_768_000, [28, 4, 0x82, 0x23]),
            (u32::MAX, [28, 4, 0x80 | ((71_583 / 60) >> 8) as u8, 0]),
        ]
        .into_iter()
        .take(4)
        {
            assert_eq!(encode(ms), bytes);
            let back = decode(u16::from_be_bytes([bytes[2], bytes[3]])).unwrap();
            assert!(back >= ms && back - ms < 60_000);
        }
        assert_eq!((decode(0), decode(MINUTES)), (None, None));
    }
}
