#include "relayd/setting.h"

#include "relayd/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void format_key(char key[NAME_SIZE + 8], const char *name, uint16_t port)
{
    snprintf(key, NAME_SIZE + 8, "%s:%u", name, port);
}

static void take_out(struct setting **settings, struct setting *setting)
{
    HASH_DEL(*settings, setting);
    free(setting);
}

int setting_put(struct setting **settings, int64_t device, const char *name, uint16_t port, const char *note,
                bool proxy_protocol)
{
    char key[NAME_SIZE + 8];
    struct setting *old;
    format_key(key, name, port);
    size_t key_size = strlen(key) + 1, name_size = strlen(name) + 1, note_size = strlen(note) + 1;
    struct setting *setting = calloc(1, sizeof(*setting) + key_size + name_size + note_size);
    if (setting == NULL)
        return -1;
    setting->device = device;
    setting->proxy_protocol = proxy_protocol;
    memcpy(setting->key, key, key_size);
    setting->name = memcpy(setting->key + key_size, name, name_size);
    setting->note = memcpy(setting->key + key_size + name_size, note, note_size);
    HASH_FIND_STR(*settings, key, old);
    HASH_ADD_STR(*settings, key, setting);
    if (setting->hh.tbl == NULL) {
        free(setting);
        return -1;
    }
    if (old != NULL)
        take_out(settings, old);
    return 0;
}

const struct setting *setting_find(const struct setting *settings, const char *name, uint16_t port)
{
    char key[NAME_SIZE + 8];
    const struct setting *setting;
    format_key(key, name, port);
    HASH_FIND_STR(settings, key, setting);
    return setting;
}

void setting_forget_device(struct setting **settings, int64_t device)
{
    struct setting *setting, *next;
    HASH_ITER(hh, *settings, setting, next)
        if (setting->device == device)
            take_out(settings, setting);
}

void setting_forget_name(struct setting **settings, const char *name)
{
    struct setting *setting, *next;
    HASH_ITER(hh, *settings, setting, next)
        if (strcmp(setting->name, name) == 0)
            take_out(settings, setting);
}

void setting_forget_all(struct setting **settings)
{
    struct setting *setting, *next;
    HASH_ITER(hh, *settings, setting, next)
        take_out(settings, setting);
}
