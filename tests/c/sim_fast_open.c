/* Opening with data (RFC 7413) by the calls of C, and settings that change while
   a simulation runs. */
#define _GNU_SOURCE
#include "pair.h"

#ifndef TCP_FASTOPEN_CONNECT
#define TCP_FASTOPEN_CONNECT 30
#endif

static int listening;

static void set(int fd, int name, int value)
{
    CHECK(rr_setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value) == 0);
}

/* A socket of a's; left inside a. */
static int stream(void)
{
    on(a);
    int fd = rr_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    return fd;
}

static ssize_t open_with(int fd, const void *data, size_t len, int flags)
{
    struct sockaddr_in to = at("10.0.0.2", 80);
    return rr_sendto(fd, data, len, flags | MSG_FASTOPEN, (struct sockaddr *)&to, sizeof to);
}

/* The SYN that leaves a goes to b: how many bytes of data it has. */
static size_t syn(void)
{
    unsigned char frame[65536];
    rr_sim_poll(a);
    ssize_t len = rr_sim_collect(a, frame, sizeof frame, NULL);
    CHECK(len >= 40 && (frame[33] & 0x12) == 0x02);
    CHECK(rr_sim_inject(b, frame, (size_t)len) == 0);
    CHECK(rr_sim_collect(a, frame, sizeof frame, NULL) == 0);
    rr_sim_poll(b);
    frames_moved++;
    return (size_t)len - 20 - (size_t)(frame[32] >> 4) * 4;
}

/* What the connection to b brought, once all has arrived; both ends go. */
static void brought(int client, const void *data, size_t len)
{
    static char got[65536];
    settle();
    on(b);
    int fd = rr_accept(listening, NULL, NULL);
    CHECK(fd >= 0);
    CHECK(rr_recv(fd, got, sizeof got, 0) == (ssize_t)len && memcmp(got, data, len) == 0);
    CHECK(rr_close(fd) == 0);
    on(a);
    CHECK(rr_close(client) == 0);
    settle();
}

/* An open that asks for a cookie: its data is told after the handshake. */
static void asks(void)
{
    int fd = stream();
    FAILS(EINPROGRESS, open_with(fd, "hello", 5, MSG_DONTWAIT));
    CHECK(syn() == 0);
    FAILS(EALREADY, open_with(fd, "hello", 5, 0));
    settle();
    CHECK(connect_to(fd, "10.0.0.2", 80) == 0);
    FAILS(EISCONN, open_with(fd, "hello", 5, 0));
    CHECK(rr_send(fd, "hello", 5, 0) == 5);
    brought(fd, "hello", 5);
}

static void opening(void)
{
    static char many[5000];
    memset(many, 'm', sizeof many);
    asks();
    /* Data in the SYN is b's before the handshake is over. */
    int fd = stream();
    CHECK(open_with(fd, "hello", 5, 0) == 5);
    CHECK(syn() == 5);
    char got[8];
    on(b);
    int early = rr_accept(listening, NULL, NULL);
    CHECK(early >= 0 && rr_recv(early, got, sizeof got, 0) == 5 && memcmp(got, "hello", 5) == 0);
    CHECK(rr_send(early, "welcome", 7, 0) == 7);
    settle();
    on(a);
    CHECK(rr_recv(fd, got, sizeof got, 0) == 7 && memcmp(got, "welcome", 7) == 0);
    CHECK(rr_close(fd) == 0);
    on(b);
    CHECK(rr_close(early) == 0);
    settle();
    /* A call that may wait leaves what the SYN does not take behind it; one that may
       not says how much that is. */
    fd = stream();
    CHECK(open_with(fd, many, sizeof many, 0) == sizeof many);
    size_t first = syn();
    CHECK(first > 1000 && first < 1500);
    brought(fd, many, sizeof many);
    fd = stream();
    CHECK(open_with(fd, many, sizeof many, MSG_DONTWAIT) == (ssize_t)first);
    CHECK(syn() == first);
    brought(fd, many, first);
    /* `connect` that waits for the first data. */
    fd = stream();
    set(fd, TCP_FASTOPEN_CONNECT, 1);
    CHECK(option(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT) == 1);
    CHECK(connect_to(fd, "10.0.0.2", 80) == 0);
    unsigned before = frames_moved;
    settle();
    CHECK(frames_moved == before);
    on(a);
    CHECK(rr_write(fd, "later", 5) == 5);
    CHECK(syn() == 5);
    brought(fd, "later", 5);
}

