/* ringroad: TCP, UDP and IP in user space over AF_XDP, with POSIX-shaped sockets.

   Each function has the arguments, the return value and the errno of the system's
   call whose name it has with rr_ before it, so that `#define socket rr_socket`
   and the like (ringroad_posix.h) make a program one of ringroad's. Descriptors
   are numbers of the process's own table; one that is not ringroad's may be given
   to any of these functions, which hand it to the system.

   Generated from src/ffi. Do not edit: RINGROAD_WRITE_HEADER=1 cargo test --test header

   Licence: MIT OR Apache-2.0 */

#ifndef RINGROAD_H
#define RINGROAD_H


#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mmsghdr;

/* A simulated stack. */
struct rr_sim;

/* fcntl(2). Of ours: F_GETFL, F_SETFL (O_NONBLOCK), F_GETFD, F_SETFD, F_DUPFD,
   F_DUPFD_CLOEXEC, F_GETOWN, F_SETOWN (no effect); EINVAL for others. */
int rr_fcntl(int fd, int cmd, ...);

/* ioctl(2). Of ours: FIONREAD, FIONBIO, FIOCLEX, FIONCLEX; ENOTTY for others. */
int rr_ioctl(int fd, unsigned long request, ...);

#ifdef __cplusplus
}
#endif

// A switch of a configuration that is on.
#define RR_ON 1

// A switch of a configuration that is off.
#define RR_OFF 2

// An option of TCP sockets (level IPPROTO_TCP, int): the user timeout option
// (RFC 5482) is sent and accepted. What it says is TCP_USER_TIMEOUT, or five
// minutes. The number is ours; Linux has no such option.
#define RR_TCP_UTO 5482

// Workers never sleep: lowest latency, a busy core each.
#define RR_WAIT_SPIN 1

// Workers spin for spin_us, then sleep; where recent waits were longer than that, they
// sleep at once. The default.
#define RR_WAIT_ADAPTIVE 2

// Workers sleep as soon as there is nothing to do.
#define RR_WAIT_BLOCK 3

// The steering program is attached as well as the driver can. The default.
#define RR_XDP_AUTO 0

// In the driver or not at all.
#define RR_XDP_NATIVE 1

// In the kernel's generic hook: slower, for every driver.
#define RR_XDP_GENERIC 2

// How ringroad is started. Zeroed means the defaults, for each field by itself
// too; only the interface has none.
struct rr_config {
    // sizeof(struct rr_config), or 0 for its first version.
    uint32_t size;
    // Workers, each with a queue of the interface, 1 to 64. Default: 1.
    uint32_t workers;
    // The interface, such as "eth0".
    const char *interface;
    // Addresses of ringroad's own with their prefixes, "10.0.0.2/24", several
    // with commas. NULL: the interface's, shared with the kernel.
    const char *address;
    // The router, for addresses of our own. Shared ones follow the kernel's routes.
    const char *gateway;
    // The cores that workers are pinned to: "2,4-5". NULL: the last ones.
    const char *cpus;
    // RR_WAIT_SPIN, RR_WAIT_ADAPTIVE or RR_WAIT_BLOCK.
    uint32_t wait;
    // Microseconds that an adaptive worker spins. Default: 50.
    uint32_t spin_us;
    // Microseconds that a program's thread spins in a blocking call. Default: 10.
    uint32_t thread_spin_us;
    // Frames of each worker, a power of two from 512 to 1048576. Default: 8192.
    uint32_t frames;
    // Frames that a thread keeps ready for sending, 4 to 256. Default: 32.
    uint32_t thread_frames;
    // RR_XDP_AUTO, RR_XDP_NATIVE or RR_XDP_GENERIC.
    uint32_t xdp_mode;
    // RR_ON: bind zero-copy or fail; RR_OFF: never; 0: where the driver can.
    uint32_t zero_copy;
    // Busy polling: workers poll the driver, and its interrupts are delayed. RR_ON:
    // workers that spin or are adaptive do, or the start fails; RR_OFF: never; 0: those
    // that spin do, where the driver can (zero-copy, one NAPI for both directions).
    uint32_t busy_poll;
    // Seed of every random choice, for tests. 0: from the kernel's random numbers.
    uint64_t seed;
};

