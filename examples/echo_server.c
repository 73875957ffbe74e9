/* An echo server that runs on ringroad's workers: rr_run calls `turn` once a
   turn of each pinned worker's loop, and a socket call in it is a plain function
   call on that core's stack.

     cc -O2 echo_server.c -o echo_server $(pkg-config --cflags --libs ringroad)
     sudo ./echo_server eth0 7 [10.0.0.2/24]

   Without an address it shares the interface's own with the kernel. Every worker
   has its own listener on the port; SIGINT and SIGTERM end it. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "ringroad.h"

enum { EVENTS = 64, ROOM = 16384 };

/* What has been read and not yet been written back. */
struct peer {
    int fd;
    size_t filled, written;
    char data[ROOM];
};

struct worker {
    int set, listener;
};

static int port;
static __thread struct worker *worker;

static void stop(int signal)
{
    (void)signal;
    rr_stop();
}

static int say(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, rr_strerror(errno));
    return -1;
}

static int watch(int op, struct worker *w, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data = {.ptr = data}};
    return rr_epoll_ctl(w->set, op, fd, &event);
}

/* The first turn of a worker makes its listener and its epoll set. */
static struct worker *set_up(void)
{
    struct worker *w = calloc(1, sizeof *w);
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    if (!w)
        return NULL;
    w->set = rr_epoll_create1(EPOLL_CLOEXEC);
    w->listener = rr_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (w->set < 0 || w->listener < 0 ||
        rr_setsockopt(w->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        rr_setsockopt(w->listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ||
        rr_bind(w->listener, (struct sockaddr *)&any, sizeof any) < 0 ||
        rr_listen(w->listener, 1024) < 0 || watch(EPOLL_CTL_ADD, w, w->listener, EPOLLIN, NULL) < 0) {
        say("echo server");
        free(w);
        return NULL;
    }
    return w;
}

static void welcome(struct worker *w)
{
    for (;;) {
        int on = 1, fd = rr_accept4(w->listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        struct peer *peer = calloc(1, sizeof *peer);
        if (!peer || rr_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
            watch(EPOLL_CTL_ADD, w, fd, EPOLLIN, peer) < 0) {
            free(peer);
            rr_close(fd);
            continue;
        }
        peer->fd = fd;
    }
}

/* Echoes until there is nothing to read, or no room to write. */
static void serve(struct worker *w, struct peer *peer)
{
    for (;;) {
        while (peer->written < peer->filled) {
            ssize_t n = rr_send(peer->fd, peer->data + peer->written,
                                peer->filled - peer->written, MSG_NOSIGNAL);
            if (n < 0 && errno == EAGAIN) {
                watch(EPOLL_CTL_MOD, w, peer->fd, EPOLLOUT, peer);
                return;
            }
            if (n < 0)
                goto gone;
            peer->written += (size_t)n;
        }
        ssize_t n = rr_recv(peer->fd, peer->data, ROOM, 0);
        if (n < 0 && errno == EAGAIN) {
            watch(EPOLL_CTL_MOD, w, peer->fd, EPOLLIN, peer);
            return;
        }
        if (n <= 0)
            goto gone;
        peer->filled = (size_t)n;
        peer->written = 0;
    }
gone:
    rr_close(peer->fd);
    free(peer);
}

static int turn(void *unused)
{
    (void)unused;
    if (!worker && !(worker = set_up()))
        return 1;
    struct epoll_event events[EVENTS];
    int n = rr_epoll_wait(worker->set, events, EVENTS, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            serve(worker, events[i].data.ptr);
        else
            welcome(worker);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4 || (port = atoi(argv[2])) <= 0 || port > 65535) {
        fprintf(stderr, "usage: %s INTERFACE PORT [ADDRESS/PREFIX]\n", argv[0]);
        return 2;
    }
    struct rr_config config = {.interface = argv[1], .address = argc == 4 ? argv[3] : NULL};
    if (rr_init(&config) < 0)
        return say("rr_init"), 1;
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    int result = rr_run(turn, NULL);
    if (result < 0)
        say("rr_run");
    rr_shutdown_all();
    return result < 0;
}
