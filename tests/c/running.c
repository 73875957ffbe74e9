/* The running stack, from any thread and on its worker: descriptors, errors,
   signals, polling over both kinds of descriptors, frames without a copy. The
   peer echoes on port 7 and refuses port 8; port 22 is a kernel socket's here.

     running INTERFACE PEER */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pair.h"

static const char *peer;
static volatile sig_atomic_t pipes, alarms;

static void on_signal(int signal)
{
    if (signal == SIGPIPE)
        pipes++;
    else
        alarms++;
}

static int connected(void)
{
    int fd = rr_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(connect_to(fd, peer, 7) == 0);
    return fd;
}

static void from_this_thread(void)
{
    char buf[64];
    int fd = connected();
    CHECK(rr_fcntl(fd, F_GETFD) == 0 && fcntl(fd, F_GETFD) == 0); /* a real slot */
    CHECK(rr_write(fd, "hello", 5) == 5);
    CHECK(rr_recv(fd, buf, 5, MSG_WAITALL) == 5 && memcmp(buf, "hello", 5) == 0);
    FAILS(EAGAIN, rr_recv(fd, buf, 1, MSG_DONTWAIT));
    CHECK(rr_fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    FAILS(EAGAIN, rr_read(fd, buf, 1));
    CHECK(rr_fcntl(fd, F_SETFL, 0) == 0);

    /* Time-out, and a signal. */
    struct timeval tenth = {0, 100000};
    CHECK(rr_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tenth, sizeof tenth) == 0);
    FAILS(EAGAIN, rr_read(fd, buf, 1));
    tenth.tv_usec = 0;
    CHECK(rr_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tenth, sizeof tenth) == 0);
    struct itimerspec soon = {{0, 0}, {0, 50000000}};
    timer_t timer;
    CHECK(timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0);
    CHECK(timer_settime(timer, 0, &soon, NULL) == 0);
    FAILS(EINTR, rr_read(fd, buf, 1));
    CHECK(alarms == 1);

    /* poll and select over ours and a pipe. */
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct pollfd p[2] = {{fd, POLLIN, 0}, {ends[0], POLLIN, 0}};
    CHECK(rr_poll(p, 2, 20) == 0);
    CHECK(rr_write(ends[1], "x", 1) == 1);
    CHECK(rr_poll(p, 2, -1) == 1 && p[0].revents == 0 && p[1].revents == POLLIN);
    CHECK(rr_read(ends[0], buf, 1) == 1);
    CHECK(rr_write(fd, "y", 1) == 1);
    CHECK(rr_poll(p, 2, -1) == 1 && p[0].revents == POLLIN && p[1].revents == 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    FD_SET(ends[0], &set);
    int high = (fd > ends[0] ? fd : ends[0]) + 1;
    CHECK(rr_select(high, &set, NULL, NULL, NULL) == 1 && FD_ISSET(fd, &set));
    CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);

    /* Two names of one socket; the child of a fork has none. */
    int two = rr_dup(fd);
    CHECK(two >= 0 && two != fd && rr_close(fd) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(rr_read(two, buf, 1) == -1 && errno == EBADF ? 0 : 1);
    int status;
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    CHECK(status == 0);
    CHECK(rr_read(two, buf, 1) == 1 && buf[0] == 'y');
    CHECK(rr_shutdown(two, SHUT_WR) == 0 && rr_read(two, buf, 1) == 0);
    FAILS(EPIPE, rr_send(two, "z", 1, MSG_NOSIGNAL));
    CHECK(pipes == 0);
    FAILS(EPIPE, rr_write(two, "z", 1));
    CHECK(pipes == 1);
    struct rr_zc_frame frame;
    FAILS(EOPNOTSUPP, rr_zc_recv(two, &frame, 1, MSG_DONTWAIT));
    CHECK(rr_close(two) == 0);
}

static void errors(void)
{
    char buf[8];
    int fd = rr_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(ENOTCONN, rr_read(fd, buf, 1));
    FAILS(EFAULT, rr_bind(fd, NULL, sizeof(struct sockaddr_in)));
    FAILS(EINVAL, rr_accept(fd, NULL, NULL));
    FAILS(ENOTTY, rr_ioctl(fd, 0x5413, buf));
    FAILS(EADDRNOTAVAIL, bind_to(fd, "192.0.2.99", 22));
    FAILS(EADDRINUSE, bind_to(fd, "0.0.0.0", 22)); /* the kernel's */
    FAILS(ECONNREFUSED, connect_to(fd, peer, 8));
    CHECK(rr_close(fd) == 0);
    FAILS(EBUSY, rr_init(&(struct rr_config){.interface = "lo"}));
    CHECK(strstr(rr_strerror(EBUSY), "rr_shutdown_all") != NULL);
    FAILS(EINVAL, rr_run(NULL, NULL));
}

