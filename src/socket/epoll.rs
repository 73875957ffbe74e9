//! Epoll sets within one core.
//!
//! As in Linux, a set has a ready list: an event puts a member on it, a wait
//! takes members off, asks each for its readiness as it is now, and puts level
//! triggered ones back. So a wait costs by the members that are ready, not by
//! those that are not.

use super::linux::*;
use super::types::EpollEvent;
use crate::arch;
use crate::errno::{Errno, Result};
use std::collections::VecDeque;

/// No member, no set.
pub(super) const NONE: u32 = u32::MAX;
/// Sets may be members of sets, this deep (as in Linux).
const MAX_NESTING: u32 = 5;
/// Reported whether asked for or not.
const ALWAYS: u32 = EPOLLERR | EPOLLHUP;
/// The bits of `events` that ask for a report; the others say how.
const PRIVATE: u32 = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
/// What may stand beside EPOLLEXCLUSIVE.
const EXCLUSIVE_OK: u32 = EPOLLIN | EPOLLOUT | ALWAYS | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

/// One (set, member) pair.
#[derive(Debug)]
struct Item {
    set: u32,
    /// The member's place in the handle table, `NONE` once it is gone.
    socket: u32,
    events: u32,
    queued: bool,
    data: u64,
    /// The member's next pair, with another set.
    next: u32,
}

/// A ready list. Most hold one pair or none: the first needs no ring.
#[derive(Debug)]
struct Ready {
    /// `NONE`: the list is empty.
    first: u32,
    rest: VecDeque<u32>,
}

impl Default for Ready {
    fn default() -> Self {
        Self { first: NONE, rest: VecDeque::new() }
    }
}

impl Ready {
    #[inline]
    fn is_empty(&self) -> bool {
        self.first == NONE
    }

    fn len(&self) -> usize {
        if self.is_empty() { 0 } else { 1 + self.rest.len() }
    }

    /// The only pair; `NONE` where there is none, or another.
    #[inline(always)]
    fn only(&self) -> u32 {
        if self.rest.is_empty() { self.first } else { NONE }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        Some(self.first).filter(|id| *id != NONE).into_iter().chain(self.rest.iter().copied())
    }

    #[inline]
    fn push_back(&mut self, id: u32) {
        if self.is_empty() { self.first = id } else { self.rest.push_back(id) }
    }

    fn pop_front(&mut self) -> Option<u32> {
        let next = self.rest.pop_front().unwrap_or(NONE);
        Some(core::mem::replace(&mut self.first, next)).filter(|id| *id != NONE)
    }

    /// Takes a pair off, if it is the first or the last.
    fn remove_end(&mut self, id: u32) -> bool {
        if self.rest.back() == Some(&id) {
            return self.rest.pop_back().is_some();
        }
        self.first == id && self.pop_front().is_some()
    }
}

/// A set; one that is closed has neither members nor anything listed.
#[derive(Debug, Default)]
struct Set {
    ready: Ready,
    members: u32,
}

/// All epoll sets of one core. Members are places in the handle table; each
/// keeps the head of its list of pairs there.
#[derive(Debug, Default)]
pub(super) struct Sets {
    items: Vec<Item>,
    free_items: Vec<u32>,
    sets: Vec<Set>,
    free_sets: Vec<u32>,
    /// A set was a member of a set once. Until then an event reaches no further
    /// sets.
    nested: bool,
}

/// What a set asks of the handle table.
pub(super) trait Members {
    /// The readiness of a member now. `sets` is for members that are sets.
    fn poll(&self, sets: &Sets, socket: u32) -> u32;
    /// The head of a member's list of pairs.
    fn head(&self, socket: u32) -> u32;
    /// The place in the handle table of a set.
    fn place(&self, set: u32) -> u32;
    /// The set at this place, if it is one.
    fn as_set(&self, socket: u32) -> Option<u32>;
}

impl Sets {
    /// A new, empty set.
    pub fn create(&mut self) -> u32 {
        if let Some(id) = self.free_sets.pop() {
            return id;
        }
        self.sets.push(Set::default());
        self.sets.len() as u32 - 1
    }

    /// The places of a set's members; linear in all pairs, for closing a set.
    pub fn member_places(&self, set: u32) -> Vec<u32> {
        let of_set = |i: &&Item| i.set == set && i.socket != NONE;
        self.items.iter().filter(of_set).map(|i| i.socket).collect()
    }

    /// Takes an emptied set away.
    pub fn destroy(&mut self, set: u32) {
        let gone = core::mem::take(&mut self.sets[set as usize]);
        debug_assert_eq!(gone.members, 0, "members are removed first");
        self.free_items.extend(gone.ready.iter());
        self.free_sets.push(set);
    }

