//! `struct rr_sim_config`.

use crate::errno::Result;
use crate::ffi::config::{self, Knobs, RR_OFF, RR_ON};
use crate::stack::tcp::{FastOpenKeys, SynCookies, TableConfig};
use crate::stack::{Config, Mode, Route};
use crate::tcp::{self, Algorithm, EcnMode, LossDetection, MtuProbing};
use crate::wire::ethernet::Mac;
use core::ffi::c_char;
use core::net::IpAddr;

/// How a simulated stack is set up. Zeroed means the defaults, for each field
/// by itself too. Times are in nanoseconds, buffers in bytes. A switch is 0
/// (the default), RR_ON or RR_OFF.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rr_sim_config {
    /// sizeof(struct rr_sim_config), or 0 for its first version.
    pub size: u32,
    /// Frames are IP packets where this is not 0, else Ethernet.
    pub raw_ip: u32,
    /// Our addresses as "10.0.0.1/24", several with commas. Default: "192.168.0.1/16".
    pub address: *const c_char,
    /// The router. Default: none; with raw_ip everything is reached directly.
    pub gateway: *const c_char,
    /// Our Ethernet address. Default: 02:52 and the IPv4 address.
    pub mac: [u8; 6],
    /// Not used; 0.
    pub reserved: u16,
    /// Largest IP packet, 68 to 65535. Default: 1500.
    pub mtu: u32,
    /// Frames of memory. Default: 8192.
    pub frames: u32,
    /// Bytes of a frame, at most 65535. Default: 2048, or what the MTU needs.
    pub frame_size: u32,
    /// Descriptors, at most. Default: 1048576.
    pub max_descriptors: u32,
    /// Switch: the kernel is thought to have the address too, and answers ARP
    /// and ping. Default: off.
    pub shared: u32,
    /// Switch: accept checksums that a sender left to its hardware. Default: off.
    pub partial_checksums: u32,
    /// Time to live of what is sent. Default: 64.
    pub ttl: u32,
    /// Packets that wait to be collected. Default: 4096.
    pub transmit_queue: u32,
    /// Packets to ourselves that wait. Default: 1024.
    pub loop_queue: u32,
    /// Routes. Default: 1024.
    pub max_routes: u32,
    /// First port that connect chooses from. Default: 32768.
    pub ephemeral_first: u32,
    /// Last port that connect chooses from. Default: 60999.
    pub ephemeral_last: u32,

    /// Neighbours that are known at a time. Default: 1024.
    pub neighbor_entries: u32,
    /// Packets that wait for one neighbour. Default: 64.
    pub neighbor_queue: u32,
    /// Connections that wait for one neighbour. Default: 65536.
    pub neighbor_waiters: u32,
    /// Requests before a neighbour counts as failed. Default: 3.
    pub neighbor_requests: u32,
    /// Time between requests. Default: 1 s.
    pub neighbor_retry_ns: u64,
    /// How long an answer is good. Default: 30 s.
    pub neighbor_reachable_ns: u64,
    /// How long an answer cannot be changed. Default: 1 s.
    pub neighbor_lock_ns: u64,
    /// ARP packets sent a second. Default: 1000.
    pub neighbor_rate: u32,
    /// ARP packets sent at once. Default: 100.
    pub neighbor_burst: u32,
    /// Switch: announce an owned address at the start (RFC 5227). Default: on.
    pub neighbor_announce: u32,

    /// Datagrams put together from fragments at a time. Default: 64.
    pub fragment_datagrams: u32,
    /// Frames that they take. Default: 512.
    pub fragment_frames: u32,
    /// Gaps in one datagram. Default: 64.
    pub fragment_holes: u32,
    /// How long a datagram may take. Default: 30 s.
    pub fragment_timeout_ns: u64,

    /// ICMP errors sent a second. Default: 1000.
    pub icmp_error_rate: u32,
    /// ICMP errors sent at once. Default: 50.
    pub icmp_error_burst: u32,
    /// Echo replies sent a second. Default: 100000.
    pub icmp_echo_rate: u32,
    /// Echo replies sent at once. Default: 10000.
    pub icmp_echo_burst: u32,
    /// How long a path MTU is believed. Default: 10 min.
    pub path_mtu_age_ns: u64,
    /// Paths whose MTU is remembered. Default: 1024.
    pub path_mtu_entries: u32,
    /// The least path MTU that is believed. Default: 552.
    pub path_mtu_least: u32,

    /// UDP and ICMP sockets, of each kind. Default: 65536.
    pub datagram_sockets: u32,
    /// Receive buffer of a UDP socket. Default: 212992.
    pub datagram_receive_buffer: u32,
    /// The most that SO_RCVBUF asks for there. Default: 16 MiB.
    pub datagram_max_receive_buffer: u32,
    /// Datagrams that a socket's queue holds. Default: 1024.
    pub datagram_queue: u32,

    /// Connections, half-open and closing ones too. Default: 1048576.
    pub tcp_connections: u32,
    /// TIME-WAIT entries; beyond it the oldest goes. Default: 262144.
    pub tcp_time_waits: u32,
    /// The most that listen asks for. Default: 4096.
    pub tcp_backlog: u32,
    /// Half-open connections of a listener. Default: 4096.
    pub tcp_half_open: u32,
    /// Send buffer of a connection, at the start. Default: 256 KiB.
    pub tcp_send_buffer: u32,
    /// Receive buffer of a connection, at the start. Default: 128 KiB.
    pub tcp_receive_buffer: u32,
    /// The most that SO_SNDBUF asks for, and a send buffer grows to. Default: 4 MiB.
    pub tcp_max_send_buffer: u32,
    /// The most that SO_RCVBUF asks for, and a receive buffer grows to; the window scale is made to carry it.
    /// Default: 6 MiB.
    pub tcp_max_receive_buffer: u32,
    /// Switch: no Nagle algorithm. Default: off.
    pub tcp_nodelay: u32,
    /// Switch: ACKs are never delayed. Default: off.
    pub tcp_quick_ack: u32,
    /// Switch: timestamps (RFC 7323). Default: on.
    pub tcp_timestamps: u32,
    /// Switch: selective acknowledgment (RFC 2018). Default: on.
    pub tcp_sack: u32,
    /// Switch: window scaling (RFC 7323). Default: on.
    pub tcp_window_scaling: u32,
    /// Largest segment, in payload and option bytes. Default: by the MTU.
    pub tcp_max_segment: u32,
    /// Least segment size that a peer or router may ask for. Default: 48.
    pub tcp_min_mss: u32,
    /// Initial congestion window in segments (RFC 6928). Default: 10.
    pub tcp_initial_window: u32,
    /// Retransmission time-out before the first measurement. Default: 1 s.
    pub tcp_initial_rto_ns: u64,
    /// Least retransmission time-out. Default: 200 ms.
    pub tcp_min_rto_ns: u64,
    /// Largest retransmission time-out. Default: 120 s.
    pub tcp_max_rto_ns: u64,
    /// How often data is sent again. Default: 15.
    pub tcp_retries: u32,
    /// The same after the program closed the socket. Default: 8.
    pub tcp_orphan_retries: u32,
    /// How often a SYN is sent again. Default: 7.
    pub tcp_syn_retries: u32,
    /// How often a SYN-ACK is sent again. Default: 5.
    pub tcp_synack_retries: u32,
    /// How long an ACK is delayed. Default: 40 ms.
    pub tcp_delayed_ack_ns: u64,
    /// Segments acknowledged at once when a connection begins. Default: 16.
    pub tcp_quick_acks: u32,
    /// Segments kept out of order for one connection. Default: 65536.
    pub tcp_out_of_order_segments: u32,
    /// How long TIME-WAIT lasts. Default: 60 s.
    pub tcp_time_wait_ns: u64,
    /// How long FIN-WAIT-2 may last after close. Default: 60 s.
    pub tcp_fin_wait_2_ns: u64,
    /// How long TCP_CORK holds a segment back. Default: 200 ms.
    pub tcp_cork_ns: u64,
    /// How long a sender waits for a larger window. Default: 200 ms.
    pub tcp_override_sws_ns: u64,
    /// Challenge ACKs an interval for one connection (RFC 5961). Default: 10.
    pub tcp_challenge_acks: u32,
    /// Free frames that sending data leaves for ACKs. Default: 64.
    pub tcp_frame_reserve: u32,
    /// Least time between ACKs to empty segments out of the window. Default: 500 ms.
    pub tcp_invalid_ack_ns: u64,
    /// Below so many free frames payloads are copied together. Default: 256.
    pub tcp_frames_low: u32,
    /// Payloads up to this size are joined in the receive queue. Default: 512.
    pub tcp_coalesce: u32,
    /// SYN cookies: RR_ON where the SYN queue is full (the default), RR_OFF
    /// never, 3 always.
    pub tcp_syn_cookies: u32,
    /// Switch: a connection that finds the accept queue full is reset. Default: off.
    pub tcp_abort_on_overflow: u32,
    /// Switch: programs may open with data in the SYN (RFC 7413). Default: on.
    pub tcp_fast_open_client: u32,
    /// Switch: listeners with TCP_FASTOPEN take it. Default: off.
    pub tcp_fast_open_server: u32,
    /// Destinations whose Fast Open cookie is kept. Default: 1024.
    pub tcp_fast_open_cache: u32,
    /// The key of our Fast Open cookies. All zeros: drawn by chance.
    pub tcp_fast_open_key: [u8; 16],
    /// The key before, whose cookies still count. All zeros: none.
    pub tcp_fast_open_old_key: [u8; 16],
    /// How losses are found with SACK: 1 by time (RACK, RFC 8985), 2 by counting
    /// (RFC 6675). Default: 1.
    pub tcp_loss_detection: u32,
    /// Segments behind a missing one that tell its loss on a path that was not
    /// seen to reorder, 1 to 255. Default: 3.
    pub tcp_early_reordering: u32,
    /// Switch: a lost tail is probed for (RFC 8985, 7). Default: on.
    pub tcp_tail_loss_probe: u32,
    /// Switch: time-outs are checked for having been too early (RFC 5682). Default: on.
    pub tcp_frto: u32,
    /// Switch: duplicates that come in are reported (RFC 2883). Default: on.
    pub tcp_dsack: u32,
    /// Switch: an idle window starts again at the initial one (RFC 5681, 4.1).
    /// Default: on.
    pub tcp_restart_idle: u32,
    /// How long a peer is thought to delay the ACK of a single segment, for the
    /// probe of a lost tail. Default: 200 ms.
    pub tcp_probe_ack_delay_ns: u64,
    /// Initial sequence numbers begin here and follow the clock, instead of a
    /// secret. Default: 0, the secret.
    pub tcp_sequence_base: u32,
    /// How long a peer's shut window may hold data back before the connection can
    /// be ended for its memory, where that is short. Default: 10 s.
    pub tcp_stall_grace_ns: u64,
    /// Connections that live on after close, at most. Default: 65536.
    pub tcp_orphans: u32,
    /// Switch: listeners without TCP_FASTOPEN take it too, as many as their
    /// backlog. Default: off.
    pub tcp_fast_open_listeners: u32,
    /// Switch: listeners take data from SYNs without a cookie. Default: off.
    pub tcp_fast_open_no_cookie: u32,
    /// Congestion control where a socket asks for none: "cubic" (the default),
    /// "reno", "dctcp" or "bbr".
    pub tcp_congestion: *const c_char,
    /// Bytes a second that a connection sends at most. Default: any.
    pub tcp_max_pacing_rate: u64,
    /// Switch: HyStart++ ends CUBIC's slow start (RFC 9406). Default: on.
    pub tcp_hystart: u32,
    /// Switch: segments are spaced out with every algorithm, not with BBR alone.
    /// Default: off.
    pub tcp_pacing: u32,
    /// The share of lost bytes, in hundredths, from which BBR takes loss for
    /// congestion. Default: 20.
    pub tcp_bbr_loss: u32,
    /// Explicit congestion notification (RFC 3168): RR_ON asked for and granted,
    /// RR_OFF neither, 3 granted to who asks (the default).
    pub tcp_ecn: u32,
    /// Switch: receive buffers grow with what the path carries where the program
    /// set no size. Default: on.
    pub tcp_tune_receive: u32,
    /// Switch: send buffers likewise. Default: on.
    pub tcp_tune_send: u32,
    /// Part of the frames, in 1/256, that one connection's buffer may grow to by
    /// itself. Default: 64.
    pub tcp_tune_share: u32,
    /// Sizes of segments searched for with data (RFC 4821): RR_ON from the start,
    /// RR_OFF never, 3 from where full segments vanished (the default).
    pub tcp_mtu_probing: u32,
    /// The segment size where the search begins. Default: 1024.
    pub tcp_base_mss: u32,
    /// Time-outs in a row that make a black hole. Default: 3.
    pub tcp_black_hole_retries: u32,
    /// Switch: the user timeout option (RFC 5482). Default: off.
    pub tcp_user_timeout_option: u32,
    /// The least that a peer's option makes of our user timeout. Default: 100 s.
    pub tcp_user_timeout_least_ns: u64,
    /// The most that it makes of it. Default: 1 h.
    pub tcp_user_timeout_most_ns: u64,
    /// The interval that `tcp_challenge_acks` is for. Default: 1 s.
    pub tcp_challenge_ns: u64,
    /// Segments in the middle of a write that leave together before one carries
    /// PSH, at least.
    pub tcp_least_train: u32,
    /// RR_ON or RR_OFF: once timestamps are agreed on, segments without one are
    /// dropped.
    pub tcp_require_timestamps: u32,
    /// RR_ON or RR_OFF: CUBIC's slow start ends as HyStart first had it, not as
    /// RFC 9406 does.
    pub tcp_classic_hystart: u32,
    /// How long after its end a search for larger segments begins again. Default: 10 min.
    pub tcp_probe_interval_ns: u64,
    /// Such a search ends where fewer bytes are in doubt. Default: 8.
    pub tcp_probe_threshold: u32,
    /// Switch: data goes in SYNs without a cookie, and none is asked for. Default: off.
    pub tcp_fast_open_client_no_cookie: u32,
}

