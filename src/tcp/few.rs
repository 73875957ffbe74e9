//! A queue that mostly holds one element or none: a request on its way, an answer
//! that is not read. The first lies in place, without an allocation and without
//! the arithmetic of a ring; only the others are in one.

use std::collections::VecDeque;

/// The queue. Where `first` is empty there are no others.
#[derive(Debug)]
pub(super) struct Few<T> {
    first: Option<T>,
    #[allow(clippy::box_collection)] // an idle connection pays for a pointer, not for a ring
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { first: None, rest: None }
    }
}

impl<T> Few<T> {
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others()
    }

    #[inline(always)]
    fn others(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline(always)]
    pub fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    #[inline(always)]
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.first.as_mut()
    }

    /// The only element, if there is one and no other.
    #[inline(always)]
    pub fn only(&self) -> Option<&T> {
        self.first.as_ref().filter(|_| self.others() == 0)
    }

    /// Takes the only element.
    #[inline(always)]
    pub fn take_only(&mut self) -> Option<T> {
        if self.others() == 0 { self.first.take() } else { None }
    }

    pub fn back(&self) -> Option<&T> {
        self.rest.as_ref().and_then(|rest| rest.back()).or(self.first.as_ref())
    }

    pub fn back_mut(&mut self) -> Option<&mut T> {
        match &mut self.rest {
            Some(rest) if !rest.is_empty() => rest.back_mut(),
            _ => self.first.as_mut(),
        }
    }

    #[inline]
    pub fn get(&self, i: usize) -> Option<&T> {
        match i {
            0 => self.first.as_ref(),
            _ => self.rest.as_ref()?.get(i - 1),
        }
    }

    #[inline]
    pub fn get_mut(&mut self, i: usize) -> Option<&mut T> {
        match i {
            0 => self.first.as_mut(),
            _ => self.rest.as_mut()?.get_mut(i - 1),
        }
    }

    #[inline(always)]
    pub fn push_back(&mut self, value: T) {
        match self.vacancy() {
            Some(place) => *place = Some(value),
            None => self.push_behind(value),
        }
    }

    /// The place in front, where it is empty: who fills it there saves a copy.
    #[inline(always)]
    pub fn vacancy(&mut self) -> Option<&mut Option<T>> {
        if self.first.is_none() { Some(&mut self.first) } else { None }
    }

    /// Puts the first element into an empty queue.
    #[inline(always)]
    pub fn put_lone(&mut self, value: T) {
        debug_assert!(self.is_empty());
        self.first = Some(value);
    }

    /// As [`push_back`](Self::push_back), where there is no vacancy.
    #[inline(never)]
    pub fn push_behind(&mut self, value: T) {
        debug_assert!(self.first.is_some());
        self.rest.get_or_insert_default().push_back(value);
    }

    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        core::mem::replace(&mut self.first, next)
    }

    /// Puts an element before the `i`th; at the end where `i` is their number.
    pub fn insert(&mut self, i: usize, value: T) {
        let rest = self.rest.get_or_insert_default();
        match (i, self.first.take()) {
            (0, None) => self.first = Some(value),
            (0, Some(first)) => {
                self.first = Some(value);
                rest.push_front(first);
            }
            (_, first) => {
                self.first = first;
                rest.insert(i - 1, value);
            }
        }
    }

    /// Takes the `i`th element out.
    pub fn remove(&mut self, i: usize) -> Option<T> {
        match i {
            0 => self.pop_front(),
            _ => self.rest.as_mut()?.remove(i - 1),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Those from the `i`th on.
    #[inline(always)]
    pub fn tail_mut(&mut self, i: usize) -> impl Iterator<Item = &mut T> {
        let first = if i == 0 { self.first.as_mut() } else { None };
        let rest = self.rest.iter_mut().flat_map(move |rest| {
            let from = i.saturating_sub(1).min(rest.len());
            rest.range_mut(from..)
        });
        first.into_iter().chain(rest)
    }

    #[cfg(test)]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(self.rest.iter_mut().flat_map(|rest| rest.iter_mut()))
    }

    /// Takes all of them out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let rest = self.rest.take().map(|rest| *rest).unwrap_or_default();
        self.first.take().into_iter().chain(rest)
    }

    /// How many come first for which `is` holds, where no other follows them.
    pub fn partition_point(&self, mut is: impl FnMut(&T) -> bool) -> usize {
        if !self.first.as_ref().is_some_and(&mut is) {
            return 0;
        }
        1 + self.rest.as_ref().map_or(0, |rest| rest.partition_point(is))
    }

    /// Gives memory back that a burst left behind.
    pub fn trim(&mut self) {
        match &mut self.rest {
            Some(rest) if rest.is_empty() => self.rest = None,
            Some(rest) if rest.len() < 8 && rest.capacity() > 16 => rest.shrink_to(8),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is done, it is what a ring would be.
        #[test]
        fn is_a_queue(steps in prop::collection::vec((0u8..7, 0usize..6), 0..60)) {
            let (mut few, mut model) = (Few::default(), VecDeque::new());
            for (n, (step, i)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => {
                        few.push_back(n);
                        model.push_back(n);
                    }
                    2 => prop_assert_eq!(few.pop_front(), model.pop_front()),
                    3 => {
                        let i = i.min(model.len());
                        few.insert(i, n);
                        model.insert(i, n);
                    }
                    4 => prop_assert_eq!(few.remove(i), model.remove(i)),
                    5 => few.trim(),
                    _ => {
                        let only = if model.len() == 1 { model.pop_front() } else { None };
                        prop_assert_eq!(few.take_only(), only);
                    }
                }
                prop_assert!(few.iter().eq(model.iter()));
                prop_assert_eq!((few.len(), few.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!((few.front(), few.back()), (model.front(), model.back()));
                prop_assert_eq!(few.get(i).copied(), model.get(i).copied());
                prop_assert_eq!(few.get_mut(i).copied(), model.get(i).copied());
                prop_assert_eq!(few.back_mut().copied(), model.back().copied());
                prop_assert!(few.tail_mut(i).map(|x| *x).eq(model.iter().skip(i).copied()));
                prop_assert_eq!(few.only().is_some(), model.len() == 1);
            }
            prop_assert!(few.drain().eq(model));
            prop_assert!(few.is_empty());
        }

        #[test]
        fn finds_where_a_half_ends(n in 0usize..9, at in 0usize..12) {
            let mut few = Few::default();
            (0..n).for_each(|i| few.push_back(i));
            prop_assert_eq!(few.partition_point(|&i| i < at), at.min(n));
        }
    }
}
