#include "relayd/directory.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* To the directory a session is nothing but an address. */
struct session {
    int unused;
};

static struct session s1, s2, s3;
static struct directory *directory;

static void make(void)
{
    directory = directory_new();
    cr_assert_not_null(directory);
}

static void unmake(void)
{
    directory_free(directory);
}

TestSuite(directory, .init = make, .fini = unmake);

static void set_device(int64_t principal, const char *name)
{
    cr_assert_eq(directory_set_device(directory, principal, name), 0);
}

static void set_owner(const char *name, int64_t principal)
{
    cr_assert_eq(directory_set_owner(directory, name, principal), 0);
}

static void expect_owner(const char *name, int64_t principal, bool own)
{
    bool is_own = !own;
    cr_expect_eq(directory_owner(directory, name, &is_own), principal, "the owner of %s", name);
    cr_expect_eq(is_own, own, "own for %s", name);
}

static struct publication *publish(struct session *session, const char *name, uint16_t port)
{
    struct publication *publication = directory_publish(directory, session, name, port, name);
    cr_assert_not_null(publication);
    return publication;
}

static struct session *serving(const char *name, uint16_t port)
{
    const struct endpoint *endpoint = directory_find(directory, name, port);
    return endpoint != NULL ? endpoint->publications->session : NULL;
}

/* ---- Who owns what ---- */

Test(directory, a_device_owns_its_name_and_all_below)
{
    set_device(7, "raspi");
    expect_owner("raspi", 7, true);
    expect_owner("web.raspi", 7, true);
    expect_owner("a.b.web.raspi", 7, true);
    expect_owner("xraspi", 0, false);
    expect_owner("raspi.web", 0, false);
    expect_owner("web", 0, false);
}

Test(directory, a_device_named_in_two_labels_owns_nothing_above)
{
    set_device(7, "web.acme");
    expect_owner("x.web.acme", 7, true);
    expect_owner("acme", 0, false);
    expect_owner("ftp.acme", 0, false);
}

Test(directory, any_other_name_is_owned_alone)
{
    set_owner("web", 7);
    expect_owner("web", 7, false);
    expect_owner("a.web", 0, false);
    set_owner("web", 8);
    expect_owner("web", 8, false);
    set_owner("web", 0);
    expect_owner("web", 0, false);
    set_owner("web", 0);
    expect_owner("web", 0, false);
}

Test(directory, nobody_is_given_a_device_s_own_name)
{
    set_device(7, "raspi");
    set_owner("raspi", 8);
    expect_owner("raspi", 7, true);
    set_owner("raspi", 0);
    expect_owner("raspi", 7, true);
}

Test(directory, a_new_device_takes_its_name_from_whoever_had_it)
{
    set_owner("raspi", 8);
    set_device(7, "raspi");
    expect_owner("raspi", 7, true);
    expect_owner("a.raspi", 7, true);
}

Test(directory, a_renamed_device_keeps_what_it_owned_elsewhere)
{
    set_device(7, "raspi");
    set_owner("web", 7);
    set_device(7, "pi4");
    expect_owner("raspi", 0, false);
    expect_owner("a.raspi", 0, false);
    expect_owner("pi4", 7, true);
    expect_owner("web", 7, false);
    set_device(7, "pi4");
    expect_owner("pi4", 7, true);
}

Test(directory, a_removed_device_owns_nothing)
{
    set_device(7, "raspi");
    set_device(8, "other");
    set_owner("web", 7);
    set_owner("ftp", 7);
    set_owner("mail", 8);
    set_device(7, NULL);
    expect_owner("raspi", 0, false);
    expect_owner("web", 0, false);
    expect_owner("ftp", 0, false);
    expect_owner("other", 8, true);
    expect_owner("mail", 8, false);
    set_device(7, NULL);
    set_device(9, NULL);
    expect_owner("other", 8, true);
}

Test(directory, names_wander_between_devices)
{
    set_device(1, "a");
    set_device(2, "b");
    set_device(1, "b"); /* the news of 2's new name comes later */
    expect_owner("b", 1, true);
    expect_owner("a", 0, false);
    set_device(2, "a");
    expect_owner("a", 2, true);
    set_device(1, NULL);
    expect_owner("a", 2, true);
    expect_owner("b", 0, false);
}

