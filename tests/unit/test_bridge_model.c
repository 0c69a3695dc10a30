/* A bridge between two model ends, driven at random from fixed seeds: each end plays a peer with its
 * stream of bytes and libssh with what it holds. Every action that the bridge asks for is checked
 * against the rules of RFC 4254, 5.3 and of bridge.h, and every byte against the stream. */
#include "relayd/bridge.h"

#include "support.h"

#include <criterion/criterion.h>
#include <string.h>

#define RUNS 400
#define STREAM_MAX (3u * 1024 * 1024)
#define CHUNK_MAX 65536u

struct end {
    /* The peer's sending side. */
    size_t total, sent; /* bytes of its stream; 0..sent are with libssh or further */
    bool eof, closed;
    /* libssh's buffer: bytes taken..sent of the stream. */
    size_t taken;
    bool lost;
    /* The peer's receiving side. */
    size_t got; /* bytes of the other end's stream */
    bool got_eof, got_close;
};

static struct bridge bridge;
static struct end ends[2];
static uint64_t seed;
static unsigned char chunk[STREAM_MAX];

static unsigned char stream_byte(int side, size_t at)
{
    return (unsigned char)((at * 2654435761u >> 13) + at + (size_t)side * 101);
}

static size_t random_below(size_t limit)
{
    return random_next(&seed) % limit;
}

static void fill(int side, size_t at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        chunk[i] = stream_byte(side, at + i);
}

/* Once a peer has sent CLOSE, or was sent one, or has lost its session, no byte need reach it. */
static bool is_deaf(const struct end *end)
{
    return end->closed || end->got_close || end->lost;
}

/* ---- What peers do ---- */

/* A peer that has not seen our CLOSE yet: nothing of that may be consumed. */
static void peer_sends_in_vain(int side)
{
    size_t len = 1 + random_below(CHUNK_MAX);
    cr_assert_eq(bridge_receive(&bridge, (enum bridge_side)side, chunk, len), 0, "consumed behind our CLOSE");
}

static void peer_sends(int side)
{
    struct end *end = &ends[side];
    if (end->eof || end->closed || end->lost || end->sent == end->total)
        return;
    if (end->got_close) {
        peer_sends_in_vain(side);
        return;
    }
    size_t len = 1 + random_below(CHUNK_MAX), left = end->total - end->sent;
    end->sent += len < left ? len : left;
    size_t holds = end->sent - end->taken;
    fill(side, end->taken, holds);
    size_t taken = bridge_receive(&bridge, (enum bridge_side)side, chunk, holds);
    cr_assert_leq(taken, holds);
    end->taken += taken;
    cr_assert_eq(bridge.end[side].held, holds - taken, "the bridge and libssh disagree");
}

static void peer_ends(int side, bool early)
{
    struct end *end = &ends[side];
    if (end->eof || end->closed || (!early && end->sent < end->total))
        return;
    end->total = end->sent;
    end->eof = true;
    bridge_receive_eof(&bridge, (enum bridge_side)side);
}

static void peer_closes(int side)
{
    if (ends[side].closed)
        return;
    ends[side].total = ends[side].sent;
    ends[side].closed = true;
    bridge_receive_close(&bridge, (enum bridge_side)side);
}

static void session_dies(int side)
{
    if (ends[side].lost)
        return;
    /* What libssh holds dies with it. */
    ends[side].total = ends[side].sent = ends[side].taken;
    ends[side].lost = true;
    bridge_lose(&bridge, (enum bridge_side)side);
}

/* ---- What the caller does ---- */

static void do_write(int side)
{
    struct end *end = &ends[side];
    struct evbuffer *out = bridge.end[side].out;
    size_t queued = evbuffer_get_length(out), len = 1 + random_below(CHUNK_MAX);
    len = len < queued ? len : queued;
    cr_assert_gt(queued, 0, "a write of nothing");
    cr_assert_not(is_deaf(end), "a write to a deaf end");
    cr_assert_not(end->got_eof, "data behind our EOF");
    cr_assert_eq(evbuffer_copyout(out, chunk, len), (ev_ssize_t)len);
    for (size_t i = 0; i < len; i++)
        cr_assert_eq(chunk[i], stream_byte(!side, end->got + i), "byte %zu is wrong", end->got + i);
    end->got += len;
    bridge_wrote(&bridge, (enum bridge_side)side, len);
}

static void do_drain(int side)
{
    struct end *end = &ends[side];
    size_t holds = end->sent - end->taken, len = 1 + random_below(CHUNK_MAX);
    size_t room = bridge_room(&bridge, (enum bridge_side)side);
    len = len < holds ? len : holds;
    len = len < room ? len : room;
    cr_assert_gt(room, 0, "a drain without room");
    cr_assert_gt(holds, 0, "a drain of nothing");
    cr_assert_not(end->got_close || end->lost, "a drain behind our CLOSE");
    cr_assert(is_deaf(&ends[!side]) || evbuffer_get_length(bridge.end[!side].out) < bridge.queue_max / 4);
    fill(side, end->taken, len);
    end->taken += len;
    cr_assert_eq(bridge_drained(&bridge, (enum bridge_side)side, chunk, len), 0);
}

static void do_eof(int side)
{
    struct end *end = &ends[side];
    const struct end *other = &ends[!side];
    cr_assert_not(is_deaf(end), "an EOF to a deaf end");
    cr_assert_not(end->got_eof, "a second EOF");
    cr_assert(other->eof || other->closed || other->lost, "an EOF that nobody sent");
    cr_assert_eq(end->got, other->sent, "an EOF before %zu bytes", other->sent - end->got);
    end->got_eof = true;
    bridge_sent_eof(&bridge, (enum bridge_side)side);
}

