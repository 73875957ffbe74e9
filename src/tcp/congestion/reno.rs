//! Reno's window growth (RFC 5681, 3.1), counting bytes (RFC 3465).

use super::Ack;

/// What Reno keeps.
#[derive(Clone, Debug, Default)]
pub struct Reno {
    /// Bytes acknowledged since the window last grew.
    counted: u32,
    /// Slow start after a time-out: ACKs may stand for what was sent before it.
    after_timeout: bool,
}

impl Reno {
    /// Doubles a round trip in slow start, a segment a round trip after it. As
    /// many bytes count as were acknowledged, so that many ACKs for a segment
    /// (ACK division) make no difference; of one ACK at most two segments in slow
    /// start, one after a time-out (RFC 3465, 2.2 and 2.3).
    pub fn on_ack(&mut self, window: &mut u32, threshold: u32, ack: &Ack) {
        let mut bytes = ack.acked;
        if *window < threshold {
            let most = if self.after_timeout { ack.mss } else { 2 * ack.mss };
            let grow = bytes.min(most * ack.acks).min(threshold - *window);
            *window += grow;
            if *window < threshold {
                return;
            }
            bytes -= grow;
        }
        self.after_timeout = false;
        self.counted = self.counted.saturating_add(bytes);
        if self.counted >= *window && bytes > 0 {
            self.counted -= *window;
            *window = window.saturating_add(ack.mss);
        }
    }

    /// Growth starts anew.
    pub fn on_timeout(&mut self) {
        *self = Self { counted: 0, after_timeout: true };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(bytes: u32) -> Ack {
        super::super::testing::ack(bytes)
    }

    #[test]
    fn slow_start_grows_by_what_was_acknowledged_up_to_the_threshold() {
        let (mut reno, mut window) = (Reno::default(), 10_000);
        reno.on_ack(&mut window, 13_000, &ack(2000));
        assert_eq!(window, 12_000);
        reno.on_ack(&mut window, 13_000, &ack(2000));
        assert_eq!(window, 13_000);
    }

    #[test]
    fn one_ack_for_much_lets_slow_start_grow_by_two_segments() {
        let (mut reno, mut window) = (Reno::default(), 10_000);
        reno.on_ack(&mut window, u32::MAX, &ack(9000));
        assert_eq!(window, 12_000);
        reno.on_timeout();
        reno.on_ack(&mut window, u32::MAX, &ack(9000));
        assert_eq!(window, 13_000, "after a time-out by one");
    }

    #[test]
    fn dividing_acks_gains_nothing() {
        let (mut whole, mut a) = (Reno::default(), 10_000);
        let (mut parts, mut b) = (Reno::default(), 10_000);
        for _ in 0..100 {
            whole.on_ack(&mut a, 20_000, &ack(1000));
            (0..100).for_each(|_| parts.on_ack(&mut b, 20_000, &ack(10)));
        }
        assert_eq!(a, b);
    }

    #[test]
    fn avoidance_grows_by_a_segment_for_each_window_acknowledged() {
        let (mut reno, mut window) = (Reno::default(), 10_000);
        for _ in 0..9 {
            reno.on_ack(&mut window, 5000, &ack(1000));
        }
        assert_eq!(window, 10_000);
        reno.on_ack(&mut window, 5000, &ack(1000));
        assert_eq!(window, 11_000);
    }
}
