#include "relayd/tenant.h"

#include "relayd/audit.h"

#include <criterion/criterion.h>
#include <time.h>

#define SHELLS 100
#define FLOOD (30 * LIMIT_TOLD / SHELLS) /* events */

/* A tenant with a client, and its open shells. */
static struct tenant tenant = { .id = 1, .name = (char[]){ "default" } };
static struct principal client = { .id = 2, .kind = PRINCIPAL_CLIENT, .tenant = &tenant };
static struct follower shells[SHELLS];
static unsigned told, warned;

static void count(struct follower *follower, const struct audit_event *event)
{
    (void)follower;
    told += event != NULL;
    warned += event == NULL;
}

static void open_shells(void)
{
    for (unsigned i = 0; i < SHELLS; i++) {
        shells[i].tell = count;
        tenant_follow(&client, &shells[i]);
    }
}

static void close_shells(void)
{
    for (unsigned i = 0; i < SHELLS; i++)
        tenant_unfollow(&shells[i]);
    audit_stop();
}

TestSuite(tenant, .init = open_shells, .fini = close_shells);

/* The second in which it began. */
static time_t happen(unsigned times)
{
    struct audit_event event = { .kind = EVENT_publish, .principal_id = 3, .object = "web:80" };
    time_t began = time(NULL);
    for (unsigned i = 0; i < times; i++)
        tenant_event(&tenant, &event);
    return began;
}

Test(tenant, tells_its_shells_what_happens)
{
    happen(3);
    cr_expect_eq(told, 3 * SHELLS);
    cr_expect_eq(warned, 0);
}

Test(tenant, tells_no_more_in_a_second_than_the_worker_can_spare)
{
    time_t began = happen(FLOOD);
    unsigned seconds = (unsigned)(time(NULL) - began) + 1;
    cr_expect_geq(told, (unsigned)LIMIT_TOLD);
    cr_expect_leq(told, seconds * LIMIT_TOLD);
    cr_expect_lt(told, (unsigned)(FLOOD * SHELLS));
}

Test(tenant, tells_each_once_that_it_was_not_told_all)
{
    happen(FLOOD);
    warned = told = 0;
    tenant.told_second--; /* the next one */
    happen(2);
    cr_expect_eq(told, 2 * SHELLS);
    cr_expect_eq(warned, SHELLS);
}
