//! Reno's window growth (RFC 5681, 3.1), counting bytes (RFC 3465).

use super::Ack;

/// What Reno keeps.
#[derive(Clone, Debug, Default)]
pub struct Reno {
    /// Bytes acknowledged since the window last grew.
    counted: u32,
}

impl Reno {
    /// Doubles a round trip in slow start, a segment a round trip after it. As
    /// many bytes count as were acknowledged, so that one ACK for a batch, or
    /// many for a segment (ACK division), make no difference.
    #[inline]
    pub fn on_ack(&mut self, window: &mut u32, threshold: u32, ack: &Ack) {
        let mut bytes = ack.acked;
        if *window < threshold {
            let grow = bytes.min(threshold - *window);
            *window += grow;
            bytes -= grow;
        }
        self.counted = self.counted.saturating_add(bytes);
        if self.counted >= *window && bytes > 0 {
            self.counted -= *window;
            *window = window.saturating_add(ack.mss);
        }
    }

    /// Growth starts anew.
    pub fn on_timeout(&mut self) {
        self.counted = 0;
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
        reno.on_ack(&mut window, 15_000, &ack(3000));
        assert_eq!(window, 13_000);
        reno.on_ack(&mut window, 15_000, &ack(3000));
        assert_eq!(window, 15_000);
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
