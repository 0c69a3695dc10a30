#ifndef RELAYD_BRIDGE_H
#define RELAYD_BRIDGE_H

#include <event2/buffer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A bridge joins two channels. This is its bookkeeping and nothing else: what has arrived at each
 * end, what waits to leave, and what is to be done next. The caller moves the bytes. Owner: one
 * worker; no locks.
 *
 * Back-pressure: the bridge takes at most queue_max bytes a direction. What it does not take stays
 * with libssh at that end (`held`), whose window then closes; when the queue has fallen below a
 * quarter of queue_max the caller is told to drain what is held.
 *
 * The caller may change queue_max at any time. At BRIDGE_QUEUE_MIN the bridge still moves on: an
 * empty queue always takes something.
 */
#define BRIDGE_QUEUE_MAX (512u * 1024)
#define BRIDGE_QUEUE_MIN (16u * 1024)

enum bridge_side { BRIDGE_CLIENT, BRIDGE_DEVICE };

/* What to do at one end. */
enum bridge_action {
    BRIDGE_WAIT,  /* nothing */
    BRIDGE_WRITE, /* send the front of out, then bridge_wrote() */
    BRIDGE_DRAIN, /* read what libssh holds, then bridge_drained() */
    BRIDGE_EOF,   /* send EOF, then bridge_sent_eof() */
    BRIDGE_CLOSE, /* send CLOSE, then bridge_sent_close() */
};

/* How far one direction of an end has come; it only moves forward. */
enum bridge_phase { BRIDGE_FLOWING, BRIDGE_ENDED, BRIDGE_CLOSED };

struct bridge_end {
    enum bridge_phase received; /* FLOWING, EOF came, CLOSE came (or the session died) */
    enum bridge_phase sent;     /* FLOWING, EOF sent, CLOSE sent */
    struct evbuffer *out;       /* bytes on their way to this end's peer; owned */
    size_t held;                /* bytes from this end's peer that libssh keeps for us */
    uint64_t bytes;             /* taken from this end's peer so far */
};

struct bridge {
    struct bridge_end end[2];
    size_t queue_max; /* BRIDGE_QUEUE_MIN..BRIDGE_QUEUE_MAX */
};

int bridge_init(struct bridge *bridge); /* -1: out of memory */
void bridge_clear(struct bridge *bridge);

/* Forgets all that it has seen and holds. */
void bridge_reset(struct bridge *bridge);

/* Data arrived at `side`; len is all that libssh has of this channel, what it held before
 * included. Returns how much was taken. Fit for libssh's data callback: no I/O. */
size_t bridge_receive(struct bridge *bridge, enum bridge_side side, const void *data, size_t len);

/* Puts words of our own before all that comes from `side`: nothing may have come yet. -1: out of memory. */
int bridge_introduce(struct bridge *bridge, enum bridge_side side, const void *data, size_t len)
    __attribute__((warn_unused_result));
void bridge_receive_eof(struct bridge *bridge, enum bridge_side side);
void bridge_receive_close(struct bridge *bridge, enum bridge_side side);

/* The session of this end is gone: nothing more comes from it or goes to it. */
void bridge_lose(struct bridge *bridge, enum bridge_side side);

enum bridge_action bridge_next(const struct bridge *bridge, enum bridge_side side);

/* With BRIDGE_DRAIN: how much to read at most. */
size_t bridge_room(const struct bridge *bridge, enum bridge_side side);
void bridge_wrote(struct bridge *bridge, enum bridge_side side, size_t len);

/* `len` held bytes of `side` were read to data; len 0 means that libssh has nothing after all. -1:
 * out of memory, the bytes are lost and the bridge must be closed. */
int bridge_drained(struct bridge *bridge, enum bridge_side side, const void *data, size_t len)
    __attribute__((warn_unused_result));
void bridge_sent_eof(struct bridge *bridge, enum bridge_side side);
void bridge_sent_close(struct bridge *bridge, enum bridge_side side);

/* True once CLOSE was sent at both ends (or their sessions are gone). */
bool bridge_over(const struct bridge *bridge);

/* Bytes that wait in both directions, in the bridge itself and in libssh. */
size_t bridge_waiting(const struct bridge *bridge);

#endif
