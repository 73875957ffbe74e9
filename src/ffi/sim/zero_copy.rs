//! Frames lent to the program of a simulation.

use super::Sim;
use crate::errno::{Errno, Result};
use crate::ffi::lent::Loan;
use crate::ffi::zero_copy::rr_zc_frame;
use core::ffi::c_int;

impl Sim {
    /// Lends the next received frame; `None` at the end of the stream.
    pub(in crate::ffi) fn zc_recv(&mut self, fd: c_int) -> Result<Option<rr_zc_frame>> {
        let socket = self.descriptors.get(fd)?;
        let mut frame = match self.sockets.zc_recv(socket) {
            Err(Errno::ESHUTDOWN) => return Ok(None),
            frame => frame?,
        };
        let (pool, _) = self.sockets.tx();
        let bytes = pool.bytes_mut(&mut frame);
        let (data, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        let id = self.lent.put(Loan { socket, frame });
        Ok(Some(rr_zc_frame { data, len, id }))
    }

    /// Hands out a frame to write.
    pub(in crate::ffi) fn zc_alloc(&mut self, fd: c_int) -> Result<rr_zc_frame> {
        let socket = self.descriptors.get(fd)?;
        let mut frame = self.sockets.zc_alloc(socket)?;
        let (pool, _) = self.sockets.tx();
        let bytes = pool.bytes_mut(&mut frame);
        let (data, len) = (bytes.as_mut_ptr().cast(), bytes.len());
        let id = self.lent.put(Loan { socket, frame });
        Ok(rr_zc_frame { data, len, id })
    }

    /// Takes a lent frame back, read or unsent. It may come after the
    /// descriptor was closed.
    pub(in crate::ffi) fn zc_release(&mut self, fd: c_int, frame: &rr_zc_frame) -> Result<()> {
        let loan = match self.descriptors.get(fd) {
            Ok(socket) => self.lent.take(frame.id, Some(socket))?,
            Err(error) => {
                let loan = self.lent.take(frame.id, None).map_err(|_| error)?;
                if self.sockets.local_addr(loan.socket) != Err(Errno::EBADF) {
                    self.lent.untake(frame.id, loan);
                    return Err(error);
                }
                loan
            }
        };
        self.sockets.zc_release(loan.socket, loan.frame)
    }

    /// Sends the first `len` bytes of a frame that was handed out or lent.
    pub(in crate::ffi) fn zc_send(&mut self, fd: c_int, given: &rr_zc_frame) -> Result<()> {
        let socket = self.descriptors.get(fd)?;
        let mut loan = self.lent.take(given.id, Some(socket))?;
        let (start, room) = (loan.frame.offset(), loan.frame.len());
        if given.len > room || given.len == 0 {
            self.lent.untake(given.id, loan);
            return Err(Errno::EINVAL);
        }
        loan.frame.truncate(given.len);
        match self.sockets.zc_send(socket, loan.frame) {
            Ok(()) => Ok(()),
            Err((error, mut frame)) => {
                frame.set_range(start, room);
                self.lent.untake(given.id, Loan { frame, ..loan });
                Err(error)
            }
        }
    }
}
