#include "relayd/directory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define FIRST_FREE_PORT 49152
#define FREE_PORT_TRIES 256

/* Hash by name: an owned name. Devices are hashed by id as well, to find the old name. */
struct owned {
    int64_t principal;
    bool device;     /* the device's own name, and so all below it */
    unsigned nowned; /* of a device: names outside its own */
    UT_hash_handle hh;
    UT_hash_handle by_device;
    struct owned *prev, *next; /* of the names that are no device's own */
    char name[];
};

struct directory {
    struct owned *owned;
    struct owned *devices;
    struct owned *outside; /* names that are no device's own: often few, where there are many devices */
    struct endpoint *endpoints;
    unsigned next_free; /* where the search for a free port goes on */
};

struct directory *directory_new(void)
{
    return calloc(1, sizeof(struct directory));
}

static struct owned *find_device(const struct directory *directory, int64_t principal)
{
    struct owned *device;
    HASH_FIND(by_device, directory->devices, &principal, sizeof(principal), device);
    return device;
}

static void owned_free(struct directory *directory, struct owned *owned)
{
    struct owned *owner = owned->device ? NULL : find_device(directory, owned->principal);
    if (owner != NULL)
        owner->nowned--;
    HASH_DEL(directory->owned, owned);
    if (owned->device)
        HASH_DELETE(by_device, directory->devices, owned);
    else
        DL_DELETE(directory->outside, owned);
    free(owned);
}

void directory_free(struct directory *directory)
{
    struct owned *owned, *next;
    if (directory == NULL)
        return;
    while (directory->endpoints != NULL)
        directory_withdraw(directory, directory->endpoints->publications);
    HASH_ITER(hh, directory->owned, owned, next)
        owned_free(directory, owned);
    free(directory);
}

static struct owned *find_owned(const struct directory *directory, const char *name)
{
    struct owned *owned;
    HASH_FIND_STR(directory->owned, name, owned);
    return owned;
}

/* When memory is out all is as before: a name that lost its owner could be taken by anybody. */
static int add_owned(struct directory *directory, const char *name, int64_t principal, bool device)
{
    size_t len = strlen(name);
    struct owned *old = find_owned(directory, name), *owned = calloc(1, sizeof(*owned) + len + 1);
    if (owned == NULL)
        return -1;
    owned->principal = principal;
    owned->device = device;
    memcpy(owned->name, name, len + 1);
    HASH_ADD_STR(directory->owned, name, owned);
    if (owned->hh.tbl == NULL)
        goto fail;
    if (device) {
        HASH_ADD(by_device, directory->devices, principal, sizeof(owned->principal), owned);
        if (owned->by_device.tbl == NULL)
            goto fail_device;
    } else {
        DL_APPEND(directory->outside, owned);
    }
    struct owned *owner = device ? NULL : find_device(directory, principal);
    if (owner != NULL)
        owner->nowned++;
    if (old != NULL)
        owned_free(directory, old);
    return 0;
fail_device:
    HASH_DEL(directory->owned, owned);
fail:
    free(owned);
    return -1;
}

/* After a change of the device's name: a name that it owned may be its own now. */
static void count_owned(struct directory *directory, int64_t principal)
{
    struct owned *owned, *device = find_device(directory, principal);
    device->nowned = 0;
    DL_FOREACH(directory->outside, owned)
        device->nowned += owned->principal == principal;
}

int directory_set_device(struct directory *directory, int64_t principal, const char *name)
{
    struct owned *old = find_device(directory, principal);
    if (old != NULL && name != NULL && strcmp(old->name, name) == 0)
        return 0;
    if (name != NULL && add_owned(directory, name, principal, true) != 0)
        return -1;
    if (old != NULL)
        owned_free(directory, old);
    if (name != NULL) {
        count_owned(directory, principal);
        return 0;
    }
    struct owned *owned, *next;
    HASH_ITER(hh, directory->owned, owned, next)
        if (owned->principal == principal)
            owned_free(directory, owned);
    return 0;
}

int directory_set_owner(struct directory *directory, const char *name, int64_t principal)
{
    struct owned *owned = find_owned(directory, name);
    if (owned != NULL && owned->device)
        return 0; /* a device's own name is never given away */
    if (principal != 0)
        return add_owned(directory, name, principal, false);
    if (owned != NULL)
        owned_free(directory, owned);
    return 0;
}

