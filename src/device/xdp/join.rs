//! Received packets of several buffers, put together from the ring's descriptors.

use crate::frame::{Frame, MOST_PIECES, Packet, Pool};

/// The packet whose last buffer has not come: it may come with a later burst.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    partial: Option<Packet>,
    /// What comes belongs to a packet that was given up, until its last buffer.
    skipping: bool,
}

impl Joiner {
    /// True where the next buffer begins a packet.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.partial.is_none() && !self.skipping
    }

    /// Frames that it holds.
    pub fn frames(&self) -> usize {
        self.partial.as_ref().map_or(0, Packet::frames)
    }

    /// Gives up the packet under way; with `more` the rest of it is still to come.
    pub fn give_up(&mut self, pool: &mut Pool, more: bool) {
        if let Some(partial) = self.partial.take() {
            partial.free(pool);
        }
        self.skipping = more;
    }

    /// The next buffer; `Ok(Some)`: with it the packet is whole. `Err`: a packet of
    /// more than [`MOST_PIECES`], which is given up with all that is to come of it.
    #[inline(never)]
    pub fn join(&mut self, pool: &mut Pool, frame: Frame, more: bool) -> Result<Option<Packet>, ()> {
        if self.skipping {
            self.skipping = more;
            pool.free(frame);
            return Ok(None);
        }
        match &mut self.partial {
            None => self.partial = Some(Packet::single(frame)),
            Some(packet) => packet.push(frame, pool),
        }
        if self.frames() > MOST_PIECES {
            self.give_up(pool, more);
            return Err(());
        }
        Ok(if more { None } else { self.partial.take() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(pool: &mut Pool) -> Frame {
        let mut frame = pool.alloc().unwrap();
        frame.set_range(0, 100);
        frame
    }

    #[test]
    fn a_packet_is_whole_with_its_last_buffer_whenever_that_comes() {
        let (mut pool, mut joiner) = (Pool::heap(32, 128), Joiner::default());
        for n in [1, 3, MOST_PIECES] {
            for i in 1..n {
                let one = frame(&mut pool);
                assert!(joiner.join(&mut pool, one, true).unwrap().is_none());
                assert_eq!((joiner.frames(), joiner.is_idle()), (i, false));
            }
            let last = frame(&mut pool);
            let packet = joiner.join(&mut pool, last, false).unwrap().expect("it is whole");
            assert_eq!((packet.frames(), packet.len(), joiner.is_idle()), (n, 100 * n, true));
            packet.free(&mut pool);
        }
        assert_eq!(pool.available(), 32);
    }

    #[test]
    fn one_of_too_many_buffers_is_given_up_to_its_end_and_nothing_leaks() {
        let (mut pool, mut joiner) = (Pool::heap(32, 128), Joiner::default());
        let mut refused = 0;
        for i in 0..100 {
            let one = frame(&mut pool);
            refused += u32::from(joiner.join(&mut pool, one, i < 99).is_err());
        }
        assert_eq!((refused, joiner.is_idle(), pool.available()), (1, true, 32));
        // The next packet is as any other.
        let one = frame(&mut pool);
        joiner.join(&mut pool, one, false).unwrap().unwrap().free(&mut pool);
        pool.assert_conserved();
    }

    #[test]
    fn what_follows_a_bad_descriptor_is_skipped_to_its_end() {
        let (mut pool, mut joiner) = (Pool::heap(32, 128), Joiner::default());
        let one = frame(&mut pool);
        joiner.join(&mut pool, one, true).unwrap();
        joiner.give_up(&mut pool, true);
        let two = frame(&mut pool);
        assert!(joiner.join(&mut pool, two, false).unwrap().is_none());
        assert!(joiner.is_idle());
        assert_eq!(pool.available(), 32);
    }
}