/// Bytes of the struct's first version.
const FIRST_VERSION: usize = size_of::<rr_sim_config>();

/// A simulated stack's configuration, read and checked.
#[derive(Debug)]
pub(super) struct Settings {
    /// The stack's own.
    pub stack: Config,
    /// Frames in its pool.
    pub frames: u32,
    /// Bytes of each.
    pub frame_size: u16,
    /// Descriptors, at most.
    pub max_descriptors: usize,
}

impl Settings {
    /// Reads what C gave; a null pointer means the defaults.
    ///
    /// # Errors
    /// EINVAL, with the field in `rr_strerror`.
    ///
    /// # Safety
    /// `given` is null or a valid struct of the version its size says, with
    /// valid strings.
    pub(super) unsafe fn read(given: *const rr_sim_config) -> Result<Self> {
        let zeroed = rr_sim_config::zeroed();
        let given = if given.is_null() { &raw const zeroed } else { given };
        // SAFETY: the caller's promise; all zeros is a valid `rr_sim_config`.
        let c = unsafe { config::versioned(given, FIRST_VERSION, "rr_sim_config") }?;
        // SAFETY: the caller's promise.
        let (address, gateway) = unsafe {
            (config::text(c.address, "address")?, config::text(c.gateway, "gateway")?)
        };
        let mut knobs = Knobs::default();
        let mut stack = Config { mode: Mode::Owned, mtu: 1500, ..Config::default() };
        stack.addresses = config::addresses(address.unwrap_or("192.168.0.1/16"))?;
        stack.gateway = gateway
            .map(|g| g.parse().map_err(|_| config::bad("gateway", g, "an IP address")))
            .transpose()?;
        c.link(&mut stack, &mut knobs);
        if stack.raw_ip && stack.gateway.is_none() {
            // There are no neighbours: all that is not ours goes out.
            stack.routes = ["0.0.0.0", "::"].map(everywhere).into();
        }
        c.neighbors(&mut stack, &mut knobs);
        c.packets(&mut stack, &mut knobs);
        c.tcp(&mut stack, &mut knobs);
        c.tcp_times(&mut stack, &mut knobs);
        c.tcp_losses(&mut stack, &mut knobs);
        // SAFETY: the caller's promise.
        let name = unsafe { config::text(c.tcp_congestion, "tcp_congestion") }?;
        c.tcp_congestion(&mut stack.tcp, &mut knobs, name)?;
        let (mut frames, mut frame_size, mut max_descriptors) = (8192, 0, 1 << 20);
        knobs.number("frames", c.frames, &mut frames);
        knobs.number("frame_size", c.frame_size, &mut frame_size);
        knobs.number("max_descriptors", c.max_descriptors, &mut max_descriptors);
        knobs.finish()?;
        let least = (stack.mtu + ROOM).min(u16::MAX.into()) as u16;
        if frame_size == 0 {
            frame_size = least.max(2048);
        }
        if frame_size < least {
            return Err(config::bad("frame_size", frame_size, "large enough for the MTU"));
        }
        Ok(Self { stack, frames, frame_size, max_descriptors })
    }
}

