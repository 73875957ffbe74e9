//! The descriptors of one simulated program: small integers, the lowest free
//! one first, as the system gives them.

use crate::errno::{Errno, Result};
use crate::socket::Handle;
use core::ffi::c_int;

/// The first descriptor: 0, 1 and 2 are left out, so that a program that prints
/// is not mistaken for one that sends.
const FIRST: usize = 3;

/// What several descriptors may share (an open file description).
#[derive(Debug)]
struct File {
    /// Descriptors that name it; 0: its slot is free.
    names: u32,
    /// O_NONBLOCK as F_SETFL left it.
    nonblocking: bool,
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    handle: Handle,
    file: u32,
    close_on_exec: bool,
}

/// The table.
#[derive(Debug)]
pub(super) struct Descriptors {
    slots: Vec<Option<Descriptor>>,
    /// No slot below this one is free.
    lowest: usize,
    used: usize,
    files: Vec<File>,
    free_files: Vec<u32>,
    limit: usize,
}

impl Descriptors {
    /// An empty table of at most `limit` descriptors.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            lowest: 0,
            used: 0,
            files: Vec::new(),
            free_files: Vec::new(),
            limit,
        }
    }

    /// What the descriptor names.
    ///
    /// # Errors
    /// EBADF.
    #[inline]
    pub(super) fn get(&self, fd: c_int) -> Result<Handle> {
        self.slot(fd).map(|d| d.handle)
    }

    #[inline]
    fn slot(&self, fd: c_int) -> Result<Descriptor> {
        let index = (fd as usize).wrapping_sub(FIRST);
        self.slots.get(index).copied().flatten().ok_or(Errno::EBADF)
    }

    /// True while there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.used < self.limit
    }

    /// A descriptor for a new socket.
    ///
    /// # Errors
    /// EMFILE.
    pub(super) fn open(&mut self, handle: Handle, nonblocking: bool, cloexec: bool) -> Result<c_int> {
        let file = File { names: 1, nonblocking };
        let index = self.free_files.last().map_or(self.files.len(), |&i| i as usize);
        let descriptor = Descriptor { handle, file: index as u32, close_on_exec: cloexec };
        let fd = self.place(descriptor, 0)?;
        match self.free_files.pop() {
            Some(index) => self.files[index as usize] = file,
            None => self.files.push(file),
        }
        Ok(fd)
    }

    /// One more name for what `fd` names, at least `from`.
    ///
    /// # Errors
    /// EBADF, EINVAL for an impossible `from`, EMFILE.
    pub(super) fn dup(&mut self, fd: c_int, from: c_int, cloexec: bool) -> Result<c_int> {
        let mut descriptor = self.slot(fd)?;
        let from = usize::try_from(from).map_err(|_| Errno::EINVAL)?.saturating_sub(FIRST);
        if from >= self.limit {
            return Err(Errno::EINVAL);
        }
        descriptor.close_on_exec = cloexec;
        let fd = self.place(descriptor, from)?;
        self.files[descriptor.file as usize].names += 1;
        Ok(fd)
    }

    fn place(&mut self, descriptor: Descriptor, from: usize) -> Result<c_int> {
        let from = from.max(self.lowest);
        let free = (from..self.slots.len()).find(|&i| self.slots[i].is_none());
        let index = free.unwrap_or(self.slots.len().max(from));
        if index >= self.limit {
            return Err(Errno::EMFILE);
        }
        if from == self.lowest {
            self.lowest = index + 1;
        }
        self.used += 1;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, None);
        }
        self.slots[index] = Some(descriptor);
        Ok((index + FIRST) as c_int)
    }

    /// Forgets a descriptor; gives its handle where it was the last name of it.
    ///
    /// # Errors
    /// EBADF.
    pub(super) fn close(&mut self, fd: c_int) -> Result<Option<Handle>> {
        let descriptor = self.slot(fd)?;
        let index = fd as usize - FIRST;
        self.slots[index] = None;
        self.lowest = self.lowest.min(index);
        self.used -= 1;
        let file = &mut self.files[descriptor.file as usize];
        file.names -= 1;
        if file.names > 0 {
            return Ok(None);
        }
        self.free_files.push(descriptor.file);
        Ok(Some(descriptor.handle))
    }

    /// Whether O_NONBLOCK is set.
    ///
    /// # Errors
    /// EBADF.
    pub(super) fn nonblocking(&self, fd: c_int) -> Result<bool> {
        Ok(self.files[self.slot(fd)?.file as usize].nonblocking)
    }

    /// Sets O_NONBLOCK: remembered, though no call of a simulation blocks.
    ///
    /// # Errors
    /// EBADF.
    pub(super) fn set_nonblocking(&mut self, fd: c_int, on: bool) -> Result<()> {
        let file = self.slot(fd)?.file;
        self.files[file as usize].nonblocking = on;
        Ok(())
    }

    /// Whether FD_CLOEXEC is set.
    ///
    /// # Errors
    /// EBADF.
    pub(super) fn close_on_exec(&self, fd: c_int) -> Result<bool> {
        Ok(self.slot(fd)?.close_on_exec)
    }

    /// Sets FD_CLOEXEC.
    ///
    /// # Errors
    /// EBADF.
    pub(super) fn set_close_on_exec(&mut self, fd: c_int, on: bool) -> Result<()> {
        self.slot(fd)?;
        if let Some(Some(descriptor)) = self.slots.get_mut(fd as usize - FIRST) {
            descriptor.close_on_exec = on;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(n: u64) -> Handle {
        Handle::from_raw(n)
    }

    #[test]
    fn the_lowest_free_descriptor_is_used() {
        let mut table = Descriptors::new(4);
        for n in 0..3 {
            assert_eq!(table.open(handle(n), false, false), Ok(3 + n as c_int));
        }
        assert_eq!(table.close(4), Ok(Some(handle(1))));
        assert_eq!(table.get(4), Err(Errno::EBADF));
        assert_eq!(table.close(4), Err(Errno::EBADF));
        assert_eq!(table.open(handle(9), true, false), Ok(4));
        assert_eq!((table.get(4), table.nonblocking(4)), (Ok(handle(9)), Ok(true)));
        assert!(table.has_room());
        assert_eq!(table.open(handle(7), false, false), Ok(6));
        assert!(!table.has_room());
        assert_eq!(table.open(handle(7), false, false), Err(Errno::EMFILE));
        assert_eq!(table.get(-1), Err(Errno::EBADF));
        assert_eq!(table.get(0), Err(Errno::EBADF));
    }

    #[test]
    fn duplicates_share_flags_and_the_last_close_counts() {
        let mut table = Descriptors::new(64);
        let fd = table.open(handle(1), false, true).unwrap();
        let two = table.dup(fd, 0, false).unwrap();
        let ten = table.dup(fd, 10, true).unwrap();
        assert_eq!((two, ten), (4, 10));
        table.set_nonblocking(two, true).unwrap();
        assert_eq!(table.nonblocking(fd), Ok(true));
        assert_eq!((table.close_on_exec(fd), table.close_on_exec(two)), (Ok(true), Ok(false)));
        table.set_close_on_exec(two, true).unwrap();
        assert_eq!(table.close_on_exec(two), Ok(true));
        assert_eq!(table.close(fd), Ok(None));
        assert_eq!(table.close(ten), Ok(None));
        assert_eq!(table.close(two), Ok(Some(handle(1))));
        assert_eq!(table.dup(two, 0, false), Err(Errno::EBADF));
        let fd = table.open(handle(2), false, false).unwrap();
        assert_eq!(table.dup(fd, -1, false), Err(Errno::EINVAL));
        assert_eq!(table.dup(fd, 5000, false), Err(Errno::EINVAL));
    }
}
