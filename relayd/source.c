#include "relayd/source.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The family as 4 or 6, and the bytes of the address; 0 if it is neither. */
static uint8_t address_bytes(const struct sockaddr *address, const uint8_t **bytes)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
    if (address->sa_family == AF_INET) {
        *bytes = (const uint8_t *)&v4->sin_addr;
        return 4;
    }
    if (address->sa_family != AF_INET6)
        return 0;
    *bytes = v6->sin6_addr.s6_addr;
    if (!IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        return 6;
    *bytes += 12;
    return 4;
}

/* What a NAT64 has translated: behind 64:ff9b::/96 (RFC 6052) stands an IPv4 address. */
static bool is_translated(const uint8_t *v6)
{
    static const uint8_t prefix[12] = { 0x00, 0x64, 0xff, 0x9b };
    return memcmp(v6, prefix, sizeof(prefix)) == 0;
}

struct source source_of(const struct sockaddr *address)
{
    const uint8_t *bytes = NULL;
    struct source source = { .family = address_bytes(address, &bytes) };
    if (source.family == 6 && is_translated(bytes)) {
        source.family = 4;
        bytes += 12;
    }
    if (source.family != 0)
        memcpy(source.address, bytes, source.family == 4 ? 4 : sizeof(source.address));
    return source;
}

void source_text(const struct source *source, char out[SOURCE_TEXT_SIZE])
{
    char text[INET6_ADDRSTRLEN];
    uint8_t v6[16] = { 0 };
    memcpy(v6, source->address, sizeof(source->address));
    if (source->family == 4)
        snprintf(out, SOURCE_TEXT_SIZE, "%s", inet_ntop(AF_INET, source->address, text, sizeof(text)));
    else
        snprintf(out, SOURCE_TEXT_SIZE, "%s/64", inet_ntop(AF_INET6, v6, text, sizeof(text)));
}

void source_address(const struct sockaddr *address, char out[SOURCE_TEXT_SIZE], uint16_t *port)
{
    const uint8_t *bytes = NULL;
    uint8_t family = address_bytes(address, &bytes);
    out[0] = '\0';
    if (family != 0)
        inet_ntop(family == 4 ? AF_INET : AF_INET6, bytes, out, SOURCE_TEXT_SIZE);
    *port = address->sa_family == AF_INET
                ? ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port)
                : ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
}

/* Do the first so many bits agree? */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static bool has_bits_behind(const struct network *network)
{
    uint8_t only_prefix[16] = { 0 };
    unsigned whole = network->bits / 8, rest = network->bits % 8;
    memcpy(only_prefix, network->address, whole);
    if (rest != 0)
        only_prefix[whole] = (uint8_t)(network->address[whole] & (0xff00 >> rest));
    return memcmp(only_prefix, network->address, sizeof(only_prefix)) != 0;
}

/* Addresses are compared as IPv4 ones if they are: so are the networks of such. */
static void unmap(struct network *network)
{
    static const uint8_t prefix[12] = { [10] = 0xff, 0xff };
    if (network->family != 6 || network->bits < 96 || memcmp(network->address, prefix, sizeof(prefix)) != 0)
        return;
    memmove(network->address, network->address + 12, 4);
    memset(network->address + 4, 0, 12);
    network->family = 4;
    network->bits -= 96;
}

int network_parse(const char *text, struct network *network)
{
    char address[INET6_ADDRSTRLEN];
    size_t len = strcspn(text, "/");
    const char *bits = text[len] == '/' ? text + len + 1 : NULL;
    memset(network, 0, sizeof(*network));
    if (len >= sizeof(address) ||
        (bits != NULL && (*bits == '\0' || strlen(bits) > 3 || bits[strspn(bits, "0123456789")] != '\0')))
        return -1;
    memcpy(address, text, len);
    address[len] = '\0';
    if (inet_pton(AF_INET, address, network->address) == 1)
        network->family = 4;
    else if (inet_pton(AF_INET6, address, network->address) == 1)
        network->family = 6;
    else
        return -1;
    unsigned most = network->family == 4 ? 32 : 128;
    unsigned long n = bits != NULL ? strtoul(bits, NULL, 10) : most;
    if (n > most)
        return -1;
    network->bits = (uint8_t)n;
    if (has_bits_behind(network))
        return -1;
    unmap(network);
    return 0;
}

bool network_contains(const struct network *network, const struct sockaddr *address)
{
    const uint8_t *bytes = NULL;
    return address_bytes(address, &bytes) == network->family &&
           same_prefix(network->address, bytes, network->bits);
}