// A frame in the program's hand.
struct rr_zc_frame {
    // Its first byte.
    void *data;
    // Bytes: received ones, or room to write. Before rr_zc_send, the number of
    // bytes to send from `data`.
    size_t len;
    // ringroad's name for it, good once. Leave it as it is.
    uint64_t id;
};

// How a simulated stack is set up. Zeroed means the defaults, for each field
// by itself too. Times are in nanoseconds, buffers in bytes. A switch is 0
// (the default), RR_ON or RR_OFF.
struct rr_sim_config {
    // sizeof(struct rr_sim_config), or 0 for its first version.
    uint32_t size;
    // Frames are IP packets where this is not 0, else Ethernet.
    uint32_t raw_ip;
    // Our addresses as "10.0.0.1/24", several with commas. Default: "192.168.0.1/16".
    const char *address;
    // The router. Default: none; with raw_ip everything is reached directly.
    const char *gateway;
    // Our Ethernet address. Default: 02:52 and the IPv4 address.
    uint8_t mac[6];
    // Not used; 0.
    uint16_t reserved;
    // Largest IP packet, 68 to 65535. Default: 1500.
    uint32_t mtu;
    // Frames of memory. Default: 8192.
    uint32_t frames;
    // Bytes of a frame, at most 65535. Default: 2048, or what the MTU needs.
    uint32_t frame_size;
    // Descriptors, at most. Default: 1048576.
    uint32_t max_descriptors;
    // Switch: the kernel is thought to have the address too, and answers ARP
    // and ping. Default: off.
    uint32_t shared;
    // Switch: accept checksums that a sender left to its hardware. Default: off.
    uint32_t partial_checksums;
    // Time to live of what is sent. Default: 64.
    uint32_t ttl;
    // Packets that wait to be collected. Default: 4096.
    uint32_t transmit_queue;
    // Packets to ourselves that wait. Default: 1024.
    uint32_t loop_queue;
    // Routes. Default: 1024.
    uint32_t max_routes;
    // First port that connect chooses from. Default: 32768.
    uint32_t ephemeral_first;
    // Last port that connect chooses from. Default: 60999.
    uint32_t ephemeral_last;
    // Neighbours that are known at a time. Default: 1024.
    uint32_t neighbor_entries;
    // Packets that wait for one neighbour. Default: 64.
    uint32_t neighbor_queue;
    // Connections that wait for one neighbour. Default: 65536.
    uint32_t neighbor_waiters;
    // Requests before a neighbour counts as failed. Default: 3.
    uint32_t neighbor_requests;
    // Time between requests. Default: 1 s.
    uint64_t neighbor_retry_ns;
    // How long an answer is good. Default: 30 s.
    uint64_t neighbor_reachable_ns;
    // How long an answer cannot be changed. Default: 1 s.
    uint64_t neighbor_lock_ns;
    // ARP packets sent a second. Default: 1000.
    uint32_t neighbor_rate;
    // ARP packets sent at once. Default: 100.
    uint32_t neighbor_burst;
    // Switch: announce an owned address at the start (RFC 5227). Default: on.
    uint32_t neighbor_announce;
    // Datagrams put together from fragments at a time. Default: 64.
    uint32_t fragment_datagrams;
    // Frames that they take. Default: 512.
    uint32_t fragment_frames;
    // Gaps in one datagram. Default: 64.
    uint32_t fragment_holes;
    // How long a datagram may take. Default: 30 s.
    uint64_t fragment_timeout_ns;
    // ICMP errors sent a second. Default: 1000.
    uint32_t icmp_error_rate;
    // ICMP errors sent at once. Default: 50.
    uint32_t icmp_error_burst;
    // Echo replies sent a second. Default: 100000.
    uint32_t icmp_echo_rate;
    // Echo replies sent at once. Default: 10000.
    uint32_t icmp_echo_burst;
    // How long a path MTU is believed. Default: 10 min.
    uint64_t path_mtu_age_ns;
    // Paths whose MTU is remembered. Default: 1024.
    uint32_t path_mtu_entries;
    // The least path MTU that is believed. Default: 552.
    uint32_t path_mtu_least;
    // UDP and ICMP sockets, of each kind. Default: 65536.
    uint32_t datagram_sockets;
    // Receive buffer of a UDP socket. Default: 212992.
    uint32_t datagram_receive_buffer;
    // The most that SO_RCVBUF asks for there. Default: 16 MiB.
    uint32_t datagram_max_receive_buffer;
    // Datagrams that a socket's queue holds. Default: 1024.
    uint32_t datagram_queue;
    // Connections, half-open and closing ones too. Default: 1048576.
    uint32_t tcp_connections;
    // TIME-WAIT entries; beyond it the oldest goes. Default: 262144.
    uint32_t tcp_time_waits;
    // The most that listen asks for. Default: 4096.
    uint32_t tcp_backlog;
    // Half-open connections of a listener. Default: 4096.
    uint32_t tcp_half_open;
    // Send buffer of a connection, at the start. Default: 256 KiB.
    uint32_t tcp_send_buffer;
    // Receive buffer of a connection, at the start. Default: 128 KiB.
    uint32_t tcp_receive_buffer;
    // The most that SO_SNDBUF asks for, and a send buffer grows to. Default: 4 MiB.
    uint32_t tcp_max_send_buffer;
    // The most that SO_RCVBUF asks for, and a receive buffer grows to; the window scale is made to carry it.
    // Default: 6 MiB.
    uint32_t tcp_max_receive_buffer;
    // Switch: no Nagle algorithm. Default: off.
    uint32_t tcp_nodelay;
    // Switch: ACKs are never delayed. Default: off.
    uint32_t tcp_quick_ack;
    // Switch: timestamps (RFC 7323). Default: on.
    uint32_t tcp_timestamps;
    // Switch: selective acknowledgment (RFC 2018). Default: on.
    uint32_t tcp_sack;
    // Switch: window scaling (RFC 7323). Default: on.
    uint32_t tcp_window_scaling;
    // Largest segment, in payload and option bytes. Default: by the MTU.
    uint32_t tcp_max_segment;
    // Least segment size that a peer or router may ask for. Default: 48.
    uint32_t tcp_min_mss;
    // Initial congestion window in segments (RFC 6928). Default: 10.
    uint32_t tcp_initial_window;
    // Retransmission time-out before the first measurement. Default: 1 s.
    uint64_t tcp_initial_rto_ns;
    // Least retransmission time-out. Default: 200 ms.
    uint64_t tcp_min_rto_ns;
    // Largest retransmission time-out. Default: 120 s.
    uint64_t tcp_max_rto_ns;
    // How often data is sent again. Default: 15.
    uint32_t tcp_retries;
    // The same after the program closed the socket. Default: 8.
    uint32_t tcp_orphan_retries;
    // How often a SYN is sent again. Default: 7.
    uint32_t tcp_syn_retries;
    // How often a SYN-ACK is sent again. Default: 5.
    uint32_t tcp_synack_retries;
    // How long an ACK is delayed. Default: 40 ms.
    uint64_t tcp_delayed_ack_ns;
    // Segments acknowledged at once when a connection begins. Default: 16.
    uint32_t tcp_quick_acks;
    // Segments kept out of order for one connection. Default: 65536.
    uint32_t tcp_out_of_order_segments;
    // How long TIME-WAIT lasts. Default: 60 s.
    uint64_t tcp_time_wait_ns;
    // How long FIN-WAIT-2 may last after close. Default: 60 s.
    uint64_t tcp_fin_wait_2_ns;
    // How long TCP_CORK holds a segment back. Default: 200 ms.
    uint64_t tcp_cork_ns;
    // How long a sender waits for a larger window. Default: 200 ms.
    uint64_t tcp_override_sws_ns;
    // Challenge ACKs an interval for one connection (RFC 5961). Default: 10.
    uint32_t tcp_challenge_acks;
    // Free frames that sending data leaves for ACKs. Default: 64.
    uint32_t tcp_frame_reserve;
    // Least time between ACKs to empty segments out of the window. Default: 500 ms.
    uint64_t tcp_invalid_ack_ns;
    // Below so many free frames payloads are copied together. Default: 256.
    uint32_t tcp_frames_low;
    // Payloads up to this size are joined in the receive queue. Default: 512.
    uint32_t tcp_coalesce;
    // SYN cookies: RR_ON where the SYN queue is full (the default), RR_OFF
    // never, 3 always.
    uint32_t tcp_syn_cookies;
    // Switch: a connection that finds the accept queue full is reset. Default: off.
    uint32_t tcp_abort_on_overflow;
    // Switch: programs may open with data in the SYN (RFC 7413). Default: on.
    uint32_t tcp_fast_open_client;
    // Switch: listeners with TCP_FASTOPEN take it. Default: off.
    uint32_t tcp_fast_open_server;
    // Destinations whose Fast Open cookie is kept. Default: 1024.
    uint32_t tcp_fast_open_cache;
    // The key of our Fast Open cookies. All zeros: drawn by chance.
    uint8_t tcp_fast_open_key[16];
    // The key before, whose cookies still count. All zeros: none.
    uint8_t tcp_fast_open_old_key[16];
    // How losses are found with SACK: 1 by time (RACK, RFC 8985), 2 by counting
    // (RFC 6675). Default: 1.
    uint32_t tcp_loss_detection;
    // Segments behind a missing one that tell its loss on a path that was not
    // seen to reorder, 1 to 255. Default: 3.
    uint32_t tcp_early_reordering;
    // Switch: a lost tail is probed for (RFC 8985, 7). Default: on.
    uint32_t tcp_tail_loss_probe;
    // Switch: time-outs are checked for having been too early (RFC 5682). Default: on.
    uint32_t tcp_frto;
    // Switch: duplicates that come in are reported (RFC 2883). Default: on.
    uint32_t tcp_dsack;
    // Switch: an idle window starts again at the initial one (RFC 5681, 4.1).
    // Default: on.
    uint32_t tcp_restart_idle;
    // How long a peer is thought to delay the ACK of a single segment, for the
    // probe of a lost tail. Default: 200 ms.
    uint64_t tcp_probe_ack_delay_ns;
    // Initial sequence numbers begin here and follow the clock, instead of a
    // secret. Default: 0, the secret.
    uint32_t tcp_sequence_base;
    // How long a peer's shut window may hold data back before the connection can
    // be ended for its memory, where that is short. Default: 10 s.
    uint64_t tcp_stall_grace_ns;
    // Connections that live on after close, at most. Default: 65536.
    uint32_t tcp_orphans;
    // Switch: listeners without TCP_FASTOPEN take it too, as many as their
    // backlog. Default: off.
    uint32_t tcp_fast_open_listeners;
    // Switch: listeners take data from SYNs without a cookie. Default: off.
    uint32_t tcp_fast_open_no_cookie;
    // Congestion control where a socket asks for none: "cubic" (the default),
    // "reno", "dctcp" or "bbr".
    const char *tcp_congestion;
    // Bytes a second that a connection sends at most. Default: any.
    uint64_t tcp_max_pacing_rate;
    // Switch: HyStart++ ends CUBIC's slow start (RFC 9406). Default: on.
    uint32_t tcp_hystart;
    // Switch: segments are spaced out with every algorithm, not with BBR alone.
    // Default: off.
    uint32_t tcp_pacing;
    // The share of lost bytes, in hundredths, from which BBR takes loss for
    // congestion. Default: 20.
    uint32_t tcp_bbr_loss;
    // Explicit congestion notification (RFC 3168): RR_ON asked for and granted,
    // RR_OFF neither, 3 granted to who asks (the default).
    uint32_t tcp_ecn;
    // Switch: receive buffers grow with what the path carries where the program
    // set no size. Default: on.
    uint32_t tcp_tune_receive;
    // Switch: send buffers likewise. Default: on.
    uint32_t tcp_tune_send;
    // Part of the frames, in 1/256, that one connection's buffer may grow to by
    // itself. Default: 64.
    uint32_t tcp_tune_share;
    // Sizes of segments searched for with data (RFC 4821): RR_ON from the start,
    // RR_OFF never, 3 from where full segments vanished (the default).
    uint32_t tcp_mtu_probing;
    // The segment size where the search begins. Default: 1024.
    uint32_t tcp_base_mss;
    // Time-outs in a row that make a black hole. Default: 3.
    uint32_t tcp_black_hole_retries;
    // Switch: the user timeout option (RFC 5482). Default: off.
    uint32_t tcp_user_timeout_option;
    // The least that a peer's option makes of our user timeout. Default: 100 s.
    uint64_t tcp_user_timeout_least_ns;
    // The most that it makes of it. Default: 1 h.
    uint64_t tcp_user_timeout_most_ns;
    // The interval that `tcp_challenge_acks` is for. Default: 1 s.
    uint64_t tcp_challenge_ns;
    // Segments in the middle of a write that leave together before one carries
    // PSH, at least.
    uint32_t tcp_least_train;
    // RR_ON or RR_OFF: once timestamps are agreed on, segments without one are
    // dropped.
    uint32_t tcp_require_timestamps;
    // RR_ON or RR_OFF: CUBIC's slow start ends as HyStart first had it, not as
    // RFC 9406 does.
    uint32_t tcp_classic_hystart;
    // How long after its end a search for larger segments begins again. Default: 10 min.
    uint64_t tcp_probe_interval_ns;
    // Such a search ends where fewer bytes are in doubt. Default: 8.
    uint32_t tcp_probe_threshold;
    // Switch: data goes in SYNs without a cookie, and none is asked for. Default: off.
    uint32_t tcp_fast_open_client_no_cookie;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What went wrong, in words. For the error of this thread's last failed call
// that may be a whole sentence (what failed, why, what to do); for any other
// number it is what strerror(3) gives. The text is this thread's, and stays
// until its next rr_strerror.
const char *rr_strerror(int errnum);

// Starts ringroad: opens the interface, attaches the steering program, starts
// the workers. Privileges may be dropped after it. `config` may be NULL: then
// RINGROAD_INTERFACE, RINGROAD_ADDRESS and so on are read from the environment.
// 0, or -1 with errno EINVAL (a bad value), EBUSY (it runs already) or EIO (it
// cannot start); rr_strerror says what failed, why, and what to do.
int rr_init(const struct rr_config *config);

// Calls `loop(arg)` once a turn on every pinned worker, until it returns other
// than 0 there; returns when all workers' loops have ended, or after rr_stop. A
// call in it that would block runs the worker's turn, without calling `loop`
// again, until it can finish or times out. 0, or -1 with errno EINVAL (no
// loop), EBUSY (loops run already) or ENETDOWN (rr_init is missing, a worker
// panicked, the interface went away).
//
// Signal handlers on a worker: beside rr_stop they may send and receive without
// waiting (rr_send, rr_sendto, rr_write, rr_recv, rr_recvfrom, rr_read, with
// O_NONBLOCK or MSG_DONTWAIT) on sockets that were made on that worker, where the
// loop has no sockets or epoll sets that other threads use, too. EBUSY
// means that the handler interrupted a call, also one that waits, or what the
// worker does between two calls of `loop`: nothing was done; try again outside
// of the handler. They may use malloc, so not where malloc is interrupted.
int rr_run(int (*loop)(void *arg), void *arg);

// Ends the workers: rr_run returns, blocking calls fail. Safe in a signal
// handler.
void rr_stop(void);

// Ends ringroad: connections get two seconds to close in order, then the
// workers end, and the steering program is detached. 0, or -1 with errno
// ENETDOWN (it does not run) or EBUSY (called on a worker). rr_init may follow.
int rr_shutdown_all(void);

// The library's version, as "0.1.0".
const char *rr_version(void);

// socket(2). Internet sockets are ringroad's; those of other families are the
// system's. ENETDOWN before rr_init.
int rr_socket(int domain, int type, int protocol);

// bind(2).
int rr_bind(int fd, const struct sockaddr *addr, socklen_t len);

// listen(2).
int rr_listen(int fd, int backlog);

// accept(2).
int rr_accept(int fd, struct sockaddr *addr, socklen_t *len);

// accept4(2).
int rr_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);

