#include "relayd/audit.h"

#include "relayd/limits.h"
#include "relayd/metrics.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct audit_row *taken;

static void free_taken(void)
{
    while (taken != NULL) {
        struct audit_row *row = taken;
        taken = row->next;
        free(row);
    }
}

/* Takes all that waits; returns how many rows that are. */
static unsigned take(void)
{
    unsigned n = 0;
    free_taken();
    taken = audit_take();
    for (const struct audit_row *row = taken; row != NULL; row = row->next)
        n++;
    return n;
}

/* Events that were taken, of a tenant and a kind. */
static uint64_t events_of(int64_t tenant_id, enum event_kind kind)
{
    uint64_t n = 0;
    for (const struct audit_row *row = taken; row != NULL; row = row->next)
        if (row->event.tenant_id == tenant_id && row->event.kind == kind)
            n += row->count;
    return n;
}

static void stop(void)
{
    free_taken();
    audit_stop();
}

/* Waits for a new second, so that what follows falls into one. */
static void new_second(void)
{
    const struct timespec ms = { .tv_nsec = 1000000 };
    time_t now = time(NULL);
    while (time(NULL) == now)
        nanosleep(&ms, NULL);
}

static const struct audit_event template = { .kind = EVENT_connect,
                                             .tenant_id = 7,
                                             .tenant = "acme",
                                             .principal_id = 70,
                                             .principal = "alice",
                                             .address = "192.0.2.1",
                                             .object = "raspi:22",
                                             .peer = "raspi" };

TestSuite(audit, .fini = stop);

Test(audit, an_event_is_taken_once_with_all_that_it_says)
{
    struct audit_event event = template;
    event.reason = REASON_not_reachable;
    event.cause = REASON_no_rule;
    event.bytes_up = 1;
    event.bytes_down = 2;
    event.duration = 3;
    int64_t before = time(NULL);
    audit(&event);
    cr_assert_eq(take(), 1);
    cr_expect_eq(taken->count, 1);
    cr_expect(taken->time >= before && taken->time <= time(NULL));
    cr_expect_eq(taken->event.kind, EVENT_connect);
    cr_expect_eq(taken->event.reason, REASON_not_reachable);
    cr_expect_eq(taken->event.cause, REASON_no_rule);
    cr_expect_eq(taken->event.tenant_id, 7);
    cr_expect_eq(taken->event.principal_id, 70);
    cr_expect_str_eq(taken->event.tenant, "acme");
    cr_expect_str_eq(taken->event.principal, "alice");
    cr_expect_str_eq(taken->event.address, "192.0.2.1");
    cr_expect_str_eq(taken->event.object, "raspi:22");
    cr_expect_str_eq(taken->event.peer, "raspi");
    cr_expect_eq(taken->event.bytes_up, 1);
    cr_expect_eq(taken->event.bytes_down, 2);
    cr_expect_eq(taken->event.duration, 3);
    cr_expect_eq(take(), 0);
}

Test(audit, equal_events_of_one_second_become_one_row_and_add_up)
{
    struct audit_event event = template;
    new_second();
    for (unsigned i = 1; i <= 10; i++) {
        event.bytes_up = i;
        event.bytes_down = 2 * i;
        event.duration = 3 * i;
        audit(&event);
    }
    cr_assert_eq(take(), 1);
    cr_expect_eq(taken->count, 10);
    cr_expect_eq(taken->event.bytes_up, 55);
    cr_expect_eq(taken->event.bytes_down, 110);
    cr_expect_eq(taken->event.duration, 165);
}

Test(audit, what_differs_in_anything_is_a_row_of_its_own)
{
    struct audit_event events[9];
    for (unsigned i = 0; i < 9; i++)
        events[i] = template;
    events[1].kind = EVENT_bridge_closed;
    events[2].reason = REASON_offline;
    events[3].cause = REASON_offline;
    events[4].principal_id = 71;
    events[5].tenant_id = 8;
    events[6].object = "raspi:2";
    events[7].address = "192.0.2.2";
    events[8].peer = "";
    new_second();
    for (unsigned i = 0; i < 9; i++)
        audit(&events[i]);
    cr_expect_eq(take(), 9);
    new_second();
    audit(&template);
    new_second();
    audit(&template);
    cr_expect_eq(take(), 2, "of two seconds");
    cr_expect_eq(taken->time + 1, taken->next->time, "the oldest comes first");
}

