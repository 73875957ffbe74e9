//! The memory shared with the kernel: one UMEM for all workers, as an arena.

use super::error::{Error, ErrorKind, Result};
use crate::frame::Arena;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI32, Ordering};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use xsk_rs::FrameDesc;
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

/// Bytes from one frame to the next.
pub(super) const FRAME_SIZE: usize = 4096;
/// What the kernel keeps before a packet, for XDP programs that grow it.
pub(super) const HEADROOM: usize = 256;
/// Bytes of a packet that fit in a frame.
pub(super) const CAPACITY: usize = FRAME_SIZE - HEADROOM;

/// The UMEM, and for each frame the descriptor that names it.
///
/// `FrameDesc` is `Copy`, and a copied descriptor would put one frame in two
/// rings. So no descriptor leaves this folder: frames travel as tokens, and a
/// descriptor is made from a token's number at the moment it enters a ring.
#[derive(Clone)]
pub(super) struct Umem {
    // Before `inner`, which closes the socket's number.
    socket: Arc<FirstSocket>,
    inner: xsk_rs::Umem,
    descriptors: Arc<[FrameDesc]>,
    arena: Arc<Arena>,
    huge: bool,
}

/// The size of the hugepages that a mapping takes, in bytes; `None`: there are none.
fn huge_page_size() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("Hugepagesize:"))?;
    line.split_whitespace().next()?.parse::<usize>().ok().map(|kib| kib << 10)
}

/// Why there is no UMEM.
fn refused(why: impl std::error::Error, what: &str, huge: bool) -> Error {
    let number = why.source().and_then(|s| s.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    match number {
        Some(libc::ENOMEM) if huge => Error::new(
            ErrorKind::Memory,
            what,
            "there are not enough free hugepages",
            "set vm.nr_hugepages, or do without them",
        ),
        Some(number) => Error::system(what, io::Error::from_raw_os_error(number)),
        None => Error::new(ErrorKind::System, what, why.to_string(), ""),
    }
}

/// What the rings are to hold: entries, powers of two.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSizes {
    pub fill: u32,
    pub completion: u32,
}

impl Umem {
    /// `huge_pages`: `None` where enough of them are free.
    pub(super) fn new(frames: u32, rings: RingSizes, huge_pages: Option<bool>) -> Result<Self> {
        raise_lock_limit();
        let what = format!("a UMEM of {frames} frames ({} MiB)", (frames as usize * FRAME_SIZE) >> 20);
        let config = umem_config(rings).map_err(|why| {
            Error::new(ErrorKind::Config, &what, why, "ring sizes are powers of two")
        })?;
        let count = NonZeroU32::new(frames).ok_or_else(|| {
            Error::new(ErrorKind::Config, &what, "no frames were asked for", "ask for some")
        })?;
        let bytes = frames as usize * FRAME_SIZE;
        let wanted = huge_pages.unwrap_or_else(|| huge_page_size().is_some_and(|page| bytes.is_multiple_of(page)));
        let map = |huge| xsk_rs::Umem::new(config, count, huge).map_err(|why| refused(why, &what, huge));
        // Who left it open has them only where they are free: ordinary pages do as well.
        let (huge, made) = match map(wanted) {
            Err(_) if wanted && huge_pages.is_none() => (false, map(false)),
            made => (wanted, made),
        };
        let (inner, mut descriptors) = made?;
        // SAFETY: a fresh UMEM: no descriptor is in a ring, and no slice of it
        // is alive.
        let first = unsafe { inner.data_mut(&mut descriptors[0]) }.contents_mut().as_mut_ptr();
        // The slice is of one frame; the whole mapping was exposed to the kernel.
        let base = core::ptr::with_exposed_provenance_mut::<u8>(first.addr());
        let base = NonNull::new(base).expect("the UMEM is mapped");
        // SAFETY: the mapping lives as long as `inner`, of which the arena keeps
        // a clone; frame i's packet begins at base + i * FRAME_SIZE and has
        // CAPACITY bytes; the mapping is zeroed by the kernel; nothing in this
        // folder reads or writes it but through the arena.
        let arena = unsafe {
            Arena::new(base, FRAME_SIZE, CAPACITY as u16, frames, Box::new(inner.clone()))
        };
        let socket = Arc::new(FirstSocket(AtomicI32::new(-1)));
        Ok(Self { socket, inner, descriptors: descriptors.into(), arena, huge })
    }