int64_t directory_owner(const struct directory *directory, const char *name, bool *own)
{
    const struct owned *owned = find_owned(directory, name);
    int64_t owner = owned != NULL ? owned->principal : 0;
    *own = owned != NULL && owned->device;
    for (const char *at = name_parent(name); at != NULL && !*own; at = name_parent(at)) {
        const struct owned *above = find_owned(directory, at);
        if (above != NULL && above->device) {
            *own = true;
            owner = above->principal;
        }
    }
    return owner;
}

int64_t directory_device(const struct directory *directory, const char *name)
{
    const struct owned *owned = find_owned(directory, name);
    return owned != NULL && owned->device ? owned->principal : 0;
}

unsigned directory_owned(const struct directory *directory, int64_t principal)
{
    const struct owned *device = find_device(directory, principal);
    return device != NULL ? device->nowned : 0;
}

static void format_key(char key[NAME_SIZE + 8], const char *name, uint16_t port)
{
    snprintf(key, NAME_SIZE + 8, "%s:%u", name, port);
}

struct endpoint *directory_find(const struct directory *directory, const char *name, uint16_t port)
{
    char key[NAME_SIZE + 8];
    struct endpoint *endpoint;
    format_key(key, name, port);
    HASH_FIND_STR(directory->endpoints, key, endpoint);
    return endpoint;
}

unsigned directory_count(const struct directory *directory)
{
    return HASH_COUNT(directory->endpoints);
}

struct endpoint *directory_next(const struct directory *directory, const struct endpoint *endpoint)
{
    return endpoint == NULL ? directory->endpoints : endpoint->hh.next;
}

static struct endpoint *add_endpoint(struct directory *directory, const char *name, uint16_t port)
{
    char key[NAME_SIZE + 8];
    format_key(key, name, port);
    size_t key_size = strlen(key) + 1, name_size = strlen(name) + 1;
    struct endpoint *endpoint = calloc(1, sizeof(*endpoint) + key_size + name_size);
    if (endpoint == NULL)
        return NULL;
    endpoint->port = port;
    endpoint->name = memcpy(endpoint->key + key_size, name, name_size);
    memcpy(endpoint->key, key, key_size);
    HASH_ADD_STR(directory->endpoints, key, endpoint);
    if (endpoint->hh.tbl != NULL)
        return endpoint;
    free(endpoint);
    return NULL;
}

struct publication *directory_publish(struct directory *directory, struct session *session, const char *name,
                                      uint16_t port, const char *requested)
{
    struct publication *publication = calloc(1, sizeof(*publication));
    char *copy = strdup(requested);
    struct endpoint *endpoint = directory_find(directory, name, port);

    if (endpoint == NULL && publication != NULL && copy != NULL)
        endpoint = add_endpoint(directory, name, port);
    if (publication == NULL || copy == NULL || endpoint == NULL) {
        free(publication);
        free(copy);
        return NULL;
    }
    publication->endpoint = endpoint;
    publication->session = session;
    publication->requested = copy;
    DL_PREPEND(endpoint->publications, publication);
    return publication;
}

void directory_withdraw(struct directory *directory, struct publication *publication)
{
    struct endpoint *endpoint = publication->endpoint;
    DL_DELETE(endpoint->publications, publication);
    free(publication->requested);
    free(publication);
    if (endpoint->publications == NULL) {
        HASH_DEL(directory->endpoints, endpoint);
        free(endpoint);
    }
}

void directory_demote(struct publication *publication)
{
    struct endpoint *endpoint = publication->endpoint;
    DL_DELETE(endpoint->publications, publication);
    DL_APPEND(endpoint->publications, publication);
}

/* From where the last search ended, so that many publishes do not walk over each other's ports. */
uint16_t directory_free_port(struct directory *directory, const char *name)
{
    for (unsigned tries = 0; tries < FREE_PORT_TRIES; tries++) {
        unsigned offset = directory->next_free++ % (UINT16_MAX + 1 - FIRST_FREE_PORT);
        if (directory_find(directory, name, (uint16_t)(FIRST_FREE_PORT + offset)) == NULL)
            return (uint16_t)(FIRST_FREE_PORT + offset);
    }
    return 0;
}
