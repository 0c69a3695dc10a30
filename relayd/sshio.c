#include "relayd/sshio.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Cheap and strong first; sntrup761 costs 7 ms of CPU a login, finite-field groups up to 117 ms. */
#define KEX "mlkem768x25519-sha256,curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256"
#define CIPHERS                                                                                              \
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,"                \
    "aes128-ctr"
#define MACS "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512"
#define USER_KEYS                                                                                            \
    "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,"                  \
    "rsa-sha2-256,sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com"

const char *sshio_version(void)
{
    static char text[128];
    snprintf(text, sizeof(text), "%s (%s)", ssh_version(0), LIBSSH_ORIGIN);
    return text;
}

static int describe(ssh_key ssh, struct host_key *key)
{
    unsigned char *hash = NULL;
    size_t len;
    char *blob = NULL;
    if (ssh_get_publickey_hash(ssh, SSH_PUBLICKEY_HASH_SHA256, &hash, &len) != 0)
        return -1;
    char *fingerprint = ssh_get_fingerprint_hash(SSH_PUBLICKEY_HASH_SHA256, hash, len);
    ssh_clean_pubkey_hash(&hash);
    if (fingerprint == NULL || ssh_pki_export_pubkey_base64(ssh, &blob) != SSH_OK) {
        ssh_string_free_char(fingerprint);
        return -1;
    }
    snprintf(key->fingerprint, sizeof(key->fingerprint), "%s", fingerprint);
    snprintf(key->line, sizeof(key->line), "%s %s", ssh_key_type_to_char(ssh_key_type(ssh)), blob);
    ssh_string_free_char(fingerprint);
    ssh_string_free_char(blob);
    return 0;
}

static ssh_key read_key(const char *path)
{
    ssh_key ssh = NULL;
    return ssh_pki_import_privkey_file(path, NULL, NULL, NULL, &ssh) == SSH_OK ? ssh : NULL;
}

static int sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd >= 0 ? fsync(fd) : -1;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Writes the key under another name first and reads it back: neither a crash nor a full disk, of
 * which libssh does not tell, leaves half of one. */
static int write_key(ssh_key ssh, const char *dir, const char *path)
{
    char temporary[600], public[600];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    snprintf(public, sizeof(public), "%s.pub", path);
    unlink(temporary);
    errno = ENOSPC; /* unless somebody knows better */
    int rc = ssh_pki_export_privkey_file(ssh, NULL, NULL, NULL, temporary) == SSH_OK ? sync_file(temporary)
                                                                                     : -1;
    ssh_key written = rc == 0 ? read_key(temporary) : NULL;
    if (written == NULL || rename(temporary, path) != 0) {
        ssh_key_free(written);
        unlink(temporary);
        return -1;
    }
    ssh_key_free(written);
    ssh_pki_export_pubkey_file(ssh, public); /* a convenience: it can be made again from the key */
    return sync_file(dir);
}

static int make_host_key(const char *dir, const struct host_key *key, struct failure *failure)
{
    ssh_key ssh = NULL;
    if (ssh_pki_generate_key(SSH_KEYTYPE_ED25519, NULL, &ssh) != SSH_OK)
        return fail(failure, REASON_out_of_memory, "cannot make a host key");
    int rc = write_key(ssh, dir, key->path);
    if (rc != 0)
        fail(failure, REASON_store_unavailable, "cannot write the host key %s: %s", key->path,
             strerror(errno));
    ssh_key_free(ssh);
    return rc;
}

int sshio_host_key(const char *dir, struct host_key *key, struct failure *failure)
{
    struct stat st;
    snprintf(key->path, sizeof(key->path), "%s/ssh_host_ed25519_key", dir);
    if (stat(key->path, &st) != 0) {
        if (errno != ENOENT)
            return fail(failure, REASON_store_unavailable, "cannot read the host key %s: %s", key->path,
                        strerror(errno));
        if (make_host_key(dir, key, failure) != 0)
            return -1;
    } else if ((st.st_mode & 077) != 0 || (st.st_uid != geteuid() && st.st_uid != 0)) {
        return fail(failure, REASON_store_unavailable,
                    "others may read the host key %s: give it to the user of relayd and chmod 600 it, or "
                    "replace it if somebody did",
                    key->path);
    }
    ssh_key ssh = read_key(key->path);
    if (ssh == NULL)
        return fail(failure, REASON_store_unavailable,
                    "cannot read the host key %s: is it an OpenSSH private key without a passphrase?",
                    key->path);
    int rc = describe(ssh, key);
    ssh_key_free(ssh);
    return rc == 0 ? 0 : fail(failure, REASON_out_of_memory, "%s", reason_sentence(REASON_out_of_memory));
}

