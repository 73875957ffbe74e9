/* Frames lent and sent without copying; and every way to misuse them. */
#include <signal.h>

#include "pair.h"

static volatile sig_atomic_t pipes;

static void on_pipe(int signal)
{
    (void)signal;
    pipes++;
}

int main(void)
{
    signal(SIGPIPE, on_pipe);
    pair_up(0);
    int listening = listener(), client, server;
    connection(listening, &client, &server);

    on(a);
    struct rr_zc_frame out[3], in[4], copy;
    memset(in, 0, sizeof in);
    CHECK(rr_zc_alloc(client, out, 3) == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(out[i].data != NULL && out[i].len >= 500);
        memset(out[i].data, 'a' + i, 500);
        out[i].len = 500;
    }
    copy = out[0];
    CHECK(rr_zc_send(client, out, 2, 0) == 2);
    CHECK(out[0].data == NULL && out[0].id == 0);
    FAILS(EINVAL, rr_zc_send(client, &copy, 1, 0));    /* sent already */
    FAILS(EINVAL, rr_zc_release(client, &copy, 1));    /* given away already */
    FAILS(EINVAL, rr_zc_send(client, &out[0], 1, 0));  /* nothing */
    size_t room = out[2].len;
    out[2].len = 70000;
    FAILS(EINVAL, rr_zc_send(client, &out[2], 1, 0));  /* beyond its room */
    out[2].len = 0;
    FAILS(EINVAL, rr_zc_send(client, &out[2], 1, 0));
    out[2].len = room;
    copy = out[2];
    copy.id += 1;
    FAILS(EINVAL, rr_zc_send(client, &copy, 1, 0));    /* made up */
    int other = rr_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(EINVAL, rr_zc_release(other, &out[2], 1));   /* another socket's */
    FAILS(EBADF, rr_zc_release(99, &out[2], 1));
    CHECK(rr_zc_release(client, &out[2], 1) == 1);     /* not sent after all */
    FAILS(EAGAIN, rr_zc_recv(client, in, 4, 0));
    FAILS(EFAULT, rr_zc_recv(client, NULL, 1, 0));
    CHECK(rr_zc_recv(client, NULL, 0, 0) == 0);
    FAILS(EPIPE, rr_zc_alloc(other, &copy, 1));
    settle();

    on(b);
    size_t total = 0;
    ssize_t n;
    while ((n = rr_zc_recv(server, in, 4, 0)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            for (size_t j = 0; j < in[i].len; j++)
                CHECK(((char *)in[i].data)[j] == (total + j < 500 ? 'a' : 'b'));
            total += in[i].len;
            FAILS(EINVAL, rr_zc_send(listening, &in[i], 1, 0)); /* another socket's */
        }
        copy = in[0];
        CHECK(rr_zc_release(server, in, (size_t)n) == n);
        FAILS(EINVAL, rr_zc_release(server, &copy, 1));      /* twice */
    }
    CHECK(total == 1000 && errno == EAGAIN);

    /* What came in goes out again, changed, in the frame that it came in: once. */
    on(a);
    CHECK(rr_write(client, "question", 8) == 8);
    settle();
    on(b);
    CHECK(rr_zc_recv(server, in, 1, 0) == 1 && in[0].len == 8);
    in[0].len = 9;
    FAILS(EINVAL, rr_zc_send(server, &in[0], 1, 0));     /* more than came */
    memcpy(in[0].data, "answer", 6);
    in[0].len = 6;
    copy = in[0];
    CHECK(rr_zc_send(server, in, 1, 0) == 1 && in[0].data == NULL);
    FAILS(EINVAL, rr_zc_send(server, &copy, 1, 0));      /* sent already */
    FAILS(EINVAL, rr_zc_release(server, &copy, 1));      /* and given away with that */
    settle();
    on(a);
    char text[8];
    CHECK(rr_read(client, text, sizeof text) == 6 && memcmp(text, "answer", 6) == 0);
    on(b);

    /* A frame outlives its socket's descriptor, and comes back all the same. */
    CHECK(rr_zc_alloc(server, &copy, 1) == 1);
    on(a);
    CHECK(rr_write(client, "last", 4) == 4);
    settle();
    on(b);
    CHECK(rr_zc_recv(server, in, 1, 0) == 1 && in[0].len == 4);
    on(a);
    CHECK(rr_shutdown(client, SHUT_WR) == 0);
    FAILS(EPIPE, rr_zc_alloc(client, out, 1));
    settle();
    on(b);
    CHECK(rr_zc_recv(server, in + 1, 1, 0) == 0); /* the end of the stream */
    CHECK(rr_close(server) == 0);
    CHECK(rr_zc_release(server, in, 1) == 1);
    CHECK(rr_zc_release(server, &copy, 1) == 1);
    CHECK(rr_close(listening) == 0);
    pair_down();
    CHECK(pipes == 0);
    puts("ok");
    return 0;
}
