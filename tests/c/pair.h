/* Two simulated stacks with a wire between them. */
#ifndef PAIR_H
#define PAIR_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringroad.h"

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition,     \
                    errno, rr_strerror(errno));                                               \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

/* A call that has to fail, and how. */
#define FAILS(error, call)                                                                    \
    do {                                                                                      \
        errno = 0;                                                                            \
        long got_ = (long)(call);                                                             \
        if (got_ != -1 || errno != (error)) {                                                 \
            fprintf(stderr, "%s:%d: %s gave %ld, errno %d (%s) instead of %s\n", __FILE__,    \
                    __LINE__, #call, got_, errno, strerror(errno), #error);                   \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

#define MS 1000000ull
#define SECOND 1000000000ull

static struct rr_sim *a, *b; /* 10.0.0.1 and 10.0.0.2 */
static uint64_t now_ns;
static unsigned frames_moved;
static int wire_is_cut;

static inline struct rr_sim *new_stack(const char *address, int raw_ip, uint64_t seed)
{
    struct rr_sim_config config;
    memset(&config, 0, sizeof config);
    config.address = address;
    config.raw_ip = (uint32_t)raw_ip;
    struct rr_sim *sim = rr_sim_new(&config, seed);
    CHECK(sim != NULL);
    return sim;
}

static inline void pair_up(int raw_ip)
{
    a = new_stack("10.0.0.1/24", raw_ip, 1);
    b = new_stack("10.0.0.2/24", raw_ip, 2);
    now_ns = 0;
    frames_moved = 0;
    wire_is_cut = 0;
}

static inline void pair_down(void)
{
    CHECK(rr_sim_enter(NULL) == 0);
    rr_sim_free(a);
    rr_sim_free(b);
}

static inline int carry(struct rr_sim *from, struct rr_sim *to)
{
    unsigned char frame[65536];
    uint64_t sent_at = UINT64_MAX;
    int moved = 0;
    ssize_t len;
    while ((len = rr_sim_collect(from, frame, sizeof frame, &sent_at)) > 0) {
        CHECK(sent_at <= now_ns);
        if (!wire_is_cut)
            CHECK(rr_sim_inject(to, frame, (size_t)len) == 0);
        moved++;
        frames_moved++;
    }
    CHECK(len == 0);
    return moved;
}

/* Runs both until no frame moves, at the time that it is. */
static inline void settle(void)
{
    for (int round = 0;; round++) {
        CHECK(round < 10000);
        rr_sim_poll(a);
        rr_sim_poll(b);
        int moved = carry(a, b);
        moved += carry(b, a);
        if (moved == 0)
            return;
    }
}

/* Lets so much time pass, deadline by deadline. */
static inline void pass(uint64_t ns)
{
    uint64_t end = now_ns + ns;
    settle();
    for (;;) {
        uint64_t next = rr_sim_next_deadline(a), other = rr_sim_next_deadline(b);
        next = next < other ? next : other;
        if (next > end)
            break;
        now_ns = next > now_ns ? next : now_ns + 1000;
        rr_sim_clock_set(a, now_ns);
        rr_sim_clock_set(b, now_ns);
        settle();
    }
    now_ns = end;
    rr_sim_clock_set(a, now_ns);
    rr_sim_clock_set(b, now_ns);
    settle();
}

static inline void on(struct rr_sim *sim)
{
    CHECK(rr_sim_enter(sim) == 0);
}

static inline struct sockaddr_in at(const char *ip, int port)
{
    struct sockaddr_in addr;
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_port = htons((uint16_t)port);
    CHECK(inet_pton(AF_INET, ip, &addr.sin_addr) == 1);
    return addr;
}

static inline int bind_to(int fd, const char *ip, int port)
{
    struct sockaddr_in addr = at(ip, port);
    return rr_bind(fd, (struct sockaddr *)&addr, sizeof addr);
}

static inline int connect_to(int fd, const char *ip, int port)
{
    struct sockaddr_in addr = at(ip, port);
    return rr_connect(fd, (struct sockaddr *)&addr, sizeof addr);
}

static inline int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    CHECK(rr_getsockopt(fd, level, name, &value, &len) == 0);
    CHECK(len == sizeof value);
    return value;
}

/* A listener on b, port 80; left inside b. */
static inline int listener(void)
{
    on(b);
    int fd = rr_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(bind_to(fd, "0.0.0.0", 80) == 0);
    CHECK(rr_listen(fd, 16) == 0);
    return fd;
}

/* A connection from a to the listener on b. */
static inline void connection(int listening, int *client, int *server)
{
    on(a);
    *client = rr_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(*client >= 0);
    FAILS(EINPROGRESS, connect_to(*client, "10.0.0.2", 80));
    settle();
    CHECK(option(*client, SOL_SOCKET, SO_ERROR) == 0);
    on(b);
    *server = rr_accept(listening, NULL, NULL);
    CHECK(*server >= 0);
}

#endif
