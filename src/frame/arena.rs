//! The memory that frames lie in.

use super::Frame;
use core::any::Any;
use core::fmt;
use core::num::NonZeroU16;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};
use std::sync::Arc;

/// A region of equally large frames, shared by every worker and thread.
///
/// It hands out bytes only against a [`Frame`] token: exclusive bytes against
/// an exclusive borrow of the token. As there is one token for each frame, that
/// makes it safe to share.
pub struct Arena {
    region: Region,
    _owner: Box<dyn Any + Send + Sync>,
}

/// Where the frames lie.
#[derive(Clone, Copy)]
struct Region {
    base: NonNull<u8>,
    stride: usize,
    capacity: u16,
    id: NonZeroU16,
    count: u32,
}

/// A share in an arena with the region at hand: each access to a frame's bytes
/// saves the way through the counted reference.
pub(super) struct Access {
    arena: Arc<Arena>,
    region: Region,
}

// SAFETY: the region is plain memory that lives as long as `_owner`; access to a
// frame's bytes needs its token, and tokens are unique (made only by `mint`).
unsafe impl Send for Arena {}
// SAFETY: as above: shared access to the arena gives no access to bytes.
unsafe impl Sync for Arena {}
// SAFETY: as for the arena, which it keeps alive.
unsafe impl Send for Access {}
// SAFETY: as for the arena.
unsafe impl Sync for Access {}

static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// Page-aligned memory on the heap.
struct Heap {
    base: NonNull<u8>,
    layout: std::alloc::Layout,
}

// SAFETY: it only owns the allocation; the bytes are reached through the arena.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated by `Arena::heap` with this layout, and freed once.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl Arena {
    /// An arena on the heap: `count` frames of `capacity` bytes, zeroed.
    ///
    /// # Panics
    /// If either is zero or the memory cannot be had.
    pub fn heap(count: u32, capacity: u16) -> Arc<Self> {
        assert!(count > 0 && capacity > 0, "an arena needs frames");
        let stride = usize::from(capacity).next_multiple_of(64);
        let layout = std::alloc::Layout::from_size_align(stride * count as usize, 4096)
            .expect("the size of an arena fits in memory");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { std::alloc::handle_alloc_error(layout) };
        let owner = Box::new(Heap { base, layout });
        // SAFETY: `owner` keeps stride * count bytes at `base`, initialised, for
        // its whole life, and nobody else reaches them.
        unsafe { Self::new(base, stride, capacity, count, owner) }
    }

    /// An arena over memory that somebody else mapped (a UMEM).
    ///
    /// # Safety
    /// While `owner` lives, `base + i * stride ..+ capacity` for `i < count` must
    /// be initialised memory, valid for reads and writes, that nothing in this
    /// process reaches but through this arena. (The kernel writes only to frames
    /// in the fill ring, of which no token is out.)
    pub unsafe fn new(
        base: NonNull<u8>,
        stride: usize,
        capacity: u16,
        count: u32,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Arc<Self> {
        assert!(stride >= capacity.into());
        // Of 65,536 the one that is zero is taken for the first's.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let id = NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN);
        let region = Region { base, stride, capacity, id, count };
        Arc::new(Self { region, _owner: owner })
    }

    /// Bytes in each frame.
    pub fn capacity(&self) -> usize {
        self.region.capacity.into()
    }

    /// Frames in the arena.
    pub fn count(&self) -> u32 {
        self.region.count
    }

    /// Whether the frame is one of this arena's.
    pub fn owns(&self, frame: &Frame) -> bool {
        frame.arena == self.region.id
    }

    /// The bytes of the frame's range.
    ///
    /// # Panics
    /// If the frame belongs to another arena or its range ends beyond the frame.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.region.bytes(frame)
    }

    /// The bytes of the frame's range, to write.
    ///
    /// # Panics
    /// As [`Arena::bytes`].
    #[inline]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.region.bytes_mut(frame)
    }

    /// The whole frame, whatever its range, to write.
    ///
    /// # Panics
    /// If the frame belongs to another arena.
    #[inline]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.region.buffer_mut(frame)
    }
}

/// A region is only reached through the arena or an [`Access`], which keep its
/// memory alive for as long as the reference that comes in here.
impl Region {
    /// The frame's first byte.
    ///
    /// # Panics
    /// If the frame belongs to another arena.
    #[inline(always)]
    fn start(&self, frame: &Frame) -> *mut u8 {
        assert!(frame.arena == self.id, "a frame of another arena");
        debug_assert!(frame.index < self.count);
        // SAFETY: tokens are minted with index < count, so this stays inside.
        unsafe { self.base.as_ptr().add(frame.index as usize * self.stride) }
    }