    /// Whether the frames lie on hugepages.
    pub(super) fn huge_pages(&self) -> bool {
        self.huge
    }

    /// A queue was bound to this socket.
    pub(super) fn bound(&self, socket: RawFd) {
        let _ = self.socket.0.compare_exchange(-1, socket, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    pub(super) fn inner(&self) -> &xsk_rs::Umem {
        &self.inner
    }

    /// The descriptor of an empty frame, for the fill ring.
    #[inline]
    pub(super) fn descriptor(&self, index: u32) -> FrameDesc {
        self.descriptors[index as usize]
    }

    /// The descriptor of a frame's first `len` bytes, to send. `None` where it
    /// would be invalid: such a descriptor would never complete.
    #[inline]
    pub(super) fn tx_descriptor(&self, index: u32, len: usize, more: bool) -> Option<FrameDesc> {
        if len == 0 || len > CAPACITY {
            return None;
        }
        let mut descriptor = *self.descriptors.get(index as usize)?;
        // SAFETY: the slice that is made here serves only to set the length (the
        // crate has no other way); no byte is read or written through it, and it
        // is gone before the frame is in the ring.
        unsafe { self.inner.data_mut(&mut descriptor) }.cursor().set_pos(len);
        descriptor.set_options(u32::from(more)); // XDP_PKT_CONTD
        Some(descriptor)
    }

    /// The frame that an address from a ring lies in, and the offset of the
    /// address in its packet area; `None` where it cannot be.
    #[inline]
    pub(super) fn locate(&self, address: usize) -> Option<(u32, Option<usize>)> {
        let index = address / FRAME_SIZE;
        if index >= self.descriptors.len() {
            return None;
        }
        Some((index as u32, (address % FRAME_SIZE).checked_sub(HEADROOM)))
    }
}

/// The first socket over a UMEM, which is the UMEM's own: it stays open, and its
/// queue bound, as long as the memory is there, and that is as long as anybody
/// may still look at a frame. So the last device to go takes the socket away from
/// under its number.
struct FirstSocket(AtomicI32);

impl Drop for FirstSocket {
    fn drop(&mut self) {
        let socket = *self.0.get_mut();
        if socket < 0 {
            return;
        }
        // SAFETY: takes no pointers.
        let nothing = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if nothing < 0 {
            return;
        }
        // SAFETY: the number is the UMEM's, which is there (`Umem` drops this
        // first), and all rings over the socket are gone.
        unsafe {
            libc::dup3(nothing, socket, libc::O_CLOEXEC);
            libc::close(nothing);
        }
    }
}

fn umem_config(rings: RingSizes) -> core::result::Result<UmemConfig, String> {
    let size = |n| QueueSize::new(n).map_err(|e| e.to_string());
    UmemConfig::builder()
        .frame_size(FrameSize::new(FRAME_SIZE as u32).map_err(|e| e.to_string())?)
        .fill_queue_size(size(rings.fill)?)
        .comp_queue_size(size(rings.completion)?)
        .build()
        .map_err(|e| e.to_string())
}

/// Tries to lift the limit on locked memory, which the UMEM counts against where
/// CAP_IPC_LOCK is missing. Failing is no error: the limit may suffice.
fn raise_lock_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives through the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) != 0 {
            return;
        }
        let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        if libc::setrlimit(libc::RLIMIT_MEMLOCK, &all) != 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
        }
    }
}
