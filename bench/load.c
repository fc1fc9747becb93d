/* The load generator: clients with mutual TLS 1.3, or plain TCP if CERT is `-`, that check every byte which comes back.
 *
 * load backend PORT                                            the plain service (0: the kernel chooses)
 * load handshakes HOST:PORT CERT KEY CA COUNT CONCURRENCY      connect, handshake, one byte echoed, close
 * load echo       HOST:PORT CERT KEY CA COUNT CONNECTIONS SIZE messages, one outstanding per connection
 * load upload     HOST:PORT CERT KEY CA BYTES                  one connection
 * load download   HOST:PORT CERT KEY CA BYTES
 * load bulk       HOST:PORT CERT KEY CA BYTES CONNECTIONS      uploads and downloads at the same time, see bulk.c
 * load paced      HOST:PORT CERT KEY CA PORTS CONNECTIONS OPENED MESSAGES
 *                                                              connections and messages per second, see paced.c
 * load idle       HOST:PORT CERT KEY CA                        a number on stdin: so many connections; end: all are tried again
 *
 * After its warm-up it prints READY and waits for a line; then it works and prints DONE with units, seconds, percentiles of
 * the time of one unit in milliseconds (50, 99, 99.9, 100) and failed units. A wrong byte ends it with a line on stderr and
 * status 1.
 */
#define _GNU_SOURCE
#include "client.h"
#include "common.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define WARM_UP 32 /* units before READY */
#define ANSWER_SECONDS 5

struct load {
    struct peer peer;
    int epoll;
    int is_fresh; /* every unit is a connection of its own */
    size_t size;
    uint64_t target, started, finished, failed;
    struct durations durations;
};

static uint64_t parse_count(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end)
        die("%s is not a count", text);
    return value;
}

static void say_ready(SSL *ssl)
{
    if (ssl)
        printf("READY %s %s X25519 (load generator: %s)\n", SSL_get_version(ssl), SSL_get_cipher_name(ssl), OpenSSL_version(OPENSSL_VERSION));
    else
        printf("READY TCP\n");
    fflush(stdout);
}

static void await_line(void)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        exit(0); /* nobody wants it any more */
}

static void say_done(uint64_t units, double seconds, struct durations *durations, uint64_t failed)
{
    printf("DONE %llu %.6f", (unsigned long long)units, seconds);
    print_percentiles(durations);
    printf(" %llu\n", (unsigned long long)failed);
    fflush(stdout);
}

/* Units of handshakes and echo: non-blocking, all connections in one epoll. */

static void start_unit(struct load *load, struct connection *connection);

static void finish_unit(struct load *load, struct connection *connection)
{
    note(&load->durations, now() - connection->began);
    load->finished++;
    start_unit(load, connection);
}

/* A connection that ends before its unit does is counted, and the next unit gets a new one; an open one is not replaced. */
static void fail_unit(struct load *load, struct connection *connection, const char *what)
{
    if (!load->is_fresh)
        die_tls(what);
    load->failed++;
    if (load->failed > 100 + load->finished / 10)
        die_tls(what);
    hang_up(connection);
    load->finished++;
    start_unit(load, connection);
}

static void on_handshake(struct load *load, struct connection *connection)
{
    int result = shake_hands(connection);
    if (result == FAILED || (result == 1 && !send_message(connection, connection->expected, connection->size)))
        fail_unit(load, connection, "handshake");
}

static void start_unit(struct load *load, struct connection *connection)
{
    if (load->started == load->target)
        return;
    uint64_t unit = load->started++;
    connection->began = now();
    if (!load->is_fresh) {
        if (!send_message(connection, pattern_at(unit * 67), load->size)) /* no two messages of a run alike */
            die_tls("write of one message");
        return;
    }
    dial(&load->peer, connection);
    watch(load->epoll, connection, EPOLLIN);
    connection->expected = letter(unit);
    connection->size = 1;
    connection->state = HANDSHAKING;
    on_handshake(load, connection); /* may run to the end at once: the proxy is on another core */
}

