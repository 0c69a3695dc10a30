#include "relayd/proxy.h"

#include <arpa/inet.h>
#include <assert.h>
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

/* Zeros if it is none of that family. */
static void put_address(struct writer *writer, int family, const char *text)
{
    unsigned char address[16] = { 0 };
    inet_pton(family, text, address);
    put(writer, address, family == AF_INET ? 4 : 16);
}

size_t proxy_header(const struct proxy *proxy, unsigned char out[PROXY_SIZE])
{
    unsigned char *body = out + sizeof(signature) + 4;
    struct writer head = { out, body }, writer = { body, out + PROXY_SIZE };
    int family = strchr(proxy->address, ':') == NULL ? AF_INET : AF_INET6;
    put_address(&writer, family, proxy->address);
    put_address(&writer, family, proxy->local);
    put_number(&writer, proxy->port);
    put_number(&writer, proxy->endpoint_port);
    put_tlv(&writer, PROXY_TLV_AUTHORITY, proxy->endpoint);
    put_tlv(&writer, PROXY_TLV_PRINCIPAL, proxy->principal);
    put_tlv(&writer, PROXY_TLV_TENANT, proxy->tenant);

    put(&head, signature, sizeof(signature));
    put_byte(&head, VERSION_2_PROXY);
    put_byte(&head, family == AF_INET ? TCP_OVER_IPV4 : TCP_OVER_IPV6);
    put_number(&head, (size_t)(writer.at - body));
    return (size_t)(writer.at - out);
}
