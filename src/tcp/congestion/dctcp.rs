//! DCTCP (RFC 8257): the window shrinks by as much as is marked. Growth and loss
//! are Reno's (3.4, 3.5).

use super::Ack;
use super::reno::Reno;
use crate::tcp::seq;

/// Alpha's one.
const ONE: u32 = 1 << 20;
/// g is 1/16.
const G_SHIFT: u32 = 4;

/// What DCTCP keeps.
#[derive(Clone, Debug)]
pub struct Dctcp {
    pub reno: Reno,
    /// The share of marked bytes, smoothed.
    alpha: u32,
    acked: u32,
    marked: u32,
    /// The observation window ends when this is acknowledged.
    end: Option<u32>,
}

impl Default for Dctcp {
    fn default() -> Self {
        // 3.3: the first mark halves the window.
        Self { reno: Reno::default(), alpha: ONE, acked: 0, marked: 0, end: None }
    }
}

impl Dctcp {
    /// Counts what was acknowledged with and without ECE (3.3, steps 1 to 8).
    pub fn count(&mut self, ack: &Ack) {
        self.acked = self.acked.saturating_add(ack.acked);
        if ack.ece {
            self.marked = self.marked.saturating_add(ack.acked);
        }
        let Some(end) = self.end else {
            self.end = Some(ack.nxt);
            return;
        };
        if seq::lt(ack.una, end) || self.acked == 0 {
            return;
        }
        let share = (u64::from(self.marked) * u64::from(ONE) / u64::from(self.acked)) as u32;
        self.alpha = self.alpha - (self.alpha >> G_SHIFT) + (share >> G_SHIFT);
        if share == 0 && self.alpha < 1 << G_SHIFT {
            // Where the shift would leave a rest for ever.
            self.alpha = 0;
        }
        (self.acked, self.marked, self.end) = (0, 0, Some(ack.nxt));
    }

    /// A mark, at most once a window: cwnd * (1 - alpha / 2) (step 9).
    pub fn reduce(&self, window: u32, mss: u32) -> u32 {
        let cut = (u64::from(window) * u64::from(self.alpha) / u64::from(2 * ONE)) as u32;
        (window - cut).max(2 * mss)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    /// A window of ten ACKs, the first so many of them with ECE.
    fn window(d: &mut Dctcp, number: u32, marked: u32) {
        for i in 1..=10 {
            let una = number * 10_000 + i * 1000;
            let ack = Ack { una, nxt: una + 10_000, ece: i <= marked, ..testing::ack(1000) };
            d.count(&ack);
        }
    }

    #[test]
    fn alpha_follows_the_share_of_marks_by_a_sixteenth_each_window() {
        let mut d = Dctcp::default();
        assert_eq!(d.reduce(100_000, 1000), 50_000, "the first mark halves");
        for number in 0..12 {
            window(&mut d, number, 0);
        }
        let after = f64::from(d.alpha) / f64::from(ONE);
        assert!((after - (15.0f64 / 16.0).powi(11)).abs() < 0.05, "{after}");
        for number in 12..200 {
            window(&mut d, number, 2);
        }
        let share = f64::from(d.alpha) / f64::from(ONE);
        assert!((share - 0.2).abs() < 0.02, "{share}");
        let reduced = d.reduce(100_000, 1000);
        assert!((89_000..91_000).contains(&reduced), "{reduced}");
    }

    #[test]
    fn all_marked_is_one_and_none_marked_is_none_in_the_end() {
        let mut d = Dctcp::default();
        (0..50).for_each(|number| window(&mut d, number, 10));
        assert!(d.alpha > ONE - ONE / 100);
        (50..300).for_each(|number| window(&mut d, number, 0));
        assert_eq!(d.reduce(100_000, 1000), 100_000);
    }
}
