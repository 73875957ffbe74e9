//! A hierarchical timing wheel: numbers that wake at or soon after a time. Adding
//! one and waking one cost the same however many there are.
//!
//! There is no removal. A wake-up that is no longer wanted comes, and is found to
//! be too early by whoever looks at his own deadline.

use crate::time::Instant;

/// Nanoseconds of a tick, as a power of two: 2^20 is about a millisecond.
const GRAIN: u32 = 20;
/// Bits of a level: 64 slots, one word of occupancy.
const BITS: u32 = 6;
/// Seven levels reach 2^42 ticks ahead, over a century.
const LEVELS: usize = 7;
const SPAN: u64 = 1 << (BITS * LEVELS as u32);

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    /// The first tick that was not worked off.
    base: u64,
    slots: Vec<Vec<(u32, u64)>>,
    occupied: [u64; LEVELS],
    /// What a slot is swapped with while it is worked off.
    spare: Vec<(u32, u64)>,
}

impl Wheel {
    /// An empty wheel.
    pub fn new(now: Instant) -> Self {
        Self {
            base: now.as_nanos() >> GRAIN,
            slots: (0..64 * LEVELS).map(|_| Vec::new()).collect(),
            occupied: [0; LEVELS],
            spare: Vec::new(),
        }
    }

    /// Wakes `id` at `at`, up to a tick later.
    pub fn schedule(&mut self, id: u32, at: Instant) {
        let tick = (at.as_nanos() >> GRAIN) + 1;
        // What lies beyond the wheel wakes early, at its end.
        self.insert(id, tick.clamp(self.base, self.base | (SPAN - 1)));
    }

    fn insert(&mut self, id: u32, tick: u64) {
        let differ = (tick ^ self.base) | 63;
        let level = (63 - differ.leading_zeros()) / BITS;
        let slot = (tick >> (BITS * level)) & 63;
        self.occupied[level as usize] |= 1 << slot;
        self.slots[(level * 64 + slot as u32) as usize].push((id, tick));
    }

    /// The slot to be worked off next and its first tick; the outer one of two
    /// that begin together.
    fn next(&self) -> Option<(usize, u64)> {
        let mut next: Option<(usize, u64)> = None;
        for (level, &occupied) in self.occupied.iter().enumerate() {
            let shift = BITS * level as u32;
            let ahead = occupied >> ((self.base >> shift) & 63);
            if ahead != 0 {
                let start = ((self.base >> shift) + u64::from(ahead.trailing_zeros())) << shift;
                // A slot that began already is at its base.
                let start = start.max(self.base);
                if next.is_none_or(|(_, t)| start <= t) {
                    next = Some((level, start));
                }
            }
        }
        next
    }

    /// True where [`Wheel::advance`] has something to look at: a tick is over.
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        now.as_nanos() >> GRAIN >= self.base
    }

    /// Appends to `woken` all whose time has come.
    pub fn advance(&mut self, now: Instant, woken: &mut Vec<u32>) {
        let now = now.as_nanos() >> GRAIN;
        if now >= self.base {
            self.advance_to(now, woken);
        }
    }

    fn advance_to(&mut self, now: u64, woken: &mut Vec<u32>) {
        while let Some((level, tick)) = self.next()
            && tick <= now
        {
            self.base = tick;
            let slot = (tick >> (BITS * level as u32)) & 63;
            self.occupied[level] &= !(1 << slot);
            let at = level * 64 + slot as usize;
            let mut list = core::mem::replace(&mut self.slots[at], core::mem::take(&mut self.spare));
            for (id, due) in list.drain(..) {
                if due <= now {
                    woken.push(id);
                } else {
                    self.insert(id, due);
                }
            }
            self.spare = list;
        }
        self.base = now + 1;
    }

    /// Entries, wanted or not. Linear, for audits.
    pub fn len(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }

    /// When [`Wheel::advance`] has something to do next, or earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next().map(|(_, tick)| Instant::from_nanos(tick << GRAIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::time::Duration;

    #[test]
    fn everything_wakes_in_its_tick_whatever_the_steps() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let start = Instant::from_nanos(rng.next_u64() >> 8);
            let mut wheel = Wheel::new(start);
            let (mut now, mut pending) = (start, Vec::new());
            let mut woken = Vec::new();
            for id in 0..500 {
                let reach = rng.below(45);
                let at = now + Duration::from_nanos(u64::from(rng.next_u32()) << reach >> 24);
                wheel.schedule(id, at);
                pending.push((id, at));
                let step = u64::from(rng.next_u32()) << rng.below(32) >> 24;
                now += Duration::from_nanos(step);
                woken.clear();
                wheel.advance(now, &mut woken);
                for id in &woken {
                    let place = pending.iter().position(|(p, _)| p == id).unwrap();
                    let (_, at) = pending.swap_remove(place);
                    assert!(at <= now, "{id} woke {} ns early", at.since(now).as_nanos());
                }
                let late = Duration::from_nanos(2 << GRAIN);
                assert!(pending.iter().all(|(_, at)| *at + late > now), "somebody overslept");
                if let Some(next) = wheel.next_deadline() {
                    assert!(pending.iter().all(|(_, at)| next <= *at + late));
                } else {
                    assert!(pending.is_empty());
                }
            }
        }
    }

    #[test]
    fn an_idle_wheel_has_no_deadline_and_a_far_one_is_reached_by_steps() {
        let mut wheel = Wheel::new(Instant::ZERO);
        assert_eq!(wheel.next_deadline(), None);
        let at = Instant::ZERO + Duration::from_secs(7200);
        wheel.schedule(5, at);
        let (mut woken, mut steps) = (Vec::new(), 0);
        while woken.is_empty() {
            let next = wheel.next_deadline().unwrap();
            assert!(next <= at + Duration::from_millis(3));
            wheel.advance(next, &mut woken);
            steps += 1;
        }
        assert!(woken == [5] && steps < 10, "{steps} steps");
    }
}
