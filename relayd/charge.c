#include "relayd/charge.h"

#include <utlist.h>

/* ---- Opens and bridges ---- */

enum reason charge_admit(const struct accounts *accounts, int64_t now, char detail[ACCOUNT_TEXT_SIZE])
{
    const struct account *full = accounts_full(accounts, LIMIT_bridges, now);
    if (full != NULL) {
        account_describe(full, LIMIT_bridges, detail);
        return REASON_too_many_bridges;
    }
    full = accounts_full(accounts, LIMIT_opens, now);
    if (full == NULL)
        return REASON_none;
    account_describe(full, LIMIT_opens, detail);
    return REASON_too_many_opens;
}

static void charge_open(struct accounts *accounts, int64_t now)
{
    accounts_charge(accounts, LIMIT_bridges, 1);
    accounts_pay_open(accounts, now);
}

void charge_client(struct charge *charge, struct session *client)
{
    charge->principal[BRIDGE_CLIENT] = principal_hold(client->principal);
    charge->accounts = session_accounts(client->principal);
    charge_open(&charge->accounts, client->loop->now);
}

/* The device is none of the accounts when the client's is the same (D19). */
static struct accounts device_account(const struct charge *charge, struct principal *device)
{
    struct accounts accounts = { 0 };
    if (charge->principal[BRIDGE_CLIENT] != device)
        accounts_add(&accounts, &device->account);
    return accounts;
}

/* A client leaves as many channels of a device's session to others as it has itself, those included that
 * the device has yet to answer or to close: however many it opens, whoever comes next finds some. Counted
 * only when that can be in question. */
static bool leaves_enough(const struct charge *charge, const struct session *device)
{
    unsigned own = 0;
    const struct channel *channel;
    if (device->nchannels < LIMIT_CHANNELS / 2)
        return true;
    DL_FOREACH(device->channels, channel)
        own += channel->client == charge->principal[BRIDGE_CLIENT]->id;
    return own + device->nchannels < LIMIT_CHANNELS;
}

enum reason charge_check_device(const struct charge *charge, const struct session *device,
                                char detail[ACCOUNT_TEXT_SIZE])
{
    struct accounts accounts = device_account(charge, device->principal);
    if (device->nchannels >= LIMIT_CHANNELS)
        return REASON_too_many_channels;
    if (!leaves_enough(charge, device)) {
        snprintf(detail, ACCOUNT_TEXT_SIZE, "the free channels of session %llu are for other clients",
                 (unsigned long long)device->id);
        return REASON_too_many_channels;
    }
    return charge_admit(&accounts, device->loop->now, detail);
}

void charge_device(struct charge *charge, struct principal *device, int64_t now)
{
    struct accounts accounts = device_account(charge, device);
    charge_open(&accounts, now);
    accounts_charge(&accounts, LIMIT_held, (int64_t)charge->held);
    accounts_add(&charge->accounts, &device->account);
    charge->principal[BRIDGE_DEVICE] = principal_hold(device);
}

void charge_forget_device(struct charge *charge)
{
    struct principal *device = charge->principal[BRIDGE_DEVICE];
    struct accounts accounts = device_account(charge, device);
    accounts_charge(&accounts, LIMIT_bridges, -1);
    accounts_charge(&accounts, LIMIT_held, -(int64_t)charge->held);
    charge->accounts.n -= accounts.n; /* it was the last to be added */
    charge->principal[BRIDGE_DEVICE] = NULL;
    principal_let_go(device);
}

/* ---- Bytes ---- */

void charge_held(struct charge *charge, const struct bridge *bridge)
{
    size_t held = bridge_waiting(bridge);
    accounts_charge(&charge->accounts, LIMIT_held, (int64_t)held - (int64_t)charge->held);
    charge->held = held;
}

void charge_set_room(const struct charge *charge, struct bridge *bridge)
{
    bool full = accounts_full(&charge->accounts, LIMIT_held, 0) != NULL;
    bridge->queue_max = full ? BRIDGE_QUEUE_MIN : BRIDGE_QUEUE_MAX;
}

/* The limit on what goes to that end. */
static enum limit rate_to(enum bridge_side side)
{
    return side == BRIDGE_DEVICE ? LIMIT_bytes_up : LIMIT_bytes_down;
}

bool charge_waits(const struct charge *charge, enum bridge_side side, int64_t now)
{
    const struct pace *pace = &charge->pace[side];
    return pace->paid > 0 && pace->due > now;
}

size_t charge_allowed(struct charge *charge, enum bridge_side side, size_t queued, int64_t now)
{
    struct pace *pace = &charge->pace[side];
    if (pace->paid == 0) {
        size_t portion = accounts_portion(&charge->accounts, rate_to(side));
        if (portion == SIZE_MAX)
            return SIZE_MAX;
        pace->paid = portion < queued ? portion : queued;
        pace->due = accounts_pay(&charge->accounts, rate_to(side), pace->paid, now);
    }
    return pace->due <= now ? pace->paid : 0;
}

void charge_written(struct charge *charge, enum bridge_side side, size_t len, int64_t now)
{
    struct pace *pace = &charge->pace[side];
    pace->paid -= len < pace->paid ? len : pace->paid;
    accounts_count(&charge->accounts, rate_to(side), len, now);
}

/* ---- The end ---- */

void charge_end(struct charge *charge)
{
    accounts_charge(&charge->accounts, LIMIT_bridges, -1);
    accounts_charge(&charge->accounts, LIMIT_held, -(int64_t)charge->held);
    for (enum bridge_side side = BRIDGE_CLIENT; side <= BRIDGE_DEVICE; side++)
        accounts_refund(&charge->accounts, rate_to(side), charge->pace[side].paid);
    for (int side = 0; side < 2; side++)
        if (charge->principal[side] != NULL)
            principal_let_go(charge->principal[side]);
}
