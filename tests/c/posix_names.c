/* ringroad_posix.h renames every call of a POSIX program, pointers to functions
   too, and leaves the system's headers alone. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "ringroad_posix.h"

int main(void)
{
    /* Inside a simulation, so that it shows whose functions these are. */
    struct rr_sim *sim = rr_sim_new(NULL, 1);
    assert(sim != NULL && rr_sim_enter(sim) == 0);
    int (*make)(int, int, int) = socket;
    assert(make == rr_socket);
    int fd = make(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert(fd >= 0);
    struct sockaddr_in addr;
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_port = htons(7);
    socklen_t len = sizeof addr;
    int on = 1, n;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr msg;
    struct mmsghdr many;
    struct pollfd p = {fd, POLLIN, 0};
    fd_set set;
    struct timeval none = {0, 0};
    struct epoll_event event;
    memset(&msg, 0, sizeof msg);
    memset(&many, 0, sizeof many);
    memset(&event, 0, sizeof event);
    msg.msg_iov = many.msg_hdr.msg_iov = &part;
    msg.msg_iovlen = many.msg_hdr.msg_iovlen = 1;
    assert(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    assert(bind(fd, (struct sockaddr *)&addr, sizeof addr) == 0);
    assert(getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && ntohs(addr.sin_port) == 7);
    assert(listen(fd, 5) == 0);
    len = sizeof on;
    assert(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on == 1);
    assert(accept(fd, NULL, NULL) == -1 && errno == EAGAIN);
    assert(accept4(fd, NULL, NULL, SOCK_CLOEXEC) == -1 && errno == EAGAIN);
    assert(connect(fd, (struct sockaddr *)&addr, sizeof addr) == -1 && errno == EISCONN);
    assert(getpeername(fd, (struct sockaddr *)&addr, &len) == -1 && errno == ENOTCONN);
    assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    assert(ioctl(udp, FIONREAD, &n) == 0 && n == 0);
    assert(poll(&p, 1, 0) == 0 && ppoll(&p, 1, NULL, NULL) == 0);
    FD_ZERO(&set);
    FD_SET(fd, &set);
    assert(select(fd + 1, &set, NULL, NULL, &none) == 0);
    int old = epoll_create(1), ep = epoll_create1(0);
    assert(old >= 0 && ep >= 0);
    assert(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event) == 0);
    assert(epoll_wait(ep, &event, 1, 0) == 0 && epoll_pwait(ep, &event, 1, 0, NULL) == 0);
    assert(read(udp, &byte, 1) == -1 && recv(udp, &byte, 1, 0) == -1);
    assert(readv(udp, &part, 1) == -1 && recvmsg(udp, &msg, 0) == -1);
    assert(recvfrom(udp, &byte, 1, 0, NULL, NULL) == -1 && errno == EAGAIN);
    assert(recvmmsg(udp, &many, 1, 0, NULL) == -1 && errno == EAGAIN);
    assert(write(udp, &byte, 1) == -1 && send(udp, &byte, 1, 0) == -1);
    assert(writev(udp, &part, 1) == -1 && sendmsg(udp, &msg, 0) == -1);
    assert(sendto(udp, &byte, 1, 0, NULL, 0) == -1 && errno == EDESTADDRREQ);
    assert(sendmmsg(udp, &many, 1, 0) == -1 && errno == EDESTADDRREQ);
    int two = dup(udp);
    assert(two >= 0 && shutdown(udp, SHUT_RDWR) == -1);
    assert(close(two) == 0 && close(udp) == 0 && close(fd) == 0 && close(ep) == 0);
    assert(close(fd) == -1 && errno == EBADF);
    rr_sim_free(sim);
    puts("ok");
    return 0;
}
