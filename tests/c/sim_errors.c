/* What each call refuses, and with which errno: the system's. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include "pair.h"

static void arguments(int raw_ip)
{
    struct sockaddr_in addr = at("10.0.0.1", 1000);
    struct sockaddr *sa = (struct sockaddr *)&addr;
    socklen_t len = sizeof addr;
    char buf[8];
    int one = 1;
    on(a);
    FAILS(EAFNOSUPPORT, rr_socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(EPROTONOSUPPORT, rr_socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    FAILS(ESOCKTNOSUPPORT, rr_socket(AF_INET, SOCK_SEQPACKET, 0));
    FAILS(EINVAL, rr_socket(AF_INET, SOCK_STREAM | 0x40000000, 0));
    int tcp = rr_socket(AF_INET, SOCK_STREAM, 0), udp = rr_socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(tcp > 2 && udp == tcp + 1);

    /* The descriptor is looked at first. */
    FAILS(EBADF, rr_bind(-1, NULL, 99));
    FAILS(EBADF, rr_bind(77, sa, len));
    FAILS(EBADF, rr_connect(77, NULL, 4));
    FAILS(EBADF, rr_listen(77, 1));
    FAILS(EBADF, rr_accept(77, sa, &len));
    FAILS(EBADF, rr_read(77, NULL, 1));
    FAILS(EBADF, rr_write(77, NULL, 1));
    FAILS(EBADF, rr_sendto(77, buf, 1, 0, NULL, 0));
    FAILS(EBADF, rr_sendmsg(77, NULL, 0));
    FAILS(EBADF, rr_recvmsg(77, NULL, 0));
    FAILS(EBADF, rr_shutdown(77, 7));
    FAILS(EBADF, rr_getsockname(77, sa, &len));
    FAILS(EBADF, rr_getpeername(77, sa, &len));
    FAILS(EBADF, rr_setsockopt(77, SOL_SOCKET, SO_KEEPALIVE, NULL, 4));
    FAILS(EBADF, rr_getsockopt(77, SOL_SOCKET, SO_KEEPALIVE, &one, NULL));
    FAILS(EBADF, rr_fcntl(77, F_GETFL));
    FAILS(EBADF, rr_ioctl(77, FIONREAD, &one));
    FAILS(EBADF, rr_dup(77));
    FAILS(EBADF, rr_close(77));

    /* Pointers and lengths. */
    FAILS(EFAULT, rr_bind(tcp, NULL, sizeof addr));
    FAILS(EINVAL, rr_bind(tcp, sa, 15));
    FAILS(EINVAL, rr_bind(tcp, sa, 1000));
    FAILS(EINVAL, rr_bind(tcp, sa, (socklen_t)-1));
    FAILS(EINVAL, rr_connect(tcp, sa, 1));
    FAILS(EFAULT, rr_connect(tcp, NULL, sizeof addr));
    addr.sin_family = AF_UNIX;
    FAILS(EAFNOSUPPORT, rr_bind(tcp, sa, sizeof addr));
    FAILS(EAFNOSUPPORT, rr_connect(tcp, sa, sizeof addr));
    addr.sin_family = AF_INET;
    FAILS(EFAULT, rr_getsockname(tcp, sa, NULL));
    FAILS(EFAULT, rr_getsockname(tcp, NULL, &len));
    len = (socklen_t)-1;
    FAILS(EINVAL, rr_getsockname(tcp, sa, &len));
    len = 4;
    CHECK(rr_getsockname(tcp, sa, &len) == 0 && len == sizeof addr);
    FAILS(EFAULT, rr_setsockopt(tcp, SOL_SOCKET, SO_KEEPALIVE, NULL, sizeof one));
    FAILS(EINVAL, rr_setsockopt(tcp, SOL_SOCKET, SO_KEEPALIVE, &one, (socklen_t)-1));
    FAILS(EINVAL, rr_setsockopt(tcp, SOL_SOCKET, SO_KEEPALIVE, &one, 2));
    FAILS(EFAULT, rr_getsockopt(tcp, SOL_SOCKET, SO_KEEPALIVE, &one, NULL));
    FAILS(ENOPROTOOPT, rr_setsockopt(tcp, IPPROTO_TCP, 9999, &one, sizeof one));
    FAILS(ENOPROTOOPT, rr_getsockopt(tcp, IPPROTO_TCP, 9999, &one, &len));
    FAILS(EFAULT, rr_write(udp, NULL, 1));
    FAILS(EFAULT, rr_read(udp, NULL, 1));
    FAILS(EFAULT, rr_sendmsg(udp, NULL, 0));
    FAILS(EFAULT, rr_recvmsg(udp, NULL, 0));
    FAILS(EFAULT, rr_sendmmsg(udp, NULL, 1, 0));
    FAILS(EFAULT, rr_readv(udp, NULL, 1));
    FAILS(EINVAL, rr_readv(udp, NULL, -1));
    FAILS(EINVAL, rr_writev(udp, NULL, 1025));
    FAILS(EFAULT, rr_ioctl(udp, FIONREAD, NULL));
    FAILS(EFAULT, rr_ioctl(udp, FIONBIO, NULL));
    FAILS(ENOTTY, rr_ioctl(udp, TIOCGWINSZ, buf));
    FAILS(EINVAL, rr_fcntl(udp, F_GETLK, buf));
    FAILS(EINVAL, rr_fcntl(udp, F_DUPFD, -1));
    FAILS(EFAULT, rr_poll(NULL, 1, 0));
    CHECK(rr_poll(NULL, 0, 0) == 0);

    /* States. */
    FAILS(EOPNOTSUPP, rr_listen(udp, 1));
    FAILS(EOPNOTSUPP, rr_accept(udp, NULL, NULL));
    FAILS(EINVAL, rr_accept(tcp, NULL, NULL));
    FAILS(EINVAL, rr_accept4(tcp, NULL, NULL, 1));
    FAILS(ENOTCONN, rr_read(tcp, buf, 1));
    FAILS(ENOTCONN, rr_getpeername(tcp, sa, &len));
    FAILS(ENOTCONN, rr_shutdown(tcp, SHUT_WR));
    FAILS(EINVAL, rr_shutdown(udp, 7));
    CHECK(bind_to(tcp, "10.0.0.1", 1000) == 0);
    FAILS(EINVAL, bind_to(tcp, "10.0.0.1", 1001));
    int two = rr_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(EADDRINUSE, bind_to(two, "10.0.0.1", 1000));
    FAILS(EADDRNOTAVAIL, bind_to(two, "192.0.2.9", 1000));
    // Bare IP packets go everywhere; over Ethernet there is no route without a router.
    FAILS(raw_ip ? EINPROGRESS : ENETUNREACH, connect_to(two, "192.0.2.9", 1000));

    struct pollfd p[3] = {{77, POLLIN, 9}, {-4, POLLIN, 9}, {udp, POLLIN | POLLOUT, 9}};
    CHECK(rr_poll(p, 3, -1) == 2);
    CHECK(p[0].revents == POLLNVAL && p[1].revents == 0 && p[2].revents == POLLOUT);
    CHECK(rr_close(tcp) == 0 && rr_close(udp) == 0 && rr_close(two) == 0);
    CHECK(rr_socket(AF_INET, SOCK_STREAM, 0) == tcp); /* the lowest again */
}

