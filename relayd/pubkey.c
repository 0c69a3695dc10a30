#include "relayd/pubkey.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RSA_BITS_MIN 2048
#define BLOB_MAX 12000 /* base64 bytes: RSA with 65,536 bits */

/* Certificates must not pass: libssh verifies the signature of the key in them, but neither who
 * signed it nor until when it holds (libssh.md, 4). */
static bool type_taken(enum ssh_keytypes_e type)
{
    switch (type) {
    case SSH_KEYTYPE_RSA:
    case SSH_KEYTYPE_ECDSA_P256:
    case SSH_KEYTYPE_ECDSA_P384:
    case SSH_KEYTYPE_ECDSA_P521:
    case SSH_KEYTYPE_ED25519:
    case SSH_KEYTYPE_SK_ECDSA:
    case SSH_KEYTYPE_SK_ED25519:
        return true;
    default:
        return false;
    }
}

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Decodes at most size bytes; returns how many. The text is libssh's own export: no checks. */
static size_t decode(const char *text, unsigned char *out, size_t size)
{
    unsigned long bits = 0;
    size_t used = 0;
    for (int n = 0; *text != '\0' && *text != '=' && used < size; text++) {
        const char *at = strchr(base64, *text);
        bits = bits << 6 | (at != NULL ? (unsigned long)(at - base64) : 0);
        n += 6;
        if (n >= 8) {
            n -= 8;
            out[used++] = (unsigned char)(bits >> n);
        }
    }
    return used;
}

static unsigned long read_u32(const unsigned char *p)
{
    return (unsigned long)p[0] << 24 | (unsigned long)p[1] << 16 | (unsigned long)p[2] << 8 | p[3];
}

/* Bits of the modulus: string "ssh-rsa", mpint e, mpint n (RFC 4253, 6.6). 0 if malformed. */
static unsigned long rsa_bits(const char *blob)
{
    unsigned char raw[8192 + 64];
    size_t len = decode(blob, raw, sizeof(raw)), at = 0;
    for (int field = 0; field < 3; field++) {
        if (len - at < 4)
            return 0;
        unsigned long size = read_u32(raw + at);
        at += 4;
        if (size > len - at)
            return 0;
        if (field < 2) {
            at += size;
            continue;
        }
        while (size > 0 && raw[at] == 0) {
            at++;
            size--;
        }
        unsigned long bits = size * 8;
        for (unsigned char top = size > 0 ? raw[at] : 0xff; !(top & 0x80); top = (unsigned char)(top << 1))
            bits--;
        return bits;
    }
    return 0;
}

static int fill(ssh_key ssh, struct pubkey *key)
{
    unsigned char *hash = NULL;
    size_t len = 0;
    if (ssh_pki_export_pubkey_base64(ssh, &key->blob) != SSH_OK)
        return -1;
    if (ssh_get_publickey_hash(ssh, SSH_PUBLICKEY_HASH_SHA256, &hash, &len) != 0)
        return -1;
    char *fingerprint = ssh_get_fingerprint_hash(SSH_PUBLICKEY_HASH_SHA256, hash, len);
    snprintf(key->digest, sizeof(key->digest), "%02x%02x%02x%02x", hash[0], hash[1], hash[2], hash[3]);
    ssh_clean_pubkey_hash(&hash);
    if (fingerprint == NULL)
        return -1;
    snprintf(key->fingerprint, sizeof(key->fingerprint), "%s", fingerprint);
    ssh_string_free_char(fingerprint);
    return 0;
}