/// Bytes of a frame that are not the IP packet's.
const ROOM: usize = 64;

impl rr_sim_config {
    fn zeroed() -> Self {
        // SAFETY: numbers and pointers, all of which may be zero.
        unsafe { core::mem::zeroed() }
    }

    fn link(&self, to: &mut Config, knobs: &mut Knobs) {
        let mut shared = false;
        knobs.switch("shared", self.shared, &mut shared);
        to.mode = if shared { Mode::Shared } else { Mode::Owned };
        to.raw_ip = self.raw_ip != 0;
        knobs.switch("partial_checksums", self.partial_checksums, &mut to.partial_checksums);
        knobs.number("mtu", self.mtu, &mut to.mtu);
        if !(68..=65_535).contains(&to.mtu) {
            knobs.wrong("mtu", self.mtu, "from 68 to 65535");
        }
        to.mac = Mac(if self.mac == [0; 6] { mac_for(&to.addresses) } else { self.mac });
        knobs.number("ttl", self.ttl, &mut to.ttl);
        knobs.number("transmit_queue", self.transmit_queue, &mut to.transmit_queue);
        knobs.number("loop_queue", self.loop_queue, &mut to.loop_queue);
        knobs.number("max_routes", self.max_routes, &mut to.max_routes);
        knobs.number("ephemeral_first", self.ephemeral_first, &mut to.ephemeral_ports.0);
        knobs.number("ephemeral_last", self.ephemeral_last, &mut to.ephemeral_ports.1);
        if to.ephemeral_ports.0 > to.ephemeral_ports.1 {
            knobs.wrong("ephemeral_last", self.ephemeral_last, "at least ephemeral_first");
        }
    }

