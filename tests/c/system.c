/* Without rr_init: what is not ringroad's goes to the system, untouched; and
   what is wrong with a configuration is said. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "pair.h"

int main(void)
{
    char buf[16];
    int ends[2], pair[2];
    CHECK(rr_version() != NULL && rr_version()[0] != 0);
    CHECK(strcmp(rr_strerror(EAGAIN), "Resource temporarily unavailable") == 0);
    CHECK(strcmp(rr_strerror(0), "Success") == 0);

    CHECK(pipe(ends) == 0);
    CHECK(rr_write(ends[1], "abc", 3) == 3);
    struct pollfd p = {ends[0], POLLIN, 0};
    CHECK(rr_poll(&p, 1, 1000) == 1 && p.revents == POLLIN);
    struct timespec soon = {0, 1000};
    CHECK(rr_ppoll(&p, 1, &soon, NULL) == 1);
    fd_set r;
    FD_ZERO(&r);
    FD_SET(ends[0], &r);
    struct timeval second = {1, 0};
    CHECK(rr_select(ends[0] + 1, &r, NULL, NULL, &second) == 1 && FD_ISSET(ends[0], &r));
    int n = 0;
    CHECK(rr_ioctl(ends[0], 0x541B /* FIONREAD */, &n) == 0 && n == 3);
    CHECK(rr_read(ends[0], buf, sizeof buf) == 3);
    CHECK(rr_fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    CHECK(rr_fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    FAILS(EAGAIN, rr_read(ends[0], buf, sizeof buf));
    int copy = rr_dup(ends[0]);
    CHECK(copy >= 0 && rr_close(copy) == 0);
    copy = rr_fcntl(ends[0], F_DUPFD, 50);
    CHECK(copy >= 50 && rr_close(copy) == 0);
    int set = rr_epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.u64 = 7}}, got;
    CHECK(rr_epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event) == 0);
    CHECK(rr_epoll_wait(set, &got, 1, 0) == 0);
    struct iovec parts[2] = {{(void *)"de", 2}, {(void *)"f", 1}};
    CHECK(rr_writev(ends[1], parts, 2) == 3);
    CHECK(rr_epoll_pwait(set, &got, 1, 1000, NULL) == 1 && got.data.u64 == 7);
    FAILS(EINVAL, rr_epoll_wait(set, &got, 0, 0));
    parts[0].iov_base = buf;
    parts[1].iov_base = buf + 8;
    CHECK(rr_readv(ends[0], parts, 2) == 3 && buf[8] == 'f');
    CHECK(rr_close(set) == 0 && rr_close(ends[0]) == 0 && rr_close(ends[1]) == 0);
    FAILS(EBADF, rr_close(ends[0]));

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(rr_send(pair[0], "xyz", 3, MSG_NOSIGNAL) == 3);
    CHECK(rr_recv(pair[1], buf, sizeof buf, 0) == 3);
    CHECK(rr_shutdown(pair[0], SHUT_WR) == 0 && rr_recv(pair[1], buf, 1, 0) == 0);
    CHECK(option(pair[0], SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
    CHECK(rr_close(pair[0]) == 0 && rr_close(pair[1]) == 0);
    int unix_fd = rr_socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    CHECK(unix_fd >= 0 && rr_bind(unix_fd, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
    CHECK(rr_close(unix_fd) == 0);

    FAILS(ENETDOWN, rr_socket(AF_INET, SOCK_STREAM, 0));
    struct rr_zc_frame frame;
    FAILS(ENOTSOCK, rr_zc_recv(0, &frame, 1, 0));
    puts("ok");
    return 0;
}
