//! What came in and was not read: the frames that it came in.

use super::Config;
use super::assembler::Assembler;
use super::few::Few;
use super::types::Env;
use crate::arch;
use crate::frame::{Frame, Pool};
use crate::telemetry::Counters;

/// In-order data, and what came ahead of a gap.
///
/// In this order, as segments in order do not touch the last field.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct RecvQueue {
    frames: Few<Frame>,
    /// Bytes in the frames.
    len: u32,
    pub ahead: Option<Box<Assembler>>,
}

impl RecvQueue {
    /// Bytes of the queue itself that its first frame lies in.
    pub const FRONT: usize = core::mem::offset_of!(Self, len);

    /// Bytes that can be read.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Frames held.
    pub fn frames(&self) -> usize {
        self.frames.len() + self.ahead.as_ref().map_or(0, |a| a.frames())
    }

    /// False where a payload cannot be kept: the pool is nearly empty, this queue
    /// has something to be read already, and its last frame has no room. What
    /// programs do not read must not take the frames that ACKs come in.
    pub fn has_room(&self, env: &Env, frame: &Frame) -> bool {
        env.pool.available() >= env.config.frame_reserve
            || self.frames.back().is_none_or(|tail| {
                tail.offset() + tail.len() + frame.len() <= env.pool.arena().capacity()
            })
    }

    /// Adds a payload in order. A small one, or any when the pool is low, is
    /// copied to the last frame's end, so that few bytes do not pin a frame.
    #[inline]
    pub fn push(&mut self, pool: &mut Pool, counters: &mut Counters, config: &Config, frame: Frame) {
        self.len += frame.len() as u32;
        if self.frames.is_empty() {
            self.frames.push_back(frame);
        } else {
            self.push_behind(pool, counters, config, frame.anew());
        }
    }

    #[inline(never)]
    fn push_behind(&mut self, pool: &mut Pool, counters: &mut Counters, config: &Config, frame: Frame) {
        if let Some(tail) = self.frames.back_mut() {
            let small = frame.len() <= config.coalesce as usize;
            if small || pool.available() < config.frames_low {
                let (end, n) = (tail.offset() + tail.len(), frame.len());
                if end + n <= pool.arena().capacity() {
                    let range = (tail.offset(), tail.len() + n);
                    pool.buffer_mut(tail)[end..end + n].copy_from_slice(pool.bytes(&frame));
                    tail.set_range(range.0, range.1);
                    pool.free(frame);
                    counters.rx_copied_bytes += n as u64;
                    return;
                }
            }
        }
        self.frames.push_back(frame);
    }

    /// The short way of [`read`](Self::read), without a call: takes the one frame that
    /// is there, all of it, where that is little. 0, and nothing done, where it is not so.
    #[inline(always)]
    pub fn read_lone(&mut self, pool: &mut Pool, buf: &mut [u8]) -> usize {
        let n = self.len as usize;
        if !(1..=arch::SHORT_COPY).contains(&n) {
            return 0;
        }
        let Some(to) = buf.get_mut(..n) else { return 0 };
        let Some(frame) = self.frames.take_only() else { return 0 };
        if let Some(frame) = pool.free_copied(frame, to) {
            self.frames.put_lone(frame);
            return 0;
        }
        self.len = 0;
        n
    }

    /// Copies to `buf` from the front; takes what it copies unless `peek`.
    #[inline]
    pub fn read(&mut self, pool: &mut Pool, buf: &mut [u8], peek: bool) -> usize {
        // The one frame that is there, and all of it.
        if !peek
            && let Some(to) = buf.get_mut(..self.len as usize)
            && let Some(frame) = self.frames.take_only()
        {
            to.copy_from_slice(pool.bytes(&frame));
            pool.free(frame);
            return core::mem::take(&mut self.len) as usize;
        }
        self.read_any(pool, buf, peek)
    }

    #[inline(never)]
    fn read_any(&mut self, pool: &mut Pool, buf: &mut [u8], peek: bool) -> usize {
        if peek {
            return self.peek(pool, buf);
        }
        let mut done = 0;
        while let Some(front) = self.frames.front_mut() {
            let n = front.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&pool.bytes(front)[..n]);
            done += n;
            if n < front.len() {
                front.trim_front(n);
                break;
            }
            if let Some(frame) = self.frames.pop_front() {
                pool.free(frame);
            }
            if done == buf.len() {
                break;
            }
        }
        self.len -= done as u32;
        done
    }

    fn peek(&self, pool: &Pool, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for frame in self.frames.iter() {
            let n = frame.len().min(buf.len() - done);
            buf[done..done + n].copy_from_slice(&pool.bytes(frame)[..n]);
            done += n;
        }
        done
    }

    /// Takes the only frame; without a call.
    #[inline(always)]
    pub fn pop_only(&mut self) -> Option<Frame> {
        let frame = self.frames.take_only()?;
        self.len = 0;
        Some(frame)
    }

    /// Takes the first frame.
    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.len -= frame.len() as u32;
        Some(frame)
    }

    /// Takes the first frame, but only `most` bytes of it. `None` also where the
    /// rest would need a frame and there is none.
    #[cold]
    pub fn pop_part(&mut self, pool: &mut Pool, most: usize) -> Option<Frame> {
        let front = self.frames.front_mut()?;
        if front.len() <= most {
            return self.pop();
        }
        let mut part = pool.alloc()?;
        part.set_range(0, most);
        pool.buffer_mut(&mut part)[..most].copy_from_slice(&pool.bytes(front)[..most]);
        front.trim_front(most);
        self.len -= most as u32;
        Some(part)
    }

    /// Throws the first byte away.
    #[cold]
    pub fn skip(&mut self, pool: &mut Pool) {
        let Some(front) = self.frames.front_mut() else { return };
        front.trim_front(1);
        self.len -= 1;
        if front.is_empty()
            && let Some(frame) = self.frames.pop_front()
        {
            pool.free(frame);
        }
    }

    /// Gives all frames back.
    #[inline]
    pub fn clear(&mut self, pool: &mut Pool) {
        if !self.frames.is_empty() {
            self.clear_frames(pool);
        }
        self.len = 0;
        self.drop_ahead(pool);
    }

    #[inline(never)]
    fn clear_frames(&mut self, pool: &mut Pool) {
        self.frames.drain().for_each(|frame| pool.free(frame));
    }

    /// Gives back what waits behind a gap.
    #[inline]
    pub fn drop_ahead(&mut self, pool: &mut Pool) {
        if let Some(mut ahead) = self.ahead.take() {
            ahead.clear(pool);
        }
    }

    /// Gives memory back that a burst left behind.
    pub fn trim(&mut self) {
        self.frames.trim();
    }
}
