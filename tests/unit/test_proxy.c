/* The header of the PROXY protocol, byte by byte (HAProxy, doc/proxy-protocol.txt, 2.2). */
#include "relayd/proxy.h"

#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <string.h>

#define SIGNATURE "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"

static unsigned char out[PROXY_SIZE];

static struct sockaddr_storage local(int family, const char *address)
{
    struct sockaddr_storage storage = { .ss_family = (sa_family_t)family };
    void *at = family == AF_INET ? (void *)&((struct sockaddr_in *)&storage)->sin_addr
                                 : (void *)&((struct sockaddr_in6 *)&storage)->sin6_addr;
    cr_assert_eq(inet_pton(family, address, at), 1);
    return storage;
}

static struct proxy from(const char *address, struct sockaddr_storage here)
{
    return (struct proxy){ address, 0x1234, here, "web.raspi", 80, "alice", "acme" };
}

#define TLVS                                                                                                 \
    "\x02\x00\x09web.raspi"                                                                                  \
    "\xe0\x00\x05"                                                                                           \
    "alice"                                                                                                  \
    "\xe1\x00\x04"                                                                                           \
    "acme"

static void expect_bytes(struct proxy proxy, const void *bytes, size_t len)
{
    cr_assert_eq(proxy_header(&proxy, out), len);
    cr_expect_arr_eq(out, bytes, len);
}

/* What a string literal holds, NULs and all. */
#define expect(given, literal) expect_bytes(given, literal, sizeof(literal) - 1)

Test(proxy, ipv4)
{
    expect(from("192.0.2.1", local(AF_INET, "198.51.100.7")),
           SIGNATURE "\x21\x11\x00\x27"
                     "\xc0\x00\x02\x01\xc6\x33\x64\x07\x12\x34\x00\x50" TLVS);
}

Test(proxy, ipv6)
{
    expect(from("2001:db8::1", local(AF_INET6, "2001:db8::2")),
           SIGNATURE "\x21\x21\x00\x3f"
                     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
                     "\x12\x34\x00\x50" TLVS);
}

/* A socket for both families tells mapped addresses. */
Test(proxy, an_ipv4_client_of_an_ipv6_socket)
{
    expect(from("192.0.2.1", local(AF_INET6, "::ffff:198.51.100.7")),
           SIGNATURE "\x21\x11\x00\x27"
                     "\xc0\x00\x02\x01\xc6\x33\x64\x07\x12\x34\x00\x50" TLVS);
}

Test(proxy, what_is_not_known_is_zeros)
{
    struct sockaddr_storage unknown = { .ss_family = AF_UNSPEC };
    expect(from("192.0.2.1", unknown), SIGNATURE "\x21\x11\x00\x27"
                                                 "\xc0\x00\x02\x01\0\0\0\0\x12\x34\x00\x50" TLVS);
    expect(from("::1", unknown),
           SIGNATURE "\x21\x21\x00\x3f"
                     "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                     "\x12\x34\x00\x50" TLVS);
}

Test(proxy, the_longest_names_fit)
{
    const char *name = repeat('n', NAME_SIZE - 1);
    struct proxy proxy = { "::1", 65535, local(AF_INET6, "::1"), name, 65535, name, name };
    cr_assert_eq(proxy_header(&proxy, out), PROXY_SIZE);
    cr_expect_eq(out[14] << 8 | out[15], PROXY_SIZE - 16);
    cr_expect_arr_eq(out + PROXY_SIZE - 256, "\xe1\x00\xfd", 3);
    cr_expect_arr_eq(out + 16 + 32, "\xff\xff\xff\xff", 4);
}
