#include "relayd/recipe.h"

#include "relayd/name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SSH_PORT 22

/* A device that notices within a minute that the relay is gone, and leaves so that it is started again. */
#define DEVICE_OPTIONS "-o ExitOnForwardFailure=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=3"

void place_parse(const char *address, struct place *place)
{
    bool bracketed = address[0] == '[';
    const char *host = address + bracketed;
    int len = (int)strcspn(host, bracketed ? "]" : ":");
    const char *port = host + len + bracketed;
    snprintf(place->host, sizeof(place->host), "%.*s", len, host);
    place->port = *port == ':' ? (uint16_t)atoi(port + 1) : SSH_PORT;
}

void place_known_hosts(const struct place *place, char *out, size_t size)
{
    if (place->port == SSH_PORT)
        snprintf(out, size, "%s", place->host);
    else
        snprintf(out, size, "[%s]:%u", place->host, place->port);
}

/* ---- The parts ---- */

typedef void write_part(FILE *out, const struct recipe *recipe);

/* What one of the writers below writes, as a text. */
static json_t *compose(write_part *write, const struct recipe *recipe)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    write(out, recipe);
    json_t *part = fclose(out) == 0 ? json_string(text) : NULL;
    free(text);
    return part;
}

static bool read_row(const json_t *row, char name[NAME_SIZE], uint16_t *port)
{
    const char *endpoint = json_string_value(json_object_get(row, "endpoint"));
    return endpoint != NULL && name_of_endpoint(endpoint, name, port);
}

static void write_known_hosts(FILE *out, const struct recipe *recipe)
{
    char host[sizeof(recipe->place->host) + 16];
    place_known_hosts(recipe->place, host, sizeof(host));
    fprintf(out, "%s %s", host, recipe->host_key);
}

/* The user name is the tenant's: it selects that one, wherever else the key is known. The aliases bear it
 * too, so that the blocks of several tenants get along in one file, and with hosts of the same name. */
static void write_ssh_config(FILE *out, const struct recipe *recipe)
{
    size_t i;
    json_t *row;
    fprintf(out,
            "Host relay-%s\n"
            "    HostName %s\n"
            "    Port %u\n"
            "    User %s\n"
            "    # The key is %s. If ssh has many, name its file:\n"
            "    # IdentityFile ~/.ssh/id_ed25519\n"
            "    # IdentitiesOnly yes\n",
            recipe->tenant, recipe->place->host, recipe->place->port, recipe->tenant, recipe->fingerprint);
    if (recipe->everything) {
        fprintf(out, "\nHost *.%s\n    ProxyJump relay-%s\n", recipe->tenant, recipe->tenant);
        return;
    }
    bool none = true;
    json_array_foreach(recipe->endpoints, i, row) {
        char name[NAME_SIZE];
        uint16_t port;
        if (!read_row(row, name, &port) || port != SSH_PORT)
            continue;
        fprintf(out, "\nHost %s.%s\n    HostName %s.%s\n    ProxyJump relay-%s\n", name, recipe->tenant, name,
                recipe->tenant, recipe->tenant);
        none = false;
    }
    if (none)
        fputs("\n# No SSH server that you may reach is online now: look again when one is.\n", out);
}

/* A local port for one that only root may listen on. */
static unsigned local_port(uint16_t port)
{
    return port < 1024 ? 8000 + port : port;
}

/* What is no SSH: one line for each. */
static json_t *forwards(const struct recipe *recipe)
{
    size_t i;
    json_t *row, *lines = json_array();
    json_array_foreach(recipe->endpoints, i, row) {
        char name[NAME_SIZE], line[2 * NAME_SIZE + 64];
        uint16_t port;
        if (!read_row(row, name, &port) || port == SSH_PORT)
            continue;
        snprintf(line, sizeof(line), "ssh -N -L %u:%s:%u relay-%s", local_port(port), name, port,
                 recipe->tenant);
        json_array_append_new(lines, json_string(line));
    }
    return lines;
}

/* What it publishes now; what is behind that, only the device knows. */
static void write_publishes(FILE *out, const struct recipe *recipe)
{
    size_t i;
    json_t *row;
    if (json_array_size(recipe->endpoints) == 0)
        fputs(" -R 22:localhost:22", out);
    json_array_foreach(recipe->endpoints, i, row) {
        char name[NAME_SIZE];
        uint16_t port;
        if (!read_row(row, name, &port))
            continue;
        bool own = strcmp(name, recipe->name) == 0;
        fprintf(out, " -R %s%s%u:localhost:%u", own ? "" : name, own ? "" : ":", port, port);
    }
}

