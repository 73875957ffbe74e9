/* UDP between two simulated stacks: addresses, ancillary data, batches, errors. */
#define _GNU_SOURCE
#include <poll.h>

#include "pair.h"

static int udp(struct rr_sim *sim, const char *ip, int port)
{
    on(sim);
    int fd = rr_socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(fd >= 0);
    if (ip)
        CHECK(bind_to(fd, ip, port) == 0);
    return fd;
}

static ssize_t send_to(int fd, const void *data, size_t len, const char *ip, int port)
{
    struct sockaddr_in to = at(ip, port);
    return rr_sendto(fd, data, len, 0, (struct sockaddr *)&to, sizeof to);
}

static void plain(void)
{
    int server = udp(b, "10.0.0.2", 53), client = udp(a, NULL, 0);
    char buf[64];
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    FAILS(EDESTADDRREQ, rr_send(client, "x", 1, 0));
    CHECK(send_to(client, "question", 8, "10.0.0.2", 53) == 8);
    CHECK(send_to(client, "", 0, "10.0.0.2", 53) == 0);
    settle();
    on(b);
    memset(&from, 0, sizeof from);
    CHECK(rr_recvfrom(server, buf, sizeof buf, 0, (struct sockaddr *)&from, &len) == 8);
    CHECK(len == sizeof from && from.sin_addr.s_addr == inet_addr("10.0.0.1"));
    CHECK(memcmp(buf, "question", 8) == 0);
    CHECK(rr_recv(server, buf, sizeof buf, 0) == 0);
    FAILS(EAGAIN, rr_recv(server, buf, sizeof buf, 0));
    CHECK(rr_sendto(server, "answer", 6, 0, (struct sockaddr *)&from, len) == 6);
    settle();
    on(a);
    /* Too short a buffer: the rest is lost, and the flag says so. */
    struct iovec part = {buf, 3};
    struct msghdr msg;
    memset(&msg, 0, sizeof msg);
    msg.msg_iov = &part;
    msg.msg_iovlen = 1;
    msg.msg_name = &from;
    msg.msg_namelen = sizeof from;
    CHECK(rr_recvmsg(client, &msg, MSG_PEEK | MSG_TRUNC) == 6);
    CHECK(rr_recvmsg(client, &msg, 0) == 3);
    CHECK((msg.msg_flags & MSG_TRUNC) && memcmp(buf, "ans", 3) == 0);
    CHECK(msg.msg_namelen == sizeof from && ntohs(from.sin_port) == 53);
    FAILS(EAGAIN, rr_recvmsg(client, &msg, 0));
    FAILS(EMSGSIZE, send_to(client, buf, 65508, "10.0.0.2", 53));
    CHECK(rr_close(client) == 0);
    on(b);
    CHECK(rr_close(server) == 0);
}

static void connected(void)
{
    int client = udp(a, NULL, 0), other;
    char buf[16];
    CHECK(connect_to(client, "10.0.0.2", 999) == 0);
    CHECK(rr_send(client, "anybody?", 8, 0) == 8);
    settle(); /* port unreachable comes back */
    struct pollfd p = {client, POLLIN, 0};
    CHECK(rr_poll(&p, 1, 0) == 1 && (p.revents & POLLERR));
    FAILS(ECONNREFUSED, rr_recv(client, buf, sizeof buf, 0));
    FAILS(EAGAIN, rr_recv(client, buf, sizeof buf, 0));
    int server = udp(b, "0.0.0.0", 999);
    other = udp(b, "0.0.0.0", 998);
    on(a);
    CHECK(rr_write(client, "one", 3) == 3);
    struct sockaddr_in mine;
    socklen_t len = sizeof mine;
    CHECK(rr_getsockname(client, (struct sockaddr *)&mine, &len) == 0);
    settle();
    on(b);
    CHECK(rr_read(server, buf, sizeof buf) == 3);
    CHECK(send_to(other, "stranger", 8, "10.0.0.1", ntohs(mine.sin_port)) == 8);
    CHECK(send_to(server, "friend", 6, "10.0.0.1", ntohs(mine.sin_port)) == 6);
    settle();
    on(a);
    CHECK(rr_read(client, buf, sizeof buf) == 6 && memcmp(buf, "friend", 6) == 0);
    FAILS(EAGAIN, rr_read(client, buf, sizeof buf));
    struct sockaddr none;
    memset(&none, 0, sizeof none);
    none.sa_family = AF_UNSPEC;
    CHECK(rr_connect(client, &none, sizeof none) == 0);
    FAILS(ENOTCONN, rr_getpeername(client, (struct sockaddr *)&mine, &len));
    FAILS(EDESTADDRREQ, rr_send(client, "x", 1, 0));
    CHECK(rr_close(client) == 0);
    on(b);
    CHECK(rr_close(server) == 0 && rr_close(other) == 0);
}

