#ifndef RELAYD_CHANNEL_H
#define RELAYD_CHANNEL_H

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One SSH channel of one session, of whatever kind. libssh's callbacks only record here (news) and
 * put the channel on its session's work list; its owner's serve() does the work at the top of the
 * stack. A channel is freed only by its own session, after CLOSE in both directions.
 *
 * The functions begin with chan_: libssh's old names begin with channel_. */
struct session;
struct channel;

enum channel_state {
    CHANNEL_OPENING, /* we asked the peer for it */
    CHANNEL_OPEN,
    CHANNEL_CLOSING, /* we have sent CLOSE */
};

/* What has happened to it; only ever added to. */
enum channel_news {
    NEWS_CONFIRMED = 1,
    NEWS_REFUSED = 2,
    NEWS_EOF = 4,
    NEWS_CLOSE = 8,
    NEWS_TIMEOUT = 16, /* our own timer: the peer has not answered the open */
};

struct channel_ops {
    /* In libssh's callback: takes 0..len bytes, no I/O. */
    size_t (*receive)(struct channel *channel, const void *data, size_t len);
    /* At the top of the stack: acts on the news and sends what waits. True if there is more to do
     * as soon as the session can write or the window opens. */
    bool (*serve)(struct channel *channel);
    /* The session is gone, and the channel with it after this call. */
    void (*lose)(struct channel *channel);
};

struct channel {
    struct session *session;
    ssh_channel ssh;
    const struct channel_ops *ops;
    void *owner;
    int64_t client; /* principal it was opened for, 0: none; stays when nobody owns it any more */
    enum channel_state state;
    unsigned news;
    bool in_work; /* on the session's work list */
    uint64_t written;
    struct channel *prev, *next;           /* of the session */
    struct channel *work_prev, *work_next; /* of its work list */
    struct ssh_channel_callbacks_struct callbacks;
};

/* Takes over an accepted channel. NULL when out of memory; the ssh_channel is then freed. */
struct channel *chan_adopt(struct session *session, ssh_channel ssh, const struct channel_ops *ops,
                           void *owner);

/* Asks a device for a forwarded-tcpip channel. The answer comes as news. NULL on error. */
struct channel *chan_open_forward(struct session *session, const struct channel_ops *ops, void *owner,
                                  const char *address, uint16_t port, const char *origin,
                                  uint16_t origin_port);

/* Its owner has no more interest: it is closed as soon as that can be done, and then freed. */
void chan_abandon(struct channel *channel);

/* True while the peer has yet to answer our open or our CLOSE. */
bool chan_owes(const struct channel *channel);

/* Puts the channel on the work list of its session and marks the session. */
void chan_mark(struct channel *channel);

/* Serves it, and frees it when it is over. Top of the stack only. */
void chan_serve(struct channel *channel);

/* For the session's teardown: tells the owner and frees it. */
void chan_lose(struct channel *channel);

/* Sends up to len bytes. Returns how many were taken, 0 if the peer can take none now; the session
 * may be dead afterwards. */
size_t chan_write(struct channel *channel, const void *data, size_t len);

/* The same on the stream for errors, which only session channels have. */
size_t chan_write_stderr(struct channel *channel, const void *data, size_t len);

/* Reads what libssh holds back. Returns 0 if there is nothing. */
size_t chan_read_held(struct channel *channel, void *data, size_t size);

void chan_send_eof(struct channel *channel);

/* Sends CLOSE. Nothing may be held or queued any more. */
void chan_close(struct channel *channel);

#endif
