#include "schema/result.h"

#include "support.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void expect_text(const char *json, unsigned width, const char *expected)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", json);
    char *text = result_render(value, width);
    cr_assert_not_null(text);
    cr_expect_str_eq(text, expected, "%s gives:\n%s", json, text);
    free(text);
    json_decref(value);
}

Test(result, a_change_is_a_sentence)
{
    expect_text(
        "{\"status\":\"added\",\"tenant\":\"acme\",\"kind\":\"device\",\"name\":\"raspi\",\"fingerprint\":"
        "\"SHA256:x\",\"rules\":[],\"closed\":{\"sessions\":0,\"bridges\":0}}",
        0, "added device raspi SHA256:x\n");
    expect_text("{\"status\":\"removed\",\"name\":\"raspi\",\"closed\":{\"sessions\":1,\"bridges\":2}}", 0,
                "removed raspi; closed 1 session and 2 bridges\n");
    expect_text("{\"status\":\"set\",\"name\":\"raspi\",\"limit\":\"bridges\",\"value\":10}", 0,
                "set raspi: bridges 10\n");
    expect_text("{\"status\":\"set\",\"name\":\"raspi\",\"limit\":\"bridges\",\"value\":null}", 0,
                "set raspi: bridges none\n");
    expect_text("{\"status\":\"set\",\"name\":\"boss\",\"admin\":true}", 0, "set boss, administrator: yes\n");
    expect_text("{\"status\":\"reloaded\",\"changed\":[\"a\",\"b\"],\"restart\":[\"c\"]}", 0,
                "reloaded; changed now: a b; at the next start: c\n");
    expect_text("{\"status\":\"added\",\"kind\":\"device\",\"added\":3,\"unchanged\":2,\"updated\":1}", 0,
                "3 devices added, 2 unchanged, 1 updated\n");
}

Test(result, a_note_is_a_line_of_its_own)
{
    expect_text("{\"status\":\"set\",\"name\":\"raspi:22\",\"proxy_protocol\":false,\"note\":\"the "
                "\\u001b[2J shop\"}",
                0, "set raspi:22: PROXY protocol off\nnote: the ?[2J shop\n");
}

Test(result, a_sentence_follows_the_width)
{
    expect_text("{\"status\":\"added\",\"kind\":\"device\",\"name\":\"raspi\",\"fingerprint\":\"SHA256:x\"}",
                20, "added device raspi\nSHA256:x\n");
}

Test(result, a_line_for_a_file_is_never_wrapped)
{
    expect_text("{\"known_hosts\":\"[relay.example.net]:2222 ssh-ed25519 AAAA\",\"type\":\"ssh-ed25519\"}",
                20, "[relay.example.net]:2222 ssh-ed25519 AAAA\n");
}

Test(result, all_else_as_tables_and_values)
{
    expect_text("[{\"name\":\"raspi\"}]", 0, "NAME\nraspi\n");
    expect_text("{\"name\":\"raspi\",\"port\":22}", 0, "name: raspi\nport: 22\n");
    expect_text("[]", 0, "none\n");
}
