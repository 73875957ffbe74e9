/* TCP between two simulated stacks, through the socket calls. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <fcntl.h>
#include <sys/ioctl.h>

#include "pair.h"

#define NONE (-1)

/* Reads so many bytes; what TCP_CM_INQ says is left. */
static int left(int fd, size_t count)
{
    char data[64];
    union {
        struct cmsghdr header;
        char bytes[64];
    } control;
    struct iovec part = {data, count};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1,
                         .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(rr_recvmsg(fd, &msg, 0) >= 0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c == NULL)
        return NONE;
    CHECK(c->cmsg_level == IPPROTO_TCP && c->cmsg_type == 36 && c->cmsg_len == CMSG_LEN(sizeof(int)));
    int n;
    memcpy(&n, CMSG_DATA(c), sizeof n);
    return n;
}

static volatile sig_atomic_t pipes;

static void on_pipe(int signal)
{
    (void)signal;
    pipes++;
}

static void echo(void)
{
    int listening = listener(), client, server;
    connection(listening, &client, &server);

    /* Both ends agree on their names. */
    struct sockaddr_in local, peer;
    socklen_t len = sizeof local;
    CHECK(rr_getpeername(server, (struct sockaddr *)&peer, &len) == 0 && len == sizeof peer);
    CHECK(peer.sin_addr.s_addr == inet_addr("10.0.0.1"));
    CHECK(rr_getsockname(server, (struct sockaddr *)&local, &len) == 0);
    CHECK(local.sin_addr.s_addr == inet_addr("10.0.0.2") && ntohs(local.sin_port) == 80);
    on(a);
    struct sockaddr_in mine;
    CHECK(rr_getsockname(client, (struct sockaddr *)&mine, &len) == 0);
    CHECK(mine.sin_port == peer.sin_port && mine.sin_addr.s_addr == peer.sin_addr.s_addr);
    CHECK(rr_getpeername(client, (struct sockaddr *)&local, &len) == 0);
    CHECK(ntohs(local.sin_port) == 80);

    /* There and back, whole and in parts. */
    char buf[64];
    CHECK(rr_write(client, "hello, ", 7) == 7);
    struct iovec parts[3] = {{(void *)"wo", 2}, {NULL, 0}, {(void *)"rld", 3}};
    CHECK(rr_writev(client, parts, 3) == 5);
    settle();
    on(b);
    int n = 0;
    CHECK(rr_ioctl(server, FIONREAD, &n) == 0 && n == 12);
    CHECK(rr_recv(server, buf, 5, MSG_PEEK) == 5 && memcmp(buf, "hello", 5) == 0);
    struct iovec into[2] = {{buf, 4}, {buf + 10, 20}};
    CHECK(rr_readv(server, into, 2) == 12);
    CHECK(memcmp(buf, "hell", 4) == 0 && memcmp(buf + 10, "o, world", 8) == 0);
    FAILS(EAGAIN, rr_read(server, buf, sizeof buf));

    /* TCP_INQ: what is left is told with what is read. */
    on(a);
    CHECK(rr_write(client, "four", 4) == 4);
    settle();
    on(b);
    CHECK(left(server, 1) == NONE);
    int one = 1, two = 2;
    CHECK(rr_setsockopt(server, IPPROTO_TCP, 36, &one, sizeof one) == 0);
    FAILS(EINVAL, rr_setsockopt(server, IPPROTO_TCP, 36, &two, sizeof two));
    CHECK(left(server, 1) == 2 && left(server, 2) == 0);
    CHECK(rr_send(server, "HELLO", 5, 0) == 5);
    settle();
    on(a);
    struct pollfd p = {client, POLLIN | POLLOUT | POLLRDNORM, 0};
    CHECK(rr_poll(&p, 1, -1) == 1 && p.revents == (POLLIN | POLLOUT | POLLRDNORM));
    CHECK(rr_recvfrom(client, buf, sizeof buf, 0, (struct sockaddr *)&peer, &len) == 5);
    CHECK(len == 0 && memcmp(buf, "HELLO", 5) == 0);

    /* Half-close: the server reads the end, and still answers. */
    CHECK(rr_shutdown(client, SHUT_WR) == 0);
    settle();
    on(b);
    p.fd = server;
    p.events = POLLIN | POLLRDHUP;
    CHECK(rr_poll(&p, 1, 0) == 1 && p.revents == (POLLIN | POLLRDHUP));
    CHECK(left(server, sizeof buf) == 1 && rr_read(server, buf, sizeof buf) == 0);
    CHECK(rr_write(server, "late", 4) == 4);
    settle();
    CHECK(rr_close(server) == 0);
    FAILS(EBADF, rr_close(server));
    settle();
    on(a);
    CHECK(rr_read(client, buf, sizeof buf) == 4);
    CHECK(rr_read(client, buf, sizeof buf) == 0);
    CHECK(rr_close(client) == 0);
    pass(200 * SECOND);
    on(b);
    CHECK(rr_close(listening) == 0);
}

