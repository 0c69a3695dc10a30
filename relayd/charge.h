#ifndef RELAYD_CHARGE_H
#define RELAYD_CHARGE_H

#include "relayd/bridge.h"
#include "relayd/session.h"

/* One direction of a bridge whose rate is limited: what has been paid for, and when it may go. */
struct pace {
    size_t paid;
    int64_t due; /* microseconds, as loop->now */
};

/* Whom a connect is charged to, and what: an open, a bridge and its bytes, to the client, the tenant and
 * the device (limits.def). Whatever is charged here is discharged here. Times are microseconds, as
 * loop->now; detail names the account that is full. */
struct charge {
    struct principal *principal[2]; /* by enum bridge_side; held; the device's NULL while none is asked */
    struct accounts accounts;       /* the client's, the tenant's, the device's */
    struct pace pace[2];            /* of what goes to that end */
    size_t held;                    /* bytes that were charged */
};

/* Whether those may be charged with one more open. */
enum reason charge_admit(const struct accounts *accounts, int64_t now, char detail[ACCOUNT_TEXT_SIZE]);

/* A new connect of that client. */
void charge_client(struct charge *charge, struct session *client);

/* Whether the device's session has room for it; then, that it is asked. */
enum reason charge_check_device(const struct charge *charge, const struct session *device,
                                char detail[ACCOUNT_TEXT_SIZE]);
void charge_device(struct charge *charge, struct principal *device, int64_t now);

/* It did not answer: another one may be asked. */
void charge_forget_device(struct charge *charge);

/* What waits in the bridge has changed. */
void charge_held(struct charge *charge, const struct bridge *bridge);

/* While somebody whom it is charged to holds too much, the bridge takes little at a time. */
void charge_set_room(const struct charge *charge, struct bridge *bridge);

/* How many of the queued bytes may go to this end now: SIZE_MAX if no rate is limited; 0 until
 * pace[side].due. Each bridge pays for a small portion and waits until that is due, so bridges that share a
 * limit take turns, and no other is slowed. */
size_t charge_allowed(struct charge *charge, enum bridge_side side, size_t queued, int64_t now);

/* True if it has paid and is not due yet. */
bool charge_waits(const struct charge *charge, enum bridge_side side, int64_t now);

/* Bytes have gone to this end. */
void charge_written(struct charge *charge, enum bridge_side side, size_t len, int64_t now);

/* The end of the connect. */
void charge_end(struct charge *charge);

#endif