static void ancillary(void)
{
    int server = udp(b, "0.0.0.0", 53), client = udp(a, NULL, 0);
    int yes = 1;
    on(b);
    CHECK(rr_setsockopt(server, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes) == 0);
    CHECK(rr_setsockopt(server, IPPROTO_IP, IP_RECVTTL, &yes, sizeof yes) == 0);
    CHECK(rr_setsockopt(server, IPPROTO_IP, IP_RECVTOS, &yes, sizeof yes) == 0);

    /* The client asks for a time to live and a type of service. */
    on(a);
    struct sockaddr_in to = at("10.0.0.2", 53);
    char out[] = "text", in[16];
    union {
        char bytes[256];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {out, 4};
    struct msghdr msg;
    memset(&msg, 0, sizeof msg);
    msg.msg_name = &to;
    msg.msg_namelen = sizeof to;
    msg.msg_iov = &part;
    msg.msg_iovlen = 1;
    msg.msg_control = control.bytes;
    msg.msg_controllen = CMSG_SPACE(sizeof(int)) * 2;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    int ttl = 7, tos = 0x10;
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_TTL;
    c->cmsg_len = CMSG_LEN(sizeof ttl);
    memcpy(CMSG_DATA(c), &ttl, sizeof ttl);
    c = CMSG_NXTHDR(&msg, c);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_TOS;
    c->cmsg_len = CMSG_LEN(sizeof tos);
    memcpy(CMSG_DATA(c), &tos, sizeof tos);
    CHECK(rr_sendmsg(client, &msg, 0) == 4);
    c->cmsg_len = 3;
    FAILS(EINVAL, rr_sendmsg(client, &msg, 0));
    settle();

    /* The server is told. */
    on(b);
    part.iov_base = in;
    part.iov_len = sizeof in;
    msg.msg_controllen = sizeof control.bytes;
    CHECK(rr_recvmsg(server, &msg, 0) == 4);
    CHECK((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0);
    int seen = 0;
    for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        CHECK(c->cmsg_level == IPPROTO_IP);
        if (c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            CHECK(info.ipi_addr.s_addr == inet_addr("10.0.0.2"));
            seen |= 1;
        } else if (c->cmsg_type == IP_TTL) {
            memcpy(&ttl, CMSG_DATA(c), sizeof ttl);
            CHECK(ttl == 7);
            seen |= 2;
        } else if (c->cmsg_type == IP_TOS) {
            CHECK(*CMSG_DATA(c) == 0x10);
            seen |= 4;
        }
    }
    CHECK(seen == 7);

    /* Without room the data comes all the same, and a flag. */
    on(a);
    CHECK(send_to(client, "more", 4, "10.0.0.2", 53) == 4);
    settle();
    on(b);
    msg.msg_controllen = 8;
    CHECK(rr_recvmsg(server, &msg, 0) == 4 && (msg.msg_flags & MSG_CTRUNC));
    CHECK(msg.msg_controllen == 0);
    CHECK(rr_close(server) == 0);
    on(a);
    CHECK(rr_close(client) == 0);
}

static void batches(void)
{
    enum { COUNT = 12, MORE = COUNT + 5 };
    int server = udp(b, "0.0.0.0", 53), client = udp(a, NULL, 0);
    CHECK(connect_to(client, "10.0.0.2", 53) == 0);
    char text[COUNT][8], in[MORE][8];
    struct iovec parts[MORE];
    struct mmsghdr msgs[MORE];
    memset(msgs, 0, sizeof msgs);
    for (int i = 0; i < COUNT; i++) {
        int len = snprintf(text[i], sizeof text[i], "n%d", i);
        parts[i].iov_base = text[i];
        parts[i].iov_len = (size_t)len;
        msgs[i].msg_hdr.msg_iov = &parts[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
    }
    CHECK(rr_sendmmsg(client, msgs, COUNT, 0) == COUNT);
    for (int i = 0; i < COUNT; i++)
        CHECK(msgs[i].msg_len == parts[i].iov_len);
    CHECK(rr_sendmmsg(client, msgs, 0, 0) == 0);
    settle();
    on(b);
    for (int i = 0; i < MORE; i++) {
        parts[i].iov_base = in[i];
        parts[i].iov_len = sizeof in[i];
        msgs[i].msg_hdr.msg_iov = &parts[i];
        msgs[i].msg_hdr.msg_iovlen = 1;
    }
    struct timespec wait = {1, 0};
    CHECK(rr_recvmmsg(server, msgs, 5, MSG_WAITFORONE, &wait) == 5);
    CHECK(rr_recvmmsg(server, msgs + 5, COUNT, MSG_DONTWAIT, NULL) == COUNT - 5);
    for (int i = 0; i < COUNT; i++)
        CHECK(msgs[i].msg_len == strlen(text[i]) && memcmp(in[i], text[i], msgs[i].msg_len) == 0);
    FAILS(EAGAIN, rr_recvmmsg(server, msgs, COUNT, 0, NULL));
    wait.tv_nsec = -1;
    FAILS(EINVAL, rr_recvmmsg(server, msgs, COUNT, 0, &wait));
    CHECK(rr_close(server) == 0);
    on(a);
    CHECK(rr_close(client) == 0);
}

/* Larger than the link carries: cut, and put together again. */
static void fragments(void)
{
    int server = udp(b, "0.0.0.0", 53), client = udp(a, NULL, 0);
    static unsigned char out[20000], in[30000];
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = (unsigned char)(i * 7 >> 2);
    CHECK(send_to(client, out, sizeof out, "10.0.0.2", 53) == (ssize_t)sizeof out);
    settle();
    on(b);
    CHECK(rr_recv(server, in, sizeof in, 0) == (ssize_t)sizeof out);
    CHECK(memcmp(in, out, sizeof out) == 0);
    CHECK(rr_close(server) == 0);
    on(a);
    CHECK(rr_close(client) == 0);
}

static void conflicts(void)
{
    int one = udp(a, "10.0.0.1", 53), two = udp(a, NULL, 0), yes = 1;
    FAILS(EADDRINUSE, bind_to(two, "10.0.0.1", 53));
    FAILS(EADDRINUSE, bind_to(two, "0.0.0.0", 53));
    FAILS(EADDRNOTAVAIL, bind_to(two, "10.0.0.7", 53));
    CHECK(rr_setsockopt(two, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    FAILS(EADDRINUSE, bind_to(two, "10.0.0.1", 53));
    CHECK(bind_to(two, "10.0.0.1", 54) == 0);
    FAILS(EINVAL, bind_to(two, "10.0.0.1", 55));
    CHECK(rr_close(one) == 0);
    one = udp(a, "0.0.0.0", 53);
    CHECK(rr_close(one) == 0 && rr_close(two) == 0);
    on(b);
    settle();
    int fd = udp(a, NULL, 0);
    CHECK(send_to(fd, "x", 1, "10.0.0.2", 9) == 1);
    CHECK(rr_close(fd) == 0);
    settle();
}

int main(void)
{
    void (*const tests[])(void) = {plain, connected, ancillary, batches, fragments, conflicts};
    for (int raw_ip = 0; raw_ip < 2; raw_ip++)
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
            pair_up(raw_ip);
            tests[i]();
            CHECK(frames_moved > 0);
            pair_down();
        }
    puts("ok");
    return 0;
}
