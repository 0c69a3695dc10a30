#include "relayd/bridge.h"

#include <criterion/criterion.h>

#define MAX ((size_t)BRIDGE_QUEUE_MAX)
#define LOW (MAX / 4)
#define CLIENT BRIDGE_CLIENT
#define DEVICE BRIDGE_DEVICE

static struct bridge bridge;
static char bytes[4 * BRIDGE_QUEUE_MAX];

static void make(void)
{
    cr_assert_eq(bridge_init(&bridge), 0);
}

static void unmake(void)
{
    bridge_clear(&bridge);
}

TestSuite(bridge, .init = make, .fini = unmake);

static size_t receive(enum bridge_side side, size_t len)
{
    return bridge_receive(&bridge, side, bytes, len);
}

static size_t queued(enum bridge_side side)
{
    return evbuffer_get_length(bridge.end[side].out);
}

static void drain(enum bridge_side side, size_t len)
{
    cr_assert_eq(bridge_next(&bridge, side), BRIDGE_DRAIN);
    cr_assert_eq(bridge_drained(&bridge, side, bytes, len), 0);
}

static void write_all(enum bridge_side side)
{
    cr_assert_eq(bridge_next(&bridge, side), BRIDGE_WRITE);
    bridge_wrote(&bridge, side, queued(side));
}

static void send_eof(enum bridge_side side)
{
    cr_assert_eq(bridge_next(&bridge, side), BRIDGE_EOF);
    bridge_sent_eof(&bridge, side);
}

static void send_close(enum bridge_side side)
{
    cr_assert_eq(bridge_next(&bridge, side), BRIDGE_CLOSE);
    bridge_sent_close(&bridge, side);
}