    fn neighbors(&self, to: &mut Config, knobs: &mut Knobs) {
        let n = &mut to.neighbor;
        knobs.number("neighbor_entries", self.neighbor_entries, &mut n.max_entries);
        knobs.number("neighbor_queue", self.neighbor_queue, &mut n.max_queue);
        knobs.number("neighbor_waiters", self.neighbor_waiters, &mut n.max_waiters);
        knobs.number("neighbor_requests", self.neighbor_requests, &mut n.max_requests);
        knobs.time(self.neighbor_retry_ns, &mut n.retry);
        knobs.time(self.neighbor_reachable_ns, &mut n.reachable);
        knobs.time(self.neighbor_lock_ns, &mut n.lock);
        knobs.number("neighbor_rate", self.neighbor_rate, &mut n.rate.per_second);
        knobs.number("neighbor_burst", self.neighbor_burst, &mut n.rate.burst);
        knobs.switch("neighbor_announce", self.neighbor_announce, &mut n.announce);
    }

    fn packets(&self, to: &mut Config, knobs: &mut Knobs) {
        let f = &mut to.fragment;
        knobs.number("fragment_datagrams", self.fragment_datagrams, &mut f.max_datagrams);
        knobs.number("fragment_frames", self.fragment_frames, &mut f.max_frames);
        knobs.number("fragment_holes", self.fragment_holes, &mut f.max_holes);
        knobs.time(self.fragment_timeout_ns, &mut f.timeout);
        let i = &mut to.icmp;
        knobs.number("icmp_error_rate", self.icmp_error_rate, &mut i.error_rate.per_second);
        knobs.number("icmp_error_burst", self.icmp_error_burst, &mut i.error_rate.burst);
        knobs.number("icmp_echo_rate", self.icmp_echo_rate, &mut i.echo_rate.per_second);
        knobs.number("icmp_echo_burst", self.icmp_echo_burst, &mut i.echo_rate.burst);
        knobs.time(self.path_mtu_age_ns, &mut i.path_mtu_age);
        knobs.number("path_mtu_entries", self.path_mtu_entries, &mut i.max_path_mtus);
        knobs.number("path_mtu_least", self.path_mtu_least, &mut i.min_path_mtu);
        let d = &mut to.datagram;
        knobs.number("datagram_sockets", self.datagram_sockets, &mut d.max_sockets);
        let (receive, most) = (self.datagram_receive_buffer, self.datagram_max_receive_buffer);
        knobs.number("datagram_receive_buffer", receive, &mut d.receive_buffer);
        knobs.number("datagram_max_receive_buffer", most, &mut d.max_receive_buffer);
        knobs.number("datagram_queue", self.datagram_queue, &mut d.max_datagrams);
    }