/* On the worker: blocking calls run its turns; frames are lent. */
static int loop(void *arg)
{
    int *turns = arg;
    struct rr_zc_frame frame, copy;
    if (++*turns < 3)
        return 0;
    int fd = connected();
    CHECK(rr_zc_alloc(fd, &frame, 1) == 1 && frame.len >= 64);
    memset(frame.data, 'q', 64);
    frame.len = 64;
    copy = frame;
    CHECK(rr_zc_send(fd, &frame, 1, 0) == 1);
    FAILS(EINVAL, rr_zc_send(fd, &copy, 1, 0));
    for (size_t got = 0; got < 64;) {
        CHECK(rr_zc_recv(fd, &frame, 1, 0) == 1);
        for (size_t i = 0; i < frame.len; i++)
            CHECK(((char *)frame.data)[i] == 'q');
        got += frame.len;
        copy = frame;
        CHECK(rr_zc_release(fd, &frame, 1) == 1);
        FAILS(EINVAL, rr_zc_release(fd, &copy, 1));
    }
    CHECK(rr_shutdown(fd, SHUT_WR) == 0 && rr_zc_recv(fd, &frame, 1, 0) == 0);

    /* A wait without end, on the worker, over ours and the kernel's. */
    int set = rr_epoll_create1(0), other = connected();
    struct epoll_event event = {EPOLLIN, {.u64 = 9}};
    CHECK(rr_epoll_ctl(set, EPOLL_CTL_ADD, other, &event) == 0);
    CHECK(rr_write(other, "ping", 4) == 4);
    CHECK(rr_epoll_wait(set, &event, 1, -1) == 1 && event.data.u64 == 9);
    char buf[8];
    CHECK(rr_read(other, buf, sizeof buf) == 4);

    /* All of it, though it comes in two pieces, and the stack's turns between. */
    CHECK(rr_write(other, "abc", 3) == 3);
    CHECK(rr_recv(other, buf, 1, MSG_PEEK) == 1);
    CHECK(rr_write(other, "def", 3) == 3);
    struct iovec parts[2] = {{buf, 2}, {buf + 2, 4}};
    struct msghdr whole = {.msg_iov = parts, .msg_iovlen = 2};
    CHECK(rr_recvmsg(other, &whole, MSG_WAITALL) == 6 && memcmp(buf, "abcdef", 6) == 0);

    /* TCP_INQ: what is left to read comes with what was. */
    int inq = 1;
    union { struct cmsghdr header; char bytes[64]; } control;
    struct msghdr part = {.msg_iov = parts, .msg_iovlen = 1,
                          .msg_control = &control, .msg_controllen = sizeof control};
    CHECK(rr_setsockopt(other, IPPROTO_TCP, 36, &inq, sizeof inq) == 0);
    CHECK(rr_write(other, "12345", 5) == 5);
    do CHECK(rr_ioctl(other, FIONREAD, &inq) == 0);
    while (inq < 5 && rr_recv(other, buf, 8, MSG_PEEK) > 0);
    CHECK(rr_recvmsg(other, &part, 0) == 2);
    CHECK(CMSG_FIRSTHDR(&part) != NULL && CMSG_FIRSTHDR(&part)->cmsg_type == 36);
    memcpy(&inq, CMSG_DATA(CMSG_FIRSTHDR(&part)), sizeof inq);
    CHECK(inq == 3 && rr_read(other, buf, 3) == 3);

    /* A close that waits until the peer has everything, and for no longer. */
    struct linger linger = {1, 30};
    struct timespec before, after;
    CHECK(rr_setsockopt(other, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    CHECK(rr_write(other, "end", 3) == 3);
    CHECK(rr_recv(other, buf, 3, MSG_WAITALL) == 3);
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK(rr_close(other) == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(after.tv_sec - before.tv_sec < 10);
    FAILS(EBUSY, rr_shutdown_all());
    FAILS(EBUSY, rr_run(loop, arg));
    CHECK(rr_close(fd) == 0 && rr_close(set) == 0);
    return 1;
}

int main(int argc, char **argv)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(argc == 3 && sigaction(SIGPIPE, &action, NULL) == 0);
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    peer = argv[2];
    int kernels = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in any = at("0.0.0.0", 22);
    CHECK(bind(kernels, (struct sockaddr *)&any, sizeof any) == 0 && listen(kernels, 1) == 0);

    CHECK(rr_init(&(struct rr_config){.interface = argv[1]}) == 0);
    from_this_thread();
    errors();
    int turns = 0;
    CHECK(rr_run(loop, &turns) == 0 && turns == 3);
    CHECK(rr_shutdown_all() == 0);
    FAILS(ENETDOWN, rr_shutdown_all());
    FAILS(ENETDOWN, rr_socket(AF_INET, SOCK_STREAM, 0));
    puts("ok");
    return 0;
}