Test(directory, many_names)
{
    char name[32];
    for (int i = 1; i <= 3000; i++) {
        snprintf(name, sizeof(name), "d%d", i);
        set_device(i, name);
        snprintf(name, sizeof(name), "w%d", i);
        set_owner(name, i);
    }
    for (int i = 1; i <= 3000; i += 2)
        set_device(i, NULL);
    for (int i = 1; i <= 3000; i++) {
        int64_t owner = i % 2 == 0 ? i : 0;
        snprintf(name, sizeof(name), "x.d%d", i);
        expect_owner(name, owner, owner != 0);
        snprintf(name, sizeof(name), "w%d", i);
        expect_owner(name, owner, false);
    }
}

/* ---- Who serves what ---- */

Test(directory, the_newest_serves_and_the_older_stand_by)
{
    struct publication *p1 = publish(&s1, "raspi", 22), *p2 = publish(&s2, "raspi", 22);
    struct publication *p3 = publish(&s3, "raspi", 22);
    cr_expect_eq(directory_count(directory), 1);
    cr_expect_eq(serving("raspi", 22), &s3);
    directory_withdraw(directory, p2);
    cr_expect_eq(serving("raspi", 22), &s3);
    directory_withdraw(directory, p3);
    cr_expect_eq(serving("raspi", 22), &s1);
    directory_withdraw(directory, p1);
    cr_expect_null(directory_find(directory, "raspi", 22));
    cr_expect_eq(directory_count(directory), 0);
    publish(&s2, "raspi", 22);
    cr_expect_eq(serving("raspi", 22), &s2);
}

Test(directory, a_demoted_publication_serves_last)
{
    struct publication *p1 = publish(&s1, "raspi", 22);
    directory_demote(p1);
    cr_expect_eq(serving("raspi", 22), &s1);
    struct publication *p2 = publish(&s2, "raspi", 22), *p3 = publish(&s3, "raspi", 22);
    directory_demote(p3);
    cr_expect_eq(serving("raspi", 22), &s2);
    directory_demote(p2);
    cr_expect_eq(serving("raspi", 22), &s1);
    directory_demote(p1);
    cr_expect_eq(serving("raspi", 22), &s3);
    directory_withdraw(directory, p3);
    directory_withdraw(directory, p2);
    cr_expect_eq(serving("raspi", 22), &s1);
}

Test(directory, endpoints_are_name_and_port)
{
    publish(&s1, "raspi", 22);
    publish(&s2, "raspi", 80);
    publish(&s3, "web.raspi", 22);
    cr_expect_eq(serving("raspi", 22), &s1);
    cr_expect_eq(serving("raspi", 80), &s2);
    cr_expect_eq(serving("web.raspi", 22), &s3);
    cr_expect_null(directory_find(directory, "raspi", 2));
    cr_expect_null(directory_find(directory, "raspi", 8022));
    cr_expect_null(directory_find(directory, "aspi", 22));
    const struct endpoint *endpoint = directory_find(directory, "web.raspi", 22);
    cr_expect_str_eq(endpoint->name, "web.raspi");
    cr_expect_eq(endpoint->port, 22);
    cr_expect_eq(directory_count(directory), 3);
}

Test(directory, the_longest_name)
{
    const char *name = repeat('a', NAME_SIZE - 1);
    publish(&s1, name, 65535);
    publish(&s2, name, 6553);
    cr_expect_eq(serving(name, 65535), &s1);
    cr_expect_eq(serving(name, 6553), &s2);
    cr_expect_null(directory_find(directory, name, 655));
}

Test(directory, keeps_what_was_requested_byte_for_byte)
{
    char requested[] = "RasPi\x01";
    struct publication *publication = directory_publish(directory, &s1, "raspi", 22, requested);
    cr_assert_not_null(publication);
    memset(requested, 'x', sizeof(requested) - 1);
    cr_expect_str_eq(publication->requested, "RasPi\x01");
    cr_expect_str_eq(publication->endpoint->name, "raspi");
    cr_expect_eq(publication->session, &s1);
}