    /// The sets of the member with this list, what they ask for, and whether it is on
    /// their ready lists.
    pub fn of(&self, mut head: u32) -> Vec<(u32, EpollEvent, bool)> {
        let mut found = Vec::new();
        while head != NONE {
            let item = &self.items[head as usize];
            found.push((item.set, EpollEvent { events: item.events, data: item.data }, item.queued));
            head = item.next;
        }
        found
    }

    fn find(&self, mut head: u32, set: u32) -> Option<u32> {
        while head != NONE {
            let item = &self.items[head as usize];
            if item.set == set {
                return Some(head);
            }
            head = item.next;
        }
        None
    }

    /// Adds a member whose list begins at `head`. Returns the list's new head.
    ///
    /// # Errors
    /// `EEXIST`, `EINVAL` (EPOLLEXCLUSIVE with what it does not go with).
    pub fn add(
        &mut self,
        set: u32,
        (socket, is_set): (u32, bool),
        head: u32,
        events: u32,
        data: u64,
    ) -> Result<u32> {
        if events & EPOLLEXCLUSIVE != 0 && events & !EXCLUSIVE_OK != 0 {
            return Err(Errno::EINVAL);
        }
        if self.find(head, set).is_some() {
            return Err(Errno::EEXIST);
        }
        self.nested |= is_set;
        let item = Item { set, socket, events: events | ALWAYS, queued: false, data, next: head };
        self.sets[set as usize].members += 1;
        if let Some(id) = self.free_items.pop() {
            self.items[id as usize] = item;
            return Ok(id);
        }
        self.items.push(item);
        Ok(self.items.len() as u32 - 1)
    }

    /// Changes what is asked of a member.
    ///
    /// # Errors
    /// `ENOENT`; `EINVAL` for EPOLLEXCLUSIVE, new or old.
    pub fn modify(&mut self, set: u32, head: u32, events: u32, data: u64) -> Result<()> {
        if events & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let id = self.find(head, set).ok_or(Errno::ENOENT)?;
        let item = &mut self.items[id as usize];
        if item.events & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        (item.events, item.data) = (events | ALWAYS, data);
        Ok(())
    }

