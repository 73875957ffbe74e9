//! Congestion control: how much may be under way (RFC 5681).
//!
//! An algorithm sees acknowledgments in batches (one [`Ack`] a turn at most, for
//! all bytes acknowledged in it), the start and end of recovery, and time-outs.

mod reno;

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 5681.
    #[default]
    Reno,
}

impl Algorithm {
    /// Its name, as TCP_CONGESTION has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reno => "reno",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "reno" => Some(Self::Reno),
            _ => None,
        }
    }
}

/// An acknowledgment of new data, outside of recovery.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// Bytes newly acknowledged.
    pub bytes: u32,
    /// Payload bytes of a full segment.
    pub mss: u32,
    /// The window, not the program or the peer, held the sender back.
    pub window_limited: bool,
}

/// The window, its threshold, and what the algorithm keeps.
#[derive(Clone, Debug)]
pub struct Congestion {
    /// Bytes that may be under way.
    pub window: u32,
    /// Slow start ends here, in bytes.
    pub threshold: u32,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Reno(reno::Reno),
}

impl Congestion {
    /// At the start of a connection: `initial` segments of `mss` bytes.
    pub fn new(algorithm: Algorithm, initial: u32, mss: u32) -> Self {
        let kind = match algorithm {
            Algorithm::Reno => Kind::Reno(reno::Reno::default()),
        };
        Self { window: initial * mss, threshold: u32::MAX, kind }
    }

    /// Which algorithm it is.
    pub fn algorithm(&self) -> Algorithm {
        match self.kind {
            Kind::Reno(_) => Algorithm::Reno,
        }
    }

    /// Goes on with another algorithm; window and threshold stay.
    pub fn switch(&mut self, algorithm: Algorithm) {
        self.kind = Self::new(algorithm, 0, 0).kind;
    }

    /// New data was acknowledged.
    #[inline]
    pub fn on_ack(&mut self, ack: &Ack) {
        if !ack.window_limited {
            return;
        }
        match &mut self.kind {
            Kind::Reno(reno) => reno.on_ack(&mut self.window, self.threshold, ack),
        }
    }

    /// Fast recovery begins, with `flight` bytes outstanding (RFC 5681, eq. 4).
    pub fn on_recovery(&mut self, flight: u32, mss: u32) {
        self.threshold = match &self.kind {
            Kind::Reno(_) => (flight / 2).max(2 * mss),
        };
        self.window = self.threshold;
    }

    /// Recovery is over.
    pub fn on_recovered(&mut self, flight: u32, mss: u32) {
        // RFC 6582, 3.2, step 3, option 1: no burst where little is under way.
        self.window = self.threshold.min(flight.max(mss) + mss);
    }

    /// The retransmission timer expired; `first`: for the first time for this
    /// data (RFC 5681, 3.1).
    pub fn on_timeout(&mut self, flight: u32, mss: u32, first: bool) {
        if first {
            self.threshold = (flight / 2).max(2 * mss);
        }
        self.window = mss;
        match &mut self.kind {
            Kind::Reno(reno) => reno.on_timeout(),
        }
    }

    /// Nothing was sent for longer than an RTO (RFC 5681, 4.1).
    pub fn on_idle(&mut self, initial: u32, mss: u32) {
        self.window = self.window.min(initial * mss);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_algorithm() {
        assert_eq!(Algorithm::from_name(Algorithm::Reno.name()), Some(Algorithm::Reno));
        assert_eq!(Algorithm::from_name("vegas"), None);
    }

    #[test]
    fn loss_halves_and_a_timeout_starts_over() {
        let mut c = Congestion::new(Algorithm::Reno, 10, 1000);
        assert_eq!(c.window, 10_000);
        c.on_recovery(10_000, 1000);
        assert_eq!((c.window, c.threshold), (5000, 5000));
        c.on_recovered(1000, 1000);
        assert_eq!(c.window, 2000);
        c.on_timeout(8000, 1000, true);
        assert_eq!((c.window, c.threshold), (1000, 4000));
        c.on_timeout(1000, 1000, false);
        assert_eq!((c.window, c.threshold), (1000, 4000));
        c.on_recovery(1000, 1000);
        assert_eq!(c.threshold, 2000);
    }

    #[test]
    fn an_idle_connection_restarts_at_the_initial_window() {
        let mut c = Congestion::new(Algorithm::Reno, 10, 1000);
        c.window = 50_000;
        c.on_idle(10, 1000);
        assert_eq!(c.window, 10_000);
        c.window = 3000;
        c.on_idle(10, 1000);
        assert_eq!(c.window, 3000);
    }
}
