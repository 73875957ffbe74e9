//! Zero-copy: frames lent to the program. A frame is in one hand at a time.

use super::errno::{guard, quick};
use super::target::Target;
use crate::errno::{Errno, Result};
use core::ffi::{c_int, c_void};

/// A frame in the program's hand.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rr_zc_frame {
    /// Its first byte.
    pub data: *mut c_void,
    /// Bytes: received ones, or room to write. Before rr_zc_send, the number of
    /// bytes to send from `data`.
    pub len: usize,
    /// ringroad's name for it, good once. Leave it as it is.
    pub id: u64,
}

/// Lends up to `count` received frames, oldest first, without copying: how many,
/// 0 at the end of the stream. The bytes are the program's, to read and to change,
/// until rr_zc_release, which opens the receive window, or rr_zc_send, which does
/// as well. Flags: MSG_DONTWAIT.
/// As recv(2) in blocking and errors; ENOTSOCK for a descriptor of the system's;
/// ENOBUFS where an urgent mark is within the next frame and none is free for the
/// part before it (rr_recv needs none); EMSGSIZE where a datagram larger than a
/// frame is next, which stays for rr_recv. Frames are lent in rr_run's loop, by that
/// worker's sockets, and in simulation; EOPNOTSUPP elsewhere.
///
/// # Safety
/// `frames` is null or `count` writable structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_zc_recv(
    fd: c_int,
    frames: *mut rr_zc_frame,
    count: usize,
    flags: c_int,
) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { one_now(frames, count, |frame| running::recv_now::<true>(fd, frame, flags)) } {
        // SAFETY: the caller's promise.
        0 => unsafe { recv_any(fd, frames, count, flags) },
        done => done,
    }
}

/// # Safety
/// `frames` is null or `count` writable structs.
#[inline(never)]
unsafe extern "C" fn recv_any(fd: c_int, frames: *mut rr_zc_frame, count: usize, flags: c_int) -> isize {
    // SAFETY: the caller's promise.
    unsafe { several(fd, frames, count, |target, i, frame| {
        if i > 0 && running::recv_now::<false>(fd, frame, flags).is_some() {
            return Ok(true);
        }
        let flags = if i == 0 { flags } else { flags | libc::MSG_DONTWAIT };
        let got = target.zc_recv(fd, flags)?;
        if let Some(got) = got {
            *frame = got;
        }
        Ok(got.is_some())
    }) }
}

/// Gives frames back that rr_zc_recv lent, or that rr_zc_alloc handed out and
/// the program does not send: how many. EINVAL for one that is not out, or not
/// by this socket.
///
/// # Safety
/// `frames` is null or `count` structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_zc_release(fd: c_int, frames: *mut rr_zc_frame, count: usize) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { one_now(frames, count, |frame| running::release_now::<true>(fd, frame)) } {
        // SAFETY: the caller's promise.
        0 => unsafe { release_any(fd, frames, count) },
        done => done,
    }
}

/// # Safety
/// `frames` is null or `count` structs.
#[inline(never)]
unsafe extern "C" fn release_any(fd: c_int, frames: *mut rr_zc_frame, count: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { several(fd, frames, count, |target, i, frame| {
        if i > 0 && running::release_now::<false>(fd, frame).is_some() {
            return Ok(true);
        }
        target.zc_release(fd, frame)?;
        *frame = NOTHING;
        Ok(true)
    }) }
}

/// Hands out up to `count` frames to write: how many. `len` is the room of each.
/// EPIPE on a stream that cannot send, EAGAIN while the send buffer or the memory
/// is full.
///
/// # Safety
/// `frames` is null or `count` writable structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_zc_alloc(fd: c_int, frames: *mut rr_zc_frame, count: usize) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { one_now(frames, count, |frame| running::alloc_now::<true>(fd, frame)) } {
        // SAFETY: the caller's promise.
        0 => unsafe { alloc_any(fd, frames, count) },
        done => done,
    }
}

