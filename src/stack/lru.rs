//! The order in which slots of a bounded table were last used: a doubly linked
//! list by index, every step O(1).

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    newer: u32,
    older: u32,
}

/// The list. Slots are numbers below the table's bound.
#[derive(Debug)]
pub struct Lru {
    links: Vec<Link>,
    newest: u32,
    oldest: u32,
}

impl Default for Lru {
    fn default() -> Self {
        Self { links: Vec::new(), newest: NONE, oldest: NONE }
    }
}

impl Lru {
    /// Adds a slot that is not in the list, as the newest.
    pub fn insert(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Link { newer: NONE, older: NONE });
        }
        self.links[at] = Link { newer: NONE, older: self.newest };
        match self.newest {
            NONE => self.oldest = slot,
            n => self.links[n as usize].newer = slot,
        }
        self.newest = slot;
    }

    /// Takes a slot out that is in the list.
    pub fn remove(&mut self, slot: u32) {
        let Link { newer, older } = self.links[slot as usize];
        match newer {
            NONE => self.newest = older,
            n => self.links[n as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            o => self.links[o as usize].newer = newer,
        }
    }

    /// Makes a slot the newest.
    #[inline]
    pub fn touch(&mut self, slot: u32) {
        if self.newest != slot {
            self.remove(slot);
            self.insert(slot);
        }
    }

    /// The slot that was not used for the longest time.
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first() {
        let mut lru = Lru::default();
        for slot in 0..4 {
            lru.insert(slot);
        }
        lru.touch(0);
        lru.touch(0);
        lru.remove(2);
        let mut order = Vec::new();
        while let Some(slot) = lru.oldest() {
            order.push(slot);
            lru.remove(slot);
        }
        assert_eq!(order, [1, 3, 0]);
        lru.insert(3);
        assert_eq!(lru.oldest(), Some(3));
    }
}
