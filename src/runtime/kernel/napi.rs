//! Which NAPI, the kernel's unit of polling a driver, serves a queue (`netdev`
//! generic netlink, Linux 6.8).

use super::netlink::{Request, Socket, attributes, u16_at, u32_at};
use std::io;

const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_QUEUE_GET: u8 = 10;
const NETDEV_A_QUEUE_ID: u16 = 1;
const NETDEV_A_QUEUE_IFINDEX: u16 = 2;
const NETDEV_A_QUEUE_TYPE: u16 = 3;
const NETDEV_A_QUEUE_NAPI_ID: u16 = 4;
/// `struct genlmsghdr`: command, version, two reserved bytes.
const GENL_HEADER: usize = 4;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Receiving.
    In = 0,
    /// Sending.
    Out = 1,
}

/// What drivers tell of their NAPIs.
#[derive(Debug)]
pub struct Napis {
    socket: Socket,
    family: u16,
}

fn request(family: u16, command: u8) -> Request {
    Request::new(family, libc::NLM_F_ACK, &[command, 1, 0, 0])
}

impl Napis {
    /// Ready to ask about interfaces of the caller's network namespace.
    ///
    /// # Errors
    /// ENOENT: the kernel has no `netdev` netlink (before Linux 6.3).
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(libc::NETLINK_GENERIC, 0)?;
        let mut family = None;
        let ask = request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY).attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
        socket.ask(ask, |answer| {
            let list = attributes(answer.body.get(GENL_HEADER..).unwrap_or_default());
            family = { list }.find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID).and_then(|(_, v)| u16_at(v, 0));
        })?;
        let family = family.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(Self { socket, family })
    }

    /// The NAPI of this queue; `None` where the driver does not tell.
    ///
    /// # Errors
    /// There is no such queue, or the kernel cannot say (before Linux 6.8).
    pub fn of(&mut self, interface: u32, queue: u32, way: Way) -> io::Result<Option<u32>> {
        let ask = request(self.family, NETDEV_CMD_QUEUE_GET)
            .attribute(NETDEV_A_QUEUE_IFINDEX, &interface.to_ne_bytes())
            .attribute(NETDEV_A_QUEUE_TYPE, &(way as u32).to_ne_bytes())
            .attribute(NETDEV_A_QUEUE_ID, &queue.to_ne_bytes());
        let mut napi = None;
        self.socket.ask(ask, |answer| {
            let list = attributes(answer.body.get(GENL_HEADER..).unwrap_or_default());
            napi = { list }.find(|(kind, _)| *kind == NETDEV_A_QUEUE_NAPI_ID).and_then(|(_, v)| u32_at(v, 0));
        })?;
        Ok(napi)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel of whoever runs this may be older.
    #[test]
    fn the_kernel_answers_about_queues() {
        let Ok(mut napis) = Napis::open() else { return };
        assert!(napis.of(u32::MAX >> 1, 0, Way::In).is_err(), "no such interface");
        // The loopback interface has a queue each way, and nothing that is polled.
        if let Ok(napi) = napis.of(1, 0, Way::In) {
            assert_eq!(napi, None);
            assert_eq!(napis.of(1, 0, Way::Out).unwrap(), None);
            assert!(napis.of(1, 1000, Way::Out).is_err(), "no such queue");
        }
    }
}
