//! Whether an adaptive worker spins before it sleeps.
//!
//! To spin pays where something comes soon: it saves the ways into the kernel and
//! out again. Where it does not, the time is lost and the sleep comes all the same.
//! So the waits that were decide about the next one.

use crate::time::Duration;

/// Waits in a row that change a firm mind, and the most that are remembered.
const MIND: u8 = 2;
const FIRM: u8 = 3;

/// The waits of late, as a number: short ones count it up, long ones down.
#[derive(Debug)]
pub(super) struct Patience {
    /// How long a wait may be spun through.
    most: Duration,
    score: u8,
    /// The worker has found nothing to do since there was something.
    waits: bool,
}

impl Patience {
    /// Spins at first.
    pub fn new(most: Duration) -> Self {
        Self { most, score: FIRM, waits: false }
    }

    /// There is nothing to do, since so long: is it time to sleep?
    #[inline]
    pub fn is_over(&mut self, since: Duration) -> bool {
        self.waits = true;
        self.score < MIND || since >= self.most
    }

    /// There is something to do again, after so long.
    #[inline]
    pub fn heard(&mut self, since: Duration) {
        if self.waits {
            self.waits = false;
            self.score = if since < self.most { FIRM.min(self.score + 1) } else { self.score.saturating_sub(1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(50);

    /// A wait of so long, looked at every microsecond; how much of it was spun.
    fn wait(patience: &mut Patience, micros: u64) -> u64 {
        let spun = (0..micros).find(|us| patience.is_over(Duration::from_micros(*us))).unwrap_or(micros);
        patience.heard(Duration::from_micros(micros));
        spun
    }

    #[test]
    fn short_waits_are_spun_through() {
        let mut patience = Patience::new(MOST);
        assert!((0..100).all(|i| wait(&mut patience, 3 + i % 40) == 3 + i % 40));
    }

    #[test]
    fn where_waits_are_long_it_sleeps_at_once() {
        let mut patience = Patience::new(MOST);
        let spun: u64 = (0..1000).map(|_| wait(&mut patience, 200)).sum();
        assert_eq!(spun, 2 * 50, "after two that were too long");
    }

    #[test]
    fn it_spins_again_when_waits_become_short() {
        let mut patience = Patience::new(MOST);
        (0..10).for_each(|_| _ = wait(&mut patience, 1000));
        assert_eq!([10, 10, 10].map(|us| wait(&mut patience, us)), [0, 0, 10]);
        // One that is long does not change its mind.
        assert_eq!([10, 500, 10].map(|us| wait(&mut patience, us)), [10, 50, 10]);
    }

    #[test]
    fn work_without_a_wait_says_nothing_about_waits() {
        let mut patience = Patience::new(MOST);
        for _ in 0..10 {
            wait(&mut patience, 1000);
            // The next turns have something to do, too.
            (0..5).for_each(|_| patience.heard(Duration::from_micros(1)));
        }
        assert_eq!(wait(&mut patience, 1000), 0);
    }
}