static void write_destination(FILE *out, const struct recipe *recipe)
{
    write_publishes(out, recipe);
    fprintf(out, " -p %u %s@%s", recipe->place->port, recipe->tenant, recipe->place->host);
}

static void write_command(FILE *out, const struct recipe *recipe)
{
    fputs("ssh -N " DEVICE_OPTIONS, out);
    write_destination(out, recipe);
}

/* Without a monitor port: ServerAlive finds out by itself. */
static void write_autossh(FILE *out, const struct recipe *recipe)
{
    fputs("AUTOSSH_GATETIME=0 autossh -M 0 -N " DEVICE_OPTIONS, out);
    write_destination(out, recipe);
}

static void write_unit(FILE *out, const struct recipe *recipe)
{
    fprintf(out,
            "[Unit]\n"
            "Description=Publish the services of %s\n"
            "Wants=network-online.target\n"
            "After=network-online.target\n"
            "StartLimitIntervalSec=0\n"
            "\n"
            "[Service]\n"
            "# The user whose ~/.ssh has the key and the line of known_hosts:\n"
            "# User=pi\n"
            "ExecStart=/usr/bin/ssh -N -o BatchMode=yes " DEVICE_OPTIONS,
            recipe->name);
    write_destination(out, recipe);
    fputs("\n"
          "Restart=always\n"
          "RestartSec=5\n"
          "\n"
          "[Install]\n"
          "WantedBy=multi-user.target\n",
          out);
}

static json_t *relay_of(const struct recipe *recipe)
{
    return json_pack("{s:s, s:i, s:s, s:b}", "host", recipe->place->host, "port", recipe->place->port, "user",
                     recipe->tenant, "guessed", recipe->guessed);
}

json_t *recipe_client(const struct recipe *recipe)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "name", recipe->name, "kind", "client", "relay",
                     relay_of(recipe), "known_hosts", compose(write_known_hosts, recipe), "ssh_config",
                     compose(write_ssh_config, recipe), "forwards", forwards(recipe));
}

json_t *recipe_device(const struct recipe *recipe)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "name", recipe->name, "kind", "device", "relay",
                     relay_of(recipe), "known_hosts", compose(write_known_hosts, recipe), "command",
                     compose(write_command, recipe), "autossh", compose(write_autossh, recipe),
                     "systemd_unit", compose(write_unit, recipe));
}

/* ---- For people ---- */

static const char *part(const json_t *parts, const char *name)
{
    const char *text = json_string_value(json_object_get(parts, name));
    return text != NULL ? text : "";
}

static void write_head(FILE *out, const json_t *parts)
{
    const json_t *relay = json_object_get(parts, "relay");
    if (json_is_true(json_object_get(relay, "guessed")))
        fprintf(out,
                "# public-address is not set in relayd.conf: %s port %d is where\n"
                "# you have reached the relay just now.\n",
                part(relay, "host"), (int)json_integer_value(json_object_get(relay, "port")));
    fprintf(out, "#\n# The relay's host key, a line of ~/.ssh/known_hosts:\n# %s\n\n",
            part(parts, "known_hosts"));
}

static void write_client(FILE *out, const json_t *parts)
{
    size_t i;
    json_t *line;
    fprintf(out, "# For ~/.ssh/config: how %s reaches what is behind this relay.\n", part(parts, "name"));
    write_head(out, parts);
    fputs(part(parts, "ssh_config"), out);
    if (json_array_size(json_object_get(parts, "forwards")) > 0)
        fputs("\n# What is no SSH, on a port of your own machine:\n", out);
    json_array_foreach(json_object_get(parts, "forwards"), i, line)
        fprintf(out, "# %s\n", json_string_value(line));
}

static void write_device(FILE *out, const json_t *parts)
{
    fprintf(out,
            "# How %s publishes its services on this relay: one -R [NAME:]PORT:HOST:HOSTPORT\n"
            "# each, with HOST:HOSTPORT as the device sees it. Put in where they really are.\n",
            part(parts, "name"));
    write_head(out, parts);
    fprintf(out, "# By hand:\n%s\n\n", part(parts, "command"));
    fprintf(out, "# With autossh:\n%s\n\n", part(parts, "autossh"));
    fprintf(out, "# With systemd, as /etc/systemd/system/relay.service:\n%s", part(parts, "systemd_unit"));
}

char *recipe_text(const json_t *parts, unsigned columns)
{
    (void)columns;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    if (strcmp(part(parts, "kind"), "device") == 0)
        write_device(out, parts);
    else
        write_client(out, parts);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