    fn tcp(&self, to: &mut Config, knobs: &mut Knobs) {
        let n = &mut to.table;
        knobs.number("tcp_connections", self.tcp_connections, &mut n.max_connections);
        knobs.number("tcp_time_waits", self.tcp_time_waits, &mut n.max_time_wait);
        knobs.number("tcp_backlog", self.tcp_backlog, &mut n.max_backlog);
        knobs.number("tcp_half_open", self.tcp_half_open, &mut n.max_half_open);
        self.tcp_attacks(n, knobs);
        let t = &mut to.tcp;
        let o = &mut t.options;
        knobs.number("tcp_send_buffer", self.tcp_send_buffer, &mut o.send_buffer);
        knobs.number("tcp_receive_buffer", self.tcp_receive_buffer, &mut o.receive_buffer);
        knobs.switch("tcp_nodelay", self.tcp_nodelay, &mut o.nodelay);
        knobs.switch("tcp_quick_ack", self.tcp_quick_ack, &mut o.quick_ack);
        knobs.switch("tcp_timestamps", self.tcp_timestamps, &mut o.timestamps);
        knobs.switch("tcp_sack", self.tcp_sack, &mut o.sack);
        knobs.switch("tcp_window_scaling", self.tcp_window_scaling, &mut o.window_scaling);
        let on = &mut o.user_timeout_option;
        knobs.switch("tcp_user_timeout_option", self.tcp_user_timeout_option, on);
        knobs.switch("tcp_tune_receive", self.tcp_tune_receive, &mut o.tune_receive);
        knobs.switch("tcp_tune_send", self.tcp_tune_send, &mut o.tune_send);
        knobs.number("tcp_max_segment", self.tcp_max_segment, &mut o.max_segment);
        knobs.number("tcp_max_send_buffer", self.tcp_max_send_buffer, &mut t.max_send_buffer);
        let most = self.tcp_max_receive_buffer;
        knobs.number("tcp_max_receive_buffer", most, &mut t.max_receive_buffer);
        knobs.number("tcp_min_mss", self.tcp_min_mss, &mut t.min_mss);
        knobs.number("tcp_initial_window", self.tcp_initial_window, &mut t.initial_window);
        knobs.number("tcp_retries", self.tcp_retries, &mut t.retries);
        knobs.number("tcp_orphan_retries", self.tcp_orphan_retries, &mut t.orphan_retries);
        knobs.number("tcp_syn_retries", self.tcp_syn_retries, &mut t.syn_retries);
        knobs.number("tcp_synack_retries", self.tcp_synack_retries, &mut t.synack_retries);
        knobs.number("tcp_quick_acks", self.tcp_quick_acks, &mut t.quick_acks);
        let kept = self.tcp_out_of_order_segments;
        knobs.number("tcp_out_of_order_segments", kept, &mut t.out_of_order_segments);
        knobs.number("tcp_challenge_acks", self.tcp_challenge_acks, &mut t.challenge_acks);
        knobs.number("tcp_frame_reserve", self.tcp_frame_reserve, &mut t.frame_reserve);
        knobs.number("tcp_frames_low", self.tcp_frames_low, &mut t.frames_low);
        self.tcp_paths(t, knobs);
        knobs.number("tcp_coalesce", self.tcp_coalesce, &mut t.coalesce);
        let required = self.tcp_require_timestamps;
        knobs.switch("tcp_require_timestamps", required, &mut t.require_timestamps);
        knobs.number("tcp_least_train", self.tcp_least_train, &mut t.least_train);
        t.sequence_base = Some(self.tcp_sequence_base).filter(|base| *base != 0);
    }

