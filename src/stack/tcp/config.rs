//! Bounds of the table of connections.

use super::{FastOpenKeys, SynCookies};
use crate::time::Duration;

/// How many of what, and which ports.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Connections, half-open and closing ones included. Beyond it a SYN is
    /// dropped and `connect` fails with ENOBUFS. Default: 1,048,576.
    pub max_connections: usize,
    /// TIME-WAIT entries; beyond it the oldest goes. Default: 262,144.
    pub max_time_wait: usize,
    /// Handles of sockets and epoll sets; beyond it EMFILE. Default: 1,114,112.
    pub max_sockets: usize,
    /// Bound on `listen`'s backlog. Default: 4096 (Linux's somaxconn).
    pub max_backlog: usize,
    /// Half-open connections per listener, if its backlog is not less: the SYN
    /// queue holds one more than that, as in Linux. Beyond it a SYN is answered
    /// with a cookie, or dropped. Default: 4096.
    pub max_half_open: usize,
    /// Ports that active opens draw from, both included, where they are not the
    /// stack's ephemeral ports: a block that was reserved against the kernel.
    pub active_ports: Option<(u16, u16)>,
    /// SYN cookies (RFC 4987). Default: where the SYN queue is full.
    pub syn_cookies: SynCookies,
    /// A connection that finds the accept queue full is reset; else its last ACK
    /// is not heard, and it comes again. Default: no, as Linux.
    pub abort_on_overflow: bool,
    /// Programs may open with data in the SYN (RFC 7413). Default: yes, as Linux.
    pub fast_open_client: bool,
    /// Listeners with TCP_FASTOPEN take data from SYNs. Default: no, as Linux.
    pub fast_open_server: bool,
    /// Listeners without TCP_FASTOPEN take it too, as many as their backlog.
    /// Default: no.
    pub fast_open_listeners: bool,
    /// Listeners take data from SYNs without a cookie, where nobody can forge
    /// addresses (RFC 7413, 6.2.1). Default: no.
    pub fast_open_no_cookie: bool,
    /// Destinations whose Fast Open cookie is remembered; beyond it the one not
    /// used for the longest time goes. Default: 1024.
    pub fast_open_cache: usize,
    /// How long a peer's shut window may hold data back before the connection can
    /// be ended for the memory it takes, where that is short. Default: 10 s.
    pub stall_grace: Duration,
    /// Connections that live on after their programs closed them, TIME-WAIT not
    /// counted; beyond it a close is a reset. Default: 65,536.
    pub max_orphans: usize,
    /// The keys of our cookies. Default: drawn by chance.
    pub fast_open_keys: Option<FastOpenKeys>,
    /// Data goes in SYNs without a cookie, and none is asked for. Default: no.
    pub fast_open_client_no_cookie: bool,
    /// After an ACK of bulk data the next ones wait so long for more to acknowledge, 16
    /// segments or a quarter of the window at most: as where the interface gathers
    /// packets before it interrupts. Default: 0 here; 25 us on a runtime's workers, which
    /// take 1 ms at most, but for those that always sleep (`Wait::Block`).
    pub ack_spacing: Duration,
}

impl Default for TableConfig {
    fn default() -> Self {
        Self {
            max_connections: 1 << 20,
            max_time_wait: 1 << 18,
            max_sockets: (1 << 20) + (1 << 16),
            max_backlog: 4096,
            max_half_open: 4096,
            active_ports: None,
            syn_cookies: SynCookies::default(),
            abort_on_overflow: false,
            fast_open_client: true,
            fast_open_server: false,
            fast_open_listeners: false,
            fast_open_no_cookie: false,
            fast_open_cache: 1024,
            stall_grace: Duration::from_secs(10),
            max_orphans: 65_536,
            fast_open_keys: None,
            fast_open_client_no_cookie: false,
            ack_spacing: Duration::ZERO,
        }
    }
}

impl TableConfig {
    /// The range that ports are drawn from.
    pub fn ports(&self, ephemeral: (u16, u16)) -> (u16, u16) {
        self.active_ports.unwrap_or(ephemeral)
    }
}
