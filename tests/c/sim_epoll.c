/* epoll on a simulated stack: level, edge, one shot, and its errors. */
#include <fcntl.h>
#include <sys/epoll.h>

#include "pair.h"

static struct epoll_event got[8];

static int wait_on(int set)
{
    memset(got, 0, sizeof got);
    return rr_epoll_wait(set, got, 8, -1);
}

static void control(int set, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u64 = data;
    CHECK(rr_epoll_ctl(set, op, fd, &event) == 0);
}

int main(void)
{
    pair_up(1);
    int listening = listener(), client, server;
    int set = rr_epoll_create1(EPOLL_CLOEXEC);
    CHECK(set >= 0);
    control(set, EPOLL_CTL_ADD, listening, EPOLLIN, 0x1122334455667788ull);
    CHECK(wait_on(set) == 0);
    connection(listening, &client, &server);
    CHECK(wait_on(set) == 0); /* accepted already */
    on(a);
    int second = rr_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(EINPROGRESS, connect_to(second, "10.0.0.2", 80));
    settle();
    on(b);
    CHECK(wait_on(set) == 1 && got[0].events == EPOLLIN);
    CHECK(got[0].data.u64 == 0x1122334455667788ull);
    int other = rr_accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(other >= 0 && (rr_fcntl(other, F_GETFL) & O_NONBLOCK));

    /* Level: said again until it is read. */
    control(set, EPOLL_CTL_ADD, server, EPOLLIN, 1);
    on(a);
    CHECK(rr_write(client, "ab", 2) == 2);
    settle();
    on(b);
    char buf[8];
    CHECK(wait_on(set) == 1 && got[0].data.u64 == 1 && wait_on(set) == 1);
    CHECK(rr_read(server, buf, 1) == 1 && wait_on(set) == 1);
    CHECK(rr_read(server, buf, 1) == 1 && wait_on(set) == 0);

    /* Edge: said once for each arrival. */
    control(set, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLET, 2);
    on(a);
    CHECK(rr_write(client, "ab", 2) == 2);
    settle();
    on(b);
    CHECK(wait_on(set) == 1 && got[0].data.u64 == 2 && wait_on(set) == 0);
    on(a);
    CHECK(rr_write(client, "cd", 2) == 2);
    settle();
    on(b);
    CHECK(wait_on(set) == 1 && wait_on(set) == 0);
    CHECK(rr_read(server, buf, sizeof buf) == 4);

    /* One shot: off until it is armed again. */
    control(set, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLONESHOT, 3);
    on(a);
    CHECK(rr_write(client, "e", 1) == 1);
    settle();
    on(b);
    CHECK(wait_on(set) == 1 && got[0].data.u64 == 3 && wait_on(set) == 0);
    control(set, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLONESHOT, 4);
    CHECK(wait_on(set) == 1 && got[0].events == (EPOLLIN | EPOLLOUT));
    CHECK(rr_read(server, buf, sizeof buf) == 1);

    /* The end of the stream. */
    control(set, EPOLL_CTL_MOD, server, EPOLLIN | EPOLLRDHUP, 5);
    on(a);
    CHECK(rr_shutdown(client, SHUT_WR) == 0);
    settle();
    on(b);
    CHECK(wait_on(set) == 1 && got[0].events == (EPOLLIN | EPOLLRDHUP));

    /* At most as many as there is room for, and all in turn. */
    control(set, EPOLL_CTL_ADD, other, EPOLLOUT, 6);
    CHECK(wait_on(set) == 2);
    CHECK(rr_epoll_wait(set, got, 1, 0) == 1);
    uint64_t first = got[0].data.u64;
    CHECK(rr_epoll_wait(set, got, 1, 0) == 1 && got[0].data.u64 != first);
    control(set, EPOLL_CTL_DEL, other, 0, 0);
    CHECK(rr_epoll_ctl(set, EPOLL_CTL_DEL, server, NULL) == 0);
    CHECK(wait_on(set) == 0);
    control(set, EPOLL_CTL_ADD, server, EPOLLIN, 7);
    CHECK(wait_on(set) == 1);
    CHECK(rr_close(server) == 0); /* a closed one leaves by itself */
    CHECK(wait_on(set) == 0);

    /* Errors. */
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    FAILS(EEXIST, rr_epoll_ctl(set, EPOLL_CTL_ADD, listening, &event));
    FAILS(ENOENT, rr_epoll_ctl(set, EPOLL_CTL_MOD, other, &event));
    FAILS(ENOENT, rr_epoll_ctl(set, EPOLL_CTL_DEL, other, &event));
    FAILS(EBADF, rr_epoll_ctl(set, EPOLL_CTL_ADD, 500, &event));
    FAILS(EBADF, rr_epoll_ctl(500, EPOLL_CTL_ADD, other, &event));
    FAILS(EINVAL, rr_epoll_ctl(set, EPOLL_CTL_ADD, set, &event));
    FAILS(EINVAL, rr_epoll_ctl(other, EPOLL_CTL_ADD, listening, &event));
    FAILS(EINVAL, rr_epoll_ctl(set, 77, other, &event));
    FAILS(EFAULT, rr_epoll_ctl(set, EPOLL_CTL_ADD, other, NULL));
    FAILS(EINVAL, rr_epoll_wait(set, got, 0, 0));
    FAILS(EINVAL, rr_epoll_wait(set, got, -1, 0));
    FAILS(EFAULT, rr_epoll_wait(set, NULL, 1, 0));
    FAILS(EBADF, rr_epoll_wait(500, got, 1, 0));
    FAILS(EINVAL, rr_epoll_wait(other, got, 1, 0));
    FAILS(EINVAL, rr_epoll_create(0));
    FAILS(EINVAL, rr_epoll_create1(1));
    int old = rr_epoll_create(1);
    CHECK(old >= 0 && rr_close(old) == 0);
    CHECK(rr_close(set) == 0);
    FAILS(EBADF, rr_epoll_wait(set, got, 1, 0));
    CHECK(rr_close(other) == 0 && rr_close(listening) == 0);
    pair_down();
    puts("ok");
    return 0;
}
