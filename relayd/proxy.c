#include "relayd/proxy.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#define VERSION_2_PROXY 0x21 /* on behalf of a client; LOCAL would be 0x20 */
#define TCP_OVER_IPV4 0x11
#define TCP_OVER_IPV6 0x21

static const unsigned char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

struct writer {
    unsigned char *at, *end;
};

static void put(struct writer *writer, const void *data, size_t len)
{
    assert(len <= (size_t)(writer->end - writer->at));
    memcpy(writer->at, data, len);
    writer->at += len;
}

static void put_byte(struct writer *writer, unsigned char byte)
{
    put(writer, &byte, 1);
}

/* Of 16 bits, in network order, as all numbers here. */
static void put_number(struct writer *writer, size_t number)
{
    put_byte(writer, (unsigned char)(number >> 8));
    put_byte(writer, (unsigned char)number);
}

static void put_tlv(struct writer *writer, unsigned char type, const char *name)
{
    put_byte(writer, type);
    put_number(writer, strlen(name));
    put(writer, name, strlen(name));
}

/* The IPv4 address that the socket's is, or has been mapped from; zeros if it is none. */
static struct in_addr ipv4_of(const struct sockaddr_storage *local)
{
    struct in_addr address = { 0 };
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)local;
    if (local->ss_family == AF_INET)
        address = ((const struct sockaddr_in *)local)->sin_addr;
    else if (local->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        memcpy(&address, &v6->sin6_addr.s6_addr[12], sizeof(address));
    return address;
}

static struct in6_addr ipv6_of(const struct sockaddr_storage *local)
{
    static const struct in6_addr unknown;
    return local->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)local)->sin6_addr : unknown;
}

/* Returns the byte for the family. */
static unsigned char put_addresses(struct writer *writer, const struct proxy *proxy)
{
    struct in_addr source4, local4 = ipv4_of(&proxy->local);
    struct in6_addr source6 = { 0 }, local6 = ipv6_of(&proxy->local);
    bool is_v4 = inet_pton(AF_INET, proxy->address, &source4) == 1;
    if (is_v4) {
        put(writer, &source4, sizeof(source4));
        put(writer, &local4, sizeof(local4));
    } else {
        inet_pton(AF_INET6, proxy->address, &source6);
        put(writer, &source6, sizeof(source6));
        put(writer, &local6, sizeof(local6));
    }
    put_number(writer, proxy->port);
    put_number(writer, proxy->endpoint_port);
    return is_v4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
}

size_t proxy_header(const struct proxy *proxy, unsigned char out[PROXY_SIZE])
{
    unsigned char *body = out + sizeof(signature) + 4;
    struct writer head = { out, body }, writer = { body, out + PROXY_SIZE };
    unsigned char family = put_addresses(&writer, proxy);
    put_tlv(&writer, PROXY_TLV_AUTHORITY, proxy->endpoint);
    put_tlv(&writer, PROXY_TLV_PRINCIPAL, proxy->principal);
    put_tlv(&writer, PROXY_TLV_TENANT, proxy->tenant);

    put(&head, signature, sizeof(signature));
    put_byte(&head, VERSION_2_PROXY);
    put_byte(&head, family);
    put_number(&head, (size_t)(writer.at - body));
    return (size_t)(writer.at - out);
}