    /// Removes a member from a set. Returns its list's new head.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&mut self, set: u32, head: u32) -> Result<u32> {
        let id = self.find(head, set).ok_or(Errno::ENOENT)?;
        let next = self.items[id as usize].next;
        let mut at = head;
        let new_head = if head == id { next } else { head };
        while at != id {
            let following = self.items[at as usize].next;
            if following == id {
                self.items[at as usize].next = next;
                break;
            }
            at = following;
        }
        self.discard(id);
        Ok(new_head)
    }

    /// Removes a member from all sets (it is being closed).
    pub fn remove_all(&mut self, mut head: u32) {
        while head != NONE {
            let next = self.items[head as usize].next;
            self.discard(head);
            head = next;
        }
    }

    fn discard(&mut self, id: u32) {
        let item = &mut self.items[id as usize];
        item.socket = NONE;
        let s = &mut self.sets[item.set as usize];
        s.members -= 1;
        // What was just reported is at an end of the ready list. Elsewhere on it its
        // place is freed when the list lets go of it.
        if !item.queued || s.ready.remove_end(id) {
            self.free_items.push(id);
        }
    }

    /// True where an event at the member of this list tells nothing new. A
    /// level-triggered member stays on the ready list until a wait finds it idle:
    /// most events find it there, and it is in no other set.
    #[inline(always)]
    pub fn knows(&self, head: u32) -> bool {
        match self.items.get(head as usize) {
            Some(item) => item.queued && item.next == NONE && !self.nested,
            None => true,
        }
    }

    /// Asks for the memory of the first pair of this list.
    #[inline(always)]
    pub fn prefetch(&self, head: u32) {
        if let Some(item) = self.items.get(head as usize) {
            arch::prefetch(item);
        }
    }

    /// Something happened at a member: `edges` says what. Puts it on the ready
    /// lists of the sets that asked for that.
    pub fn notify(&mut self, mut head: u32, edges: u32, members: &impl Members) {
        if self.nested {
            return self.notify_at(head, edges, members, 0);
        }
        while head != NONE {
            self.put(head, edges);
            head = self.items[head as usize].next;
        }
    }

    /// Puts a pair on its set's ready list, if the set asked for that.
    #[inline]
    fn put(&mut self, id: u32, edges: u32) -> bool {
        let item = &mut self.items[id as usize];
        let asked = wanted(item.events, edges) != 0;
        if asked && !item.queued {
            item.queued = true;
            self.sets[item.set as usize].ready.push_back(id);
        }
        asked
    }

    /// As [`Sets::notify`], for one set alone.
    pub fn notify_set(&mut self, set: u32, head: u32, edges: u32, members: &impl Members) {
        if let Some(id) = self.find(head, set) {
            let next = core::mem::replace(&mut self.items[id as usize].next, NONE);
            self.notify(id, edges, members);
            self.items[id as usize].next = next;
        }
    }

    /// True where something is on the set's ready list.
    #[inline]
    pub fn has_ready(&self, set: u32) -> bool {
        !self.sets[set as usize].ready.is_empty()
    }

    fn notify_at(&mut self, mut head: u32, edges: u32, members: &impl Members, depth: u32) {
        while head != NONE {
            let Item { set, next, .. } = self.items[head as usize];
            if self.put(head, edges) {
                let outer = members.head(members.place(set));
                if outer != NONE && depth < MAX_NESTING {
                    self.notify_at(outer, EPOLLIN, members, depth + 1);
                }
            }
            head = next;
        }
    }

    /// The place of the one member on the set's ready list ([`NONE`]: it is gone), and
    /// what is asked of it with the bits that say how, where it is level-triggered: found
    /// ready, it stays there as it is.
    #[inline(always)]
    pub fn lone(&self, set: u32) -> Option<(u32, EpollEvent)> {
        let id = self.sets.get(set as usize)?.ready.only();
        let item = self.items.get(id as usize)?;
        if item.events & (EPOLLET | EPOLLONESHOT) != 0 {
            return None;
        }
        Some((item.socket, EpollEvent { events: item.events, data: item.data }))
    }

    /// Reports up to `max` ready members, at least one if there are any; returns
    /// how many.
    #[inline(never)]
    pub fn wait(
        &mut self,
        set: u32,
        members: &impl Members,
        max: usize,
        out: &mut impl FnMut(EpollEvent),
    ) -> usize {
        // The only one, if it is level-triggered and ready, stays on the list as it is.
        if let Some((place, asked)) = self.lone(set).filter(|(place, _)| *place != NONE) {
            let events = wanted(asked.events, members.poll(self, place));
            if events != 0 {
                out(EpollEvent { events, data: asked.data });
                return 1;
            }
        }
        let mut found = 0;
        // No member asks for this set's own list: sets do not go in circles.
        let mut ready = core::mem::take(&mut self.sets[set as usize].ready);
        for _ in 0..ready.len() {
            if found == max {
                break;
            }
            let Some(id) = ready.pop_front() else { break };
            let Item { socket, events, .. } = self.items[id as usize];
            if socket == NONE {
                self.free_items.push(id);
                continue;
            }
            let revents = wanted(events, members.poll(self, socket));
            let item = &mut self.items[id as usize];
            item.queued = false;
            if revents == 0 {
                continue;
            }
            out(EpollEvent { events: revents, data: item.data });
            found += 1;
            if events & EPOLLONESHOT != 0 {
                item.events &= PRIVATE;
            } else if events & EPOLLET == 0 {
                item.queued = true;
                ready.push_back(id);
            }
        }
        self.sets[set as usize].ready = ready;
        found
    }

    /// Readiness of a set as a member of another: EPOLLIN where a wait on it
    /// would report something.
    pub fn set_readiness(&self, set: u32, members: &impl Members) -> u32 {
        let ready = self.sets[set as usize].ready.iter().any(|id| {
            let item = &self.items[id as usize];
            item.socket != NONE && wanted(item.events, members.poll(self, item.socket)) != 0
        });
        if ready { EPOLLIN | EPOLLRDNORM } else { 0 }
    }

    /// Refuses a nesting that would be a circle or too deep.
    ///
    /// # Errors
    /// `ELOOP`.
    pub fn check_nesting(&self, outer: u32, inner: u32, members: &impl Members) -> Result<()> {
        let below = self.depth_below(inner, outer, members, 0)?;
        let above = self.depth_above(members.head(members.place(outer)), members, 0)?;
        if below + above + 1 >= MAX_NESTING { Err(Errno::ELOOP) } else { Ok(()) }
    }

    fn depth_below(&self, set: u32, outer: u32, members: &impl Members, at: u32) -> Result<u32> {
        if set == outer || at > MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        let mut depth = 0;
        for item in self.items.iter().filter(|i| i.set == set && i.socket != NONE) {
            if let Some(inner) = members.as_set(item.socket) {
                depth = depth.max(1 + self.depth_below(inner, outer, members, at + 1)?);
            }
        }
        Ok(depth)
    }

    fn depth_above(&self, mut head: u32, members: &impl Members, at: u32) -> Result<u32> {
        if at > MAX_NESTING {
            return Err(Errno::ELOOP);
        }
        let mut depth = 0;
        while head != NONE {
            let item = &self.items[head as usize];
            let above = members.head(members.place(item.set));
            depth = depth.max(1 + self.depth_above(above, members, at + 1)?);
            head = item.next;
        }
        Ok(depth)
    }
}

/// What of a readiness is reported for these asked events.
#[inline]
fn wanted(events: u32, ready: u32) -> u32 {
    // EPOLLERR and EPOLLHUP are among the events, except once a one-shot fired.
    ready & events & !PRIVATE
}