Test(audit, texts_leave_as_plain_ones_and_null_as_none)
{
    char longest[2000];
    memset(longest, '\x1b', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    struct audit_event event = {
        .kind = EVENT_exec, .tenant_id = 7, .object = "a\x1b[2J\xc3\xa4", .peer = longest
    };
    audit(&event);
    cr_assert_eq(take(), 1);
    cr_expect_str_eq(taken->event.object, "a\\x1b[2J\\xc3\\xa4");
    cr_expect_str_eq(taken->event.principal, "");
    cr_expect_lt(strlen(taken->event.peer), 600);
    cr_expect_eq(strncmp(taken->event.peer, "\\x1b\\x1b", 8), 0);
}

/* Each with an object of its own. */
static void flood(struct audit_event event, unsigned n)
{
    char object[32];
    event.object = object;
    for (unsigned i = 0; i < n; i++) {
        snprintf(object, sizeof(object), "x%u:1", i);
        audit(&event);
    }
}

Test(audit, one_principal_has_a_bounded_number_of_rows_and_all_is_still_counted)
{
    struct audit_event event = template, other = template;
    other.principal_id = 71;
    new_second();
    flood(event, 5000);
    audit(&other);
    /* Whoever has crossed into the next second on the way has the same again. */
    unsigned rows = take();
    cr_expect_leq(rows, 2 * LIMIT_EVENTS_OF_ONE + 3, "%u rows", rows);
    cr_expect_geq(rows, LIMIT_EVENTS_OF_ONE + 2, "%u rows", rows);
    cr_expect_eq(events_of(7, EVENT_connect), 5001);
    const struct audit_row *last = taken;
    while (last->next != NULL)
        last = last->next;
    cr_expect_eq(last->event.principal_id, 71);
    cr_expect_str_eq(last->event.object, "raspi:22", "another one's events are told whole");
}

Test(audit, who_takes_often_does_not_give_anybody_more)
{
    unsigned rows = 0;
    new_second();
    for (unsigned i = 0; i < 50; i++) {
        flood(template, 100);
        rows += take();
    }
    /* A folded one for each time, and all of it again if the second has passed. */
    cr_expect_leq(rows, 2 * LIMIT_EVENTS_OF_ONE + 52, "%u rows", rows);
}

Test(audit, strangers_are_bounded_as_one)
{
    struct audit_event event = { .kind = EVENT_login,
                                 .tenant_id = AUDIT_STRANGERS,
                                 .reason = REASON_unknown_key };
    flood(event, 5000);
    cr_expect_leq(take(), 2 * LIMIT_EVENTS_OF_ONE + 2);
    cr_expect_eq(events_of(AUDIT_STRANGERS, EVENT_login), 5000);
}

Test(audit, what_the_relays_administrators_do_is_never_folded_but_a_tenants_are_like_anybody)
{
    struct audit_event event = template;
    event.kind = EVENT_command;
    flood(event, 1000);
    cr_expect_leq(take(), 2 * LIMIT_EVENTS_OF_ONE + 2);
    event.principal_id = 0;
    flood(event, 1000);
    cr_expect_eq(take(), 1000);
}

/* As many principals as it takes. */
static void flood_tenant(int64_t tenant_id, unsigned n)
{
    struct audit_event event = template;
    event.tenant_id = tenant_id;
    for (unsigned i = 0; i < n; i++) {
        event.principal_id = 1000 + i;
        audit(&event);
    }
}

Test(audit, a_tenant_takes_no_more_than_it_leaves_and_what_it_loses_is_recorded)
{
    uint64_t dropped = metrics_value(METRIC_events_dropped);
    flood_tenant(7, 2 * LIMIT_EVENTS);
    flood_tenant(8, 1000);
    struct audit_event command = {
        .kind = EVENT_command, .tenant_id = 7, .tenant = "acme", .object = "allow x y"
    };
    audit(&command);
    cr_assert_eq(audit_waiting(), LIMIT_EVENTS / 2 + 1000 + 1);
    cr_expect_eq(take(), LIMIT_EVENTS / 2 + 1000 + 2);
    cr_expect_eq(events_of(8, EVENT_connect), 1000, "its neighbour's are all there");
    cr_expect_eq(events_of(8, EVENT_events_dropped), 0);
    cr_expect_eq(events_of(7, EVENT_command), 1);
    cr_expect_eq(events_of(7, EVENT_connect) + events_of(7, EVENT_events_dropped), 2 * LIMIT_EVENTS);
    cr_expect_eq(metrics_value(METRIC_events_dropped) - dropped, events_of(7, EVENT_events_dropped));
    flood_tenant(7, 10);
    cr_expect_eq(take(), 10, "there is room again");
}

Test(audit, the_descriptor_tells_of_the_first_event)
{
    cr_assert_eq(audit_start(), 0);
    struct pollfd pollfd = { .fd = audit_fd(), .events = POLLIN };
    cr_expect_eq(poll(&pollfd, 1, 0), 0);
    audit(&template);
    audit(&template);
    cr_expect_eq(poll(&pollfd, 1, 0), 1);
    take();
    cr_expect_eq(poll(&pollfd, 1, 0), 0);
    audit(&template);
    cr_expect_eq(poll(&pollfd, 1, 0), 1);
}

#define THREADS 4
#define EACH 20000

static void *talk(void *arg)
{
    struct audit_event event = template;
    event.tenant_id = *(int64_t *)arg;
    for (unsigned i = 0; i < EACH; i++) {
        event.principal_id = i % 500;
        audit(&event);
    }
    return NULL;
}

Test(audit, nothing_is_lost_between_threads)
{
    pthread_t threads[THREADS];
    int64_t ids[THREADS];
    uint64_t met[THREADS] = { 0 };
    for (unsigned i = 0; i < THREADS; i++) {
        ids[i] = i + 1;
        cr_assert_eq(pthread_create(&threads[i], NULL, talk, &ids[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned turn = 0; turn < 20; turn++) {
            take();
            for (unsigned t = 0; t < THREADS; t++)
                met[t] += events_of(ids[t], EVENT_connect);
        }
        pthread_join(threads[i], NULL);
    }
    take();
    for (unsigned t = 0; t < THREADS; t++)
        cr_expect_eq(met[t] + events_of(ids[t], EVENT_connect), EACH);
}