static void broken_pipe(void)
{
    int listening = listener(), client, server;
    connection(listening, &client, &server);
    on(a);
    CHECK(rr_shutdown(client, SHUT_WR) == 0);
    pipes = 0;
    FAILS(EPIPE, rr_write(client, "x", 1));
    CHECK(pipes == 1);
    FAILS(EPIPE, rr_send(client, "x", 1, MSG_NOSIGNAL));
    CHECK(pipes == 1);
    struct iovec part = {(void *)"x", 1};
    FAILS(EPIPE, rr_writev(client, &part, 1));
    CHECK(pipes == 2);
    struct msghdr msg;
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = &part;
    msg.msg_iovlen = 1;
    FAILS(EPIPE, rr_sendmsg(client, &msg, MSG_NOSIGNAL));
    CHECK(pipes == 2);
    FAILS(EPIPE, rr_sendmsg(client, &msg, 0));
    CHECK(pipes == 3);
    CHECK(rr_close(client) == 0);
    on(b);
    CHECK(rr_close(server) == 0 && rr_close(listening) == 0);
    settle();
}

/* A close with unread data resets the other side. */
static void reset(void)
{
    int listening = listener(), client, server;
    char buf[8];
    connection(listening, &client, &server);
    on(a);
    CHECK(rr_write(client, "unread", 6) == 6);
    settle();
    on(b);
    CHECK(rr_close(server) == 0);
    settle();
    on(a);
    struct pollfd p = {client, POLLIN, 0};
    CHECK(rr_poll(&p, 1, 0) == 1);
    CHECK((p.revents & (POLLIN | POLLERR | POLLHUP)) == (POLLIN | POLLERR | POLLHUP));
    FAILS(ECONNRESET, rr_read(client, buf, sizeof buf));
    CHECK(rr_read(client, buf, sizeof buf) == 0);
    pipes = 0;
    FAILS(EPIPE, rr_write(client, "x", 1));
    CHECK(pipes == 1);
    CHECK(rr_close(client) == 0);
    on(b);
    CHECK(rr_close(listening) == 0);
}

