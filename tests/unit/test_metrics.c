#include "relayd/metrics.h"

#include <criterion/criterion.h>
#include <pthread.h>

Test(metrics, each_counter_counts_for_itself)
{
    metrics_add(METRIC_bytes_up, 5);
    metrics_add(METRIC_bytes_up, UINT64_C(1) << 40);
    metrics_add(METRIC_bytes_down, 7);
    cr_expect_eq(metrics_value(METRIC_bytes_up), (UINT64_C(1) << 40) + 5);
    cr_expect_eq(metrics_value(METRIC_bytes_down), 7);
    cr_expect_eq(metrics_value(METRIC_store_errors), 0);
    cr_expect_str_eq(metric_name(METRIC_events_dropped), "events_dropped");
}

Test(metrics, events_are_counted_by_kind_and_reason)
{
    metrics_event(EVENT_login, REASON_none);
    metrics_event(EVENT_login, REASON_unknown_key);
    metrics_event(EVENT_login, REASON_unknown_key);
    metrics_event(EVENT_COUNT - 1, REASON_COUNT - 1);
    cr_expect_eq(metrics_events(EVENT_login, REASON_none), 1);
    cr_expect_eq(metrics_events(EVENT_login, REASON_unknown_key), 2);
    cr_expect_eq(metrics_events(EVENT_connect, REASON_unknown_key), 0);
    cr_expect_eq(metrics_events(EVENT_COUNT - 1, REASON_COUNT - 1), 1);
}

#define THREADS 4
#define EACH 100000

static void *count(void *arg)
{
    for (unsigned i = 0; i < EACH; i++) {
        metrics_add(METRIC_bytes_up, 1);
        metrics_event(EVENT_connect, REASON_none);
    }
    return arg;
}

Test(metrics, no_count_is_lost_between_threads)
{
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, count, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(metrics_value(METRIC_bytes_up), THREADS * EACH);
    cr_expect_eq(metrics_events(EVENT_connect, REASON_none), THREADS * EACH);
}
