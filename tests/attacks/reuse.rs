//! Who may bind to a port that others use, or used: Linux's rules.

use super::bed::*;
use ringroad::errno::Errno;
use ringroad::socket::linux::*;
use ringroad::wire::tcp::Options;
use std::net::SocketAddr;

fn here() -> SocketAddr {
    SocketAddr::new(OURS.into(), PORT)
}

/// Binds a new socket to the listener's port.
fn bind(b: &mut Bed, reuse_addr: bool, reuse_port: bool) -> Result<(), Errno> {
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    b.set(h, SOL_SOCKET, SO_REUSEADDR, reuse_addr.into());
    b.set(h, SOL_SOCKET, SO_REUSEPORT, reuse_port.into());
    let done = b.sockets.bind(h, here());
    b.sockets.close(h).unwrap();
    done
}

/// A listener with these options whose one connection is in TIME-WAIT, or open,
/// and which is closed itself.
fn left_behind(reuse_addr: bool, reuse_port: bool, waiting: bool) -> Bed {
    let mut b = Bed::new(|_| ());
    let old = b.listener;
    b.sockets.close(old).unwrap();
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    b.set(h, SOL_SOCKET, SO_REUSEADDR, reuse_addr.into());
    b.set(h, SOL_SOCKET, SO_REUSEPORT, reuse_port.into());
    b.sockets.bind(h, here()).unwrap();
    b.sockets.listen(h, 5).unwrap();
    b.listener = h;
    let c = b.open(4000, Options::default());
    if waiting {
        b.sockets.close(c.h).unwrap();
        b.take();
        let c = Conn { ack: c.ack + 1, ..c };
        b.put(&c.seg(FIN | ACK), b"");
        b.take();
        assert_eq!(b.sockets.stack.tcp.waiting(), 1);
    }
    b.sockets.close(h).unwrap();
    b.take();
    b
}

#[test]
fn a_server_that_starts_again_needs_the_option_on_both_sides() {
    for waiting in [true, false] {
        for (before, now, allowed) in [
            ((false, false), (false, false), false),
            ((false, false), (true, false), false),
            ((true, false), (false, false), false),
            ((true, false), (true, false), true),
            ((true, false), (false, true), false),
            ((false, true), (true, false), false),
            ((false, true), (false, true), true),
            ((false, false), (false, true), false),
            ((true, true), (false, true), true),
            ((true, true), (true, false), true),
        ] {
            let mut b = left_behind(before.0, before.1, waiting);
            let expected = if allowed { Ok(()) } else { Err(Errno::EADDRINUSE) };
            assert_eq!(bind(&mut b, now.0, now.1), expected, "{before:?} {now:?} {waiting}");
        }
    }
    // Once TIME-WAIT is over anybody may.
    let mut b = left_behind(false, false, true);
    b.wait(secs(61));
    assert_eq!(bind(&mut b, false, false), Ok(()));
}

#[test]
fn beside_a_listener_only_reuse_port_helps() {
    let mut b = Bed::new(|_| ());
    let (old, both) = (b.listener, [(true, false), (false, true), (true, true)]);
    for (addr, port) in both {
        assert_eq!(bind(&mut b, addr, port), Err(Errno::EADDRINUSE));
    }
    b.sockets.close(old).unwrap();
    let h = b.sockets.socket(AF_INET, SOCK_STREAM, 0).unwrap();
    b.set(h, SOL_SOCKET, SO_REUSEADDR, 1);
    b.set(h, SOL_SOCKET, SO_REUSEPORT, 1);
    b.sockets.bind(h, here()).unwrap();
    assert_eq!(bind(&mut b, true, false), Ok(()), "as long as it does not listen");
    b.sockets.listen(h, 1).unwrap();
    assert_eq!(bind(&mut b, true, false), Err(Errno::EADDRINUSE));
    assert_eq!(bind(&mut b, false, true), Ok(()));
}
