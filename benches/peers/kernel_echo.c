/* The peer that ringroad is measured against: an echo server on the kernel's
 * TCP and UDP, written as its friends would write it. One thread, one epoll
 * set, many events per wait, TCP_NODELAY, level-triggered reads, no system call
 * that does not move data.
 *
 *   kernel_echo [--spin] [--once] PORT
 *
 * serves TCP and UDP on PORT. --spin polls the set without sleeping (epoll_wait with time-out 0), else it
 * blocks. --once answers once on each connection and closes it. Ends at SIGTERM or SIGINT.
 *
 * Built with -DRINGROAD the same program is ringroad's, its calls coming from a thread beside the worker. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef RINGROAD
#include "ringroad_posix.h"
#define strerror rr_strerror
#endif

enum { EVENTS = 512, DATAGRAMS = 64, DATAGRAM = 65536, BUFFER = 1 << 18 };

/* What a slow reader has not taken yet; made when first needed. */
struct rest {
    char *data;
    size_t len;
};

static char buffer[BUFFER];
static struct rest *rests; /* by descriptor */
static size_t descriptors;
static int set, spin, once;

static void die(const char *what) {
    fprintf(stderr, "kernel_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int fd, uint32_t events, int op) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(set, op, fd, &event) < 0) die("epoll_ctl");
}

static void hang_up(int fd) {
    free(rests[fd].data);
    rests[fd] = (struct rest){0};
    close(fd);
}

static int answer_once(int fd);

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if ((size_t)fd >= descriptors) {
            close(fd);
            continue;
        }
        /* The request may be there already; only who has to wait is watched. */
        if (once && answer_once(fd)) continue;
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* Send; keep what does not fit, and stop reading until it is gone. */
static void send_or_keep(int fd, const char *data, size_t len) {
    ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
    if (n == (ssize_t)len) return;
    if (n < 0 && errno != EAGAIN) {
        hang_up(fd);
        return;
    }
    if (n < 0) n = 0;
    rests[fd].len = len - (size_t)n;
    rests[fd].data = malloc(rests[fd].len);
    if (!rests[fd].data) die("malloc");
    memcpy(rests[fd].data, data + n, rests[fd].len);
    watch(fd, EPOLLOUT, EPOLL_CTL_MOD);
}

/* Answer and end; 0 if there is nothing to answer yet. */
static int answer_once(int fd) {
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n > 0) send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    close(fd);
    return 1;
}

static void serve(int fd) {
    if (once) {
        answer_once(fd);
        return;
    }
    struct rest *rest = &rests[fd];
    if (rest->len) {
        ssize_t n = send(fd, rest->data, rest->len, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN) hang_up(fd);
            return;
        }
        rest->len -= (size_t)n;
        memmove(rest->data, rest->data + n, rest->len);
        if (rest->len) return;
        free(rest->data);
        rest->data = NULL;
        watch(fd, EPOLLIN, EPOLL_CTL_MOD);
        return;
    }
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n > 0)
        send_or_keep(fd, buffer, (size_t)n);
    else if (n == 0 || errno != EAGAIN)
        hang_up(fd);
}

static int listen_on(int type, int port) {
    int one = 1, fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Connections have it from their listener. */
    if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (type == SOCK_STREAM && listen(fd, 4096) < 0) die("listen");
    return fd;
}

static char data[DATAGRAMS][DATAGRAM];
static struct sockaddr_in from[DATAGRAMS];
static struct iovec iov[DATAGRAMS];
static struct mmsghdr messages[DATAGRAMS];

static void reset_message(int i) {
    iov[i] = (struct iovec){data[i], DATAGRAM};
    messages[i].msg_hdr = (struct msghdr){
        .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &iov[i], .msg_iovlen = 1};
}

/* UDP: a batch of datagrams in, the same batch out. */
static void echo_datagrams(int fd) {
    int n = recvmmsg(fd, messages, DATAGRAMS, MSG_DONTWAIT, NULL);
    if (n <= 0) return;
    for (int i = 0; i < n; i++) iov[i].iov_len = messages[i].msg_len;
    sendmmsg(fd, messages, (unsigned)n, MSG_DONTWAIT);
    for (int i = 0; i < n; i++) reset_message(i);
}

int main(int argc, char **argv) {
    int port = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--spin")) spin = 1;
        else if (!strcmp(argv[i], "--once")) once = 1;
        else port = atoi(argv[i]);
    }
    if (port < 1 || port > 65535) {
        fprintf(stderr, "usage: kernel_echo [--spin] [--once] PORT\n");
        return 2;
    }
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    descriptors = limit.rlim_cur < 1 << 20 ? limit.rlim_cur : 1 << 20;
    rests = calloc(descriptors, sizeof *rests);
    if (!rests) die("calloc");
#ifdef RINGROAD
    if (rr_init(NULL) < 0) die("rr_init"); /* by RINGROAD_INTERFACE and its like */
#endif

    for (int i = 0; i < DATAGRAMS; i++) reset_message(i);
    set = epoll_create1(0);
    int listener = listen_on(SOCK_STREAM, port), datagrams = listen_on(SOCK_DGRAM, port);
    watch(listener, EPOLLIN, EPOLL_CTL_ADD);
    watch(datagrams, EPOLLIN, EPOLL_CTL_ADD);
    puts("kernel_echo: ready");
    fflush(stdout);
    static struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(set, events, EVENTS, spin ? 0 : -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(fd);
            else if (fd == datagrams) echo_datagrams(fd);
            else serve(fd);
        }
    }
}
