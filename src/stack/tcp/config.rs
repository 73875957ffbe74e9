//! Bounds of the table of connections.

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
    /// Half-open connections per listener; beyond it SYNs are dropped.
    /// Default: 4096.
    pub max_half_open: usize,
    /// Ports that active opens draw from, both included, where they are not the
    /// stack's ephemeral ports: a block that was reserved against the kernel.
    pub active_ports: Option<(u16, u16)>,
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
        }
    }
}

impl TableConfig {
    /// The range that ports are drawn from.
    pub fn ports(&self, ephemeral: (u16, u16)) -> (u16, u16) {
        self.active_ports.unwrap_or(ephemeral)
    }
}
