#include "relayd/audit.h"
#include "relayd/config.h"
#include "relayd/control.h"
#include "relayd/gate.h"
#include "relayd/keeper.h"
#include "relayd/listener.h"
#include "relayd/log.h"
#include "relayd/loop.h"
#include "relayd/reload.h"
#include "relayd/store.h"
#include "relayd/systemd.h"
#include "relayd/trail.h"
#include "relayd/worker.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define NSIGNALS 3

/* What is up, so that it can be taken down in reverse order from any step of the start. */
struct process {
    struct relay relay;
    struct event_base *base;
    struct listener *listener;
    struct event *signals[NSIGNALS];
    int lock;
    bool control_up, keeper_up, workers_up;
};

static void on_event_log(int severity, const char *message)
{
    log_write(severity >= EVENT_LOG_ERR ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN, NULL, "libevent: %s", message);
}

static void print_version(void)
{
    printf("relayd %s\nlibssh %s\nlibevent %s\nSQLite %s\n", PACKAGE_VERSION, sshio_version(),
           event_get_version(), store_version());
}

static void on_signal(evutil_socket_t signal, short what, void *arg)
{
    struct process *process = arg;
    (void)what;
    if (signal == SIGHUP) {
        control_run(COMMAND_reload);
        return;
    }
    log_info("stopping on signal %d", (int)signal);
    systemd_stopping();
    event_base_loopbreak(process->base);
}

/* ---- Start: one step each; -1 with a reason ---- */

/* As many descriptors as the administrator lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int find_user(const struct config *config, const struct passwd **user, struct failure *failure)
{
    const char *name = config->user.text;
    *user = NULL;
    if (name[0] == '\0') {
        if (geteuid() == 0)
            log_warn("running as root: set `user` in relayd.conf to an account of relayd's own");
        return 0;
    }
    errno = 0;
    *user = getpwnam(name);
    if (*user == NULL)
        return fail(failure, REASON_not_found, "user = %s: there is no such account", name);
    if (geteuid() != 0 && geteuid() != (*user)->pw_uid)
        return fail(failure, REASON_bad_argument, "only root can start relayd for user %s", name);
    return 0;
}

/* Makes a missing directory, for the user that relayd will run as. Only the last component: a wrong
 * path should be noticed. */
static int make_dir(const char *path, mode_t mode, const struct passwd *user, struct failure *failure)
{
    struct stat st;
    if (mkdir(path, mode) == 0) {
        if (chmod(path, mode) != 0)
            return fail(failure, REASON_store_unavailable, "cannot use the directory %s: %s", path,
                        strerror(errno));
        if (user == NULL || geteuid() != 0 || chown(path, user->pw_uid, user->pw_gid) == 0)
            return 0;
    } else if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        return 0;
    } else if (errno == EEXIST) {
        errno = ENOTDIR;
    }
    return fail(failure, REASON_store_unavailable, "cannot use the directory %s: %s", path, strerror(errno));
}

static int make_dirs(const struct config *config, const struct passwd *user, struct failure *failure)
{
    char dir[sizeof(config->control_socket.text)];
    snprintf(dir, sizeof(dir), "%s", config->control_socket.text);
    char *slash = strrchr(dir, '/');
    if (make_dir(config->state_dir.text, 0700, user, failure) != 0)
        return -1;
    if (slash == NULL || slash == dir)
        return 0;
    *slash = '\0';
    return make_dir(dir, 0755, user, failure);
}

static int drop_root(const struct passwd *user, struct failure *failure)
{
    if (user == NULL || geteuid() != 0)
        return 0;
    if (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0)
        return fail(failure, REASON_bad_argument, "cannot become user %s: %s", user->pw_name,
                    strerror(errno));
    return 0;
}

/* One relayd a state directory. The lock goes with the process. */
static int lock_state(struct process *process, struct failure *failure)
{
    char path[512];
    struct stat st;
    const char *dir = process->relay.config.state_dir.text;
    if (stat(dir, &st) == 0 && (st.st_mode & 022) != 0)
        return fail(failure, REASON_store_unavailable,
                    "others may write to the state directory %s, and so change who may log in: chmod 700 it",
                    dir);
    snprintf(path, sizeof(path), "%s/relayd.lock", dir);
    process->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (process->lock < 0)
        return fail(failure, REASON_store_unavailable, "cannot write to the state directory %s: %s", dir,
                    strerror(errno));
    if (flock(process->lock, LOCK_EX | LOCK_NB) != 0)
        return fail(failure, REASON_in_use, "another relayd uses the state directory %s", dir);
    return 0;
}

static int watch_signals(struct process *process, struct failure *failure)
{
    static const int numbers[NSIGNALS] = { SIGTERM, SIGINT, SIGHUP };
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < NSIGNALS; i++) {
        process->signals[i] = evsignal_new(process->base, numbers[i], on_signal, process);
        if (process->signals[i] == NULL || event_add(process->signals[i], NULL) != 0)
            return fail(failure, REASON_out_of_memory, "cannot watch for signals");
    }
    return 0;
}