static void refused(void)
{
    on(a);
    int fd = rr_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    FAILS(EINPROGRESS, connect_to(fd, "10.0.0.2", 81));
    FAILS(EALREADY, connect_to(fd, "10.0.0.2", 81));
    settle();
    struct pollfd p = {fd, POLLOUT, 0};
    CHECK(rr_poll(&p, 1, 0) == 1 && (p.revents & POLLERR));
    CHECK(option(fd, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
    CHECK(option(fd, SOL_SOCKET, SO_ERROR) == 0);
    CHECK(rr_close(fd) == 0);
}

static void options(void)
{
    int listening = listener(), client, server;
    connection(listening, &client, &server);
    on(a);
    CHECK(option(client, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
    CHECK(option(client, SOL_SOCKET, SO_DOMAIN) == AF_INET);
    CHECK(option(client, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
    CHECK(option(client, SOL_SOCKET, SO_ACCEPTCONN) == 0);
    on(b);
    CHECK(option(listening, SOL_SOCKET, SO_ACCEPTCONN) == 1);
    on(a);
    const struct {
        int level, name, value;
    } plain[] = {
        {SOL_SOCKET, SO_REUSEADDR, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_NODELAY, 1},  {IPPROTO_TCP, TCP_CORK, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 9}, {IPPROTO_TCP, TCP_KEEPINTVL, 8},
        {IPPROTO_TCP, TCP_KEEPCNT, 7},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 6000},
        {IPPROTO_IP, IP_TTL, 33},       {IPPROTO_IP, IP_TOS, 0x10},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        int v = plain[i].value;
        CHECK(rr_setsockopt(client, plain[i].level, plain[i].name, &v, sizeof v) == 0);
        CHECK(option(client, plain[i].level, plain[i].name) == v);
    }
    struct linger linger = {1, 0}, got;
    socklen_t len = sizeof got;
    CHECK(rr_setsockopt(client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    CHECK(rr_getsockopt(client, SOL_SOCKET, SO_LINGER, &got, &len) == 0);
    CHECK(len == sizeof got && got.l_onoff == 1 && got.l_linger == 0);
    struct tcp_info info;
    memset(&info, 0, sizeof info);
    len = sizeof info;
    CHECK(rr_getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
    CHECK(info.tcpi_state == TCP_ESTABLISHED && info.tcpi_snd_mss > 0);

    /* Linger of 0: close resets. */
    CHECK(rr_close(client) == 0);
    settle();
    on(b);
    char byte;
    FAILS(ECONNRESET, rr_read(server, &byte, 1));
    CHECK(rr_close(server) == 0 && rr_close(listening) == 0);
}

/* More than all the buffers hold, in pieces, whole and in order; then over a
   wire that was cut for a while. */
static void bulk(void)
{
    int listening = listener(), client, server;
    connection(listening, &client, &server);
    static unsigned char out[200000], in[65536];
    size_t total = 4000000, sent = 0, received = 0;
    for (int round = 0; received < total; round++) {
        CHECK(round < 100000);
        on(a);
        if (sent < total) {
            size_t n = total - sent < sizeof out ? total - sent : sizeof out;
            for (size_t i = 0; i < n; i++)
                out[i] = (unsigned char)((sent + i) * 31 >> 3);
            ssize_t now = rr_send(client, out, n, 0);
            if (now < 0) {
                CHECK(errno == EAGAIN);
                struct pollfd p = {client, POLLOUT, 0};
                CHECK(rr_poll(&p, 1, 0) == 0);
            } else {
                sent += (size_t)now;
            }
        }
        if (round == 3) {
            wire_is_cut = 1;
            settle();
            wire_is_cut = 0;
            pass(3 * SECOND);
        }
        settle();
        on(b);
        ssize_t n;
        while ((n = rr_recv(server, in, sizeof in, 0)) > 0) {
            for (ssize_t i = 0; i < n; i++)
                CHECK(in[i] == (unsigned char)((received + (size_t)i) * 31 >> 3));
            received += (size_t)n;
        }
        CHECK(n == -1 && errno == EAGAIN);
        settle();
        pass(MS);
    }
    CHECK(sent == total);
    on(a);
    CHECK(rr_close(client) == 0);
    on(b);
    CHECK(rr_close(server) == 0 && rr_close(listening) == 0);
    settle();
}

static fd_set r, w, e;
static struct timeval zero;

static int look(int fd)
{
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_ZERO(&e);
    FD_SET(fd, &r);
    FD_SET(fd, &w);
    FD_SET(fd, &e);
    return rr_select(fd + 1, &r, &w, &e, &zero);
}

/* select says what poll says. */
static void selecting(void)
{
    int listening = listener(), client, server;
    on(a);
    client = rr_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(EINPROGRESS, connect_to(client, "10.0.0.2", 80));
    CHECK(look(client) == 0);
    settle();
    CHECK(look(client) == 1 && FD_ISSET(client, &w) && !FD_ISSET(client, &r));
    on(b);
    CHECK(look(listening) == 1 && FD_ISSET(listening, &r));
    server = rr_accept(listening, NULL, NULL);
    CHECK(rr_write(server, "x", 1) == 1);
    settle();
    on(a);
    CHECK(look(client) == 2 && FD_ISSET(client, &w) && FD_ISSET(client, &r));
    FAILS(EBADF, look(client + 9));
    FAILS(EINVAL, rr_select(-1, &r, &w, &e, &zero));
    zero.tv_usec = -1;
    FAILS(EINVAL, look(client));
    /* Linux takes more than a second's worth of microseconds. */
    zero.tv_usec = 1000000;
    CHECK(look(client) == 2);
    zero.tv_usec = 0;
    CHECK(rr_select(0, NULL, NULL, NULL, &zero) == 0);
    CHECK(rr_close(client) == 0);
    on(b);
    CHECK(rr_close(server) == 0 && rr_close(listening) == 0);
    settle();
}

static void duplicates(void)
{
    int listening = listener(), client, server;
    connection(listening, &client, &server);
    on(a);
    int other = rr_dup(client);
    CHECK(other > 2 && other != client);
    CHECK((rr_fcntl(client, F_GETFL) & O_NONBLOCK) == 0);
    CHECK(rr_fcntl(other, F_SETFL, O_NONBLOCK) == 0);
    CHECK(rr_fcntl(client, F_GETFL) & O_NONBLOCK);
    int on_ = 0;
    CHECK(rr_ioctl(client, FIONBIO, &on_) == 0);
    CHECK((rr_fcntl(other, F_GETFL) & O_NONBLOCK) == 0);
    int high = rr_fcntl(client, F_DUPFD_CLOEXEC, 100);
    CHECK(high == 100 && rr_fcntl(high, F_GETFD) == FD_CLOEXEC && rr_fcntl(other, F_GETFD) == 0);
    CHECK(rr_close(client) == 0 && rr_close(high) == 0);
    CHECK(rr_write(other, "still", 5) == 5);
    settle();
    on(b);
    char buf[8];
    CHECK(rr_read(server, buf, sizeof buf) == 5);
    on(a);
    CHECK(rr_close(other) == 0);
    settle();
    on(b);
    CHECK(rr_read(server, buf, sizeof buf) == 0);
    CHECK(rr_close(server) == 0 && rr_close(listening) == 0);
    settle();
}

/* The same seed and the same calls give the same frames; another seed does not. */
static uint64_t first_frames(uint64_t seed)
{
    struct rr_sim *sim = new_stack("10.0.0.1/24", 1, seed);
    on(sim);
    uint64_t sum = 1469598103934665603ull;
    for (int i = 0; i < 20; i++) {
        int fd = rr_socket(AF_INET, SOCK_STREAM, 0);
        FAILS(EINPROGRESS, connect_to(fd, "10.0.0.9", 80));
    }
    for (uint64_t t = 0; t < 20 * SECOND; t += SECOND / 10) {
        unsigned char frame[2048];
        ssize_t len;
        uint64_t at_ns;
        rr_sim_clock_set(sim, t);
        rr_sim_poll(sim);
        while ((len = rr_sim_collect(sim, frame, sizeof frame, &at_ns)) > 0) {
            CHECK(at_ns == t);
            for (ssize_t i = 0; i < len; i++)
                sum = (sum ^ frame[i]) * 1099511628211ull;
        }
    }
    rr_sim_free(sim);
    return sum;
}

int main(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_pipe;
    CHECK(sigaction(SIGPIPE, &action, NULL) == 0);
    void (*const tests[])(void) = {echo,    broken_pipe, reset,      refused,
                                   options, bulk,        selecting, duplicates};
    for (int raw_ip = 0; raw_ip < 2; raw_ip++)
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
            pair_up(raw_ip);
            tests[i]();
            CHECK(frames_moved > 0);
            pair_down();
        }
    uint64_t one = first_frames(1);
    CHECK(one == first_frames(1));
    CHECK(one != first_frames(2));
    puts("ok");
    return 0;
}
