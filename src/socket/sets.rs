//! The calls on epoll sets.

use super::linux::*;
use super::table::{Kind, View};
use super::types::{EpollEvent, Handle, Membership};
use super::{Sockets, epoll};
use crate::errno::{Errno, Result};
use crate::tcp::Readiness;

impl Sockets {
    /// An empty epoll set.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn epoll_create(&mut self) -> Result<Handle> {
        let set = self.sets.create();
        let h = match self.table.insert(Kind::Set(set), self.defaults.clone()) {
            Ok(h) => h,
            Err(error) => {
                self.sets.destroy(set);
                return Err(error);
            }
        };
        match self.places.get_mut(set as usize) {
            Some(place) => *place = h.index(),
            None => self.places.push(h.index()),
        }
        Ok(h)
    }

    /// Adds (1), deletes (2) or modifies (3) a member.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` (not a set, itself, an unknown operation, EPOLLEXCLUSIVE
    /// where it cannot be), `EEXIST`, `ENOENT`, `ELOOP`.
    pub fn epoll_ctl(&mut self, ep: Handle, op: i32, h: Handle, events: u32, data: u64) -> Result<()> {
        let Kind::Set(set) = self.table.get(ep)?.kind else {
            self.table.get(h)?;
            return Err(Errno::EINVAL);
        };
        let member = self.table.get(h)?;
        let (head, kind) = (member.members, member.kind);
        if ep == h {
            return Err(Errno::EINVAL);
        }
        match op {
            EPOLL_CTL_ADD => {
                if let Kind::Set(inner) = kind {
                    if events & EPOLLEXCLUSIVE != 0 {
                        return Err(Errno::EINVAL);
                    }
                    let view = self.view();
                    self.sets.check_nesting(set, inner, &view)?;
                }
                let head = self.sets.add(set, (h.index(), matches!(kind, Kind::Set(_))), head, events, data)?;
                self.table.at_mut(h.index()).members = head;
            }
            EPOLL_CTL_MOD => self.sets.modify(set, head, events, data)?,
            EPOLL_CTL_DEL => {
                let head = self.sets.remove(set, head)?;
                self.table.at_mut(h.index()).members = head;
                return Ok(());
            }
            _ => return Err(Errno::EINVAL),
        }
        // What is ready already counts as something that happened.
        let ready = with_norms(self.readiness(h).bits());
        if ready != 0 {
            let view = View { table: &self.table, stack: &self.stack, places: &self.places };
            self.sets.notify_set(set, self.table.at(h.index()).members, ready, &view);
        }
        Ok(())
    }

    /// Appends up to `max` ready members to `out`; returns how many, 0 if none is
    /// ready. Costs by the ready members, not by all.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` (not a set, or `max` is 0).
    #[inline]
    pub fn epoll_wait(&mut self, ep: Handle, out: &mut Vec<EpollEvent>, max: usize) -> Result<usize> {
        self.epoll_take(ep, max, |event| out.push(event))
    }

    /// As [`Sockets::epoll_wait`], with each event to `out`.
    ///
    /// # Errors
    /// As [`Sockets::epoll_wait`].
    #[inline(always)]
    pub fn epoll_take(&mut self, ep: Handle, max: usize, mut out: impl FnMut(EpollEvent)) -> Result<usize> {
        let Kind::Set(set) = self.table.get(ep)?.kind else { return Err(Errno::EINVAL) };
        if max == 0 {
            return Err(Errno::EINVAL);
        }
        if let Some(event) = self.epoll_now(ep) {
            out(event);
            return Ok(1);
        }
        self.deliver();
        if !self.sets.has_ready(set) {
            return Ok(0);
        }
        let view = View { table: &self.table, stack: &self.stack, places: &self.places };
        Ok(self.sets.wait(set, &view, max, &mut out))
    }

    /// True where the set's ready list is not empty: a cheap look that may be
    /// mistaken for level-triggered members that are not ready any more.
    #[inline]
    pub fn epoll_may_be_ready(&self, ep: Handle) -> bool {
        match self.table.get(ep) {
            Ok(s) => matches!(s.kind, Kind::Set(set) if self.sets.has_ready(set)),
            Err(_) => false,
        }
    }

    /// The sets that a socket is in.
    pub fn memberships(&mut self, h: Handle) -> Vec<Membership> {
        self.deliver();
        let Ok(socket) = self.table.get(h) else { return Vec::new() };
        let found = self.sets.of(socket.members).into_iter();
        let handle = |set: u32| self.table.handle(self.places[set as usize]);
        found.map(|(set, wanted, listed)| Membership { set: handle(set), wanted, listed }).collect()
    }

    /// The members of a set; linear in all pairs.
    pub fn epoll_members(&self, ep: Handle) -> Vec<Handle> {
        let Ok(Kind::Set(set)) = self.table.get(ep).map(|s| s.kind) else { return Vec::new() };
        self.sets.member_places(set).into_iter().map(|place| self.table.handle(place)).collect()
    }

    fn view(&self) -> View<'_> {
        View { table: &self.table, stack: &self.stack, places: &self.places }
    }

    /// Empties and ends a set.
    pub(super) fn close_set(&mut self, set: u32) {
        for place in self.sets.member_places(set) {
            let head = self.table.at(place).members;
            if let Ok(head) = self.sets.remove(set, head) {
                self.table.at_mut(place).members = head;
            }
        }
        self.sets.destroy(set);
        self.places[set as usize] = epoll::NONE;
    }

    /// Something happened at a socket by a call of its own.
    pub(super) fn happened(&mut self, h: Handle, edges: Readiness) {
        self.notify(h.index(), edges);
    }
}
