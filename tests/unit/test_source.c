#include "relayd/source.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <string.h>

static const struct sockaddr *address(const char *text)
{
    static union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } all[2];
    static unsigned turn;
    unsigned i = turn++ % 2;
    memset(&all[i], 0, sizeof(all[i]));
    all[i].any.sa_family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
    void *bytes = strchr(text, ':') != NULL ? (void *)&all[i].v6.sin6_addr : (void *)&all[i].v4.sin_addr;
    cr_assert_eq(inet_pton(all[i].any.sa_family, text, bytes), 1, "%s", text);
    return &all[i].any;
}

static bool same(const char *a, const char *b)
{
    struct source first = source_of(address(a)), second = source_of(address(b));
    return memcmp(&first, &second, sizeof(first)) == 0;
}

Test(source, an_ipv4_address_is_one)
{
    cr_expect(same("192.0.2.1", "192.0.2.1"));
    cr_expect_not(same("192.0.2.1", "192.0.2.2"));
    cr_expect(same("192.0.2.1", "::ffff:192.0.2.1"));
    cr_expect_not(same("::ffff:192.0.2.1", "::ffff:192.0.2.2"));
}

Test(source, so_is_one_that_a_nat64_translated)
{
    cr_expect(same("64:ff9b::192.0.2.1", "192.0.2.1"));
    cr_expect_not(same("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2"));
    cr_expect_not(same("64:ff9b:1::192.0.2.1", "192.0.2.1"), "a prefix of somebody's own may hold anything");
}

Test(source, a_64_of_ipv6_is_one)
{
    cr_expect(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    cr_expect_not(same("2001:db8:1:2::1", "2001:db8:1:3::1"));
    cr_expect_not(same("192.0.2.1", "c000:201::"), "the bytes agree, the families do not");
}

Test(source, texts)
{
    static const char *const rows[][2] = { { "192.0.2.1", "192.0.2.1" },
                                           { "::ffff:192.0.2.1", "192.0.2.1" },
                                           { "2001:db8:1:2:3::4", "2001:db8:1:2::/64" },
                                           { "::1", "::/64" } };
    char text[SOURCE_TEXT_SIZE];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct source source = source_of(address(rows[i][0]));
        source_text(&source, text);
        cr_expect_str_eq(text, rows[i][1]);
    }
}

Test(source, other_families_are_nobody)
{
    struct sockaddr local = { .sa_family = AF_UNIX };
    cr_expect_eq(source_of(&local).family, 0);
}

Test(source, networks)
{
    static const struct {
        const char *network, *in, *out;
    } rows[] = {
        { "192.0.2.7", "192.0.2.7", "192.0.2.6" },
        { "192.0.2.0/24", "192.0.2.255", "192.0.3.0" },
        { "192.0.2.128/25", "192.0.2.128", "192.0.2.127" },
        { "10.0.0.0/7", "11.255.0.1", "12.0.0.0" },
        { "192.0.2.0/24", "::ffff:192.0.2.1", "::c000:201" },
        { "0.0.0.0/0", "255.1.2.3", "::1" },
        { "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2" },
        { "::ffff:192.0.2.0/120", "::ffff:192.0.2.255", "192.0.3.0" },
        { "::ffff:0:0/96", "192.0.2.1", "::c000:201" },
        { "64:ff9b::/96", "64:ff9b::192.0.2.1", "192.0.2.1" },
        { "192.0.2.1", "192.0.2.1", "64:ff9b::192.0.2.1" },
        { "::/0", "2001:db8::1", "192.0.2.1" },
        { "::1", "::1", "::2" },
        { "2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1" },
        { "2001:db8::/127", "2001:db8::1", "2001:db8::2" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct network network;
        cr_assert_eq(network_parse(rows[i].network, &network), 0, "%s", rows[i].network);
        cr_expect(network_contains(&network, address(rows[i].in)), "%s %s", rows[i].network, rows[i].in);
        cr_expect_not(network_contains(&network, address(rows[i].out)), "%s %s", rows[i].network,
                      rows[i].out);
    }
}

Test(source, what_is_no_network)
{
    static const char *const bad[] = { "",
                                       "/",
                                       "/8",
                                       "192.0.2.0/",
                                       "192.0.2.0/33",
                                       "192.0.2.0/-1",
                                       "192.0.2.0/+8",
                                       "192.0.2.0/8x",
                                       "192.0.2.0/ 8",
                                       "192.0.2/24",
                                       "192.0.2.1/24",
                                       "10.0.0.1/7",
                                       "::/129",
                                       "::1/64",
                                       "localhost",
                                       "192.0.2.0/24/8",
                                       "192.0.2.0/0000008",
                                       "2001:db8::1/127",
                                       "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000:1111:2222" };
    struct network network;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(network_parse(bad[i], &network), -1, "%s", bad[i]);
}

Test(source, addresses_as_people_write_them)
{
    static const char *const rows[][2] = { { "192.0.2.1", "192.0.2.1" },
                                           { "::ffff:192.0.2.1", "192.0.2.1" },
                                           { "2001:db8:1:2:3::4", "2001:db8:1:2:3::4" },
                                           { "64:ff9b::192.0.2.1", "64:ff9b::c000:201" } };
    char text[SOURCE_TEXT_SIZE];
    uint16_t port;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        source_address(address(rows[i][0]), text, &port);
        cr_expect_str_eq(text, rows[i][1]);
    }
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(2222) };
    source_address((const struct sockaddr *)&v4, text, &port);
    cr_expect_str_eq(text, "0.0.0.0");
    cr_expect_eq(port, 2222);
}