// connect(2). AF_UNSPEC takes a datagram socket's peer away.
int rr_connect(int fd, const struct sockaddr *addr, socklen_t len);

// shutdown(2).
int rr_shutdown(int fd, int how);

// close(2).
int rr_close(int fd);

// dup(2).
int rr_dup(int fd);

// setsockopt(2).
int rr_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

// getsockopt(2).
int rr_getsockopt(int fd, int level, int name, void *value, socklen_t *len);

// getsockname(2).
int rr_getsockname(int fd, struct sockaddr *addr, socklen_t *len);

// getpeername(2).
int rr_getpeername(int fd, struct sockaddr *addr, socklen_t *len);

// write(2).
ssize_t rr_write(int fd, const void *buf, size_t len);

// send(2).
ssize_t rr_send(int fd, const void *buf, size_t len, int flags);

// sendto(2).
ssize_t rr_sendto(int fd,
                  const void *buf,
                  size_t len,
                  int flags,
                  const struct sockaddr *addr,
                  socklen_t addr_len);

// writev(2).
ssize_t rr_writev(int fd, const struct iovec *parts, int count);

// sendmsg(2). Ancillary data: IP_PKTINFO (the source address), IP_TOS, IP_TTL,
// and their IPv6 names.
ssize_t rr_sendmsg(int fd, const struct msghdr *msg, int flags);

