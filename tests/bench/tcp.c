#include "tcp.h"

#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 32768u /* as in an SSH stream */

static int tcp_socket(const char *host, uint16_t port, struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
    if (fd < 0 || inet_pton(AF_INET, host, &address->sin_addr) != 1)
        die("%s: not an IPv4 address", host);
    return fd;
}

void tcp_listen(struct tcp_run *run)
{
    struct sockaddr_in address;
    int on = 1;
    run->listener = tcp_socket("127.0.0.1", run->listen_port, &address);
    setsockopt(run->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(run->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(run->listener, 128) != 0)
        die("cannot listen on port %u: %s", run->listen_port, strerror(errno));
}

static void *send_all(void *arg)
{
    static const char zeros[CHUNK];
    const struct tcp_run *run = arg;
    struct sockaddr_in address;
    int fd = tcp_socket(run->host, run->port, &address);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("cannot connect to port %u: %s", run->port, strerror(errno));
    for (uint64_t left = run->bytes; left > 0;) {
        ssize_t n = write(fd, zeros, left < CHUNK ? left : CHUNK);
        if (n <= 0)
            die("cannot send: %s", strerror(errno));
        left -= (uint64_t)n;
    }
    shutdown(fd, SHUT_WR);
    while (read(fd, &address, sizeof(address)) > 0)
        ;
    close(fd);
    return NULL;
}

static void *receive_all(void *arg)
{
    const struct tcp_run *run = arg;
    char *space = malloc(2 * CHUNK);
    uint64_t received = 0;
    int fd = accept(run->listener, NULL, NULL);
    if (fd < 0 || space == NULL)
        die("cannot accept: %s", strerror(errno));
    for (ssize_t n; (n = read(fd, space, 2 * CHUNK)) > 0;)
        received += (uint64_t)n;
    if (received != run->bytes)
        die("a stream ended early");
    close(fd);
    free(space);
    return NULL;
}

void tcp_run(struct tcp_run *run)
{
    pthread_t *threads = calloc(2 * run->streams, sizeof(*threads));
    for (unsigned i = 0; i < 2 * run->streams; i++)
        if (threads == NULL ||
            pthread_create(&threads[i], NULL, i % 2 == 0 ? receive_all : send_all, run) != 0)
            die("cannot start a thread: %s", strerror(errno));
    for (unsigned i = 0; i < 2 * run->streams; i++)
        pthread_join(threads[i], NULL);
    free(threads);
}
