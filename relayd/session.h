#ifndef RELAYD_SESSION_H
#define RELAYD_SESSION_H

#include "relayd/account.h"
#include "relayd/audit.h"
#include "relayd/channel.h"
#include "relayd/limits.h"
#include "relayd/log.h"
#include "relayd/loop.h"
#include "relayd/mailbox.h"
#include "relayd/reason.h"
#include "relayd/source.h"
#include "relayd/sshio.h"
#include "relayd/tenant.h"

#include <event2/event_struct.h>

/* One SSH connection. It belongs to one worker at a time: to one that logs in, then, handed over
 * once, to its tenant's. */
enum session_state {
    SESSION_LOGIN,    /* key exchange and authentication */
    SESSION_HANDOVER, /* authenticated, on its way to the tenant's worker */
    SESSION_UP,
    SESSION_LEAVING, /* may do nothing any more; what it was answered goes out */
    SESSION_DEAD,    /* to be torn down */
};

/* A refusal, for the peer to read. */
struct note {
    struct note *prev, *next;
    time_t time;
    char text[];
};

/* How often something was refused in one second. */
struct refusal {
    enum event_kind what;
    enum reason reason;
    unsigned count; /* 0: a free slot */
};

struct session {
    struct mail mail; /* first: MAIL_SESSION */
    uint64_t id;
    struct loop *loop;
    ssh_session ssh;
    enum session_state state;
    bool io_due;    /* recorded by events: the socket is ready */
    bool timer_due; /* recorded by events: the timer has fired */
    bool wait_due;  /* recorded by events: an open of its has waited long enough */
    bool tick_due;  /* recorded by events: so has the watch's */

    struct source source; /* that its failure is laid to */
    char address[64];
    uint16_t port;
    time_t since;
    int64_t login_by;           /* when the time for the login is up, as loop->now */
    unsigned dead_peer_timeout; /* ms; that its socket was told when it came */
    unsigned attempts;

    /* Who it is; found out at login, and again on the tenant's worker. */
    char *key_blob; /* owned */
    char fingerprint[64];
    int64_t tenant_id, key_id;
    struct tenant *tenant;       /* NULL until SESSION_UP */
    struct principal *principal; /* NULL until SESSION_UP */

    struct channel *channels, *work;
    unsigned nchannels, nwork;
    struct connect *opens; /* its opens that wait for a device */
    unsigned nopens;
    struct publication *publications;
    unsigned npublications;
    struct note *notes; /* on their way as debug messages, newest last */
    unsigned nnotes;
    struct note *refusals; /* the last few, newest last, for a shell that is opened later */
    unsigned nrefusals;

    enum reason end_reason;
    char end_detail[200];

    bool wants_write;                             /* something was held back because the socket was full */
    uint64_t flushed_made, flushed_socket;        /* the counters when nothing was left to send */
    time_t refused_second;                        /* in which */
    struct refusal refused[LIMIT_REFUSALS_KINDS]; /* so many were refused; the last is for all other kinds */
    uint64_t emptied_at;                          /* socket.in_bytes when libssh had no message left for us */
    uint64_t parked_at; /* raw.out_packets when a rekey swallowed a write, + 1; 0: not parked */
    uint64_t heard_at;  /* socket.in_bytes at the last tick of the login or the watch */
    uint64_t sent_at;   /* socket.out_bytes then */
    unsigned silent;    /* ticks for which it has owed an answer and sent nothing */
    unsigned
        doubted; /* ticks that it has left to show that it lives beside a newer session; 0: nobody asks */
    uint64_t doubted_at; /* socket.in_bytes when it was asked */
    uint64_t mute_out;   /* raw.out_packets, and */
    uint64_t mute_in;    /* raw.in_packets when that last moved */
    struct ssh_counter_struct raw, socket;
    struct ssh_callbacks_struct callbacks;
    struct event read_event, write_event, timer, tick;
    bool in_dirty, in_touched;
    uint64_t pass;                               /* in which it was served last */
    struct session *prev, *next;                 /* of the loop */
    struct session *dirty_prev, *dirty_next;     /* of its share */
    struct session *touched_prev, *touched_next; /* of loop->touched */
    struct session *tenant_prev, *tenant_next;   /* of the tenant */
};

