//! Proportional rate reduction (RFC 6937; the safe bound of RFC 9937): in fast
//! recovery, what may leave follows from what arrived.

/// What is counted through one recovery, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::tcp) struct Prr {
    /// Delivered since it began.
    delivered: u32,
    /// Sent since it began.
    out: u32,
    /// Under way when it began (RecoverFS).
    flight: u32,
}

impl Prr {
    /// Recovery begins.
    pub fn begin(&mut self, flight: u32) {
        *self = Self { delivered: 0, out: 0, flight: flight.max(1) };
    }

    /// So many bytes left.
    pub fn sent(&mut self, bytes: u32) {
        self.out = self.out.saturating_add(bytes);
    }

    /// How much may leave beyond what is under way, after an ACK that delivered so
    /// many bytes. `safe`: the cumulative number moved on, and no more losses
    /// came to light.
    pub fn room(&mut self, delivered: u32, safe: bool, pipe: u32, threshold: u32, mss: u32) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let room = if pipe > threshold {
            // Over the target: so much out for so much in.
            let share = u64::from(self.delivered) * u64::from(threshold);
            let share = share.div_ceil(self.flight.into()).min(u32::MAX.into()) as u32;
            share.saturating_sub(self.out)
        } else {
            let mut room = self.delivered.saturating_sub(self.out).max(delivered);
            if safe {
                room += mss;
            }
            room.min(threshold - pipe)
        };
        // The first repair leaves at once.
        if self.out == 0 { room.max(mss) } else { room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6937, section 4, first example: 20 segments in flight, the first is
    /// lost, the target is half: one segment out for two in.
    #[test]
    fn the_window_shrinks_evenly_over_the_round_trip() {
        let mut prr = Prr::default();
        prr.begin(20);
        let (mut pipe, mut sent) = (16, Vec::new());
        for i in 0..16 {
            let room = prr.room(1, false, pipe, 10, 1);
            prr.sent(room);
            sent.push(room);
            pipe = pipe + room - 1;
            assert!(pipe >= 9, "at {i}");
        }
        assert_eq!(sent.iter().sum::<u32>(), 9);
        assert!(sent.windows(2).all(|w| w[0] + w[1] <= 2), "no burst: {sent:?}");
    }

    /// The second example: 15 of 20 are lost. What is out never exceeds what was
    /// delivered, and grows by one a safe ACK.
    #[test]
    fn under_the_target_no_more_leaves_than_arrived_but_one_for_each_safe_ack() {
        let mut prr = Prr::default();
        prr.begin(20);
        let mut pipe = 4;
        for _ in 0..4 {
            let room = prr.room(1, false, pipe, 10, 1);
            assert_eq!(room, 1);
            prr.sent(room);
            pipe = pipe - 1 + room;
        }
        let room = prr.room(1, true, pipe - 1, 10, 1);
        assert_eq!(room, 2, "it may grow again");
        assert_eq!(prr.room(1, true, 9, 10, 1), 1, "up to the target");
        assert_eq!(prr.room(3, true, 10, 10, 1), 0);
    }

    #[test]
    fn the_first_repair_waits_for_nothing() {
        let mut prr = Prr::default();
        prr.begin(20_000);
        assert_eq!(prr.room(1000, false, 16_000, 1000, 1000), 1000);
    }
}