static void on_answer(struct load *load, struct connection *connection)
{
    int result = take_answer(connection);
    if (result == BLOCKED)
        return;
    if (result != 1) {
        fail_unit(load, connection, "read of one message");
        return;
    }
    if (!load->is_fresh) {
        finish_unit(load, connection);
        return;
    }
    connection->state = CLOSING;
    if (!send_end(connection))
        fail_unit(load, connection, "shutdown");
}

/* The unit ends when the proxy has closed its side too, so that all of its work falls inside the measurement. */
static void on_close(struct load *load, struct connection *connection)
{
    int result = is_closed(connection);
    if (result == BLOCKED)
        return;
    ERR_clear_error();
    hang_up(connection);
    finish_unit(load, connection);
}

static void on_event(struct load *load, struct connection *connection)
{
    ERR_clear_error();
    errno = 0;
    if (connection->state == HANDSHAKING)
        on_handshake(load, connection);
    else if (connection->state == WAITING)
        on_answer(load, connection);
    else
        on_close(load, connection);
}

static void work(struct load *load, struct connection *connections, size_t count, uint64_t units)
{
    load->target = units;
    load->started = load->finished = load->failed = load->durations.count = 0;
    for (size_t i = 0; i < count; i++)
        start_unit(load, &connections[i]);
    while (load->finished < units) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(load->epoll, events, EVENTS, PATIENCE_SECONDS * 1000);
        if (ready == 0)
            die("no answer within %d s", PATIENCE_SECONDS);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++)
            on_event(load, events[i].data.ptr);
    }
}

static void run_units(struct load *load, uint64_t units, size_t count)
{
    struct connection *connections = calloc(count, sizeof *connections), probe = {0};
    if (!connections)
        die("out of memory");
    open_blocking(&load->peer, &probe);
    greet(&probe, letter('p' - 'a'));
    for (size_t i = 0; !load->is_fresh && i < count; i++) {
        open_blocking(&load->peer, &connections[i]);
        greet(&connections[i], letter(i));
        watch(load->epoll, &connections[i], EPOLLIN);
    }
    work(load, connections, count, WARM_UP * (load->is_fresh ? 1 : count));
    say_ready(probe.ssl);
    hang_up(&probe);
    await_line();
    double start = now();
    work(load, connections, count, units);
    say_done(units, now() - start, &load->durations, load->failed);
    await_line();
}

/* One connection, all it can carry. */

static void send_head(struct connection *connection, char mode, uint64_t count, uint64_t position)
{
    unsigned char head[HEAD];
    head[0] = (unsigned char)mode;
    put_u64(head + 1, count);
    put_u64(head + 9, position);
    write_blocking(connection, head, sizeof head);
}

static void upload(struct connection *connection, uint64_t total, uint64_t position)
{
    unsigned char answer[ANSWER];
    send_head(connection, 'U', total, position);
    for (uint64_t sent = 0; sent < total;) {
        size_t size = total - sent < RECORD ? (size_t)(total - sent) : RECORD;
        write_blocking(connection, pattern_at(position + sent), size);
        sent += size;
    }
    set_patience(connection->fd, ANSWER_SECONDS);
    int count = read_some(connection, answer, sizeof answer);
    set_patience(connection->fd, PATIENCE_SECONDS);
    if (count == BLOCKED && !send_end(connection)) /* bytes are missing: ask for the answer */
        die_tls("half-close");
    size_t got = count > 0 ? (size_t)count : 0;
    read_blocking(connection, answer + got, sizeof answer - got);
    if (answer[0] != 'K' || take_u64(answer + 1) != total)
        die("upload: the backend saw %s bytes, %llu of %llu", answer[0] == 'K' ? "right" : "wrong",
            (unsigned long long)take_u64(answer + 1), (unsigned long long)total);
}