int pubkey_from_ssh(ssh_key ssh, struct pubkey *key, struct failure *failure)
{
    memset(key, 0, sizeof(*key));
    enum ssh_keytypes_e type = ssh_key_type(ssh);
    const char *name = ssh_key_type_to_char(type);
    snprintf(key->type, sizeof(key->type), "%s", name != NULL ? name : "unknown");
    if (strstr(key->type, "-cert-v01@") != NULL)
        return fail(
            failure, REASON_bad_key,
            "that is a certificate (%s): relayd does not check certificates, give the plain public key",
            key->type);
    if (!type_taken(type))
        return fail(failure, REASON_bad_key, "relayd takes no %s keys: make one with ssh-keygen -t ed25519",
                    key->type);
    if (fill(ssh, key) != 0)
        return fail(failure, REASON_bad_key, "that key cannot be read");
    if (type == SSH_KEYTYPE_RSA && rsa_bits(key->blob) < RSA_BITS_MIN)
        return fail(
            failure, REASON_bad_key,
            "that RSA key has %lu bits: relayd takes no fewer than %d, better is ssh-keygen -t ed25519",
            rsa_bits(key->blob), RSA_BITS_MIN);
    return 0;
}

/* Cuts the next word off *text; "" at the end. */
static char *next_word(char **text)
{
    char *word = *text + strspn(*text, " \t");
    *text = word + strcspn(word, " \t");
    if (**text != '\0')
        *(*text)++ = '\0';
    return word;
}

/* Cut between characters, so that UTF-8 stays UTF-8. */
static void copy_comment(const char *text, char *out, size_t size)
{
    size_t len = strlen(text);
    if (len >= size)
        for (len = size - 1; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80;)
            len--;
    memcpy(out, text, len);
    out[len] = '\0';
}

static int parse_words(char *rest, struct pubkey *key, struct failure *failure)
{
    char *type = next_word(&rest), *blob = next_word(&rest);
    rest += strspn(rest, " \t");
    if (strcmp(type, "ssh-dss") == 0)
        return fail(failure, REASON_bad_key, "DSA keys are broken: make one with ssh-keygen -t ed25519");
    if (strstr(type, "-cert-v01@openssh.com") != NULL)
        return fail(
            failure, REASON_bad_key,
            "that is a certificate (%.60s): relayd does not check certificates, give the plain public key",
            type);
    enum ssh_keytypes_e ssh_type = ssh_key_type_from_name(type);
    if (ssh_type == SSH_KEYTYPE_UNKNOWN)
        return fail(
            failure, REASON_bad_key,
            "\"%.40s\" does not begin a public key: give a line such as \"ssh-ed25519 AAAA... name\", "
            "or the name of a .pub file",
            type);
    ssh_key ssh = NULL;
    if (strlen(blob) > BLOB_MAX || ssh_pki_import_pubkey_base64(blob, ssh_type, &ssh) != SSH_OK)
        return fail(failure, REASON_bad_key,
                    "the %s key behind \"%.20s\" cannot be read: was it cut or wrapped when it was copied?",
                    type, blob);
    int rc = pubkey_from_ssh(ssh, key, failure);
    ssh_key_free(ssh);
    if (rc == 0 && strcmp(key->blob, blob) != 0)
        return fail(failure, REASON_bad_key,
                    "the %s key behind \"%.20s\" has something at its end that does not belong to it", type,
                    blob);
    if (rc == 0)
        copy_comment(rest, key->comment, sizeof(key->comment));
    if (rc == 0 && strcmp(key->type, type) != 0 && ssh_key_type_from_name(key->type) != ssh_type)
        return fail(failure, REASON_bad_key, "that key says %.60s and is %s", type, key->type);
    return rc;
}

int pubkey_parse(const char *line, struct pubkey *key, struct failure *failure)
{
    memset(key, 0, sizeof(*key));
    if (strstr(line, "PRIVATE KEY") != NULL)
        return fail(failure, REASON_bad_key,
                    "that is a private key: give the public one, it ends in .pub. Whoever saw the private "
                    "key can use it, so replace it if it left its machine");
    char *copy = strdup(line);
    if (copy == NULL)
        return fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
    copy[strcspn(copy, "\r\n")] = '\0';
    int rc = parse_words(copy, key, failure);
    free(copy);
    return rc;
}

void pubkey_clear(struct pubkey *key)
{
    ssh_string_free_char(key->blob);
    key->blob = NULL;
}
