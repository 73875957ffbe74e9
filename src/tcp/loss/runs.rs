//! Sets of sequence numbers, kept as ranges.

use crate::tcp::seq::{self, Seq};
use std::collections::BTreeMap;

/// Ranges that neither overlap nor touch, and the number of their bytes. Each
/// step costs O(log n); ranges that disappear were inserted before, so that they
/// cost nothing more.
#[derive(Debug, Default)]
pub(in crate::tcp) struct Runs {
    /// First number to the one after the last.
    map: BTreeMap<Seq, u32>,
    bytes: u32,
}

impl Runs {
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub fn first(&self) -> Option<(u32, u32)> {
        self.map.first_key_value().map(|(&s, &e)| (s.0, e))
    }

    /// The ranges, the last first.
    pub fn backwards(&self) -> impl Iterator<Item = (u32, u32)> {
        self.map.iter().rev().map(|(&s, &e)| (s.0, e))
    }

    /// Adds `left..right`.
    pub fn insert(&mut self, mut left: u32, mut right: u32) {
        if let Some((&s, &e)) = self.map.range(..=Seq(left)).next_back()
            && seq::ge(e, left)
        {
            if seq::ge(e, right) {
                return;
            }
            left = s.0;
        }
        while let Some((&s, &e)) = self.map.range(Seq(left)..).next() {
            if seq::gt(s.0, right) {
                break;
            }
            right = seq::max(right, e);
            self.bytes -= e.wrapping_sub(s.0);
            self.map.remove(&s);
        }
        self.bytes += right.wrapping_sub(left);
        self.map.insert(Seq(left), right);
    }

    /// Takes `left..right` out.
    pub fn remove(&mut self, left: u32, right: u32) {
        if !seq::lt(left, right) {
            return;
        }
        if let Some((&s, &e)) = self.map.range(..Seq(left)).next_back()
            && seq::gt(e, left)
        {
            self.map.insert(s, left);
            self.bytes -= e.wrapping_sub(left);
            self.put_back(right, e);
        }
        while let Some((&s, &e)) = self.map.range(Seq(left)..Seq(right)).next() {
            self.map.remove(&s);
            self.bytes -= e.wrapping_sub(s.0);
            self.put_back(right, e);
        }
    }

    fn put_back(&mut self, left: u32, right: u32) {
        if seq::lt(left, right) {
            self.map.insert(Seq(left), right);
            self.bytes += right.wrapping_sub(left);
        }
    }

    /// Forgets what lies before `una`.
    pub fn pass(&mut self, una: u32) {
        while let Some((first, _)) = self.first() {
            if !seq::lt(first, una) {
                break;
            }
            self.remove(first, una);
        }
    }

    /// The first part of `at..end` that lies in no range.
    pub fn gap(&self, mut at: u32, end: u32) -> Option<(u32, u32)> {
        if let Some((_, &e)) = self.map.range(..=Seq(at)).next_back() {
            at = seq::max(at, e);
        }
        if !seq::lt(at, end) {
            return None;
        }
        let next = self.map.range(Seq(at)..).next().map_or(end, |(s, _)| s.0);
        Some((at, if seq::lt(next, end) { next } else { end }))
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn ranges_are_what_a_plain_list_of_bytes_says() {
        let mut rng = Rng::new(7);
        for round in 0..200u32 {
            let base = round.wrapping_mul(0x0fed_cba9).wrapping_sub(100);
            let (mut runs, mut plain) = (Runs::default(), [false; 300]);
            let mut una = 0;
            for _ in 0..60 {
                let left = rng.below(299);
                let right = left + 1 + rng.below(299 - left + 1).min(50);
                let right = right.min(300);
                let (l, r) = (base.wrapping_add(left), base.wrapping_add(right));
                match rng.below(4) {
                    0 => {
                        runs.remove(l, r);
                        plain[left as usize..right as usize].fill(false);
                    }
                    1 if rng.below(4) == 0 => {
                        una = left;
                        runs.pass(l);
                        plain[..left as usize].fill(false);
                    }
                    _ if left >= una => {
                        runs.insert(l, r);
                        plain[left as usize..right as usize].fill(true);
                    }
                    _ => {}
                }
                check(&runs, &plain, base);
            }
        }
    }

    fn check(runs: &Runs, plain: &[bool], base: u32) {
        assert_eq!(runs.bytes() as usize, plain.iter().filter(|b| **b).count());
        let mut starts = (0..plain.len()).filter(|&i| plain[i] && (i == 0 || !plain[i - 1]));
        assert_eq!(runs.len(), starts.clone().count());
        let first = runs.first().map(|r| r.0.wrapping_sub(base) as usize);
        assert_eq!(first, starts.clone().next());
        let last = runs.backwards().next().map(|r| r.0.wrapping_sub(base) as usize);
        assert_eq!(last, starts.next_back());
        for at in (0..plain.len()).step_by(17) {
            let gap = runs.gap(base.wrapping_add(at as u32), base.wrapping_add(plain.len() as u32));
            let from = (at..plain.len()).find(|&i| !plain[i]);
            let to = from.map(|f| (f..plain.len()).find(|&i| plain[i]).unwrap_or(plain.len()));
            let rel = |n: u32| n.wrapping_sub(base) as usize;
            assert_eq!(gap.map(|g| (rel(g.0), rel(g.1))), from.zip(to));
        }
    }
}