static void download(struct connection *connection, uint64_t total, uint64_t position)
{
    static unsigned char buffer[RECORD];
    uint64_t got = 0;
    send_head(connection, 'D', total, position);
    for (;;) {
        int count = read_some(connection, buffer, sizeof buffer);
        if (count <= 0)
            break;
        if (!is_pattern(buffer, position + got, (size_t)count))
            die("download: wrong bytes within %d after byte %llu", count, (unsigned long long)got);
        got += (uint64_t)count;
    }
    if (got != total)
        die("download: %llu bytes of %llu came", (unsigned long long)got, (unsigned long long)total);
}

static void run_bulk(struct load *load, uint64_t total, int is_upload)
{
    struct connection connection = {0};
    struct durations none = {0};
    uint64_t position = (uint64_t)getpid() * 7919;
    open_blocking(&load->peer, &connection);
    say_ready(connection.ssl);
    await_line();
    double start = now();
    if (is_upload)
        upload(&connection, total, position);
    else
        download(&connection, total, position);
    say_done(total, now() - start, &none, 0);
    await_line();
}

static void begin_many(SSL *ssl)
{
    say_ready(ssl);
    await_line();
}

static void run_many(const struct peer *peer, uint64_t total, size_t count)
{
    struct durations none = {0};
    double seconds = run_streams(peer, total, count, begin_many);
    say_done(total / count * count, seconds, &none, 0);
    await_line();
}

/* Connections that do nothing, and are asked at the end whether they still could. */

static void run_idle(struct load *load)
{
    enum { LIMIT = 100000 };
    struct connection *connections = calloc(LIMIT, sizeof *connections);
    struct durations none = {0};
    size_t count = 0;
    char line[64];
    if (!connections)
        die("out of memory");
    while (fgets(line, sizeof line, stdin)) {
        size_t wanted = strtoul(line, NULL, 10);
        for (; count < wanted && count < LIMIT; count++) {
            open_blocking(&load->peer, &connections[count]);
            greet(&connections[count], letter(count));
        }
        printf("OPEN %zu\n", count);
        fflush(stdout);
    }
    for (size_t i = 0; i < count; i++)
        greet(&connections[i], letter(i + 13));
    say_done(count, 0, &none, 0);
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("RLIMIT_NOFILE: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static const struct mode {
    const char *name;
    int counts;
} MODES[] = {
    {"handshakes", 2}, {"echo", 3}, {"upload", 1}, {"download", 1}, {"bulk", 2}, {"paced", 4}, {"idle", 0},
};

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    uint64_t counts[4] = {0};
    int known = 0;
    end_with_parent();
    raise_descriptor_limit();
    make_pattern();
    if (!strcmp(name, "backend") && argc == 3)
        return serve_backend(atoi(argv[2]));
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        known |= !strcmp(name, MODES[i].name) && argc == 6 + MODES[i].counts;
    if (!known)
        die("usage: load backend PORT | MODE HOST:PORT CERT KEY CA [COUNT]...; see load.c");
    for (int i = 6; i < argc; i++)
        counts[i - 6] = parse_count(argv[i]);
    struct load load = {.peer = {make_context(argv[3], argv[4], argv[5]), parse_address(argv[2])}};
    if (!strcmp(name, "paced"))
        run_paced(&load.peer, (unsigned)counts[0], (size_t)counts[1], (double)counts[2], (double)counts[3]);
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.is_fresh = !strcmp(name, "handshakes");
    load.size = counts[2];
    if (load.is_fresh || !strcmp(name, "echo"))
        run_units(&load, counts[0], (size_t)counts[1]);
    else if (!strcmp(name, "upload") || !strcmp(name, "download"))
        run_bulk(&load, counts[0], !strcmp(name, "upload"));
    else if (!strcmp(name, "bulk"))
        run_many(&load.peer, counts[0], (size_t)counts[1]);
    else
        run_idle(&load);
    return 0;
}
