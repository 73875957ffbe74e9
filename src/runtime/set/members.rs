//! What a set knows of its members: who they are, and which may be ready.

use super::super::descriptors::Owner;
use super::super::epoll::Taken;
use super::super::ring::Consumer;
use super::super::shared::SharedSocket;
use crate::errno::{Errno, Result};
use crate::socket::EpollEvent;
use core::sync::atomic::{Ordering, fence};
use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};

const ONESHOT: u32 = 1 << 30;
pub(super) const EDGE: u32 = 1 << 31;
/// Bits that say how, not what.
const HOW: u32 = 0xf << 28;

/// All of them, and the rings by which workers report them.
#[derive(Default)]
pub(super) struct Inner {
    pub rings: Vec<(usize, Consumer<u64>)>,
    pub members: Vec<Option<Member>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    pub by_fd: HashMap<RawFd, u32>,
    pub list: VecDeque<u64>,
}

/// One of them that is a socket of ours; of the kernel's the kernel knows.
pub(super) struct Member {
    pub data: u64,
    pub events: u32,
    pub listed: bool,
    pub socket: Weak<SharedSocket>,
    pub taken: Vec<(usize, Arc<Taken>)>,
}

impl Inner {
    fn token(&self, index: u32) -> u64 {
        u64::from(self.generations[index as usize]) << 32 | u64::from(index)
    }

    /// The member of this token, if it is still one.
    pub fn at(&mut self, token: u64) -> Option<&mut Member> {
        let index = token as u32 as usize;
        if self.generations.get(index).is_none_or(|g| u64::from(*g) != token >> 32) {
            return None;
        }
        self.members[index].as_mut()
    }

    /// Puts a member in, in the place of whoever had the number.
    pub fn insert(&mut self, fd: RawFd, member: Member) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            self.generations.push(0);
            self.members.len() as u32 - 1
        });
        self.members[index as usize] = Some(member);
        self.by_fd.insert(fd, index);
        self.token(index)
    }

    /// Takes the member of this number out.
    pub fn remove(&mut self, fd: RawFd) -> Option<(u64, Member)> {
        let index = self.by_fd.remove(&fd)?;
        let token = self.token(index);
        let member = self.members[index as usize].take()?;
        self.generations[index as usize] = self.generations[index as usize].wrapping_add(1);
        self.free.push(index);
        Some((token, member))
    }

    /// The member of this number, unless its socket was closed since.
    pub fn of(&mut self, fd: RawFd, socket: &Arc<SharedSocket>) -> Option<u64> {
        let index = *self.by_fd.get(&fd)?;
        let member = self.members[index as usize].as_ref()?;
        let same = core::ptr::eq(member.socket.as_ptr(), Arc::as_ptr(socket));
        if same {
            return Some(self.token(index));
        }
        self.remove(fd);
        None
    }

    /// Puts a socket's member in, once.
    ///
    /// # Errors
    /// `EEXIST`.
    pub fn enter(&mut self, fd: RawFd, socket: &Arc<SharedSocket>, member: Member) -> Result<u64> {
        if self.of(fd, socket).is_some() { Err(Errno::EEXIST) } else { Ok(self.insert(fd, member)) }
    }

    /// True where something is to be looked at.
    pub fn has_some(&mut self) -> bool {
        !self.list.is_empty() || self.rings.iter_mut().any(|(_, ring)| !ring.is_empty())
    }

    /// The member is to be looked at.
    pub fn list(&mut self, token: u64) {
        if let Some(member) = self.at(token)
            && !member.listed
        {
            member.listed = true;
            self.list.push_back(token);
        }
    }

    /// Lists every socket.
    #[cold]
    pub fn list_all(&mut self) {
        for index in 0..self.members.len() as u32 {
            if self.members[index as usize].is_some() {
                self.list(self.token(index));
            }
        }
    }

    /// True where a worker that others sit at reports to it.
    pub fn hears_from_others(&self, owner: Owner) -> bool {
        self.rings.iter().any(|(worker, _)| *worker != usize::from(owner.worker))
    }

    /// Takes the workers' reports into the ready list.
    pub fn take_reports(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.rings.len() {
            while let Some(token) = self.rings[i].1.pop() {
                any = true;
                let worker = self.rings[i].0;
                if let Some(member) = self.at(token) {
                    for (_, taken) in member.taken.iter().filter(|(w, _)| *w == worker) {
                        let n = taken.0.load(Ordering::Relaxed).wrapping_add(1);
                        taken.0.store(n, Ordering::Relaxed);
                    }
                    self.list(token);
                }
            }
        }
        if any {
            fence(Ordering::SeqCst); // pairs with the fence in `Core::pump`
        }
        any
    }

    /// Reports listed members that are ready. Returns what nobody else has any more:
    /// its end may run a turn, and that is not for one who holds the set.
    pub fn report(&mut self, out: &mut Vec<EpollEvent>, max: usize) -> Vec<SharedSocket> {
        let mut last = Vec::new();
        for _ in 0..self.list.len() {
            if out.len() >= max {
                break;
            }
            let Some(token) = self.list.pop_front() else { break };
            let Some(member) = self.at(token) else { continue };
            member.listed = false;
            let Some(socket) = member.socket.upgrade() else { continue };
            #[cfg(test)]
            LOOKED_AT.set(LOOKED_AT.get() + 1);
            let ready = socket.readiness() & member.events & !HOW;
            last.extend(Arc::into_inner(socket));
            if ready == 0 {
                continue;
            }
            out.push(EpollEvent { events: ready, data: member.data });
            if member.events & ONESHOT != 0 {
                member.events &= HOW;
            } else if member.events & EDGE == 0 {
                self.list(token);
            }
        }
        last
    }
}

#[cfg(test)]
thread_local! {
    static LOOKED_AT: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// How many members this thread's waits have asked for their readiness.
#[cfg(test)]
pub(in crate::runtime) fn looked_at() -> usize {
    LOOKED_AT.get()
}