    fn tcp_attacks(&self, to: &mut TableConfig, knobs: &mut Knobs) {
        match self.tcp_syn_cookies {
            0 => {}
            RR_ON => to.syn_cookies = SynCookies::Auto,
            RR_OFF => to.syn_cookies = SynCookies::Off,
            3 => to.syn_cookies = SynCookies::Always,
            other => knobs.wrong("tcp_syn_cookies", other, "0, RR_ON, RR_OFF or 3"),
        }
        knobs.switch("tcp_abort_on_overflow", self.tcp_abort_on_overflow, &mut to.abort_on_overflow);
        knobs.switch("tcp_fast_open_client", self.tcp_fast_open_client, &mut to.fast_open_client);
        knobs.switch("tcp_fast_open_server", self.tcp_fast_open_server, &mut to.fast_open_server);
        let listeners = self.tcp_fast_open_listeners;
        knobs.switch("tcp_fast_open_listeners", listeners, &mut to.fast_open_listeners);
        let trusted = self.tcp_fast_open_no_cookie;
        knobs.switch("tcp_fast_open_no_cookie", trusted, &mut to.fast_open_no_cookie);
        let trusted = self.tcp_fast_open_client_no_cookie;
        let to_all = &mut to.fast_open_client_no_cookie;
        knobs.switch("tcp_fast_open_client_no_cookie", trusted, to_all);
        knobs.number("tcp_fast_open_cache", self.tcp_fast_open_cache, &mut to.fast_open_cache);
        knobs.time(self.tcp_stall_grace_ns, &mut to.stall_grace);
        knobs.number("tcp_orphans", self.tcp_orphans, &mut to.max_orphans);
        let (first, old) = (self.tcp_fast_open_key, self.tcp_fast_open_old_key);
        if first != [0; 16] {
            let second = (old != [0; 16]).then_some(old);
            to.fast_open_keys = Some(FastOpenKeys { first, second });
        }
    }

    fn tcp_losses(&self, to: &mut Config, knobs: &mut Knobs) {
        let t = &mut to.tcp;
        match self.tcp_loss_detection {
            0 => {}
            1 => t.loss_detection = LossDetection::Rack,
            2 => t.loss_detection = LossDetection::DupAck,
            n => knobs.wrong("tcp_loss_detection", n, "0, 1 or 2"),
        }
        knobs.number("tcp_early_reordering", self.tcp_early_reordering, &mut t.early_reordering);
        knobs.switch("tcp_tail_loss_probe", self.tcp_tail_loss_probe, &mut t.tail_loss_probe);
        knobs.switch("tcp_frto", self.tcp_frto, &mut t.frto);
        knobs.switch("tcp_dsack", self.tcp_dsack, &mut t.dsack);
        knobs.switch("tcp_restart_idle", self.tcp_restart_idle, &mut t.restart_idle);
        knobs.time(self.tcp_probe_ack_delay_ns, &mut t.probe_ack_delay);
    }

