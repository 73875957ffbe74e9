/* A blocking client in plain POSIX calls: what it reads from its standard input
   goes to an echo server, and what comes back to its standard output.

     cc -O2 posix_client.c -o posix_client
     echo hello | ./posix_client 10.0.0.1 7

     cc -O2 -DRINGROAD posix_client.c -o posix_client $(pkg-config --cflags --libs ringroad)
     echo hello | sudo RINGROAD_INTERFACE=eth0 ./posix_client 10.0.0.1 7 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef RINGROAD
#include "ringroad_posix.h"
#endif

int main(int argc, char **argv)
{
    struct sockaddr_in addr;
    char buf[4096];
    ssize_t n;
    size_t sent = 0, received = 0;
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    if (argc != 3 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1)
        return fprintf(stderr, "usage: %s SERVER PORT\n", argv[0]), 2;
    addr.sin_port = htons((uint16_t)atoi(argv[2]));
#ifdef RINGROAD
    if (rr_init(NULL) < 0)
        return fprintf(stderr, "rr_init: %s\n", rr_strerror(errno)), 1;
#endif

    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        return perror("connect"), 1;
    while ((n = read(STDIN_FILENO, buf, sizeof buf)) > 0) {
        for (ssize_t put = 0; put < n;) {
            ssize_t now = write(fd, buf + put, (size_t)(n - put));
            if (now < 0)
                return perror("write"), 1;
            put += now;
        }
        sent += (size_t)n;
        while (received < sent) {
            if ((n = read(fd, buf, sizeof buf)) <= 0)
                return perror("read"), 1;
            received += (size_t)n;
            fwrite(buf, 1, (size_t)n, stdout);
        }
    }
    if (shutdown(fd, SHUT_WR) < 0 || read(fd, buf, 1) != 0 || close(fd) < 0)
        return perror("the end"), 1;
    return 0;
}
