#include "relayd/pubkey.h"

#include "keys.h"
#include "support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct failure failure;

static int parse(const char *line, struct pubkey *key)
{
    memset(&failure, 0, sizeof(failure));
    int rc = pubkey_parse(line, key, &failure);
    cr_expect_eq(rc == 0, failure.reason == REASON_none, "%s", line);
    cr_expect_eq(rc == 0, failure.text[0] == '\0', "%s", line);
    return rc;
}

static void expect_refused(const char *line, const char *about)
{
    struct pubkey key;
    cr_expect_eq(parse(line, &key), -1, "%s", line);
    cr_expect_eq(failure.reason, REASON_bad_key, "%s", line);
    cr_expect_not_null(strstr(failure.text, about), "\"%s\" says nothing of \"%s\"", failure.text, about);
    pubkey_clear(&key);
}

static const struct good {
    const char *type, *blob, *fingerprint;
} goods[] = {
#define GOOD(name)                                                                                           \
    {                                                                                                        \
        TYPE_##name, BLOB_##name, FINGERPRINT_##name                                                         \
    }
    GOOD(ED25519),   GOOD(ED25519_B), GOOD(ECDSA_256),  GOOD(ECDSA_384),
    GOOD(ECDSA_521), GOOD(RSA_2048),  GOOD(SK_ED25519), GOOD(SK_ECDSA),
#undef GOOD
};
#define NGOODS (sizeof(goods) / sizeof(goods[0]))

static void expect_good(const struct good *good, const char *line, const char *comment)
{
    struct pubkey key;
    cr_assert_eq(parse(line, &key), 0, "%s: %s", line, failure.text);
    cr_expect_str_eq(key.type, good->type);
    cr_expect_str_eq(key.blob, good->blob);
    cr_expect_str_eq(key.fingerprint, good->fingerprint);
    cr_expect_str_eq(key.comment, comment);
    cr_expect_eq(strspn(key.digest, "0123456789abcdef"), 8);
    cr_expect_eq(strlen(key.digest), 8);
    pubkey_clear(&key);
}

/* ---- Good keys ---- */

Test(pubkey, each_type_that_relayd_takes)
{
    for (size_t i = 0; i < NGOODS; i++) {
        char line[2048];
        snprintf(line, sizeof(line), "%s %s", goods[i].type, goods[i].blob);
        expect_good(&goods[i], line, "");
        snprintf(line, sizeof(line), "%s %s pi@raspi", goods[i].type, goods[i].blob);
        expect_good(&goods[i], line, "pi@raspi");
    }
}

Test(pubkey, blanks_and_line_ends)
{
    expect_good(&goods[0], KEY(ED25519) "\n", "");
    expect_good(&goods[0], KEY(ED25519) " a b  c\r\n", "a b  c");
    expect_good(&goods[0], " \t" TYPE_ED25519 " \t " BLOB_ED25519 " \t x", "x");
    expect_good(&goods[0], KEY(ED25519) " x\n" KEY(ED25519_B) " y\n", "x");
    expect_good(&goods[0], KEY(ED25519) " \n", "");
}

Test(pubkey, the_digest_is_the_beginning_of_the_sha_256)
{
    struct pubkey key;
    cr_assert_eq(parse(KEY(ED25519), &key), 0);
    cr_expect_str_eq(key.digest, "274ea39f"); /* FINGERPRINT_ED25519 in hex */
    pubkey_clear(&key);
    pubkey_clear(&key);
}

/* The part of a comment that fits is kept, and no character is cut in two. */
Test(pubkey, long_comments)
{
    for (size_t n = 100; n < 140; n++) {
        char line[512];
        struct pubkey key;
        snprintf(line, sizeof(line), KEY(ED25519) " %s\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac", repeat('c', n));
        cr_assert_eq(parse(line, &key), 0);
        size_t len = strlen(key.comment), room = sizeof(key.comment) - 1;
        size_t marks = n >= room ? 0 : (room - n) / 3 < 3 ? (room - n) / 3 : 3;
        cr_expect_eq(len, (n < room ? n : room) + 3 * marks, "%zu: %s", n, key.comment);
        pubkey_clear(&key);
    }
}

/* ---- What relayd does not take ---- */

Test(pubkey, short_rsa)
{
    expect_refused(KEY(RSA_1024), "1024 bits");
    expect_refused(KEY(RSA_2047), "2047 bits");
}

Test(pubkey, dsa)
{
    expect_refused(KEY(DSA), "DSA");
}

Test(pubkey, certificates)
{
    expect_refused(KEY(CERTIFICATE) " pi", "certificate");
    expect_refused("ssh-rsa-cert-v01@openssh.com AAAA", "certificate");
    expect_refused("sk-ssh-ed25519-cert-v01@openssh.com AAAA", "certificate");
    expect_refused(TYPE_ED25519 " " BLOB_CERTIFICATE, "");
    expect_refused(TYPE_CERTIFICATE " " BLOB_ED25519, "certificate");
}

Test(pubkey, a_private_key_is_recognised)
{
    expect_refused("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n", "private key");
    expect_refused("-----BEGIN RSA PRIVATE KEY-----", "private key");
    cr_expect_null(strstr(failure.text, "BEGIN"), "it must not be repeated");
}

Test(pubkey, what_begins_no_key)
{
    expect_refused("", "does not begin");
    expect_refused("\n", "does not begin");
    expect_refused("# comment", "does not begin");
    expect_refused("raspi.pub", "does not begin");
    expect_refused(BLOB_ED25519, "does not begin");
    expect_refused("no-pty " KEY(ED25519), "does not begin");
    expect_refused("command=\"/bin/sh\" " KEY(ED25519), "does not begin");
    expect_refused("@cert-authority * " KEY(ED25519), "does not begin");
    expect_refused("ssh-foo " BLOB_ED25519, "does not begin");
    expect_refused("---- BEGIN SSH2 PUBLIC KEY ----", "does not begin");
    expect_refused("\n" KEY(ED25519), "does not begin");
}

