//! How a worker's own sockets and sets become any thread's: on that worker's thread,
//! once, and without a change that the program could see.

use super::{NONBLOCKING, Object, TABLE};
use crate::errno::{Errno, Result};
use crate::runtime::channel;
use crate::runtime::descriptors::{Entry, Owner, local_state};
use crate::runtime::hub::Hub;
use crate::runtime::set::EpollSet;
use crate::runtime::shared::SharedSocket;
use crate::runtime::worker::Core;
use crate::socket::Handle;
use std::collections::HashSet;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Another thread uses what is the worker's own so far.
#[cold]
pub(super) fn promote(fd: RawFd, owner: Owner) -> Result<()> {
    let hub = Hub::current().filter(|hub| hub.number == owner.runtime).ok_or(Errno::ENETDOWN)?;
    channel::with(|thread| {
        thread.call(hub, owner.worker.into(), move |core| {
            // Still that worker's own? On its thread nothing changes meanwhile.
            match TABLE.lookup(fd) {
                Ok(Some(Entry::Local(o, raw))) if o == owner => adopt(core, fd, Handle::from_raw(raw)),
                Ok(Some(Entry::LocalSet(o, raw))) if o == owner => {
                    share_set(core.hub, fd, owner, Handle::from_raw(raw))
                }
                _ => Ok(()),
            }
        })?
    })
}

/// Makes a worker's own socket any thread's, in the sets that it is in, too. On the
/// worker.
pub(super) fn adopt(core: &mut Core, fd: RawFd, h: Handle) -> Result<()> {
    let mut sets = Vec::new();
    for membership in core.sockets.memberships(h) {
        if let Some(set) = any_threads(core, membership.set)? {
            sets.push((set, membership));
        }
    }
    for (_, membership) in &sets {
        core.sockets.epoll_ctl(membership.set, libc::EPOLL_CTL_DEL, h, 0, 0)?;
    }
    let nonblocking = TABLE.status(fd) & NONBLOCKING != 0;
    let socket = Arc::new(SharedSocket::adopt(core, h, nonblocking));
    for (set, membership) in &sets {
        set.adopt_member(core, fd, &socket, membership);
    }
    TABLE.share(fd, Object::Socket(socket));
    Ok(())
}

/// The set that this worker's own one is, or is a part of, as any thread's. `None`
/// where that is closed.
fn any_threads(core: &Core, h: Handle) -> Result<Option<Arc<EpollSet>>> {
    let Some(fd) = core.desk.own_sets.get(&h.to_raw()).copied() else { return Ok(None) };
    let owner = core.owner();
    if let Ok(Some(Entry::LocalSet(o, raw))) = TABLE.lookup(fd)
        && (o, raw) == (owner, h.to_raw())
    {
        share_set(core.hub, fd, owner, h)?;
    }
    let Ok(Some(Entry::Shared(guard))) = TABLE.lookup(fd) else { return Ok(None) };
    Ok(match &*guard {
        Object::Epoll(set) if set.local(owner, false)? == Some(h) => Some(set.clone()),
        _ => None,
    })
}

/// Makes a worker's own set one that any thread may use. On the worker's thread.
pub(super) fn share_set(hub: &'static Hub, fd: RawFd, owner: Owner, h: Handle) -> Result<()> {
    let set = EpollSet::new(hub, fd, Some((owner, h)))?;
    TABLE.share(fd, Object::Epoll(Arc::new(set)));
    Ok(())
}

/// Makes what is in a worker's own part of a set any thread's. On the worker; linear in
/// all descriptors, once for a set.
pub(in crate::runtime) fn open_members(core: &mut Core, set: Handle) -> Result<()> {
    let members: HashSet<u64> = core.sockets.epoll_members(set).into_iter().map(Handle::to_raw).collect();
    if members.is_empty() {
        return Ok(());
    }
    let own = TABLE.locals(local_state(core.owner())).filter(|(_, raw)| members.contains(raw));
    own.collect::<Vec<_>>().into_iter().try_for_each(|(fd, raw)| adopt(core, fd, Handle::from_raw(raw)))
}
