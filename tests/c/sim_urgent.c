/* Urgent data between two simulated stacks, as Linux has it. */
#define _GNU_SOURCE
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

#include "pair.h"

static int at_mark(int fd)
{
    int mark = -1;
    CHECK(rr_ioctl(fd, SIOCATMARK, &mark) == 0);
    return mark;
}

static int readable(int fd)
{
    int n = -1;
    CHECK(rr_ioctl(fd, FIONREAD, &n) == 0);
    return n;
}

static int events(int fd)
{
    struct pollfd p = {fd, POLLIN | POLLPRI, 0};
    CHECK(rr_poll(&p, 1, 0) >= 0);
    return p.revents;
}

/* The client sends "abc", urgent "XY", "def"; left inside b. */
static void send_it(int client)
{
    on(a);
    CHECK(rr_send(client, "abc", 3, 0) == 3);
    CHECK(rr_send(client, "XY", 2, MSG_OOB) == 2);
    CHECK(rr_send(client, "def", 3, 0) == 3);
    settle();
    on(b);
}

static void apart(int client, int server)
{
    char buf[16];
    on(b);
    FAILS(EINVAL, rr_recv(server, buf, 1, MSG_OOB));
    send_it(client);
    CHECK(events(server) == (POLLIN | POLLPRI));
    CHECK(readable(server) == 4 && at_mark(server) == 0);
    /* The urgent byte, looked at, then taken: once. A message says that it is. */
    struct iovec part = {buf, sizeof buf};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    CHECK(rr_recvmsg(server, &msg, MSG_OOB | MSG_PEEK) == 1 && buf[0] == 'Y' && msg.msg_flags == MSG_OOB);
    CHECK(rr_recv(server, buf, 9, MSG_OOB | MSG_PEEK) == 1 && buf[0] == 'Y');
    CHECK(rr_recv(server, buf, 9, MSG_OOB) == 1 && buf[0] == 'Y');
    FAILS(EINVAL, rr_recv(server, buf, 9, MSG_OOB));
    CHECK(events(server) == POLLIN);
    /* Reading stops at the mark, and passes it without the byte. */
    CHECK(rr_recv(server, buf, sizeof buf, MSG_PEEK) == 4);
    CHECK(rr_recv(server, buf, sizeof buf, 0) == 4 && memcmp(buf, "abcX", 4) == 0);
    CHECK(at_mark(server) == 1 && readable(server) == 0 && events(server) == POLLIN);
    CHECK(rr_recv(server, buf, sizeof buf, MSG_PEEK) == 3 && memcmp(buf, "def", 3) == 0);
    /* Of a length that no memory has, what is there is all that counts. */
    CHECK(rr_recv(server, buf, (size_t)1 << 62, MSG_PEEK) == 3);
    CHECK(at_mark(server) == 1);
    CHECK(rr_recv(server, buf, sizeof buf, 0) == 3 && memcmp(buf, "def", 3) == 0);
    CHECK(at_mark(server) == 0 && events(server) == 0);
    FAILS(EINVAL, rr_recv(server, buf, 1, MSG_OOB));

    /* Alone in front it makes nothing readable, and a read throws it away. */
    on(a);
    CHECK(rr_send(client, "Z", 1, MSG_OOB) == 1);
    settle();
    on(b);
    CHECK(events(server) == POLLPRI && readable(server) == 0 && at_mark(server) == 1);
    FAILS(EAGAIN, rr_recv(server, buf, sizeof buf, 0));
    CHECK(events(server) == 0 && at_mark(server) == 0);
    FAILS(EINVAL, rr_recv(server, buf, 1, MSG_OOB));
}

static void in_line(int client, int server)
{
    char buf[16];
    int one = 1;
    on(b);
    CHECK(rr_setsockopt(server, SOL_SOCKET, SO_OOBINLINE, &one, sizeof one) == 0);
    CHECK(option(server, SOL_SOCKET, SO_OOBINLINE) == 1);
    send_it(client);
    FAILS(EINVAL, rr_recv(server, buf, 1, MSG_OOB));
    CHECK(readable(server) == 8);
    CHECK(rr_recv(server, buf, sizeof buf, 0) == 4 && memcmp(buf, "abcX", 4) == 0);
    CHECK(at_mark(server) == 1 && readable(server) == 4);
    CHECK(rr_recv(server, buf, sizeof buf, 0) == 4 && memcmp(buf, "Ydef", 4) == 0);
    CHECK(at_mark(server) == 0);
}