Test(directory, next_meets_each_endpoint_once)
{
    uint16_t met = 0;
    cr_expect_null(directory_next(directory, NULL));
    for (uint16_t port = 1; port <= 10; port++) {
        publish(&s1, "raspi", port);
        publish(&s2, "raspi", port);
    }
    const struct endpoint *endpoint = NULL;
    for (unsigned i = 0; i < 10; i++) {
        endpoint = directory_next(directory, endpoint);
        cr_assert_not_null(endpoint);
        met |= (uint16_t)(1u << endpoint->port);
    }
    cr_expect_eq(met, 0x7fe);
    cr_expect_null(directory_next(directory, endpoint));
}

Test(directory, free_ports_go_up_from_49152_and_round)
{
    cr_expect_eq(directory_free_port(directory, "raspi"), 49152);
    publish(&s1, "raspi", 49153);
    cr_expect_eq(directory_free_port(directory, "raspi"), 49154, "the next, without what is taken");
    for (unsigned port = 49155; port <= 65535; port++)
        cr_assert_eq(directory_free_port(directory, "raspi"), port);
    cr_expect_eq(directory_free_port(directory, "raspi"), 49152, "from the start again");
    for (unsigned port = 49152; port <= 65535; port++)
        if (port != 49153)
            publish(&s1, "raspi", (uint16_t)port);
    cr_expect_eq(directory_free_port(directory, "raspi"), 0);
    cr_expect_neq(directory_free_port(directory, "other"), 0);
}

Test(directory, a_device_s_name_goes_before_any_other_ownership)
{
    bool own;
    directory_set_device(directory, 1, "raspi");
    directory_set_owner(directory, "web.pi", 1);
    cr_expect_eq(directory_owned(directory, 1), 1);
    directory_set_device(directory, 1, "pi");
    cr_expect_eq(directory_owner(directory, "web.pi", &own), 1);
    cr_expect(own);
    cr_expect_eq(directory_owned(directory, 1), 1, "a rename keeps the count");
    directory_set_owner(directory, "web.pi", 0);
    cr_expect_eq(directory_owned(directory, 1), 0);
}

Test(directory, names_outside_a_device_s_own_are_counted)
{
    cr_expect_eq(directory_owned(directory, 7), 0);
    set_device(7, "raspi");
    set_device(8, "other");
    set_owner("web", 7);
    set_owner("ftp", 7);
    set_owner("ftp", 7);
    cr_expect_eq(directory_owned(directory, 7), 2);
    set_owner("web", 8);
    cr_expect_eq(directory_owned(directory, 7), 1);
    cr_expect_eq(directory_owned(directory, 8), 1);
    set_owner("raspi", 8);
    cr_expect_eq(directory_owned(directory, 8), 1, "nobody is given that");
    set_owner("web", 0);
    set_owner("web", 0);
    cr_expect_eq(directory_owned(directory, 8), 0);
    set_device(7, NULL);
    cr_expect_eq(directory_owned(directory, 7), 0);
    set_device(7, "raspi");
    cr_expect_eq(directory_owned(directory, 7), 0);
}

Test(directory, a_published_name_that_becomes_the_device_s_own_counts_no_more)
{
    set_device(7, "raspi");
    set_owner("web", 7);
    set_device(7, "web");
    cr_expect_eq(directory_owned(directory, 7), 0);
    set_owner("ftp", 7);
    cr_expect_eq(directory_owned(directory, 7), 1);
}

Test(directory, the_count_survives_names_that_wander)
{
    set_device(1, "a");
    set_device(2, "b");
    set_owner("web", 2);
    set_device(1, "b"); /* the news of 2's new name comes later */
    set_device(2, "a");
    cr_expect_eq(directory_owned(directory, 2), 1);
    set_owner("web", 0);
    cr_expect_eq(directory_owned(directory, 2), 0);
}

Test(directory, free_of_nothing)
{
    directory_free(NULL);
}