    fn tcp_congestion(&self, to: &mut tcp::Config, knobs: &mut Knobs, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            let wrong = || config::bad("tcp_congestion", name, "cubic, reno, dctcp or bbr");
            to.options.congestion = Algorithm::from_name(name).ok_or_else(wrong)?;
        }
        if self.tcp_max_pacing_rate > 0 {
            to.options.max_pacing_rate = self.tcp_max_pacing_rate;
        }
        knobs.switch("tcp_hystart", self.tcp_hystart, &mut to.hystart);
        knobs.switch("tcp_pacing", self.tcp_pacing, &mut to.pacing);
        knobs.switch("tcp_classic_hystart", self.tcp_classic_hystart, &mut to.classic_hystart);
        knobs.number("tcp_bbr_loss", self.tcp_bbr_loss, &mut to.bbr_loss);
        match self.tcp_ecn {
            0 => {}
            RR_ON => to.ecn = EcnMode::Request,
            RR_OFF => to.ecn = EcnMode::Off,
            3 => to.ecn = EcnMode::Accept,
            other => knobs.wrong("tcp_ecn", other, "0, RR_ON, RR_OFF or 3"),
        }
        Ok(())
    }

    fn tcp_paths(&self, t: &mut crate::tcp::Config, knobs: &mut Knobs) {
        knobs.number("tcp_tune_share", self.tcp_tune_share, &mut t.tune_share);
        match self.tcp_mtu_probing {
            0 => {}
            RR_ON => t.mtu_probing = MtuProbing::Always,
            RR_OFF => t.mtu_probing = MtuProbing::Off,
            3 => t.mtu_probing = MtuProbing::BlackHole,
            other => knobs.wrong("tcp_mtu_probing", other, "0, RR_ON, RR_OFF or 3"),
        }
        knobs.time(self.tcp_probe_interval_ns, &mut t.probe_interval);
        knobs.number("tcp_probe_threshold", self.tcp_probe_threshold, &mut t.probe_threshold);
        knobs.number("tcp_base_mss", self.tcp_base_mss, &mut t.base_mss);
        knobs.number("tcp_black_hole_retries", self.tcp_black_hole_retries, &mut t.black_hole_retries);
        // One bound and one age for all that ICMP tells of a path.
        knobs.number("path_mtu_least", self.path_mtu_least, &mut t.min_path_mtu);
        knobs.time(self.path_mtu_age_ns, &mut t.path_mtu_age);
        knobs.time(self.tcp_user_timeout_least_ns, &mut t.user_timeout_limits.0);
        knobs.time(self.tcp_user_timeout_most_ns, &mut t.user_timeout_limits.1);
    }

    fn tcp_times(&self, to: &mut Config, knobs: &mut Knobs) {
        let t = &mut to.tcp;
        knobs.time(self.tcp_initial_rto_ns, &mut t.initial_rto);
        knobs.time(self.tcp_min_rto_ns, &mut t.min_rto);
        knobs.time(self.tcp_max_rto_ns, &mut t.max_rto);
        knobs.time(self.tcp_delayed_ack_ns, &mut t.delayed_ack);
        knobs.time(self.tcp_time_wait_ns, &mut t.time_wait);
        knobs.time(self.tcp_fin_wait_2_ns, &mut t.fin_wait_2);
        knobs.time(self.tcp_cork_ns, &mut t.cork);
        knobs.time(self.tcp_override_sws_ns, &mut t.override_sws);
        knobs.time(self.tcp_invalid_ack_ns, &mut t.invalid_ack_interval);
        knobs.time(self.tcp_challenge_ns, &mut t.challenge_interval);
    }
}

/// A locally administered Ethernet address that differs where the IP address does.
fn everywhere(destination: &str) -> Route {
    let destination = destination.parse().expect("an address");
    Route { destination, prefix: 0, gateway: None, source: None, metric: u32::MAX, mtu: None }
}