// sendmmsg(2): the number of messages sent.
int rr_sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags);

// read(2).
ssize_t rr_read(int fd, void *buf, size_t len);

// recv(2).
ssize_t rr_recv(int fd, void *buf, size_t len, int flags);

// recvfrom(2).
ssize_t rr_recvfrom(int fd,
                    void *buf,
                    size_t len,
                    int flags,
                    struct sockaddr *addr,
                    socklen_t *addr_len);

// readv(2).
ssize_t rr_readv(int fd, const struct iovec *parts, int count);

// recvmsg(2). Ancillary data, where the socket's options ask for it:
// IP_PKTINFO, IP_TOS (IP_RECVTOS), IP_TTL (IP_RECVTTL), TCP_CM_INQ (TCP_INQ).
ssize_t rr_recvmsg(int fd, struct msghdr *msg, int flags);

// recvmmsg(2): the number of messages received. MSG_WAITFORONE waits for the
// first only; the time-out is looked at after each message, as in Linux, and says
// then how much of it is left.
int rr_recvmmsg(int fd,
                struct mmsghdr *msgs,
                unsigned int count,
                int flags,
                struct timespec *timeout);

// poll(2), over ringroad's and the system's descriptors together.
int rr_poll(struct pollfd *fds, nfds_t count, int timeout_ms);

