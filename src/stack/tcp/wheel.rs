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
/// No line.
const END: u32 = u32::MAX;

/// A number, and the lower half of the tick that it is to wake in, which is less than
/// 2^32 ticks ahead of the wheel's base: 52 days.
type Entry = (u32, u32);

/// Entries of one slot, as many as a cache line holds. They come from one store and go
/// back to it: a slot that was full once keeps nothing.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line {
    entries: [Entry; 7],
    len: u32,
    next: u32,
}

const _: () = assert!(size_of::<Line>() == 64);

/// The lines of a slot, in the order in which they were filled.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

const EMPTY: List = List { first: END, last: END };

/// The wheel.
#[derive(Debug)]
pub struct Wheel {
    /// The first tick that was not worked off.
    base: u64,
    slots: Box<[List; 64 * LEVELS]>,
    occupied: [u64; LEVELS],
    lines: Vec<Line>,
    free: u32,
}

impl Wheel {
    /// An empty wheel.
    pub fn new(now: Instant) -> Self {
        Self {
            base: now.as_nanos() >> GRAIN,
            slots: Box::new([EMPTY; 64 * LEVELS]),
            occupied: [0; LEVELS],
            lines: Vec::new(),
            free: END,
        }
    }

    /// Wakes `id` at `at`, up to a tick later.
    pub fn schedule(&mut self, id: u32, at: Instant) {
        let tick = (at.as_nanos() >> GRAIN) + 1;
        // What lies further ahead than can be said, or beyond the wheel, wakes early.
        let most = (self.base + u64::from(u32::MAX)).min(self.base | (SPAN - 1));
        self.insert(id, tick.clamp(self.base, most));
    }

    fn insert(&mut self, id: u32, tick: u64) {
        let differ = (tick ^ self.base) | 63;
        let level = (63 - differ.leading_zeros()) / BITS;
        let slot = (tick >> (BITS * level)) & 63;
        self.occupied[level as usize] |= 1 << slot;
        let at = (level * 64 + slot as u32) as usize;
        let last = self.slots[at].last;
        let line = match self.lines.get_mut(last as usize) {
            Some(line) if (line.len as usize) < line.entries.len() => line,
            _ => self.add_line(at),
        };
        line.entries[line.len as usize] = (id, tick as u32);
        line.len += 1;
    }

    /// An empty line at the end of a slot's.
    fn add_line(&mut self, at: usize) -> &mut Line {
        let empty = Line { entries: [(0, 0); 7], len: 0, next: END };
        let new = match self.free {
            END => {
                self.lines.push(empty);
                self.lines.len() as u32 - 1
            }
            new => {
                self.free = core::mem::replace(&mut self.lines[new as usize], empty).next;
                new
            }
        };
        let list = &mut self.slots[at];
        let last = core::mem::replace(&mut list.last, new);
        match last {
            END => list.first = new,
            last => self.lines[last as usize].next = new,
        }
        &mut self.lines[new as usize]
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
            let list = core::mem::replace(&mut self.slots[level * 64 + slot as usize], EMPTY);
            let mut at = list.first;
            while at != END {
                let line = self.lines[at as usize];
                for &(id, due) in &line.entries[..line.len as usize] {
                    let due = tick + u64::from(due.wrapping_sub(tick as u32));
                    if due <= now {
                        woken.push(id);
                    } else {
                        self.insert(id, due);
                    }
                }
                self.lines[at as usize].next = core::mem::replace(&mut self.free, at);
                at = line.next;
            }
        }
        self.base = now + 1;
    }

    /// Entries, wanted or not. Linear, for audits.
    pub fn len(&self) -> usize {
        let mut len = 0;
        for list in self.slots.iter() {
            let mut at = list.first;
            while let Some(line) = self.lines.get(at as usize) {
                len += line.len as usize;
                at = line.next;
            }
        }
        len
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
    fn what_a_rush_took_is_used_again() {
        let (mut now, mut woken) = (Instant::ZERO, Vec::new());
        let mut wheel = Wheel::new(now);
        for turn in 1..=5000 {
            for id in 0..50 {
                wheel.schedule(id, now + Duration::from_millis(200));
            }
            now += Duration::from_millis(1);
            wheel.advance(now, &mut woken);
            assert!(wheel.len() <= 50 * 201 && wheel.len() + woken.len() == 50 * turn);
        }
        // 10,050 wait at a time, in lines of seven, the last of a tick's seldom full.
        assert!(wheel.lines.len() <= 1700, "{} lines", wheel.lines.len());
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