    /// The first byte of the frame's range, all of which lies in the frame.
    ///
    /// # Panics
    /// If the frame belongs to another arena or its range ends beyond the frame.
    #[inline(always)]
    fn range(&self, frame: &Frame) -> *mut u8 {
        let start = self.start(frame);
        assert!(u32::from(frame.offset) + u32::from(frame.len) <= u32::from(self.capacity));
        // SAFETY: inside the frame (checked).
        unsafe { start.add(frame.offset.into()) }
    }

    #[inline(always)]
    fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        // SAFETY: inside the frame (checked); the token is borrowed, so nobody
        // writes to it meanwhile.
        unsafe { core::slice::from_raw_parts(self.range(frame), frame.len.into()) }
    }

    #[inline(always)]
    fn front<'a>(&'a self, frame: &'a Frame, len: u16) -> Option<&'a [u8]> {
        let inside = u32::from(frame.offset) + u32::from(len) <= u32::from(self.capacity);
        if frame.arena != self.id || !inside {
            return None;
        }
        // SAFETY: inside the frame (checked), which is one of these; the token is borrowed,
        // so nobody writes to it meanwhile.
        Some(unsafe { core::slice::from_raw_parts(self.start(frame).add(frame.offset.into()), len.into()) })
    }

    #[inline(always)]
    fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: inside the frame (checked); the token is exclusively borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.range(frame), frame.len.into()) }
    }

    #[inline(always)]
    fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: the whole frame, of which the token is exclusively borrowed.
        unsafe { core::slice::from_raw_parts_mut(self.start(frame), self.capacity.into()) }
    }

    #[inline]
    fn linked_bytes(&self, index: u32, len: u16) -> &[u8] {
        assert!(index < self.count && len <= self.capacity);
        // SAFETY: inside the region (checked). No token of a linked frame is out, and
        // the pool, which alone can make one, is borrowed meanwhile: nobody writes.
        unsafe {
            let start = self.base.as_ptr().add(index as usize * self.stride);
            core::slice::from_raw_parts(start, len.into())
        }
    }

    #[inline]
    fn tx_bytes(&self, desc: &super::TxDesc) -> &[u8] {
        assert!(desc.index < self.count && desc.len <= self.capacity);
        // SAFETY: inside the region (checked). The frame's transmission is
        // pending, and a pending frame is never rewritten (the pool asserts it).
        unsafe {
            let start = self.base.as_ptr().add(desc.index as usize * self.stride);
            core::slice::from_raw_parts(start, desc.len.into())
        }
    }
}

impl Access {
    pub fn new(arena: Arc<Arena>) -> Self {
        Self { region: arena.region, arena }
    }

    /// The arena.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Bytes in each frame.
    #[inline(always)]
    pub fn capacity(&self) -> usize {
        self.region.capacity.into()
    }

    /// Makes the token of a frame.
    ///
    /// Only the pool calls this, and only for a frame of which no token is out.
    #[inline(always)]
    pub fn mint(&self, index: u32, offset: u16, len: u16) -> Frame {
        debug_assert!(index < self.region.count);
        Frame { index, offset, len, arena: self.region.id }
    }

    /// Whether the frame is one of this arena's.
    #[inline(always)]
    pub fn owns(&self, frame: &Frame) -> bool {
        frame.arena == self.region.id
    }

    /// As [`Arena::bytes`].
    #[inline(always)]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        self.region.bytes(frame)
    }

    /// The first `len` bytes from the beginning of the frame's range; `None` where they do
    /// not lie in it, or it belongs to another arena.
    #[inline(always)]
    pub fn front<'a>(&'a self, frame: &'a Frame, len: u16) -> Option<&'a [u8]> {
        self.region.front(frame, len)
    }

    /// As [`Arena::bytes_mut`].
    #[inline(always)]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.region.bytes_mut(frame)
    }

    /// As [`Arena::buffer_mut`].
    #[inline(always)]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.region.buffer_mut(frame)
    }

    /// The first bytes of a frame that is linked in a chain. Only the pool that has
    /// it there calls this.
    #[inline]
    pub fn linked_bytes(&self, index: u32, len: u16) -> &[u8] {
        self.region.linked_bytes(index, len)
    }

    /// The bytes that a transmission descriptor names, for a device that copies.
    ///
    /// # Panics
    /// If the descriptor does not lie in this arena.
    #[inline]
    pub fn tx_bytes(&self, desc: &super::TxDesc) -> &[u8] {
        self.region.tx_bytes(desc)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arena.fmt(f)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("id", &self.region.id)
            .field("count", &self.region.count)
            .field("capacity", &self.region.capacity)
            .finish()
    }
}