/* What needs root comes first: sockets and directories, then the user is changed. Threads start
 * with all signals blocked, so that they reach the main thread. */
static int open_sockets(struct process *process, const struct passwd *user, struct failure *failure)
{
    const struct config *config = &process->relay.config;
    process->base = event_base_new();
    if (process->base == NULL)
        return fail(failure, REASON_out_of_memory, "cannot make an event loop");
    if (make_dirs(config, user, failure) != 0)
        return -1;
    struct listener_options options = {
        .addresses = &config->listen,
        .npassed = systemd_sockets(),
        .nloops = process->relay.nloops,
        .accepting = worker_accept,
        .held = worker_connections,
        .logins = worker_logins,
    };
    process->listener = listener_new(process->base, &options, &process->relay.port, failure);
    if (process->listener == NULL)
        return -1;
    if (control_start(process->base, config->control_socket.text, failure) != 0)
        return -1;
    process->control_up = true;
    return 0;
}

static int start_threads(struct process *process, struct failure *failure)
{
    char path[512];
    sigset_t mask, old;
    const struct config *config = &process->relay.config;
    snprintf(path, sizeof(path), "%s/relayd.db", config->state_dir.text);
    sigfillset(&mask);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    trail_configure(config);
    if (log_start() != 0)
        fail(failure, REASON_out_of_memory, "cannot start a thread");
    else if (audit_start() != 0)
        fail(failure, REASON_out_of_memory, "no descriptor is left");
    else
        process->keeper_up = keeper_start(path, worker_route, failure) == 0;
    process->workers_up = process->keeper_up &&
                          worker_start_all(&process->relay, control_answer, failure) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return process->workers_up ? 0 : -1;
}

static int start(struct process *process, struct failure *failure)
{
    const struct passwd *user;
    struct relay *relay = &process->relay;
    raise_descriptor_limit();
    umask(077); /* whatever relayd writes is its own */
    if (gate_start(&relay->config, failure) != 0 || find_user(&relay->config, &user, failure) != 0 ||
        open_sockets(process, user, failure) != 0 || drop_root(user, failure) != 0 ||
        lock_state(process, failure) != 0 ||
        sshio_host_key(relay->config.state_dir.text, &relay->host_key, failure) != 0)
        return -1;
    log_info("host key %s %s", relay->host_key.fingerprint, relay->host_key.path);
    return watch_signals(process, failure) == 0 ? start_threads(process, failure) : -1;
}

/* From any state of the start. Workers before the keeper, for they tell it what they saw last. */
static void stop(struct process *process)
{
    listener_free(process->listener);
    if (process->control_up)
        control_stop();
    if (process->workers_up)
        worker_stop_all();
    audit(&(struct audit_event){ .kind = EVENT_stop, .object = PACKAGE_VERSION });
    if (process->keeper_up)
        keeper_stop();
    audit_stop();
    if (process->workers_up)
        worker_free_all();
    control_free();
    for (int i = 0; i < NSIGNALS; i++)
        if (process->signals[i] != NULL)
            event_free(process->signals[i]);
    gate_stop();
    if (process->base != NULL)
        event_base_free(process->base);
    if (process->lock >= 0)
        close(process->lock);
    libevent_global_shutdown();
}

static int run(struct process *process)
{
    struct failure failure = { 0 };
    if (start(process, &failure) != 0) {
        log_error("%s", failure.text);
        stop(process);
        log_stop();
        return 1;
    }
    log_info("ready");
    audit(&(struct audit_event){ .kind = EVENT_start, .object = PACKAGE_VERSION });
    systemd_ready("serving");
    event_base_dispatch(process->base);
    stop(process);
    log_info("stopped");
    log_stop();
    return 0;
}

int main(int argc, char *argv[])
{
    static struct process process = { .lock = -1 };
    struct config *config = &process.relay.config;
    switch (config_load(config, argc, argv)) {
    case CONFIG_ERROR:
        return 2;
    case CONFIG_HELPED:
        return 0;
    case CONFIG_VERSION:
        print_version();
        return 0;
    case CONFIG_RUN:
        break;
    }
    if (config->check_only) {
        printf("relayd: the configuration is good\n");
        return 0;
    }
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    process.relay.nworkers = config->workers > 0 ? config->workers : cores > 0 ? (unsigned)cores : 1;
    process.relay.nloops = 2 * process.relay.nworkers;
    process.relay.started = time(NULL);
    log_setup((enum log_level)config->log_level, config->log_format);
    event_set_log_callback(on_event_log);
    ssh_init();
    /* Buffers of a stalled stream are large: fixed, the threshold keeps them out of the heap, so that
     * they grow without copies and go back to the system when they are freed. The chunks of a stream
     * that flows stay below it, and below what the heap gives back at once: a tenth of the CPU of a
     * byte went into mapping them again and again. */
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    mallopt(M_TRIM_THRESHOLD, 8 * 1024 * 1024);
    reload_init(argc, argv, &process.relay);
    return run(&process);
}