// ppoll(2).
int rr_ppoll(struct pollfd *fds,
             nfds_t count,
             const struct timespec *timeout,
             const sigset_t *mask);

// select(2), over ringroad's and the system's descriptors together. As in
// Linux, the time that is left is written back.
int rr_select(int count, fd_set *read, fd_set *write, fd_set *except, struct timeval *timeout);

// epoll_create(2).
int rr_epoll_create(int size);

// epoll_create1(2). Descriptors of ringroad and of the system may be in one
// set. Before rr_init the set is the system's, and takes the system's only.
int rr_epoll_create1(int flags);

// epoll_ctl(2).
int rr_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);

// epoll_wait(2).
int rr_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout_ms);

// epoll_pwait(2).
int rr_epoll_pwait(int epfd,
                   struct epoll_event *events,
                   int max,
                   int timeout_ms,
                   const sigset_t *mask);

// Lends up to `count` received frames, oldest first, without copying: how many,
// 0 at the end of the stream. The bytes are the program's, to read and to change,
// until rr_zc_release, which opens the receive window, or rr_zc_send, which does
// as well. Flags: MSG_DONTWAIT.
// As recv(2) in blocking and errors; ENOTSOCK for a descriptor of the system's;
// ENOBUFS where an urgent mark is within the next frame and none is free for the
// part before it (rr_recv needs none); EMSGSIZE where a datagram larger than a
// frame is next, which stays for rr_recv. Frames are lent in rr_run's loop, by that
// worker's sockets, and in simulation; EOPNOTSUPP elsewhere.
//
ptrdiff_t rr_zc_recv(int fd, struct rr_zc_frame *frames, size_t count, int flags);

