/*
 * Apache's C client (libzookeeper_mt) against one server: client_checks HOSTS CHECK...
 * Prints "ok NAME" for each check. Exit status 0 when all is well.
 *
 * The check `restart` prints "restart now" and goes on when a line arrives on standard input.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static const char *hosts;
static const char *check;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", check);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

#define REQUIRE(condition) \
    do { \
        if (!(condition)) fail("line %d: not so: %s", __LINE__, #condition); \
    } while (0)

/* `call` has to return `code`. */
#define EXPECT(code, call) \
    do { \
        int got = (call); \
        if (got != (code)) \
            fail("line %d: %s: %s, not %s", __LINE__, #call, zerror(got), zerror(code)); \
    } while (0)

/* ------------------------------------------------------------------ events */

struct event {
    int type, state;
    char path[256];
};

/* What a watcher was told, in order. */
struct events {
    pthread_mutex_t lock;
    pthread_cond_t more;
    int count;
    struct event list[64];
};

static struct events *new_events(void) {
    struct events *events = calloc(1, sizeof *events);
    pthread_mutex_init(&events->lock, NULL);
    pthread_cond_init(&events->more, NULL);
    return events;
}

static void watcher(zhandle_t *handle, int type, int state, const char *path, void *context) {
    struct events *events = context;
    (void)handle;
    pthread_mutex_lock(&events->lock);
    if (events->count < 64) {
        struct event *event = &events->list[events->count++];
        event->type = type;
        event->state = state;
        snprintf(event->path, sizeof event->path, "%s", path ? path : "");
    }
    pthread_cond_broadcast(&events->more);
    pthread_mutex_unlock(&events->lock);
}

/* Wait until there are `count` events; the number there are then. */
static int await(struct events *events, int count, int seconds) {
    struct timespec end;
    int found;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += seconds;
    pthread_mutex_lock(&events->lock);
    while (events->count < count && !pthread_cond_timedwait(&events->more, &events->lock, &end)) {
    }
    found = events->count;
    pthread_mutex_unlock(&events->lock);
    return found;
}

/* The event number `index` is this one. */
static void event_is(struct events *events, int index, int type, const char *path) {
    if (await(events, index + 1, 10) <= index) fail("no event %d for %s", index, path);
    struct event *event = &events->list[index];
    if (event->type != type || strcmp(event->path, path))
        fail("event %d: type %d of %s, not %d of %s", index, event->type, event->path, type, path);
}

/* ------------------------------------------------------------------ sessions */

static zhandle_t *open_handle(const clientid_t *id, struct events *session, int flags,
                              const char *chroot) {
    char where[512];
    snprintf(where, sizeof where, "%s%s", hosts, chroot);
    zhandle_t *handle = zookeeper_init2(where, watcher, 10000, id, session, flags, NULL);
    REQUIRE(handle != NULL);
    return handle;
}

static void until_state(zhandle_t *handle, int state) {
    for (int i = 0; zoo_state(handle) != state; i++) {
        if (i > 1500) fail("state is %d, not %d", zoo_state(handle), state);
        usleep(10000);
    }
}

static zhandle_t *connected(void) {
    zhandle_t *handle = open_handle(NULL, new_events(), 0, "");
    until_state(handle, ZOO_CONNECTED_STATE);
    return handle;
}

static void make(zhandle_t *handle, const char *path) {
    EXPECT(ZOK, zoo_create(handle, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT, NULL, 0));
}

/* ------------------------------------------------------------------ checks */

static void nodes(void) {
    zhandle_t *handle = connected();
    char path[256], data[256];
    int size;
    struct Stat stat, other;
    struct String_vector names;

    EXPECT(ZOK, zoo_create2(handle, "/nodes", "first", 5, &ZOO_OPEN_ACL_UNSAFE, ZOO_PERSISTENT,
                            path, sizeof path, &stat));
    REQUIRE(!strcmp(path, "/nodes") && stat.dataLength == 5 && stat.version == 0);
    REQUIRE(stat.czxid == stat.mzxid && stat.ctime == stat.mtime && stat.ephemeralOwner == 0);
    EXPECT(ZNODEEXISTS, zoo_create(handle, "/nodes", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    EXPECT(ZNONODE, zoo_create(handle, "/none/a", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    EXPECT(ZOK, zoo_set2(handle, "/nodes", "second", 6, 0, &stat));
    REQUIRE(stat.version == 1 && stat.mzxid > stat.czxid);
    EXPECT(ZBADVERSION, zoo_set(handle, "/nodes", "x", 1, 0));
    size = sizeof data;
    EXPECT(ZOK, zoo_get(handle, "/nodes", 0, data, &size, &other));
    REQUIRE(size == 6 && !memcmp(data, "second", 6));
    REQUIRE(other.czxid == stat.czxid && other.mzxid == stat.mzxid && other.mtime == stat.mtime);
    REQUIRE(other.version == 1 && other.dataLength == 6 && other.pzxid == stat.pzxid);

    EXPECT(ZOK, zoo_create(handle, "/nodes/s-", NULL, -1, &ZOO_OPEN_ACL_UNSAFE,
                           ZOO_PERSISTENT_SEQUENTIAL, path, sizeof path));
    REQUIRE(!strcmp(path, "/nodes/s-0000000000"));
    size = sizeof data;
    EXPECT(ZOK, zoo_get(handle, path, 0, data, &size, NULL));
    REQUIRE(size == -1);
    EXPECT(ZOK, zoo_create2(handle, "/nodes/e-", "", 0, &ZOO_OPEN_ACL_UNSAFE,
                            ZOO_EPHEMERAL_SEQUENTIAL, path, sizeof path, &stat));
    REQUIRE(!strcmp(path, "/nodes/e-0000000001"));
    REQUIRE(stat.ephemeralOwner == zoo_client_id(handle)->client_id);
    EXPECT(ZNOCHILDRENFOREPHEMERALS,
           zoo_create(handle, "/nodes/e-0000000001/x", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    EXPECT(ZOK, zoo_create(handle, "/nodes/container", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_CONTAINER,
                           NULL, 0));
    EXPECT(ZOK, zoo_get_children2(handle, "/nodes", 0, &names, &stat));
    REQUIRE(names.count == 3 && stat.numChildren == 3 && stat.cversion == 3);
    deallocate_String_vector(&names);
    EXPECT(ZNOTEMPTY, zoo_delete(handle, "/nodes", -1));
    EXPECT(ZBADVERSION, zoo_delete(handle, "/nodes/container", 7));
    EXPECT(ZOK, zoo_delete(handle, "/nodes/container", 0));
    EXPECT(ZNONODE, zoo_exists(handle, "/nodes/container", 0, NULL));

    EXPECT(ZOK, zookeeper_close(handle));
    handle = connected();
    EXPECT(ZNONODE, zoo_exists(handle, "/nodes/e-0000000001", 0, NULL));
    EXPECT(ZOK, zookeeper_close(handle));

    make(handle = connected(), "/chroot");
    zhandle_t *below = open_handle(NULL, new_events(), 0, "/chroot");
    until_state(below, ZOO_CONNECTED_STATE);
    make(below, "/a");
    EXPECT(ZOK, zoo_exists(handle, "/chroot/a", 0, NULL));
    EXPECT(ZOK, zookeeper_close(below));
    EXPECT(ZOK, zookeeper_close(handle));
}

/* The server has to allow TTL nodes. */
static void ttl(void) {
    zhandle_t *handle = connected();
    EXPECT(ZOK, zoo_create_ttl(handle, "/ttl", "", 0, &ZOO_OPEN_ACL_UNSAFE,
                               ZOO_PERSISTENT_WITH_TTL, 1000, NULL, 0));
    EXPECT(ZOK, zoo_exists(handle, "/ttl", 0, NULL));
    for (int i = 0; zoo_exists(handle, "/ttl", 0, NULL) == ZOK; i++) {
        REQUIRE(i < 150);
        usleep(100000);
    }
    EXPECT(ZOK, zookeeper_close(handle));
}

static void watches(void) {
    zhandle_t *handle = connected(), *other = connected();
    struct events *exists = new_events(), *data = new_events(), *children = new_events(),
                  *removed = new_events();
    struct String_vector names;
    char buffer[64];
    int size = sizeof buffer;

    EXPECT(ZNONODE, zoo_wexists(handle, "/watched", watcher, exists, NULL));
    make(other, "/watched");
    event_is(exists, 0, ZOO_CREATED_EVENT, "/watched");
    EXPECT(ZOK, zoo_wget(handle, "/watched", watcher, data, buffer, &size, NULL));
    EXPECT(ZOK, zoo_wget_children(handle, "/watched", watcher, children, &names));
    deallocate_String_vector(&names);
    make(other, "/watched/child");
    event_is(children, 0, ZOO_CHILD_EVENT, "/watched");
    EXPECT(ZOK, zoo_set(other, "/watched", "x", 1, -1));
    event_is(data, 0, ZOO_CHANGED_EVENT, "/watched");
    /* Once, and no more. */
    EXPECT(ZOK, zoo_set(other, "/watched", "y", 1, -1));

    size = sizeof buffer;
    EXPECT(ZOK, zoo_wget(handle, "/watched", watcher, removed, buffer, &size, NULL));
    EXPECT(ZNOWATCHER, zoo_remove_watches(handle, "/watched", ZWATCHTYPE_CHILD, watcher, removed, 0));
    EXPECT(ZOK, zoo_remove_watches(handle, "/watched", ZWATCHTYPE_DATA, watcher, removed, 0));
    EXPECT(ZOK, zoo_set(other, "/watched", "z", 1, -1));
    size = sizeof buffer;
    EXPECT(ZOK, zoo_wget(handle, "/watched", watcher, data, buffer, &size, NULL));
    EXPECT(ZOK, zoo_delete(other, "/watched/child", -1));
    EXPECT(ZOK, zoo_delete(other, "/watched", -1));
    event_is(data, 1, ZOO_DELETED_EVENT, "/watched");
    REQUIRE(exists->count == 1 && data->count == 2 && children->count == 1);
    /* The client tells a removed watcher of its removal, of nothing else. */
    for (int i = 0; i < removed->count; i++) REQUIRE(removed->list[i].type != ZOO_CHANGED_EVENT);
    EXPECT(ZOK, zookeeper_close(other));
    EXPECT(ZOK, zookeeper_close(handle));
}

static void multi(void) {
    zhandle_t *handle = connected();
    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    char path[64], sequential[64];
    struct Stat stat;

    zoo_create_op_init(&ops[0], "/multi", "a", 1, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path);
    zoo_create_op_init(&ops[1], "/multi/s-", "b", 1, &ZOO_OPEN_ACL_UNSAFE,
                       ZOO_PERSISTENT_SEQUENTIAL, sequential, sizeof sequential);
    zoo_set_op_init(&ops[2], "/multi", "c", 1, 0, &stat);
    zoo_check_op_init(&ops[3], "/multi", 1);
    EXPECT(ZOK, zoo_multi(handle, 4, ops, results));
    REQUIRE(!strcmp(path, "/multi") && !strcmp(sequential, "/multi/s-0000000000"));
    REQUIRE(stat.version == 1 && stat.numChildren == 1);
    for (int i = 0; i < 4; i++) REQUIRE(results[i].err == ZOK);

    zoo_set_op_init(&ops[0], "/multi", "d", 1, 1, &stat);
    zoo_check_op_init(&ops[1], "/multi", 7);
    zoo_delete_op_init(&ops[2], "/multi/s-0000000000", -1);
    EXPECT(ZBADVERSION, zoo_multi(handle, 3, ops, results));
    REQUIRE(results[0].err == ZOK && results[1].err == ZBADVERSION);
    REQUIRE(results[2].err == ZRUNTIMEINCONSISTENCY);
    EXPECT(ZOK, zoo_exists(handle, "/multi", 0, &stat));
    REQUIRE(stat.version == 1);
    EXPECT(ZOK, zookeeper_close(handle));
}

struct waited {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int code, called;
};

static void completed(int code, const void *data) {
    struct waited *waited = (struct waited *)data;
    pthread_mutex_lock(&waited->lock);
    waited->code = code;
    waited->called = 1;
    pthread_cond_broadcast(&waited->done);
    pthread_mutex_unlock(&waited->lock);
}

static void synced(int code, const char *value, const void *data) {
    (void)value;
    completed(code, data);
}

static int result_of(struct waited *waited) {
    pthread_mutex_lock(&waited->lock);
    while (!waited->called) pthread_cond_wait(&waited->done, &waited->lock);
    waited->called = 0;
    pthread_mutex_unlock(&waited->lock);
    return waited->code;
}

static void acls(void) {
    zhandle_t *handle = connected(), *other = connected();
    struct waited waited = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    struct ACL_vector acl;
    struct Stat stat;
    char data[64];
    int size = sizeof data;

    EXPECT(ZINVALIDACL, zoo_create(handle, "/acls", "", 0, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    EXPECT(ZOK, zoo_add_auth(handle, "digest", "user:secret", 11, completed, &waited));
    EXPECT(ZOK, result_of(&waited));
    EXPECT(ZOK, zoo_create(handle, "/acls", "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    EXPECT(ZNOAUTH, zoo_get(other, "/acls", 0, data, &size, NULL));
    EXPECT(ZNOAUTH, zoo_set(other, "/acls", "y", 1, -1));
    EXPECT(ZOK, zoo_get_acl(handle, "/acls", &acl, &stat));
    REQUIRE(acl.count == 1 && acl.data[0].perms == ZOO_PERM_ALL && stat.aversion == 0);
    REQUIRE(!strcmp(acl.data[0].id.scheme, "digest"));
    REQUIRE(!strncmp(acl.data[0].id.id, "user:", 5));
    deallocate_ACL_vector(&acl);
    EXPECT(ZBADVERSION, zoo_set_acl(handle, "/acls", 3, &ZOO_READ_ACL_UNSAFE));
    EXPECT(ZOK, zoo_set_acl(handle, "/acls", 0, &ZOO_READ_ACL_UNSAFE));
    size = sizeof data;
    EXPECT(ZOK, zoo_get(other, "/acls", 0, data, &size, NULL));
    EXPECT(ZNOAUTH, zoo_set(other, "/acls", "y", 1, -1));
    EXPECT(ZOK, zoo_async(handle, "/acls", synced, &waited));
    EXPECT(ZOK, result_of(&waited));
    EXPECT(ZOK, zookeeper_close(other));
    EXPECT(ZOK, zookeeper_close(handle));
}

/* A session that two handles claim: the newer connection has it. */
static void moved(void) {
    zhandle_t *handle = connected();
    EXPECT(ZOK, zoo_create(handle, "/moved", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    clientid_t id = *zoo_client_id(handle);
    zhandle_t *thief = open_handle(&id, new_events(), 0, "");
    until_state(thief, ZOO_CONNECTED_STATE);
    REQUIRE(zoo_client_id(thief)->client_id == id.client_id);
    EXPECT(ZOK, zookeeper_close(thief));
    until_state(handle, ZOO_EXPIRED_SESSION_STATE);
    REQUIRE(is_unrecoverable(handle));
    zookeeper_close(handle);
    handle = connected();
    EXPECT(ZNONODE, zoo_exists(handle, "/moved", 0, NULL));
    EXPECT(ZOK, zookeeper_close(handle));

    id.client_id = 0x1234;
    handle = open_handle(&id, new_events(), 0, "");
    until_state(handle, ZOO_EXPIRED_SESSION_STATE);
    zookeeper_close(handle);
}

/* Session, ephemeral nodes, credentials and watches survive a restart of the server. */
static void restart(void) {
    zhandle_t *handle = connected();
    struct waited waited = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    struct events *data = new_events(), *exists = new_events(), *children = new_events();
    struct String_vector names;
    char line[16], buffer[64];
    int size = sizeof buffer;
    int64_t id = zoo_client_id(handle)->client_id;

    EXPECT(ZOK, zoo_add_auth(handle, "digest", "user:secret", 11, completed, &waited));
    EXPECT(ZOK, result_of(&waited));
    EXPECT(ZOK, zoo_create(handle, "/restart", "x", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0));
    EXPECT(ZOK, zoo_create(handle, "/restart/e", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0));
    EXPECT(ZOK, zoo_wget(handle, "/restart", watcher, data, buffer, &size, NULL));
    EXPECT(ZOK, zoo_wget_children(handle, "/restart", watcher, children, &names));
    deallocate_String_vector(&names);
    EXPECT(ZNONODE, zoo_wexists(handle, "/restart/later", watcher, exists, NULL));
    puts("restart now");
    REQUIRE(fgets(line, sizeof line, stdin) != NULL);
    for (int i = 0; zoo_exists(handle, "/restart/e", 0, NULL) != ZOK; i++) {
        REQUIRE(i < 1500 && !is_unrecoverable(handle));
        usleep(10000);
    }
    REQUIRE(zoo_client_id(handle)->client_id == id);
    EXPECT(ZOK, zoo_set(handle, "/restart", "y", 1, 0));
    EXPECT(ZOK, zoo_create(handle, "/restart/later", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0));
    /* Session events (type -1) came first: the connection was lost and is back. */
    struct { struct events *events; int type; const char *path; } expected[] = {
        {data, ZOO_CHANGED_EVENT, "/restart"},
        {children, ZOO_CHILD_EVENT, "/restart"},
        {exists, ZOO_CREATED_EVENT, "/restart/later"},
    };
    for (int i = 0; i < 3; i++) {
        int index = 0;
        for (;; index++) {
            REQUIRE(await(expected[i].events, index + 1, 10) > index);
            if (expected[i].events->list[index].type != ZOO_SESSION_EVENT) break;
        }
        event_is(expected[i].events, index, expected[i].type, expected[i].path);
    }
    EXPECT(ZOK, zookeeper_close(handle));
}

static void config(void) {
    zhandle_t *handle = connected();
    char data[4096];
    int size = sizeof data;
    struct Stat stat;
    EXPECT(ZOK, zoo_getconfig(handle, 0, data, &size, &stat));
    EXPECT(ZRECONFIGDISABLED, zoo_reconfig(handle, NULL, "1", NULL, -1, data, &size, &stat));
    EXPECT(ZOK, zookeeper_close(handle));
}

static const struct {
    const char *name;
    void (*run)(void);
} checks[] = {
    {"nodes", nodes}, {"ttl", ttl},     {"watches", watches}, {"multi", multi},
    {"acls", acls},   {"moved", moved}, {"restart", restart}, {"config", config},
};

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("client_checks HOSTS CHECK...\n", stderr);
        return 2;
    }
    hosts = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    for (int i = 2; i < argc; i++) {
        size_t j;
        check = argv[i];
        for (j = 0; j < sizeof checks / sizeof *checks && strcmp(checks[j].name, check); j++) {
        }
        if (j == sizeof checks / sizeof *checks) fail("no such check");
        checks[j].run();
        printf("ok %s\n", check);
    }
    return 0;
}
