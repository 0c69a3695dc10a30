/* The header of the PROXY protocol, byte by byte (HAProxy, doc/proxy-protocol.txt, 2.2). */
#include "relayd/proxy.h"

#include "support.h"

#include <criterion/criterion.h>
#include <string.h>

#define SIGNATURE "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"

static unsigned char out[PROXY_SIZE];

static struct proxy from(const char *address, const char *local)
{
    return (struct proxy){ address, local, 0x1234, 80, "web.raspi", "alice", "acme" };
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
    expect(from("192.0.2.1", "198.51.100.7"),
           SIGNATURE "\x21\x11\x00\x27"
                     "\xc0\x00\x02\x01\xc6\x33\x64\x07\x12\x34\x00\x50" TLVS);
}

Test(proxy, ipv6)
{
    expect(from("2001:db8::1", "2001:db8::2"),
           SIGNATURE "\x21\x21\x00\x3f"
                     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"
                     "\x12\x34\x00\x50" TLVS);
}

Test(proxy, what_is_not_known_is_zeros)
{
    expect(from("192.0.2.1", ""), SIGNATURE "\x21\x11\x00\x27"
                                            "\xc0\x00\x02\x01\0\0\0\0\x12\x34\x00\x50" TLVS);
    expect(from("::1", ""), SIGNATURE "\x21\x21\x00\x3f"
                                      "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                      "\x12\x34\x00\x50" TLVS);
}

Test(proxy, the_longest_names_fit)
{
    const char *name = repeat('n', NAME_SIZE - 1);
    struct proxy proxy = { "::1", "::1", 65535, 65535, name, name, name };
    cr_assert_eq(proxy_header(&proxy, out), PROXY_SIZE);
    cr_expect_eq(out[14] << 8 | out[15], PROXY_SIZE - 16);
    cr_expect_arr_eq(out + PROXY_SIZE - 256, "\xe1\x00\xfd", 3);
    cr_expect_arr_eq(out + 16 + 32, "\xff\xff\xff\xff", 4);
}
