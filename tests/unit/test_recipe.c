#include "relayd/recipe.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define KEY "ssh-ed25519 AAAAC3Nz"

static struct place relay = { "relay.example.net", 2222 };
static json_t *endpoints, *parts;
static char *text;

static void forget(void)
{
    json_decref(endpoints);
    json_decref(parts);
    free(text);
}

TestSuite(recipe, .fini = forget);

static struct recipe recipe_for(const char *name, const char *published)
{
    endpoints = json_loads(published, 0, NULL);
    return (struct recipe){ .name = name,
                            .tenant = "acme",
                            .fingerprint = "SHA256:abc",
                            .place = &relay,
                            .host_key = KEY,
                            .endpoints = endpoints };
}

static const char *part(const char *name)
{
    return json_string_value(json_object_get(parts, name));
}

Test(recipe, places)
{
    static const struct {
        const char *address, *host;
        unsigned port;
        const char *known_hosts;
    } rows[] = {
        { "relay.example.net", "relay.example.net", 22, "relay.example.net" },
        { "relay.example.net:22", "relay.example.net", 22, "relay.example.net" },
        { "relay.example.net:2222", "relay.example.net", 2222, "[relay.example.net]:2222" },
        { "192.0.2.1:65535", "192.0.2.1", 65535, "[192.0.2.1]:65535" },
        { "[2001:db8::1]", "2001:db8::1", 22, "2001:db8::1" },
        { "[2001:db8::1]:2222", "2001:db8::1", 2222, "[2001:db8::1]:2222" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct place place;
        char known_hosts[300];
        place_parse(rows[i].address, &place);
        place_known_hosts(&place, known_hosts, sizeof(known_hosts));
        cr_expect_str_eq(place.host, rows[i].host);
        cr_expect_eq(place.port, rows[i].port);
        cr_expect_str_eq(known_hosts, rows[i].known_hosts);
    }
}

Test(recipe, a_client_gets_a_block_for_each_ssh_endpoint)
{
    struct recipe recipe = recipe_for("alice",
                                      "[{\"endpoint\":\"raspi:22\"},{\"endpoint\":\"raspi:2200\"},"
                                      "{\"endpoint\":\"lab.raspi:22\"},{\"endpoint\":\"web.raspi:80\"}]");
    parts = recipe_client(&recipe);
    const char *config = part("ssh_config");
    cr_expect_not_null(strstr(config, "Host relay-acme\n    HostName relay.example.net\n    Port 2222\n"
                                      "    User acme\n"));
    cr_expect_not_null(
        strstr(config, "\nHost raspi.acme\n    HostName raspi.acme\n    ProxyJump relay-acme\n"));
    cr_expect_not_null(strstr(config, "\nHost lab.raspi.acme\n"));
    cr_expect_null(strstr(config, "web"));
    cr_expect_null(strchr(config, '*'));
    const json_t *forwards = json_object_get(parts, "forwards");
    cr_assert_eq(json_array_size(forwards), 2);
    cr_expect_str_eq(json_string_value(json_array_get(forwards, 0)), "ssh -N -L 2200:raspi:2200 relay-acme");
    cr_expect_str_eq(json_string_value(json_array_get(forwards, 1)),
                     "ssh -N -L 8080:web.raspi:80 relay-acme");
}

Test(recipe, a_client_that_may_go_everywhere_gets_one_block)
{
    struct recipe recipe = recipe_for("alice", "[{\"endpoint\":\"raspi:22\"}]");
    recipe.everything = true;
    parts = recipe_client(&recipe);
    cr_expect_not_null(strstr(part("ssh_config"), "\nHost *.acme\n    ProxyJump relay-acme\n"));
    cr_expect_null(strstr(part("ssh_config"), "raspi"));
}

Test(recipe, a_device_gets_what_it_publishes)
{
    struct recipe recipe = recipe_for("raspi",
                                      "[{\"endpoint\":\"raspi:22\"},{\"endpoint\":\"web.raspi:80\"}]");
    parts = recipe_device(&recipe);
    const char *publishes = " -R 22:localhost:22 -R web.raspi:80:localhost:80 -p 2222 acme@relay.example.net";
    static const char *const names[] = { "command", "autossh", "systemd_unit" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_expect_not_null(strstr(part(names[i]), publishes), "%s", part(names[i]));
        cr_expect_not_null(strstr(part(names[i]), "ExitOnForwardFailure=yes"));
    }
    cr_expect_not_null(strstr(part("systemd_unit"), "Restart=always"));
    cr_expect_str_eq(part("known_hosts"), "[relay.example.net]:2222 " KEY);
}

Test(recipe, a_device_that_publishes_nothing_gets_an_example)
{
    struct recipe recipe = recipe_for("raspi", "[]");
    parts = recipe_device(&recipe);
    cr_expect_not_null(strstr(part("command"), " -R 22:localhost:22 "));
}

/* What is no setting is a comment: a client's text can be used as a file. */
Test(recipe, the_text_of_a_client_is_an_ssh_config)
{
    struct recipe recipe = recipe_for("alice", "[{\"endpoint\":\"raspi:22\"},{\"endpoint\":\"raspi:80\"}]");
    recipe.guessed = true;
    parts = recipe_client(&recipe);
    text = recipe_text(parts, 80);
    cr_expect_not_null(strstr(text, "# [relay.example.net]:2222 " KEY "\n"));
    cr_expect_not_null(strstr(text, "# public-address is not set"));
    for (const char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        cr_expect(*line == '#' || strncmp(line, "Host ", 5) == 0 || strncmp(line, "    ", 4) == 0, "%s",
                  line);
}

Test(recipe, a_known_place_is_not_called_a_guess)
{
    struct recipe recipe = recipe_for("raspi", "[]");
    parts = recipe_device(&recipe);
    text = recipe_text(parts, 80);
    cr_expect_null(strstr(text, "public-address"));
}
