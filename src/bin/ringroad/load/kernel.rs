//! Load over the kernel's sockets: one thread, one epoll set.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

use super::driver::{Driver, Transport};
use super::engine::Protocol;
use crate::sys::{Epoll, connect_nonblocking};

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Udp(s) => s.as_raw_fd(),
        }
    }
}

/// The kernel's sockets of all flows.
pub struct Kernel {
    protocol: Protocol,
    target: SocketAddr,
    epoll: Epoll,
    sockets: Vec<Option<Socket>>,
}

const READ: i32 = libc::EPOLLIN | libc::EPOLLRDHUP;

impl Kernel {
    fn socket(&mut self, flow: usize) -> io::Result<&mut Socket> {
        self.sockets[flow].as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Transport for Kernel {
    fn open(&mut self, flow: usize) -> io::Result<()> {
        let socket = if self.protocol == Protocol::Udp {
            let any: SocketAddr = match self.target {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(self.target)?;
            Socket::Udp(socket)
        } else {
            let stream = connect_nonblocking(self.target)?;
            stream.set_nodelay(true)?;
            Socket::Tcp(stream)
        };
        self.epoll.add(&socket, READ | libc::EPOLLOUT, flow as u64)?;
        self.sockets[flow] = Some(socket);
        Ok(())
    }

    fn opened(&mut self, flow: usize) -> io::Result<()> {
        let error = match self.socket(flow)? {
            Socket::Tcp(s) => s.take_error()?,
            Socket::Udp(s) => s.take_error()?,
        };
        error.map_or(Ok(()), Err)
    }

    fn close(&mut self, flow: usize) {
        self.sockets[flow] = None;
    }

    #[inline]
    fn write(&mut self, flow: usize, data: &[u8]) -> io::Result<usize> {
        match self.socket(flow)? {
            Socket::Tcp(s) => s.write(data),
            Socket::Udp(s) => s.send(data),
        }
    }

    #[inline]
    fn read(&mut self, flow: usize, buffer: &mut [u8]) -> io::Result<usize> {
        match self.socket(flow)? {
            Socket::Tcp(s) => s.read(buffer),
            Socket::Udp(s) => s.recv(buffer),
        }
    }

    fn want_write(&mut self, flow: usize, wanted: bool) -> io::Result<()> {
        let events = if wanted { READ | libc::EPOLLOUT } else { READ };
        match &self.sockets[flow] {
            Some(socket) => self.epoll.modify(socket, events, flow as u64),
            None => Ok(()),
        }
    }

    fn poll(&mut self, ready: &mut Vec<(usize, bool, bool)>, wait_ms: i32) -> io::Result<()> {
        for i in 0..self.epoll.wait(wait_ms)? {
            let (events, flow) = self.epoll.event(i);
            let failed = events & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
            ready.push((
                flow as usize,
                failed || events & READ != 0,
                failed || events & libc::EPOLLOUT != 0,
            ));
        }
        Ok(())
    }
}

/// Run the driver's load to its end over kernel sockets.
///
/// # Errors
/// Nothing could be connected, or the system refused a socket or an epoll set.
pub fn run(driver: &mut Driver) -> io::Result<()> {
    let plan = driver.engine.plan();
    let mut kernel = Kernel {
        protocol: plan.protocol,
        target: plan.target,
        epoll: Epoll::new(1024)?,
        sockets: (0..plan.connections).map(|_| None).collect(),
    };
    while !driver.turn(&mut kernel, driver.may_wait())? {}
    driver.finish();
    Ok(())
}
