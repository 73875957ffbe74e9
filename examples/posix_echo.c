/* An epoll echo server in plain POSIX and Linux calls. Built as it is, it runs
   on the kernel's sockets; with two lines more it is a program of ringroad:

     cc -O2 posix_echo.c -o posix_echo
     ./posix_echo 7

     cc -O2 -DRINGROAD posix_echo.c -o posix_echo $(pkg-config --cflags --libs ringroad)
     sudo RINGROAD_INTERFACE=eth0 ./posix_echo 7 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef RINGROAD
#include "ringroad_posix.h" /* the first line */
#endif

int main(int argc, char **argv)
{
    struct sockaddr_in addr;
    struct epoll_event event, events[32];
    int on = 1;
    if (argc != 2)
        return fprintf(stderr, "usage: %s PORT\n", argv[0]), 2;
#ifdef RINGROAD
    if (rr_init(NULL) < 0) /* the second */
        return fprintf(stderr, "rr_init: %s\n", rr_strerror(errno)), 1;
#endif

    int listener = socket(AF_INET, SOCK_STREAM, 0);
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_port = htons((uint16_t)atoi(argv[1]));
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(listener, 128) < 0)
        return perror("listen"), 1;
    int set = epoll_create1(0);
    event.events = EPOLLIN;
    event.data.fd = listener;
    if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) < 0)
        return perror("epoll"), 1;
    /* The kernel's standard input beside it: its end ends the server. */
    event.data.fd = STDIN_FILENO;
    epoll_ctl(set, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    printf("listening\n");
    fflush(stdout);

    for (;;) {
        int n = epoll_wait(set, events, 32, -1);
        if (n < 0 && errno != EINTR)
            return perror("epoll_wait"), 1;
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            char buf[4096];
            if (fd == listener) {
                int peer = accept(listener, NULL, NULL);
                event.events = EPOLLIN;
                event.data.fd = peer;
                if (peer >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, peer, &event) < 0)
                    close(peer);
                continue;
            }
            ssize_t got = read(fd, buf, sizeof buf), put = 0;
            if (fd == STDIN_FILENO) {
                if (got <= 0)
                    return 0;
                continue;
            }
            while (got > 0 && put < got) {
                ssize_t now = send(fd, buf + put, (size_t)(got - put), MSG_NOSIGNAL);
                if (now < 0)
                    break;
                put += now;
            }
            if (got <= 0 || put < got)
                close(fd);
        }
    }
}