typedef void session_global_request(ssh_session ssh, ssh_message message, void *session);

/* Starts a session on an accepted socket, which it owns from now on. NULL on error. */
struct session *session_new(struct loop *loop, int fd, const char *address, uint16_t port,
                            session_global_request *on_global_request);

/* Frees a dead session that nothing points to any more. */
void session_free(struct session *session);

/* Takes its events out of the loop that it leaves, puts them into the one that it enters. */
void session_detach(struct session *session);
int session_attach(struct session *session, struct loop *loop);

/* The legal steps are forward. SESSION_DEAD goes through session_close(). */
void session_set_state(struct session *session, enum session_state state);

/* Sessions of the whole process. Any thread. */
unsigned session_live(void);
unsigned session_waiting(void); /* of them not logged in */

/* Moves it to the tenant and the principal that it turned out to be. */
void session_enter(struct session *session, struct tenant *tenant, struct principal *principal);

/* What a session of this principal is charged to: it, and its tenant. */
struct accounts session_accounts(struct principal *principal);

/* To be served soon; and taken out of that line again. */
void session_mark(struct session *session);
void session_unmark(struct session *session);

/* libssh was called for it: when the work at hand is done, its events are brought in line. */
void session_touch(struct session *session);
void session_settle(struct session *session);

/* Ends it, from any state and any place: it is torn down when the work at hand is done. detail may be
 * NULL; it may come from the peer. */
void session_close(struct session *session, enum reason reason, const char *detail);

/* Takes all its rights away at once, and closes it for that reason when its channels have ended, or after
 * LEAVE_MS: for who asked for its own end and is owed the answer. It may have no opens left. */
void session_leave(struct session *session, enum reason reason);

/* Fires once; 0 ms takes it back. */
void session_set_timer(struct session *session, unsigned ms);

/* A newer session of its device serves what it served. If it still lives, two hosts use one identity:
 * watch_serve() asks it. */
void session_doubt(struct session *session);

/* The peer owes an answer, or an acknowledgement at least: watch_serve() looks in a second. */
void session_watch(struct session *session);

/* False while the socket is full or a rekey parks what is written. */
bool session_may_write(struct session *session);
void session_park(struct session *session);
bool session_parked(const struct session *session);

/* Bytes read since libssh last had no message left for us. */
uint64_t session_backlog(const struct session *session);

void session_list_work(struct channel *channel);
void session_unlist_work(struct channel *channel);

/* Something has happened of which the session is the subject: who and from where are filled in. */
void session_event(struct session *session, const struct audit_event *event);

/* Logs a refusal, records it, and keeps it as a note for the peer; of a flood, logs and notes only the first
 * of each second and then how many more there were. asked and detail (may be NULL; for the log alone) may
 * come from the peer. The second one takes what is asked as the event's object, and can have a cause. */
void session_refuse(struct session *session, enum event_kind what, const char *asked, enum reason reason,
                    const char *detail);
void session_refuse_event(struct session *session, const struct audit_event *event, const char *detail);

/* Logs how many more were refused than it said. */
void session_log_refusals(struct session *session);

/* Sends the notes. Top of the stack only. */
void session_send_notes(struct session *session);

struct log_subject session_subject(const struct session *session);
#define session_log(session, level, ...)                                                                     \
    do {                                                                                                     \
        struct log_subject subject_ = session_subject(session);                                              \
        log_write(level, &subject_, __VA_ARGS__);                                                            \
    } while (0)

/* The line of an event, which says by its codes what it is. */
#define session_log_event(session, level, event_, ...)                                                       \
    do {                                                                                                     \
        struct log_subject subject_ = session_subject(session);                                              \
        subject_.event = event_code((event_)->kind);                                                         \
        subject_.reason = (event_)->reason != REASON_none ? reason_code((event_)->reason) : NULL;            \
        log_write(level, &subject_, __VA_ARGS__);                                                            \
    } while (0)

#endif