static void simulation(void)
{
    struct rr_sim_config config;
    unsigned char frame[2048] = {0};
    memset(&config, 0, sizeof config);
    CHECK(strcmp(rr_strerror(ENOENT), "No such file or directory") == 0);
    config.address = "10.0.0.1";
    errno = 0;
    CHECK(rr_sim_new(&config, 1) == NULL && errno == EINVAL);
    CHECK(strstr(rr_strerror(EINVAL), "address: 10.0.0.1 ") != NULL);
    FAILS(EBADF, rr_close(-1));
    CHECK(strcmp(rr_strerror(EBADF), "Bad file descriptor") == 0);
    config.address = NULL;
    config.mtu = 20;
    CHECK(rr_sim_new(&config, 1) == NULL && errno == EINVAL);
    CHECK(strstr(rr_strerror(EINVAL), "mtu: 20 ") != NULL);
    config.mtu = 0;
    config.size = 8;
    CHECK(rr_sim_new(&config, 1) == NULL && errno == EINVAL);
    config.size = sizeof config;
    config.max_descriptors = 2;
    struct rr_sim *sim = rr_sim_new(&config, 1);
    CHECK(sim != NULL);
    on(sim);
    int one = rr_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(one >= 0 && rr_socket(AF_INET, SOCK_DGRAM, 0) >= 0);
    FAILS(EMFILE, rr_socket(AF_INET, SOCK_STREAM, 0));
    FAILS(EMFILE, rr_dup(one));
    FAILS(EMFILE, rr_epoll_create1(0));
    FAILS(EINVAL, rr_sim_inject(sim, frame, 0));
    FAILS(EMSGSIZE, rr_sim_inject(sim, frame, 70000));
    FAILS(EFAULT, rr_sim_inject(sim, NULL, 10));
    FAILS(EFAULT, rr_sim_inject(NULL, frame, 10));
    CHECK(rr_sim_next_deadline(NULL) == UINT64_MAX);
    for (int i = 0; i < 200; i++) /* nonsense is dropped */
        CHECK(rr_sim_inject(sim, frame, 1 + (size_t)i * 7) == 0);
    rr_sim_poll(sim);
    FAILS(EINPROGRESS, connect_to(one, "192.168.9.9", 9));
    rr_sim_poll(sim);
    FAILS(EMSGSIZE, rr_sim_collect(sim, frame, 10, NULL));
    CHECK(rr_sim_collect(sim, frame, sizeof frame, NULL) > 0); /* it stayed */
    while (rr_sim_collect(sim, frame, sizeof frame, NULL) > 0)
        ;
    uint64_t next = rr_sim_next_deadline(sim);
    CHECK(next > 0 && next < 10 * SECOND);
    rr_sim_free(sim);
    rr_sim_free(NULL);
}

static void *visitor(void *arg)
{
    struct rr_sim *sim = (struct rr_sim *)arg;
    int result = rr_sim_enter(sim);
    /* It leaves by ending. */
    return result == 0 ? NULL : (void *)(intptr_t)errno;
}

static void threads(void)
{
    pthread_t thread;
    void *result;
    on(a);
    CHECK(rr_sim_enter(a) == 0); /* again is no harm */
    CHECK(pthread_create(&thread, NULL, visitor, a) == 0);
    CHECK(pthread_join(thread, &result) == 0 && (intptr_t)result == EBUSY);
    CHECK(pthread_create(&thread, NULL, visitor, b) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == NULL);
    on(b); /* left a, and entered what the thread left */
    CHECK(pthread_create(&thread, NULL, visitor, a) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == NULL);
}

int main(void)
{
    simulation();
    for (int raw_ip = 0; raw_ip < 2; raw_ip++) {
        pair_up(raw_ip);
        arguments(raw_ip);
        threads();
        pair_down();
    }
    puts("ok");
    return 0;
}