/* A program that asked epoll for EPOLLPRI alone is told of the byte alone. */
static void told(int client, int server)
{
    char buf[16];
    on(b);
    int ep = rr_epoll_create1(0);
    struct epoll_event want = {EPOLLPRI | EPOLLET, {.fd = server}}, got;
    CHECK(rr_epoll_ctl(ep, EPOLL_CTL_ADD, server, &want) == 0);
    CHECK(rr_epoll_wait(ep, &got, 1, 0) == 0);
    send_it(client);
    CHECK(rr_epoll_wait(ep, &got, 1, 0) == 1 && got.events == EPOLLPRI);
    CHECK(rr_recv(server, buf, 4, 0) == 4 && rr_recv(server, buf, 4, 0) > 0);
    CHECK(rr_close(ep) == 0);
    while (rr_recv(server, buf, sizeof buf, 0) > 0)
        ;
}

/* What is not taken by the peer stays in SIOCOUTQ, what did not leave in
   SIOCOUTQNSD. */
static void queues(int client)
{
    int out, unsent, zero = 0, cork = 1;
    on(a);
    CHECK(rr_setsockopt(client, IPPROTO_TCP, TCP_CORK, &cork, sizeof cork) == 0);
    CHECK(rr_send(client, "held", 4, 0) == 4);
    wire_is_cut = 1;
    settle();
    CHECK(rr_ioctl(client, SIOCOUTQ, &out) == 0 && out == 4);
    CHECK(rr_ioctl(client, SIOCOUTQNSD, &unsent) == 0 && unsent == 4);
    CHECK(rr_setsockopt(client, IPPROTO_TCP, TCP_CORK, &zero, sizeof zero) == 0);
    settle();
    CHECK(rr_ioctl(client, SIOCOUTQ, &out) == 0 && out == 4);
    CHECK(rr_ioctl(client, SIOCOUTQNSD, &unsent) == 0 && unsent == 0);
    wire_is_cut = 0;
    pass(SECOND);
    on(a);
    CHECK(rr_ioctl(client, SIOCOUTQ, &out) == 0 && out == 0);
}

/* Options of the path and of waiting. */
static void options(int client)
{
    on(a);
    for (int how = IP_PMTUDISC_DONT; how <= IP_PMTUDISC_PROBE; how++) {
        CHECK(rr_setsockopt(client, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof how) == 0);
        CHECK(option(client, IPPROTO_IP, IP_MTU_DISCOVER) == how);
    }
    int bad = 77, one = 1;
    FAILS(EINVAL, rr_setsockopt(client, IPPROTO_IP, IP_MTU_DISCOVER, &bad, sizeof bad));
    CHECK(option(client, IPPROTO_IP, IP_MTU) == 1500);
    CHECK(option(client, IPPROTO_TCP, RR_TCP_UTO) == 0);
    CHECK(rr_setsockopt(client, IPPROTO_TCP, RR_TCP_UTO, &one, sizeof one) == 0);
    CHECK(option(client, IPPROTO_TCP, RR_TCP_UTO) == 1);
    CHECK(option(client, SOL_SOCKET, SO_RCVBUF) == 128 << 10);
    int size = 50000;
    CHECK(rr_setsockopt(client, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) == 0);
    CHECK(option(client, SOL_SOCKET, SO_RCVBUF) == 100000);
}

int main(void)
{
    for (int raw_ip = 0; raw_ip < 2; raw_ip++) {
        pair_up(raw_ip);
        int listening = listener(), client, server;
        connection(listening, &client, &server);
        apart(client, server);
        told(client, server);
        in_line(client, server);
        queues(client);
        options(client);
        pair_down();
    }
    puts("ok");
    return 0;
}
