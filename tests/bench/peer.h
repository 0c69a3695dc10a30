#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <libssh/libssh.h>

#include <libssh/callbacks.h>
#include <libssh/server.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* The load generator's SSH sessions: libssh's client side, non-blocking, many on one thread. They use
 * nothing that is special to relayd, so that the same load can be put on any SSH server that forwards. */

struct peer;
struct lane;

/* One thread with its own epoll. Its peers and lanes are touched by that thread alone. */
struct loop {
    pthread_t thread;
    int epoll, wake;
    pthread_mutex_t lock;
    void (*posted)(void *arg); /* under the lock */
    void *posted_arg;
    struct peer *due;   /* to be served before the next wait */
    struct peer *later; /* to be started again, the first one first */
};

void loop_start(struct loop *loop);

/* Has the loop's thread call fn(arg) soon. One at a time. */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* What every session of a run has in common. */
struct server {
    const char *host;
    uint16_t port;
    const char *user, *kex, *cipher, *mac;
    bool spread; /* each session from an address of its own in 127.0.0.0/16 */
};

struct address {
    char host[256];
    int port;
};

enum peer_step { PEER_CONNECTING, PEER_HANDSHAKE, PEER_LOGIN, PEER_PUBLISH, PEER_UP, PEER_GONE };

struct peer {
    struct loop *loop;
    const struct server *server;
    const char *user;
    ssh_key key;
    unsigned number;
    const struct address *publish;      /* NULL: publishes nothing */
    void (*on_up)(struct peer *peer);   /* logged in and published */
    void (*on_gone)(struct peer *peer); /* lost, failed or ended; it may be started again */
    void (*on_open)(struct lane *lane); /* the other side opened a channel; set its ops */

    enum peer_step step;
    char error[120]; /* why it is gone */
    ssh_session ssh;
    int fd;
    bool refused, wants_write, is_due;
    struct ssh_counter_struct socket;
    struct peer *next_due;
    uint64_t start_at; /* ns */
    struct peer *later_prev, *later_next;
    struct lane *work, *writers;
};

/* One channel. The functions are called at the top of the stack, never inside libssh. */
struct lane_ops {
    void (*opened)(struct lane *lane);
    void (*received)(struct lane *lane); /* lane->in counts the bytes, lane->last is the newest */
    void (*ended)(struct lane *lane);    /* EOF came */
    void (*closed)(struct lane *lane);   /* closed on both sides: freed when this returns */
};

struct lane {
    struct peer *peer;
    const struct lane_ops *ops;
    ssh_channel channel;
    void *arg;
    uint64_t in, told; /* bytes received; of them told to ops->received */
    uint64_t to_write; /* bytes that are still to be sent */
    uint64_t started;  /* ns */
    unsigned char last, kind;
    bool opened, ended, closed; /* news for ops */
    bool in_work, in_writers, eof_after;
    struct ssh_channel_callbacks_struct callbacks;
    struct lane *work_prev, *work_next, *writers_prev, *writers_next;
};

/* Begins to connect. `peer` is filled in up to `on_open`. */
void peer_start(struct peer *peer);
void peer_leave(struct peer *peer);

/* Starts it again after a while, which is the same for all peers of a run. */
void peer_start_later(struct peer *peer, unsigned ms);

struct lane *lane_open(struct peer *peer, const struct address *target, const struct lane_ops *ops,
                       void *arg);
void lane_write_byte(struct lane *lane, unsigned char byte);

/* Sends that many bytes as the windows allow, then EOF if asked to. */
void lane_send(struct lane *lane, uint64_t bytes, bool eof_after);
void lane_close(struct lane *lane);

uint64_t now_ns(void);
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
