#include "relayd/bridge.h"

#include <assert.h>
#include <string.h>

static enum bridge_side other(enum bridge_side side)
{
    return side == BRIDGE_CLIENT ? BRIDGE_DEVICE : BRIDGE_CLIENT;
}

static size_t queued_to(const struct bridge *bridge, enum bridge_side side)
{
    return evbuffer_get_length(bridge->end[side].out);
}

static void discard_out(struct bridge_end *end)
{
    evbuffer_drain(end->out, evbuffer_get_length(end->out));
}

int bridge_init(struct bridge *bridge)
{
    memset(bridge, 0, sizeof(*bridge));
    bridge->queue_max = BRIDGE_QUEUE_MAX;
    bridge->end[BRIDGE_CLIENT].out = evbuffer_new();
    bridge->end[BRIDGE_DEVICE].out = evbuffer_new();
    if (bridge->end[BRIDGE_CLIENT].out != NULL && bridge->end[BRIDGE_DEVICE].out != NULL)
        return 0;
    bridge_clear(bridge);
    return -1;
}

void bridge_clear(struct bridge *bridge)
{
    for (int side = 0; side < 2; side++) {
        if (bridge->end[side].out != NULL)
            evbuffer_free(bridge->end[side].out);
        bridge->end[side].out = NULL;
    }
}

void bridge_reset(struct bridge *bridge)
{
    for (int side = 0; side < 2; side++) {
        struct bridge_end *end = &bridge->end[side];
        discard_out(end);
        *end = (struct bridge_end){ .out = end->out };
    }
}

/* Nothing can be delivered to this end any more. */
static bool is_deaf(const struct bridge_end *end)
{
    return end->received == BRIDGE_CLOSED || end->sent == BRIDGE_CLOSED;
}

/* Puts bytes from `side` on their way; drops them if the other end is deaf. Returns len, or 0 when
 * out of memory. */
static size_t take(struct bridge *bridge, enum bridge_side side, const void *data, size_t len)
{
    struct bridge_end *to = &bridge->end[other(side)];
    if (len == 0)
        return 0;
    if (!is_deaf(to) && evbuffer_add(to->out, data, len) != 0)
        return 0;
    bridge->end[side].bytes += len;
    return len;
}

size_t bridge_receive(struct bridge *bridge, enum bridge_side side, const void *data, size_t len)
{
    struct bridge_end *from = &bridge->end[side];
    size_t queued = queued_to(bridge, other(side));

    /* Behind our CLOSE nothing may be consumed: a window adjust would follow it. While something is
     * held, only draining takes, or one late packet would hand over libssh's whole backlog. */
    if (from->sent == BRIDGE_CLOSED || from->held > 0) {
        from->held = from->sent == BRIDGE_CLOSED ? 0 : len;
        return 0;
    }
    /* Data behind an EOF breaks RFC 4254, 5.3: it is dropped. */
    if (from->received != BRIDGE_FLOWING)
        return len;
    if (queued >= bridge->queue_max) {
        from->held = len;
        return 0;
    }
    size_t room = bridge->queue_max - queued;
    size_t taken = take(bridge, side, data, len < room ? len : room);
    from->held = len - taken;
    return taken;
}

int bridge_introduce(struct bridge *bridge, enum bridge_side side, const void *data, size_t len)
{
    assert(bridge->end[side].bytes == 0 && bridge->end[side].received == BRIDGE_FLOWING);
    return evbuffer_add(bridge->end[other(side)].out, data, len);
}

void bridge_receive_eof(struct bridge *bridge, enum bridge_side side)
{
    struct bridge_end *end = &bridge->end[side];
    if (end->received == BRIDGE_FLOWING)
        end->received = BRIDGE_ENDED;
}

void bridge_receive_close(struct bridge *bridge, enum bridge_side side)
{
    bridge->end[side].received = BRIDGE_CLOSED;
    discard_out(&bridge->end[side]);
}

void bridge_lose(struct bridge *bridge, enum bridge_side side)
{
    bridge_receive_close(bridge, side);
    bridge->end[side].held = 0;
    bridge->end[side].sent = BRIDGE_CLOSED;
}

/* All that ever came from `side` has been delivered to the other end, or never can be. */
static bool is_delivered(const struct bridge *bridge, enum bridge_side side)
{
    const struct bridge_end *from = &bridge->end[side], *to = &bridge->end[other(side)];
    if (is_deaf(to))
        return true;
    return from->received != BRIDGE_FLOWING && from->held == 0 && queued_to(bridge, other(side)) == 0 &&
           to->sent != BRIDGE_FLOWING;
}

enum bridge_action bridge_next(const struct bridge *bridge, enum bridge_side side)
{
    const struct bridge_end *end = &bridge->end[side], *peer = &bridge->end[other(side)];

    if (end->sent == BRIDGE_CLOSED)
        return BRIDGE_WAIT;
    if (end->held > 0 && (is_deaf(peer) || queued_to(bridge, other(side)) < bridge->queue_max / 4))
        return BRIDGE_DRAIN;
    if (end->received != BRIDGE_CLOSED && evbuffer_get_length(end->out) > 0)
        return BRIDGE_WRITE;
    if (end->received != BRIDGE_CLOSED && end->sent == BRIDGE_FLOWING && peer->received != BRIDGE_FLOWING &&
        peer->held == 0)
        return BRIDGE_EOF;
    if (end->held > 0)
        return BRIDGE_WAIT;
    if (end->received == BRIDGE_CLOSED)
        return BRIDGE_CLOSE;
    return is_delivered(bridge, side) && is_delivered(bridge, other(side)) ? BRIDGE_CLOSE : BRIDGE_WAIT;
}

size_t bridge_room(const struct bridge *bridge, enum bridge_side side)
{
    size_t queued = queued_to(bridge, other(side));
    if (is_deaf(&bridge->end[other(side)]))
        return SIZE_MAX; /* it is dropped */
    return queued < bridge->queue_max ? bridge->queue_max - queued : 0;
}

void bridge_wrote(struct bridge *bridge, enum bridge_side side, size_t len)
{
    evbuffer_drain(bridge->end[side].out, len);
}

int bridge_drained(struct bridge *bridge, enum bridge_side side, const void *data, size_t len)
{
    struct bridge_end *end = &bridge->end[side];
    end->held = len > 0 && len < end->held ? end->held - len : 0;
    return take(bridge, side, data, len) == len ? 0 : -1;
}

void bridge_sent_eof(struct bridge *bridge, enum bridge_side side)
{
    assert(bridge->end[side].sent == BRIDGE_FLOWING);
    bridge->end[side].sent = BRIDGE_ENDED;
}

void bridge_sent_close(struct bridge *bridge, enum bridge_side side)
{
    struct bridge_end *end = &bridge->end[side];
    end->sent = BRIDGE_CLOSED;
    end->held = 0;
    discard_out(end);
}

bool bridge_over(const struct bridge *bridge)
{
    return bridge->end[BRIDGE_CLIENT].sent == BRIDGE_CLOSED &&
           bridge->end[BRIDGE_DEVICE].sent == BRIDGE_CLOSED;
}

size_t bridge_waiting(const struct bridge *bridge)
{
    return queued_to(bridge, BRIDGE_CLIENT) + queued_to(bridge, BRIDGE_DEVICE) +
           bridge->end[BRIDGE_CLIENT].held + bridge->end[BRIDGE_DEVICE].held;
}