// Gives frames back that rr_zc_recv lent, or that rr_zc_alloc handed out and
// the program does not send: how many. EINVAL for one that is not out, or not
// by this socket.
//
ptrdiff_t rr_zc_release(int fd, struct rr_zc_frame *frames, size_t count);

// Hands out up to `count` frames to write: how many. `len` is the room of each.
// EPIPE on a stream that cannot send, EAGAIN while the send buffer or the memory
// is full.
//
ptrdiff_t rr_zc_alloc(int fd, struct rr_zc_frame *frames, size_t count);

// Sends the first `len` bytes of frames that rr_zc_alloc handed out on this
// socket, or, on a stream, that rr_zc_recv lent there: a server that answers in
// the frame of the request needs no other, and does not release it. How many
// frames were taken: those are the program's no longer, the others still are.
// EINVAL for a frame that is not out, and for a `len` that is 0 or beyond its
// room; EMSGSIZE for a received one that is longer than a segment may be here.
// As send(2) in other errors, SIGPIPE included. Flags: MSG_DONTWAIT, MSG_NOSIGNAL.
//
ptrdiff_t rr_zc_send(int fd, struct rr_zc_frame *frames, size_t count, int flags);

// Makes a stack without thread, device or clock; its time is 0. Every random
// choice (initial sequence numbers, ports, IP ids, hash keys) comes from the
// seed. `cfg` may be NULL: the defaults. NULL with errno EINVAL for a bad
// configuration, and rr_strerror says which field.
//
struct rr_sim *rr_sim_new(const struct rr_sim_config *cfg, uint64_t seed);

