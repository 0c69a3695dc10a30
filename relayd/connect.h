#ifndef RELAYD_CONNECT_H
#define RELAYD_CONNECT_H

#include "relayd/bridge.h"
#include "relayd/charge.h"
#include "relayd/session.h"

#include <event2/event_struct.h>

/* One client's way to an endpoint: first an open that waits for the device, and for its answer, then a
 * bridge (RFC 4254, 7.2). Owned by the tenant. */
enum connect_state {
    CONNECT_OPENING, /* the client's open is held, the device is asked */
    CONNECT_WAITING, /* it is held until somebody serves the endpoint */
    CONNECT_BRIDGED,
};

struct connect {
    uint64_t id;
    enum connect_state state;
    struct tenant *tenant;
    struct session *client;     /* NULL once its channel is closed; never before it is BRIDGED */
    struct session *device;     /* NULL once its channel is closed */
    ssh_message open;           /* the held open, owned until it is BRIDGED */
    struct channel *channel[2]; /* by enum bridge_side; NULL while not there or given up */
    struct bridge bridge;
    struct charge charge;
    struct event timer; /* WAITING, OPENING: until then; BRIDGED: paid bytes are due */
    bool due;           /* recorded by events: it has waited long enough */
    int64_t wait_until; /* microseconds, as loop->now */
    uint64_t silent;    /* the device session that did not answer in time; 0: none */
    time_t since;
    int64_t bridged; /* when; milliseconds of the monotonic clock */
    uint16_t port;
    bool loopback; /* a device's way to itself (D19) */
    char name[NAME_SIZE];
    char client_name[NAME_SIZE], device_name[NAME_SIZE];
    int64_t key_id[2];                     /* with which they logged in, by enum bridge_side */
    char address[64];                      /* the client's */
    struct connect *prev, *next;           /* of the tenant: of `waiting` or of `connects` */
    struct connect *open_prev, *open_next; /* of client->opens, until it is BRIDGED */
};

/* Answers a direct-tcpip open, or holds it until the device has answered. Takes the message over. */
void connect_open(struct session *session, ssh_message message);

/* Somebody may serve now what opens of the tenant wait for. */
void connect_resume(struct tenant *tenant);

/* Some of its opens may have waited long enough: they are refused. */
void connect_expire(struct session *session);

/* The client's session is gone: its opens go with it. */
void connect_lose_opens(struct session *session);

/* How many bridges the session has an end of. */
unsigned connect_count(const struct session *session);

/* Ends it from any state: what is queued is dropped, the client's open is refused. */
void connect_close(struct connect *connect, enum reason reason);

/* Ends all bridges of a principal, those included that its sessions have left behind. */
void connect_cut(struct principal *principal, enum reason reason);

/* Rates of the tenant or of one in it have changed: who waits for his turn looks again. */
void connect_repace(struct tenant *tenant);

/* True if the client may still reach it, and the device still serve it. Whoever waits has no way yet, and
 * is not asked. */
bool connect_still_allowed(const struct connect *connect);

#endif