/// # Safety
/// `frames` is null or `count` writable structs.
#[inline(never)]
unsafe extern "C" fn alloc_any(fd: c_int, frames: *mut rr_zc_frame, count: usize) -> isize {
    // SAFETY: the caller's promise.
    unsafe { several(fd, frames, count, |target, i, frame| {
        if i > 0 && running::alloc_now::<false>(fd, frame).is_some() {
            return Ok(true);
        }
        *frame = target.zc_alloc(fd)?;
        Ok(true)
    }) }
}

/// Sends the first `len` bytes of frames that rr_zc_alloc handed out on this
/// socket, or, on a stream, that rr_zc_recv lent there: a server that answers in
/// the frame of the request needs no other, and does not release it. How many
/// frames were taken: those are the program's no longer, the others still are.
/// EINVAL for a frame that is not out, and for a `len` that is 0 or beyond its
/// room; EMSGSIZE for a received one that is longer than a segment may be here.
/// As send(2) in other errors, SIGPIPE included. Flags: MSG_DONTWAIT, MSG_NOSIGNAL.
///
/// # Safety
/// `frames` is null or `count` structs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rr_zc_send(
    fd: c_int,
    frames: *mut rr_zc_frame,
    count: usize,
    flags: c_int,
) -> isize {
    // SAFETY: the caller's promise.
    match unsafe { one_now(frames, count, |frame| running::send_now(fd, frame, flags)) } {
        // SAFETY: the caller's promise.
        0 => unsafe { send_any(fd, frames, count, flags) },
        done => done,
    }
}

/// # Safety
/// `frames` is null or `count` structs.
#[inline(never)]
unsafe extern "C" fn send_any(
    fd: c_int,
    frames: *mut rr_zc_frame,
    count: usize,
    flags: c_int,
) -> isize {
    let send = |target: Target, frame: &mut rr_zc_frame| {
        target.zc_send(fd, frame, flags)?;
        *frame = NOTHING;
        Ok(true)
    };
    // SAFETY: the caller's promise.
    let sent = unsafe { several(fd, frames, count, |target, _, frame| send(target, frame)) };
    if sent < 0
        && let Some(target) = Target::of(fd)
    {
        super::data::signal_broken_pipe(target, fd, flags, sent);
    }
    sent
}

/// What the program's struct says of a frame that it gave away.
const NOTHING: rr_zc_frame = rr_zc_frame { data: core::ptr::null_mut(), len: 0, id: 0 };

/// Does something with one frame by a short way, which either does it or nothing: 1, or
/// 0 where that, and where there is another number of frames. (In a loop, registers would
/// have to be saved.)
///
/// # Safety
/// `frames` is null or `count` structs.
#[inline(always)]
unsafe fn one_now(frames: *mut rr_zc_frame, count: usize, one: impl FnOnce(&mut rr_zc_frame) -> Option<()>) -> isize {
    if frames.is_null() || count != 1 {
        return 0;
    }
    // SAFETY: not null, so the caller's struct.
    quick(move || isize::from(one(unsafe { &mut *frames }).is_some()))
}

/// Does something with one frame after the other, until it says stop or fails.
/// A failure counts only where it is the first frame's: else it is the next call's.
///
/// # Safety
/// `frames` is null or `count` structs.
unsafe fn several(
    fd: c_int,
    frames: *mut rr_zc_frame,
    count: usize,
    mut one: impl FnMut(Target, usize, &mut rr_zc_frame) -> Result<bool>,
) -> isize {
    guard(|| {
        // Whether it is one of ours at all is asked of what fails.
        let ours = || Target::of(fd).ok_or(Errno::ENOTSOCK);
        let target = Target::simulated().unwrap_or(Target::Running);
        if count == 0 || frames.is_null() {
            let target = ours()?;
            return if count == 0 { Ok(0) } else { Err(target.blame(fd, Errno::EFAULT)) };
        }
        for i in 0..count {
            // SAFETY: not null, so the caller's structs.
            match one(target, i, unsafe { &mut *frames.add(i) }) {
                Ok(true) => {}
                Err(error) if i == 0 => return Err(ours().err().unwrap_or(error)),
                Ok(false) => return Ok(i as isize),
                Err(error) => {
                    let _ = target.leave_error(fd, error);
                    return Ok(i as isize);
                }
            }
        }
        Ok(count as isize)
    })
}