/* The cookie is forgotten, and asked for again. */
static void forgetting(void)
{
    rr_sim_forget(NULL);
    rr_sim_forget(b);
    int fd = stream();
    CHECK(open_with(fd, "hello", 5, 0) == 5 && syn() == 5);
    brought(fd, "hello", 5);
    rr_sim_forget(a);
    fd = stream();
    set(fd, TCP_FASTOPEN_CONNECT, 1);
    FAILS(EINPROGRESS, connect_to(fd, "10.0.0.2", 80));
    CHECK(rr_close(fd) == 0);
    settle();
    rr_sim_forget(a);
    asks();
    fd = stream();
    CHECK(open_with(fd, "hello", 5, 0) == 5 && syn() == 5);
    brought(fd, "hello", 5);
}

static int has_timestamps(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    CHECK(rr_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
    return info.tcpi_options & 1;
}

/* Of new connections and bounds; what is there stays. */
static void settings(void)
{
    struct rr_sim_config config;
    int old, server, new, other, one = 1;
    memset(&config, 0, sizeof config);
    FAILS(EFAULT, rr_sim_configure(NULL, &config));
    connection(listening, &old, &server);
    config.address = "10.0.0.9/24";
    config.mtu = 900;
    config.tcp_timestamps = RR_OFF;
    config.tcp_fast_open_client = RR_OFF;
    CHECK(rr_sim_configure(a, &config) == 0);
    connection(listening, &new, &other);
    on(a);
    CHECK(has_timestamps(old) && !has_timestamps(new));
    CHECK(option(new, IPPROTO_IP, IP_MTU) == 1500); /* no field of TCP's */
    CHECK(rr_send(old, "still", 5, 0) == 5);
    int fd = stream();
    FAILS(EOPNOTSUPP, open_with(fd, "x", 1, 0));
    FAILS(EOPNOTSUPP, rr_setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &one, sizeof one));
    settle();
    char buf[8];
    on(b);
    CHECK(rr_recv(server, buf, sizeof buf, 0) == 5);
    /* One bad field, and nothing changes. */
    config.tcp_fast_open_client = RR_ON;
    config.tcp_congestion = "vegas";
    FAILS(EINVAL, rr_sim_configure(a, &config));
    CHECK(strstr(rr_strerror(EINVAL), "tcp_congestion") != NULL);
    on(a);
    FAILS(EOPNOTSUPP, open_with(fd, "x", 1, 0));
    /* NULL: the defaults again. */
    CHECK(rr_sim_configure(a, NULL) == 0);
    CHECK(open_with(fd, "x", 1, MSG_DONTWAIT) == 1);
}

int main(void)
{
    struct rr_sim_config config;
    memset(&config, 0, sizeof config);
    pair_up(1);
    listening = listener();
    set(listening, TCP_FASTOPEN, 8);
    /* b has no leave to give cookies until it is told so. */
    asks();
    asks();
    /* A call that may wait leaves the data with the connection. */
    int fd = stream();
    CHECK(open_with(fd, "hello", 5, 0) == 5 && syn() == 0);
    brought(fd, "hello", 5);
    rr_sim_forget(a);
    config.tcp_fast_open_server = RR_ON;
    CHECK(rr_sim_configure(b, &config) == 0);
    opening();
    forgetting();
    settings();
    pair_down();
    puts("ok");
    return 0;
}