fn mac_for(addresses: &[(IpAddr, u8)]) -> [u8; 6] {
    let tail = match addresses.first() {
        Some((IpAddr::V4(ip), _)) => ip.octets(),
        Some((IpAddr::V6(ip), _)) => ip.octets().last_chunk().copied().unwrap_or_default(),
        None => [0, 0, 0, 1],
    };
    [0x02, 0x52, tail[0], tail[1], tail[2], tail[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    fn read(change: impl FnOnce(&mut rr_sim_config)) -> Result<Settings> {
        let mut c = rr_sim_config::zeroed();
        change(&mut c);
        // SAFETY: a whole struct with literal strings.
        unsafe { Settings::read(&c) }
    }

    #[test]
    fn zeroed_means_the_defaults() {
        let zeroed = read(|_| ()).unwrap();
        // SAFETY: null means the defaults.
        let null = unsafe { Settings::read(core::ptr::null()) }.unwrap();
        assert_eq!(format!("{zeroed:?}"), format!("{null:?}"));
        let expected = Config {
            mode: Mode::Owned,
            addresses: vec![("192.168.0.1".parse().unwrap(), 16)],
            mac: Mac([2, 0x52, 192, 168, 0, 1]),
            ..Config::default()
        };
        assert_eq!(format!("{:?}", zeroed.stack), format!("{expected:?}"));
    }

    #[test]
    fn fields_reach_the_stack() {
        let s = read(|c| {
            c.raw_ip = 1;
            c.address = c"10.0.0.1/8,10.0.0.2/8".as_ptr();
            c.gateway = c"10.0.0.254".as_ptr();
            c.mtu = 9000;
            c.shared = RR_ON;
            c.tcp_sack = RR_OFF;
            c.tcp_min_rto_ns = 7;
            c.tcp_syn_retries = 2;
            c.fragment_frames = 9;
            (c.tcp_loss_detection, c.tcp_early_reordering) = (2, 7);
            (c.tcp_tail_loss_probe, c.tcp_frto) = (RR_OFF, RR_OFF);
            (c.tcp_dsack, c.tcp_restart_idle) = (RR_OFF, RR_OFF);
            c.tcp_probe_ack_delay_ns = 11;
            c.tcp_sequence_base = 5;
            c.tcp_congestion = c"bbr".as_ptr();
            c.tcp_max_pacing_rate = 9_000;
            c.tcp_bbr_loss = 2;
            c.tcp_hystart = RR_OFF;
            c.tcp_pacing = RR_ON;
            (c.tcp_classic_hystart, c.tcp_require_timestamps) = (RR_ON, RR_OFF);
            c.tcp_least_train = 6;
            c.tcp_ecn = RR_ON;
        })
        .unwrap();
        assert_eq!((s.stack.raw_ip, s.stack.mtu, s.stack.addresses.len()), (true, 9000, 2));
        assert_eq!(s.stack.gateway, Some("10.0.0.254".parse().unwrap()));
        assert_eq!((s.stack.mode, s.stack.tcp.options.sack), (Mode::Shared, false));
        assert_eq!((s.stack.tcp.min_rto.as_nanos(), s.stack.tcp.syn_retries), (7, 2));
        let t = &s.stack.tcp;
        assert_eq!((t.loss_detection, t.early_reordering), (LossDetection::DupAck, 7));
        assert!(!t.tail_loss_probe && !t.frto && !t.dsack && !t.restart_idle);
        assert_eq!(t.probe_ack_delay.as_nanos(), 11);
        assert_eq!((s.stack.fragment.max_frames, s.stack.tcp.sequence_base), (9, Some(5)));
        let t = &s.stack.tcp;
        assert_eq!((t.options.congestion, t.options.max_pacing_rate), (Algorithm::Bbr, 9_000));
        assert_eq!((t.bbr_loss, t.hystart, t.pacing, t.ecn), (2, false, true, EcnMode::Request));
        assert!(t.classic_hystart && !t.require_timestamps && t.least_train == 6);
        assert!(s.frame_size >= 9064);
    }

    #[test]
    fn without_neighbours_and_router_everything_is_reached_directly() {
        let connect = |change: fn(&mut rr_sim_config)| {
            let pool = crate::frame::Pool::heap(16, 2048);
            let stack = crate::stack::Stack::new(read(change).unwrap().stack, pool, 1);
            let mut sockets = crate::socket::Sockets::new(stack);
            let s = sockets.socket(2, 1, 0).unwrap();
            sockets.connect(s, "198.51.100.7:80".parse().unwrap()).err()
        };
        assert_eq!(connect(|c| c.raw_ip = 1), Some(Errno::EINPROGRESS));
        assert_eq!(connect(|c| c.raw_ip = 0), Some(Errno::ENETUNREACH));
    }

    #[test]
    fn wrong_fields_are_refused() {
        let refused = |change: fn(&mut rr_sim_config)| read(change).err() == Some(Errno::EINVAL);
        assert!(refused(|c| c.size = 8));
        assert!(refused(|c| c.size = 1 << 20));
        assert!(refused(|c| c.mtu = 67));
        assert!(refused(|c| c.mtu = 70_000));
        assert!(refused(|c| c.address = c"10.0.0.1".as_ptr()));
        assert!(refused(|c| c.gateway = c"router".as_ptr()));
        assert!(refused(|c| c.ttl = 256));
        assert!(refused(|c| c.tcp_sack = 3));
        assert!(refused(|c| c.tcp_loss_detection = 3));
        assert!(refused(|c| c.tcp_congestion = c"vegas".as_ptr()));
        assert!(refused(|c| c.tcp_ecn = 4));
        assert!(refused(|c| c.frame_size = 1000));
        assert!(refused(|c| c.ephemeral_first = 61_000));
    }
}