impl Target {
    fn zc_recv(self, fd: c_int, flags: c_int) -> Result<Option<rr_zc_frame>> {
        match self {
            Self::Sim(sim) => sim.with(|s| s.zc_recv(fd)),
            Self::Running => running::recv(fd, flags),
        }
    }

    fn zc_release(self, fd: c_int, frame: &rr_zc_frame) -> Result<()> {
        match self {
            Self::Sim(sim) => sim.with(|s| s.zc_release(fd, frame)),
            Self::Running => running::release(fd, frame),
        }
    }

    fn zc_alloc(self, fd: c_int) -> Result<rr_zc_frame> {
        match self {
            Self::Sim(sim) => sim.with(|s| s.zc_alloc(fd)),
            Self::Running => running::alloc(fd),
        }
    }

    fn zc_send(self, fd: c_int, frame: &rr_zc_frame, flags: c_int) -> Result<()> {
        match self {
            Self::Sim(sim) => sim.with(|s| s.zc_send(fd, frame)),
            Self::Running => running::send(fd, frame, flags),
        }
    }
}

/// Frames lent by the running stack.
mod running {
    use super::{NOTHING, rr_zc_frame};
    use crate::arch;
    use crate::errno::{Errno, Result};
    use crate::ffi::lent::{Lent, Loan, Places};
    use crate::frame::{Arena, Frame};
    use crate::runtime::{posix, zero_copy};
    use crate::socket::Sockets;
    use core::ffi::c_int;
    use std::sync::atomic::{AtomicPtr, Ordering};

    /// Loans of the running stack's arena, by descriptor. A table is never
    /// freed: a frame of a stack that has ended may still be in a hand.
    static LENT: AtomicPtr<Lent<c_int>> = AtomicPtr::new(core::ptr::null_mut());

