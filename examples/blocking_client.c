/* A client with blocking sockets and several threads: each connects to an echo
   server, and checks that what it sends comes back. The threads are the
   program's own; their calls reach the pinned worker over lock-free rings.

     cc -O2 blocking_client.c -o blocking_client $(pkg-config --cflags --libs ringroad) -pthread
     sudo ./blocking_client eth0 10.0.0.1 7 [THREADS] [MESSAGES] [ADDRESS/PREFIX] */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ringroad.h"

enum { MAX_THREADS = 256, SIZE = 64 };

static struct sockaddr_in server = {.sin_family = AF_INET};
static int messages = 1000;

static void *fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, rr_strerror(errno));
    return (void *)1;
}

static void *talk(void *number)
{
    char out[SIZE], in[SIZE];
    int on = 1, fd = rr_socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {10, 0};
    if (fd < 0)
        return fail("socket");
    if (rr_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        rr_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        return fail("setsockopt");
    if (rr_connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
        return fail("connect");
    for (int i = 0; i < messages; i++) {
        memset(out, 'a' + (int)((size_t)number + (size_t)i) % 26, sizeof out);
        if (rr_send(fd, out, sizeof out, 0) != sizeof out)
            return fail("send");
        for (size_t got = 0; got < sizeof in;) {
            ssize_t n = rr_recv(fd, in + got, sizeof in - got, 0);
            if (n == 0)
                errno = ECONNRESET;
            if (n <= 0)
                return fail("recv");
            got += (size_t)n;
        }
        if (memcmp(in, out, sizeof in) != 0) {
            fprintf(stderr, "thread %zu: message %d came back changed\n", (size_t)number, i);
            return (void *)1;
        }
    }
    if (rr_shutdown(fd, SHUT_WR) < 0 || rr_recv(fd, in, sizeof in, 0) != 0)
        return fail("the end");
    return rr_close(fd) < 0 ? fail("close") : NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[MAX_THREADS];
    int count = argc > 4 ? atoi(argv[4]) : 4, failed = 0;
    if (argc < 4 || argc > 7 || inet_pton(AF_INET, argv[2], &server.sin_addr) != 1 || count < 1 ||
        count > MAX_THREADS) {
        fprintf(stderr, "usage: %s INTERFACE SERVER PORT [THREADS] [MESSAGES] [ADDRESS/PREFIX]\n",
                argv[0]);
        return 2;
    }
    server.sin_port = htons((uint16_t)atoi(argv[3]));
    if (argc > 5)
        messages = atoi(argv[5]);
    struct rr_config config = {.interface = argv[1], .address = argc > 6 ? argv[6] : NULL};
    if (rr_init(&config) < 0)
        return fail("rr_init"), 1;
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, talk, (void *)(size_t)i) != 0)
            return fail("pthread_create"), 1;
    for (int i = 0; i < count; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += result != NULL;
    }
    printf("%d threads, %d messages each, %d failed\n", count, messages, failed);
    rr_shutdown_all();
    return failed != 0;
}