static void do_close(int side)
{
    struct end *end = &ends[side];
    const struct end *other = &ends[!side];
    cr_assert_not(end->got_close || end->lost, "a second CLOSE");
    if (!end->closed) {
        cr_assert(end->got_eof, "a CLOSE without an EOF");
        cr_assert(end->eof || is_deaf(other), "a CLOSE to a peer that still speaks to somebody");
    }
    cr_assert(is_deaf(other) || end->taken == end->sent, "held bytes are lost by our CLOSE");
    end->got_close = true;
    bridge_sent_close(&bridge, (enum bridge_side)side);
}

/* One action at one end; false if there was none. */
static bool serve(int side)
{
    bridge.queue_max = random_below(3) > 0 ? BRIDGE_QUEUE_MAX
                                           : BRIDGE_QUEUE_MIN + random_below(BRIDGE_QUEUE_MAX / 8);
    switch (bridge_next(&bridge, (enum bridge_side)side)) {
    case BRIDGE_WRITE:
        do_write(side);
        return true;
    case BRIDGE_DRAIN:
        do_drain(side);
        return true;
    case BRIDGE_EOF:
        do_eof(side);
        return true;
    case BRIDGE_CLOSE:
        do_close(side);
        return true;
    case BRIDGE_WAIT:
        break;
    }
    return false;
}

static void check_bounds(void)
{
    for (int side = 0; side < 2; side++)
        cr_assert_leq(evbuffer_get_length(bridge.end[side].out), BRIDGE_QUEUE_MAX);
    cr_assert_eq(bridge_over(&bridge),
                 (ends[0].got_close || ends[0].lost) && (ends[1].got_close || ends[1].lost));
}

static void settle(void)
{
    while (serve(0) || serve(1))
        check_bounds();
}

/* ---- The runs ---- */

static void begin(uint64_t run, size_t max)
{
    seed = run;
    for (int i = 0; i < 10; i++)
        random_next(&seed);
    memset(ends, 0, sizeof(ends));
    for (int side = 0; side < 2; side++)
        ends[side].total = random_below(max);
    cr_assert_eq(bridge_init(&bridge), 0);
}

/* Both peers say all they have and then EOF; how they are served varies. */
static void run_to_the_end(unsigned speaks, unsigned serves)
{
    while (!ends[0].eof || !ends[1].eof) {
        int side = (int)random_below(2);
        if (random_below(10) < speaks) {
            peer_sends(side);
            peer_ends(side, false);
        }
        if (random_below(10) < serves)
            serve((int)random_below(2));
        check_bounds();
    }
    settle();
    for (int side = 0; side < 2; side++) {
        cr_assert_eq(ends[side].got, ends[!side].total, "end %d lacks bytes", side);
        cr_assert(ends[side].got_eof && ends[side].got_close, "end %d is not ended", side);
        cr_assert_eq(bridge.end[side].bytes, ends[side].total);
    }
    cr_assert(bridge_over(&bridge));
}

Test(bridge_model, every_byte_arrives_in_order, .timeout = 120)
{
    for (uint64_t run = 1; run <= 12; run++) {
        begin(run, STREAM_MAX);
        run_to_the_end(1 + (unsigned)run % 9, 10 - (unsigned)run % 9);
        bridge_clear(&bridge);
    }
}

Test(bridge_model, short_streams, .timeout = 120)
{
    for (uint64_t run = 1; run <= RUNS; run++) {
        begin(run, 3);
        run_to_the_end(5, 5);
        bridge_clear(&bridge);
    }
}

/* Peers end, close and die whenever they like; whoever still listens gets all that was taken. */
static void run_wildly(void)
{
    size_t steps = 20 + random_below(300);
    unsigned wild = (unsigned)random_below(40) + 5;
    for (size_t i = 0; i < steps; i++) {
        int side = (int)random_below(2);
        switch (random_below(wild)) {
        case 0:
            peer_ends(side, true);
            break;
        case 1:
            peer_closes(side);
            break;
        case 2:
            if (random_below(3) == 0)
                session_dies(side);
            break;
        default:
            if (random_below(2) == 0)
                peer_sends(side);
            else
                serve(side);
        }
        check_bounds();
    }
}

static void check_who_still_listens(void)
{
    for (int side = 0; side < 2; side++) {
        const struct end *end = &ends[side], *other = &ends[!side];
        if (end->closed || end->lost)
            continue;
        cr_assert(end->got_close || !(other->eof || other->closed || other->lost) || !end->eof,
                  "end %d is for ever open", side);
        if (other->eof || other->closed || other->lost) {
            cr_assert(end->got_eof, "end %d has no EOF", side);
            cr_assert_eq(end->got, other->total, "end %d lacks bytes", side);
        }
        if (other->closed || other->lost)
            cr_assert(end->got_close, "end %d has no CLOSE", side);
    }
}

Test(bridge_model, wild_ends, .timeout = 120)
{
    for (uint64_t run = 1; run <= RUNS; run++) {
        begin(run, STREAM_MAX);
        run_wildly();
        settle();
        check_who_still_listens();
        peer_closes(0);
        settle();
        peer_closes(1);
        settle();
        cr_assert(bridge_over(&bridge), "run %llu", (unsigned long long)run);
        cr_assert_eq(bridge_waiting(&bridge), 0);
        bridge_clear(&bridge);
    }
}