/* ---- Damaged keys ---- */

Test(pubkey, no_blob)
{
    for (size_t i = 0; i < NGOODS; i++)
        expect_refused(goods[i].type, "");
    expect_refused(TYPE_ED25519 " x", "");
    expect_refused(TYPE_ED25519 " =", "");
    expect_refused(TYPE_ED25519 " ====", "");
}

/* Cut anywhere, also behind a whole group of four. */
Test(pubkey, truncated)
{
    for (size_t i = 0; i < NGOODS; i++) {
        for (size_t n = strlen(goods[i].blob) - 1; n > 0; n--) {
            char line[2048];
            struct pubkey key;
            snprintf(line, sizeof(line), "%s %.*s", goods[i].type, (int)n, goods[i].blob);
            cr_expect_eq(parse(line, &key), -1, "%s", line);
            pubkey_clear(&key);
        }
    }
}

Test(pubkey, garbage_in_the_base64)
{
    expect_refused(KEY(ED25519) "A", "");
    expect_refused(KEY(ED25519) "AAAA", "");
    expect_refused(KEY(ED25519) "=", "");
    expect_refused(KEY(ED25519) "====", "");
    expect_refused(KEY(ED25519) "!", "");
    expect_refused(KEY(ED25519) "," BLOB_ED25519, "");
    expect_refused(KEY(ED25519) BLOB_ED25519, "");
    expect_refused(KEY(SK_ED25519) "AAAA", "");
    expect_refused(KEY(RSA_2048) "AAAA", "");
    expect_refused(TYPE_ED25519 " A" BLOB_ED25519, "");
    expect_refused(TYPE_ED25519 " \xff" BLOB_ED25519, "");
    expect_refused(TYPE_ED25519 " AAAA!" BLOB_ED25519, "");
}

Test(pubkey, the_word_in_front_must_be_that_of_the_blob)
{
    for (size_t i = 0; i < NGOODS; i++) {
        for (size_t j = 0; j < NGOODS; j++) {
            char line[2048];
            struct pubkey key;
            if (strcmp(goods[i].type, goods[j].type) == 0)
                continue;
            snprintf(line, sizeof(line), "%s %s", goods[i].type, goods[j].blob);
            cr_expect_eq(parse(line, &key), -1, "%s before a key of type %s", goods[i].type, goods[j].type);
            pubkey_clear(&key);
        }
    }
    expect_refused(TYPE_RSA_2048 " " BLOB_DSA, "");
    expect_refused(TYPE_DSA " " BLOB_RSA_2048, "");
}

Test(pubkey, too_long)
{
    char line[70000];
    snprintf(line, sizeof(line), TYPE_RSA_2048 " %s", repeat('A', 12000));
    expect_refused(line, "");
    snprintf(line, sizeof(line), TYPE_RSA_2048 " %s", repeat('A', 60000));
    expect_refused(line, "");
    expect_refused(repeat('x', 60000), "does not begin");
}

/* One byte changed at a time: refused, or another key that is whole. Never a crash. */
Test(pubkey, damaged_anywhere, .timeout = 60)
{
    static const char with[] = "A/=!\x80";
    for (size_t i = 0; i < NGOODS; i++) {
        for (size_t at = 0; at < strlen(goods[i].blob); at++) {
            char line[2048];
            struct pubkey key;
            int before = snprintf(line, sizeof(line), "%s ", goods[i].type);
            snprintf(line + before, sizeof(line) - (size_t)before, "%s", goods[i].blob);
            line[(size_t)before + at] = with[at % (sizeof(with) - 1)];
            if (parse(line, &key) == 0) {
                cr_expect_str_eq(key.type, goods[i].type);
                cr_expect_str_eq(key.blob, line + before);
            }
            pubkey_clear(&key);
        }
    }
}

/* ---- Keys that libssh holds ---- */

Test(pubkey, from_ssh)
{
    ssh_key ssh = NULL;
    struct pubkey key;
    cr_assert_eq(ssh_pki_import_pubkey_base64(BLOB_ED25519, SSH_KEYTYPE_ED25519, &ssh), SSH_OK);
    cr_expect_eq(pubkey_from_ssh(ssh, &key, &failure), 0);
    cr_expect_str_eq(key.blob, BLOB_ED25519);
    cr_expect_str_eq(key.fingerprint, FINGERPRINT_ED25519);
    cr_expect_str_eq(key.comment, "");
    pubkey_clear(&key);
    ssh_key_free(ssh);
}

Test(pubkey, from_ssh_refuses_as_the_parser_does)
{
    static const struct {
        const char *blob;
        enum ssh_keytypes_e type;
        const char *about;
    } rows[] = { { BLOB_CERTIFICATE, SSH_KEYTYPE_ED25519_CERT01, "certificate" },
                 { BLOB_RSA_1024, SSH_KEYTYPE_RSA, "1024 bits" },
                 { BLOB_RSA_2047, SSH_KEYTYPE_RSA, "2047 bits" } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ssh_key ssh = NULL;
        struct pubkey key;
        cr_assert_eq(ssh_pki_import_pubkey_base64(rows[i].blob, rows[i].type, &ssh), SSH_OK, "row %zu", i);
        cr_expect_eq(pubkey_from_ssh(ssh, &key, &failure), -1, "row %zu", i);
        cr_expect_eq(failure.reason, REASON_bad_key);
        cr_expect_not_null(strstr(failure.text, rows[i].about), "%s", failure.text);
        pubkey_clear(&key);
        ssh_key_free(ssh);
    }
}