#define expect_next(side, action)                                                                            \
    cr_expect_eq(bridge_next(&bridge, side), action, "not " #action " at " #side)

/* ---- What the relay says itself ---- */

Test(bridge, an_introduction_comes_first_and_counts_as_held)
{
    char front[8];
    cr_assert_eq(bridge_introduce(&bridge, CLIENT, "hello", 5), 0);
    cr_expect_eq(bridge_waiting(&bridge), 5);
    cr_expect_eq(bridge.end[CLIENT].bytes, 0, "the client has not said it");
    cr_expect_eq(receive(CLIENT, MAX), MAX - 5);
    cr_expect_eq(evbuffer_copyout(bridge.end[DEVICE].out, front, 5), 5);
    cr_expect_arr_eq(front, "hello", 5);
    expect_next(DEVICE, BRIDGE_WRITE);
    expect_next(CLIENT, BRIDGE_WAIT);
}

Test(bridge, an_introduction_is_delivered_when_the_client_leaves_at_once)
{
    cr_assert_eq(bridge_introduce(&bridge, CLIENT, "hello", 5), 0);
    bridge_receive_close(&bridge, CLIENT);
    cr_expect_eq(queued(DEVICE), 5);
    write_all(DEVICE);
    send_eof(DEVICE);
}

/* ---- Back-pressure ---- */

Test(bridge, starts_with_nothing_to_do)
{
    expect_next(CLIENT, BRIDGE_WAIT);
    expect_next(DEVICE, BRIDGE_WAIT);
    cr_expect_eq(queued(CLIENT) + queued(DEVICE), 0);
    cr_expect_not(bridge_over(&bridge));
}

Test(bridge, takes_512_kib_and_not_a_byte_more)
{
    cr_assert_eq(MAX, 524288);
    cr_expect_eq(receive(CLIENT, MAX - 1), MAX - 1);
    cr_expect_eq(receive(CLIENT, 2), 1);
    cr_expect_eq(bridge.end[CLIENT].held, 1);
    cr_expect_eq(queued(DEVICE), MAX);
    cr_expect_eq(bridge.end[CLIENT].bytes, MAX);
}

Test(bridge, what_waits_is_here_and_in_libssh)
{
    receive(CLIENT, MAX + 5);
    receive(DEVICE, 7);
    cr_expect_eq(bridge_waiting(&bridge), MAX + 12);
    write_all(DEVICE);
    cr_expect_eq(bridge_waiting(&bridge), 12);
    bridge_lose(&bridge, CLIENT);
    cr_expect_eq(bridge_waiting(&bridge), 0);
}

Test(bridge, with_little_room_it_takes_little_at_a_time_and_moves_on)
{
    bridge.queue_max = BRIDGE_QUEUE_MIN;
    cr_expect_eq(receive(CLIENT, 100000), BRIDGE_QUEUE_MIN);
    cr_expect_eq(bridge_room(&bridge, CLIENT), 0);
    expect_next(CLIENT, BRIDGE_WAIT);
    while (bridge.end[CLIENT].held > 0) {
        write_all(DEVICE);
        size_t room = bridge_room(&bridge, CLIENT);
        cr_assert_eq(room, BRIDGE_QUEUE_MIN);
        drain(CLIENT, bridge.end[CLIENT].held < room ? bridge.end[CLIENT].held : room);
        cr_expect_leq(queued(DEVICE), BRIDGE_QUEUE_MIN);
    }
    cr_expect_eq(bridge.end[CLIENT].bytes, 100000);
}

/* It may find more queued than it may now: that goes first. */
Test(bridge, less_room_than_is_taken_already)
{
    receive(CLIENT, MAX + 10);
    bridge.queue_max = BRIDGE_QUEUE_MIN;
    cr_expect_eq(bridge_room(&bridge, CLIENT), 0);
    bridge_wrote(&bridge, DEVICE, MAX - BRIDGE_QUEUE_MIN / 4);
    expect_next(CLIENT, BRIDGE_WAIT);
    bridge_wrote(&bridge, DEVICE, 1);
    expect_next(CLIENT, BRIDGE_DRAIN);
    bridge_lose(&bridge, DEVICE);
    cr_expect_eq(bridge_room(&bridge, CLIENT), SIZE_MAX, "for nobody");
}

Test(bridge, takes_what_fits_of_one_large_piece)
{
    cr_expect_eq(receive(DEVICE, MAX + 5), MAX);
    cr_expect_eq(bridge.end[DEVICE].held, 5);
    cr_expect_eq(receive(DEVICE, 7), 0);
    cr_expect_eq(bridge.end[DEVICE].held, 7);
}

Test(bridge, directions_do_not_share_room)
{
    cr_expect_eq(receive(CLIENT, MAX + 1), MAX);
    cr_expect_eq(receive(DEVICE, MAX + 1), MAX);
    cr_expect_eq(queued(CLIENT) + queued(DEVICE), 2 * MAX);
}

Test(bridge, drains_when_the_queue_is_below_128_kib)
{
    cr_assert_eq(LOW, 131072);
    receive(CLIENT, MAX + 10);
    expect_next(CLIENT, BRIDGE_WAIT);
    bridge_wrote(&bridge, DEVICE, MAX - LOW);
    cr_expect_eq(queued(DEVICE), LOW);
    expect_next(CLIENT, BRIDGE_WAIT);
    bridge_wrote(&bridge, DEVICE, 1);
    expect_next(CLIENT, BRIDGE_DRAIN);
    expect_next(DEVICE, BRIDGE_WRITE);
}

Test(bridge, what_is_held_comes_by_draining_alone)
{
    receive(CLIENT, MAX + 10);
    write_all(DEVICE);
    cr_expect_eq(receive(CLIENT, 30), 0, "libssh's backlog was handed over");
    cr_expect_eq(bridge.end[CLIENT].held, 30);
    drain(CLIENT, 10);
    cr_expect_eq(bridge.end[CLIENT].held, 20);
    cr_expect_eq(queued(DEVICE), 10);
    drain(CLIENT, 20);
    expect_next(CLIENT, BRIDGE_WAIT);
    cr_expect_eq(receive(CLIENT, 5), 5);
    cr_expect_eq(bridge.end[CLIENT].bytes, MAX + 35);
}

Test(bridge, drains_in_steps_as_long_as_there_is_room)
{
    receive(CLIENT, 2 * MAX);
    write_all(DEVICE);
    drain(CLIENT, LOW - 1);
    drain(CLIENT, 1);
    expect_next(CLIENT, BRIDGE_WAIT);
    cr_expect_eq(bridge.end[CLIENT].held, MAX - LOW);
    bridge_wrote(&bridge, DEVICE, 1);
    expect_next(CLIENT, BRIDGE_DRAIN);
}

Test(bridge, a_drain_that_finds_nothing_is_the_end_of_it)
{
    receive(CLIENT, MAX + 10);
    write_all(DEVICE);
    drain(CLIENT, 0);
    cr_expect_eq(bridge.end[CLIENT].held, 0);
    cr_expect_eq(queued(DEVICE), 0);
    expect_next(CLIENT, BRIDGE_WAIT);
}

Test(bridge, a_drain_that_finds_more_takes_it)
{
    receive(CLIENT, MAX + 10);
    write_all(DEVICE);
    drain(CLIENT, 15);
    cr_expect_eq(bridge.end[CLIENT].held, 0);
    cr_expect_eq(queued(DEVICE), 15);
}

Test(bridge, a_drain_beyond_the_cap_stops_what_comes)
{
    receive(CLIENT, MAX + 10);
    write_all(DEVICE);
    drain(CLIENT, 2 * MAX);
    expect_next(CLIENT, BRIDGE_WAIT);
    cr_expect_eq(receive(CLIENT, 5), 0);
    cr_expect_eq(bridge.end[CLIENT].held, 5);
    cr_expect_eq(queued(DEVICE), 2 * MAX);
}

/* ---- The end of a stream ---- */

static void check_half_close(enum bridge_side from, enum bridge_side to)
{
    bridge_receive_eof(&bridge, from);
    expect_next(from, BRIDGE_WAIT);
    send_eof(to);
    expect_next(to, BRIDGE_WAIT);
    expect_next(from, BRIDGE_WAIT);
    cr_expect_eq(receive(to, 100), 100, "the other direction must go on");
    write_all(from);
    expect_next(from, BRIDGE_WAIT);
    bridge_receive_eof(&bridge, to);
    send_eof(from);
    send_close(from);
    cr_expect_not(bridge_over(&bridge));
    send_close(to);
    cr_expect(bridge_over(&bridge));
}

Test(bridge, half_close_by_the_client)
{
    check_half_close(CLIENT, DEVICE);
}

Test(bridge, half_close_by_the_device)
{
    check_half_close(DEVICE, CLIENT);
}

Test(bridge, close_waits_for_both_eofs)
{
    bridge_receive_eof(&bridge, CLIENT);
    bridge_receive_eof(&bridge, DEVICE);
    send_eof(CLIENT);
    expect_next(CLIENT, BRIDGE_WAIT);
    send_eof(DEVICE);
    send_close(CLIENT);
    send_close(DEVICE);
}

Test(bridge, eof_waits_for_what_is_queued_and_held)
{
    receive(CLIENT, MAX + 10);
    bridge_receive_eof(&bridge, CLIENT);
    bridge_wrote(&bridge, DEVICE, MAX - 1);
    expect_next(DEVICE, BRIDGE_WRITE);
    bridge_wrote(&bridge, DEVICE, 1);
    expect_next(DEVICE, BRIDGE_WAIT); /* held bytes first */
    drain(CLIENT, 10);
    write_all(DEVICE);
    send_eof(DEVICE);
    cr_expect_eq(bridge.end[CLIENT].bytes, MAX + 10);
}

Test(bridge, eof_waits_for_a_drain_that_finds_nothing)
{
    receive(CLIENT, MAX + 10);
    bridge_receive_eof(&bridge, CLIENT);
    write_all(DEVICE);
    expect_next(DEVICE, BRIDGE_WAIT);
    drain(CLIENT, 0);
    send_eof(DEVICE);
}

Test(bridge, data_behind_an_eof_is_dropped)
{
    receive(CLIENT, 5);
    bridge_receive_eof(&bridge, CLIENT);
    cr_expect_eq(receive(CLIENT, 100), 100);
    cr_expect_eq(queued(DEVICE), 5);
    cr_expect_eq(bridge.end[CLIENT].bytes, 5);
    write_all(DEVICE);
    send_eof(DEVICE);
    cr_expect_eq(receive(CLIENT, 100), 100);
    expect_next(DEVICE, BRIDGE_WAIT);
}

Test(bridge, an_eof_behind_a_close_changes_nothing)
{
    bridge_receive_close(&bridge, CLIENT);
    bridge_receive_eof(&bridge, CLIENT);
    cr_expect_eq(bridge.end[CLIENT].received, BRIDGE_CLOSED);
    send_close(CLIENT);
}

/* ---- CLOSE ---- */

Test(bridge, close_comes_behind_data_and_eof)
{
    receive(CLIENT, 100);
    bridge_receive_eof(&bridge, CLIENT);
    bridge_receive_close(&bridge, CLIENT);
    send_close(CLIENT);
    write_all(DEVICE);
    send_eof(DEVICE);
    send_close(DEVICE);
    cr_expect(bridge_over(&bridge));
}

Test(bridge, close_with_held_data_loses_nothing)
{
    receive(CLIENT, MAX + 10);
    bridge_receive_close(&bridge, CLIENT);
    expect_next(CLIENT, BRIDGE_WAIT);
    write_all(DEVICE);
    expect_next(DEVICE, BRIDGE_WAIT);
    drain(CLIENT, 10);
    send_close(CLIENT);
    cr_expect_eq(queued(DEVICE), 10);
    write_all(DEVICE);
    send_eof(DEVICE);
    send_close(DEVICE);
}

/* A peer that closed reads no more: what is queued for it goes, its other end is told. */
Test(bridge, close_while_data_for_it_is_queued)
{
    receive(DEVICE, MAX + 10);
    bridge_receive_close(&bridge, CLIENT);
    cr_expect_eq(queued(CLIENT), 0);
    send_close(CLIENT);
    drain(DEVICE, 10);
    cr_expect_eq(queued(CLIENT), 0, "nobody will read that");
    cr_expect_eq(receive(DEVICE, 50), 50);
    cr_expect_eq(queued(CLIENT) + queued(DEVICE), 0);
    send_eof(DEVICE);
    send_close(DEVICE);
    cr_expect(bridge_over(&bridge));
}

Test(bridge, our_close_drops_what_was_queued_there)
{
    receive(DEVICE, 100);
    bridge_receive_eof(&bridge, DEVICE);
    bridge_sent_close(&bridge, CLIENT);
    cr_expect_eq(queued(CLIENT) + queued(DEVICE), 0);
    expect_next(CLIENT, BRIDGE_WAIT);
}

Test(bridge, behind_our_close_nothing_is_consumed)
{
    bridge_receive_close(&bridge, CLIENT);
    send_close(CLIENT);
    send_eof(DEVICE);
    send_close(DEVICE);
    cr_expect_eq(receive(DEVICE, 100), 0);
    cr_expect_eq(receive(DEVICE, 200), 0);
    expect_next(DEVICE, BRIDGE_WAIT);
    cr_expect_eq(bridge.end[DEVICE].bytes, 0);
}

Test(bridge, behind_an_eof_and_our_close_nothing_is_consumed)
{
    bridge_receive_eof(&bridge, CLIENT);
    bridge_receive_eof(&bridge, DEVICE);
    send_eof(CLIENT);
    send_eof(DEVICE);
    send_close(CLIENT);
    cr_expect_eq(receive(CLIENT, 100), 0);
    expect_next(CLIENT, BRIDGE_WAIT);
    send_close(DEVICE);
    cr_expect_eq(receive(DEVICE, 100), 0);
    expect_next(DEVICE, BRIDGE_WAIT);
}

/* ---- Lost sessions ---- */

Test(bridge, a_lost_device_s_last_words_are_delivered)
{
    receive(DEVICE, MAX + 10);
    receive(CLIENT, 100);
    bridge_lose(&bridge, DEVICE);
    expect_next(DEVICE, BRIDGE_WAIT);
    cr_expect_eq(queued(DEVICE), 0);
    cr_expect_not(bridge_over(&bridge));
    cr_expect_eq(queued(CLIENT), MAX);
    write_all(CLIENT);
    send_eof(CLIENT); /* what libssh held went with the session */
    send_close(CLIENT);
    cr_expect(bridge_over(&bridge));
}

Test(bridge, the_other_end_of_a_lost_one_is_drained_and_closed)
{
    receive(CLIENT, MAX + 10);
    bridge_lose(&bridge, DEVICE);
    drain(CLIENT, 10);
    cr_expect_eq(queued(CLIENT) + queued(DEVICE), 0);
    send_eof(CLIENT);
    send_close(CLIENT);
    expect_next(CLIENT, BRIDGE_WAIT);
}

Test(bridge, both_lost)
{
    receive(CLIENT, 10);
    receive(DEVICE, 10);
    bridge_lose(&bridge, CLIENT);
    cr_expect_not(bridge_over(&bridge));
    bridge_lose(&bridge, DEVICE);
    cr_expect(bridge_over(&bridge));
    cr_expect_eq(queued(CLIENT) + queued(DEVICE), 0);
    expect_next(CLIENT, BRIDGE_WAIT);
    expect_next(DEVICE, BRIDGE_WAIT);
}

Test(bridge, lost_after_its_close)
{
    bridge_receive_close(&bridge, CLIENT);
    send_close(CLIENT);
    bridge_lose(&bridge, CLIENT);
    send_eof(DEVICE);
    bridge_lose(&bridge, DEVICE);
    cr_expect(bridge_over(&bridge));
}

Test(bridge, clear_twice)
{
    bridge_clear(&bridge);
}

Test(bridge, reset_forgets_everything)
{
    receive(DEVICE, MAX);
    receive(DEVICE, MAX);
    bridge_receive_eof(&bridge, DEVICE);
    bridge_reset(&bridge);
    cr_expect_eq(bridge_waiting(&bridge), 0);
    cr_expect_eq(bridge.end[DEVICE].bytes, 0);
    expect_next(CLIENT, BRIDGE_WAIT);
    expect_next(DEVICE, BRIDGE_WAIT);
    cr_expect_eq(receive(DEVICE, 10), 10);
    expect_next(CLIENT, BRIDGE_WRITE);
}