ssh_bind sshio_bind_new(const char *host_key_path, struct failure *failure)
{
    bool process_config = false;
    int rsa_bits = 2048;
    ssh_bind bind = ssh_bind_new();
    if (bind != NULL &&
        /* first of all, or the system's libssh server configuration would be read */
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_PROCESS_CONFIG, &process_config) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_BANNER, "relayd_" PACKAGE_VERSION) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_HOSTKEY, host_key_path) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_KEY_EXCHANGE, KEX) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_CIPHERS_C_S, CIPHERS) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_CIPHERS_S_C, CIPHERS) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_HMAC_C_S, MACS) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_HMAC_S_C, MACS) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_PUBKEY_ACCEPTED_KEY_TYPES, USER_KEYS) == 0 &&
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_RSA_MIN_SIZE, &rsa_bits) == 0)
        return bind;
    fail(failure, REASON_protocol_error, "libssh refuses its set-up: %s",
         bind != NULL ? ssh_get_error(bind) : reason_sentence(REASON_out_of_memory));
    ssh_bind_free(bind);
    return NULL;
}

ssh_session sshio_accept(ssh_bind bind, int fd, ssh_counter socket_counter, ssh_counter raw_counter,
                         uint64_t rekey_bytes)
{
    ssh_session ssh = ssh_new();
    if (ssh == NULL || ssh_bind_accept_fd(bind, ssh, fd) != SSH_OK) {
        if (ssh == NULL || ssh_get_fd(ssh) < 0)
            close(fd);
        ssh_free(ssh);
        return NULL;
    }
    ssh_set_blocking(ssh, 0);
    ssh_set_counters(ssh, socket_counter, raw_counter);
    ssh_set_auth_methods(ssh, SSH_AUTH_METHOD_PUBLICKEY);
    if (rekey_bytes > 0)
        ssh_options_set(ssh, SSH_OPTIONS_REKEY_DATA, &rekey_bytes);
    return ssh;
}

bool sshio_alive(ssh_session ssh)
{
    return ssh_get_fd(ssh) >= 0 && (ssh_get_status(ssh) & (SSH_CLOSED | SSH_CLOSED_ERROR)) == 0;
}

bool sshio_write_pending(ssh_session ssh)
{
    return (ssh_get_status(ssh) & SSH_WRITE_PENDING) != 0;
}

bool sshio_delivered(ssh_session ssh, unsigned *since_ack)
{
    struct tcp_info info = { 0 };
    socklen_t len = sizeof(info);
    int queued = 0;
    getsockopt(ssh_get_fd(ssh), IPPROTO_TCP, TCP_INFO, &info, &len);
    ioctl(ssh_get_fd(ssh), SIOCOUTQ, &queued);
    *since_ack = info.tcpi_last_ack_recv;
    return queued == 0 && !sshio_write_pending(ssh);
}

void sshio_local(ssh_session ssh, char address[SOURCE_TEXT_SIZE], uint16_t *port)
{
    struct sockaddr_storage local = { .ss_family = AF_UNSPEC };
    socklen_t len = sizeof(local);
    getsockname(ssh_get_fd(ssh), (struct sockaddr *)&local, &len);
    source_address((const struct sockaddr *)&local, address, port);
}

/* While an earlier request is unanswered nothing is sent; the first call after its answer only
 * collects that (libssh.md, 5). */
void sshio_ask(ssh_session ssh)
{
    ssh_send_keepalive(ssh);
    if (sshio_alive(ssh))
        ssh_send_keepalive(ssh);
}

void sshio_disconnect(ssh_session ssh, const char *why)
{
    if (!sshio_alive(ssh))
        return;
    ssh_session_set_disconnect_message(ssh, why);
    ssh_set_fd_towrite(ssh);
    ssh_disconnect(ssh);
}