// From now on this thread's rr_socket ... rr_epoll_wait act on this stack, and
// never block; descriptors are the simulation's own. NULL leaves. One thread
// at a time: EBUSY while another is inside. A thread that ends leaves.
int rr_sim_enter(struct rr_sim *sim);

// Changes what the fields `tcp_...` of the configuration say of new connections
// and of bounds, as a system's administrator would; the other fields, and the
// connections and sockets that are there, stay as they are. 0, or -1 with errno
// EINVAL (rr_strerror says which field) or EFAULT.
int rr_sim_configure(struct rr_sim *sim, const struct rr_sim_config *cfg);

// Forgets what the stack learnt of destinations: path MTUs, Fast Open's cookies.
//
void rr_sim_forget(struct rr_sim *sim);

// Hands the stack a frame from the wire: an IP packet with raw_ip, else an
// Ethernet frame. rr_sim_poll works on it. 0, or -1 with errno EINVAL (empty),
// EMSGSIZE (larger than a frame), ENOBUFS (no frame is free), EFAULT.
int rr_sim_inject(struct rr_sim *sim, const void *frame, size_t len);

// Takes the oldest frame that the stack has sent: its length, 0 where nothing
// waits, or -1 with errno EMSGSIZE (`len` is too short; the frame stays) or
// EFAULT. `sent_at_ns`, if not NULL, gets the time of its sending.
//
ptrdiff_t rr_sim_collect(struct rr_sim *sim, void *buf, size_t len, uint64_t *sent_at_ns);

// Sets the stack's clock. It does not go backwards.
//
void rr_sim_clock_set(struct rr_sim *sim, uint64_t now_ns);

// Runs the stack at the time that was set: works on what was injected, on
// timers that are due, and sends what is to be sent.
//
void rr_sim_poll(struct rr_sim *sim);

// When the stack wants to be polled next, if nothing is injected before;
// UINT64_MAX: never. A time that has passed: at once.
//
uint64_t rr_sim_next_deadline(const struct rr_sim *sim);

// Ends a stack, with its sockets and the frames that it lent. NULL is nothing.
// One that another thread is in is left alone.
//
void rr_sim_free(struct rr_sim *sim);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RINGROAD_H */