    fn lent() -> Result<&'static Lent<c_int>> {
        // SAFETY: null, or a table that is never freed.
        unsafe { LENT.load(Ordering::Acquire).as_ref() }.ok_or(Errno::EINVAL)
    }

    /// As [`lent`], for a new loan: a stack that was started from Rust has no table
    /// before its first.
    #[inline]
    fn lent_of(arena: &Arena) -> Result<&'static Lent<c_int>> {
        match lent() {
            Ok(lent) if lent.frames() >= arena.count() as usize => Ok(lent),
            old => first_of(arena, old.map_or(core::ptr::null_mut(), |l| core::ptr::from_ref(l).cast_mut())),
        }
    }

    #[cold]
    fn first_of(arena: &Arena, old: *mut Lent<c_int>) -> Result<&'static Lent<c_int>> {
        let table = Box::into_raw(Box::new(Lent::new(arena.count() as usize)));
        if LENT.compare_exchange(old, table, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(table) });
        }
        lent()
    }

    /// A table for a stack that has just started.
    pub(in crate::ffi) fn renew(frames: usize) {
        let table = Box::into_raw(Box::new(Lent::new(frames)));
        LENT.store(table, Ordering::Release);
    }

    /// The places of a table that is there, for all frames of these sockets.
    #[inline(always)]
    fn places(sockets: &mut Sockets) -> Option<Places<'static, c_int>> {
        lent().ok()?.made(sockets.tx().0.arena().count() as usize)
    }

    /// The struct of a frame that is lent with this.
    #[inline(always)]
    fn lend(sockets: &mut Sockets, places: Places<'_, c_int>, fd: c_int, mut frame: Frame) -> rr_zc_frame {
        let bytes = sockets.tx().0.bytes_mut(&mut frame);
        let (data, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        let id = places.put(Loan { socket: fd, frame });
        rr_zc_frame { data, len, id }
    }

    /// [`recv`] of a frame that is there, by the worker's own thread. 140 to 170
    /// instructions, as have the others; 260 to send 64 bytes. (`LONE`: for the one frame
    /// of a call, or for further ones; each has its own, so that the compiler puts it into
    /// the call.)
    #[inline(always)]
    pub(super) fn recv_now<const LONE: bool>(fd: c_int, to: &mut rr_zc_frame, flags: c_int) -> Option<()> {
        posix::on_own_now(fd, |s, h| {
            let places = places(s)?;
            let frame = s.zc_recv_now(h, flags)?;
            *to = lend(s, places, fd, frame);
            Some(())
        })
    }

    /// [`alloc`], likewise.
    #[inline(always)]
    pub(super) fn alloc_now<const LONE: bool>(fd: c_int, to: &mut rr_zc_frame) -> Option<()> {
        posix::on_own_now(fd, |s, h| {
            let places = places(s)?;
            let frame = s.zc_alloc_now(h)?;
            *to = lend(s, places, fd, frame);
            Some(())
        })
    }

    /// [`release`], likewise, where nothing follows from it.
    #[inline(always)]
    pub(super) fn release_now<const LONE: bool>(fd: c_int, given: &mut rr_zc_frame) -> Option<()> {
        posix::on_own_now(fd, |s, h| {
            let places = lent().ok()?.made(0)?;
            places.take_by(given.id, fd, |frame| s.zc_release_now(h, frame)).then(|| *given = NOTHING)
        })
    }

    /// [`send`], likewise, of a few bytes that are a segment of their own.
    #[inline(always)]
    pub(super) fn send_now(fd: c_int, given: &mut rr_zc_frame, flags: c_int) -> Option<()> {
        if given.len > arch::SHORT {
            return None;
        }
        posix::on_own_now(fd, |s, h| {
            let (places, len) = (lent().ok()?.made(0)?, given.len as u16);
            places.take_by(given.id, fd, |frame| s.zc_send_now(h, frame, len, flags)).then(|| *given = NOTHING)
        })
    }

    pub(super) fn recv(fd: c_int, flags: c_int) -> Result<Option<rr_zc_frame>> {
        let Some(mut frame) = zero_copy::recv(fd, flags)? else { return Ok(None) };
        let arena = zero_copy::arena()?;
        let bytes = arena.bytes_mut(&mut frame);
        let (data, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        let id = lent_of(arena)?.put(Loan { socket: fd, frame });
        Ok(Some(rr_zc_frame { data, len, id }))
    }

    pub(super) fn alloc(fd: c_int) -> Result<rr_zc_frame> {
        let mut frame = zero_copy::alloc(fd)?;
        let arena = zero_copy::arena()?;
        let bytes = arena.bytes_mut(&mut frame);
        let (data, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        let id = lent_of(arena)?.put(Loan { socket: fd, frame });
        Ok(rr_zc_frame { data, len, id })
    }

    pub(super) fn release(fd: c_int, given: &rr_zc_frame) -> Result<()> {
        let loan = lent()?.take(given.id, Some(fd))?;
        let released = match zero_copy::release(fd, loan.frame) {
            Err((Errno::EBADF, frame)) => zero_copy::release_orphan(frame),
            result => result,
        };
        back(given.id, fd, released)
    }

    pub(super) fn send(fd: c_int, given: &rr_zc_frame, flags: c_int) -> Result<()> {
        let mut loan = lent()?.take(given.id, Some(fd))?;
        let (start, room) = (loan.frame.offset(), loan.frame.len());
        if given.len == 0 || given.len > room {
            lent()?.untake(given.id, loan);
            return Err(Errno::EINVAL);
        }
        loan.frame.truncate(given.len);
        let sent = zero_copy::send(fd, loan.frame, flags).map_err(|(error, mut frame)| {
            frame.set_range(start, room);
            (error, frame)
        });
        back(given.id, fd, sent)
    }

    /// Puts a frame that was refused back under its number.
    fn back(id: u64, socket: c_int, result: core::result::Result<(), (Errno, Frame)>) -> Result<()> {
        result.map_err(|(error, frame)| {
            if let Ok(lent) = lent() {
                lent.untake(id, Loan { socket, frame });
            }
            error
        })
    }
}

pub(super) use running::renew;
