//! Urgent data between any thread and a program on a worker.

use super::threads::Bed;
use super::*;
use crate::errno::Errno;
use crate::runtime::posix;
use crate::socket::{Figure, Handle, Sockets};
use crate::time::Instant;
use std::ops::ControlFlow;

/// Answers the first byte of each connection with "abc", urgent "X", "def".
struct Urgent {
    listener: Handle,
    open: Vec<Handle>,
}

impl crate::runtime::App for Urgent {
    fn turn(&mut self, _: Instant, s: &mut Sockets) -> ControlFlow<()> {
        if let Ok((h, _)) = s.accept(self.listener) {
            self.open.push(h);
        }
        let mut byte = [0];
        for &h in &self.open {
            if s.recv(h, &mut byte, 0) == Ok(1) {
                assert_eq!(s.send(h, b"abc", 0), Ok(3));
                assert_eq!(s.send(h, b"X", libc::MSG_OOB), Ok(1));
                assert_eq!(s.send(h, b"def", 0), Ok(3));
            }
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn a_thread_reads_up_to_the_mark_then_the_byte_then_the_rest() {
    let make = |s: &mut Sockets| {
        let listener = s.socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
        s.bind(listener, at(B, 7)).unwrap();
        s.listen(listener, 8).unwrap();
        Urgent { listener, open: Vec::new() }
    };
    Bed::new(Wait::Block).against(make, || {
        for inline in [false, true] {
            let fd = posix::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap();
            let on = i32::from(inline).to_ne_bytes();
            posix::set_option(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, &on).unwrap();
            posix::connect(fd, at(B, 7)).unwrap();
            assert_eq!(posix::send(fd, b"?", libc::MSG_OOB), Ok(1));
            let mut got = [0; 16];
            let fill = |got: &mut [u8], want: usize| {
                let mut n = 0;
                while n < want {
                    n += posix::recv(fd, &mut got[n..], 0).unwrap();
                }
                n
            };
            // The peer reads no urgent byte in line: one more that is not.
            assert_eq!(posix::send(fd, b"!", 0), Ok(1));
            assert_eq!(fill(&mut got, 3), 3);
            assert_eq!(&got[..3], b"abc");
            while posix::figure(fd, Figure::AtMark) != Ok(1) {
                std::thread::yield_now();
            }
            let oob = posix::recv(fd, &mut got, libc::MSG_OOB);
            let want = if inline {
                assert_eq!(oob, Err(Errno::EINVAL));
                &b"Xdef"[..]
            } else {
                assert_eq!((oob, got[0]), (Ok(1), b'X'));
                &b"def"[..]
            };
            assert_eq!(fill(&mut got, want.len()), want.len());
            assert_eq!(&got[..want.len()], want);
            assert_eq!(posix::figure(fd, Figure::AtMark), Ok(0));
            posix::close(fd).unwrap();
        }
    });
}
