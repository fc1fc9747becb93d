/* The load generator: mutual TLS 1.3 clients that check every byte which comes back.
 *
 * load backend PORT                                        the plain service (0: the kernel chooses)
 * load handshakes HOST:PORT CERT KEY CA COUNT CONCURRENCY  connect, handshake, one byte echoed, close
 * load echo       HOST:PORT CERT KEY CA COUNT CONNECTIONS  64-byte messages, one outstanding per connection
 * load upload     HOST:PORT CERT KEY CA BYTES              one connection, half-closed at the end
 * load download   HOST:PORT CERT KEY CA BYTES
 * load paced      HOST:PORT CERT KEY CA PORTS RATE MESSAGES so many connections and messages per second, see paced.c
 * load idle       HOST:PORT CERT KEY CA                    a number on stdin: so many connections; end: all are tried again
 *
 * After its warm-up it prints READY and waits for a line; then it works and prints DONE. The first thing that is not as
 * it should be ends it with a line on stderr and status 1.
 */
#define _GNU_SOURCE
#include "client.h"
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define RECORD 16384
#define EVENTS 64
#define WARM_UP 32 /* units before READY */

struct load {
    struct peer peer;
    int epoll;
    int is_fresh; /* every unit is a connection of its own */
    uint64_t target, started, finished;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        die("%s is not HOST:PORT", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    address.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("%s is not an IPv4 address", host);
    return address;
}

static uint64_t parse_count(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end || value == 0)
        die("%s is not a count", text);
    return value;
}

static void set_nonblocking(struct load *load, struct connection *connection)
{
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = connection};
    if (fcntl(connection->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(load->epoll, EPOLL_CTL_ADD, connection->fd, &wish) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void say_ready(SSL *ssl)
{
    printf("READY %s %s X25519 (load generator: %s)\n", SSL_get_version(ssl), SSL_get_cipher_name(ssl), OpenSSL_version(OPENSSL_VERSION));
    fflush(stdout);
}

static void await_line(void)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        exit(0); /* nobody wants it any more */
}

static void say_done(uint64_t units, double seconds)
{
    printf("DONE %llu %.6f\n", (unsigned long long)units, seconds);
    fflush(stdout);
}

/* Units of handshakes and echo: non-blocking, all connections in one epoll. */

static void send_message(struct connection *connection)
{
    connection->got = 0;
    connection->state = WAITING;
    if (SSL_write(connection->ssl, connection->expected, (int)connection->size) != (int)connection->size)
        die_tls("write of one message");
}

static void on_handshake(struct connection *connection)
{
    int result = SSL_connect(connection->ssl);
    if (result == 1) {
        check_handshake(connection->ssl);
        send_message(connection);
    } else if (SSL_get_error(connection->ssl, result) != SSL_ERROR_WANT_READ) {
        die_tls("handshake");
    }
}

static void start_unit(struct load *load, struct connection *connection)
{
    if (load->started == load->target)
        return;
    uint64_t unit = load->started++;
    connection->size = load->is_fresh ? 1 : MESSAGE;
    if (load->is_fresh)
        connection->expected[0] = (unsigned char)('a' + unit % 26);
    else /* no two messages of a run alike */
        memcpy(connection->expected, pattern_at(unit * 67), MESSAGE);
    if (!load->is_fresh) {
        send_message(connection);
        return;
    }
    dial(&load->peer, connection);
    set_nonblocking(load, connection);
    connection->state = HANDSHAKING;
    on_handshake(connection); /* may run to the end at once: the proxy is on another core */
}

static void finish_unit(struct load *load, struct connection *connection)
{
    load->finished++;
    start_unit(load, connection);
}

static void on_answer(struct load *load, struct connection *connection)
{
    int count = SSL_read(connection->ssl, connection->seen + connection->got, (int)(connection->size - connection->got));
    if (count <= 0) {
        if (SSL_get_error(connection->ssl, count) != SSL_ERROR_WANT_READ)
            die_tls("read of one message");
        return;
    }
    connection->got += (size_t)count;
    if (connection->got < connection->size)
        return;
    if (memcmp(connection->seen, connection->expected, connection->size))
        die("wrong bytes came back");
    if (!load->is_fresh) {
        finish_unit(load, connection);
        return;
    }
    connection->state = CLOSING;
    if (SSL_shutdown(connection->ssl) < 0 || shutdown(connection->fd, SHUT_WR) < 0)
        die_tls("shutdown");
}

/* The unit ends when the proxy has closed its side too, so that all of its work falls inside the measurement. */
static void on_close(struct load *load, struct connection *connection)
{
    unsigned char byte;
    int count = SSL_read(connection->ssl, &byte, 1);
    if (count > 0)
        die("more came back than was sent");
    int error = SSL_get_error(connection->ssl, count);
    if (error == SSL_ERROR_WANT_READ)
        return;
    if (error == SSL_ERROR_ZERO_RETURN && recv(connection->fd, &byte, 1, 0) < 0 && errno == EAGAIN)
        return; /* close_notify is here, the FIN is not: there will be an event for it */
    ERR_clear_error();
    hang_up(connection);
    finish_unit(load, connection);
}

static void on_event(struct load *load, struct connection *connection)
{
    ERR_clear_error();
    errno = 0;
    if (connection->state == HANDSHAKING)
        on_handshake(connection);
    else if (connection->state == WAITING)
        on_answer(load, connection);
    else
        on_close(load, connection);
}

static void work(struct load *load, struct connection *connections, size_t count, uint64_t units)
{
    load->target = units;
    load->started = load->finished = 0;
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
    greet(&probe, 'p');
    for (size_t i = 0; !load->is_fresh && i < count; i++) {
        open_blocking(&load->peer, &connections[i]);
        greet(&connections[i], (unsigned char)('a' + i % 26));
        set_nonblocking(load, &connections[i]);
    }
    work(load, connections, count, WARM_UP * (load->is_fresh ? 1 : count));
    say_ready(probe.ssl);
    hang_up(&probe);
    await_line();
    double start = now();
    work(load, connections, count, units);
    say_done(units, now() - start);
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
    if (SSL_shutdown(connection->ssl) < 0 || shutdown(connection->fd, SHUT_WR) < 0)
        die_tls("half-close");
    read_blocking(connection, answer, sizeof answer);
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
        int count = SSL_read(connection->ssl, buffer, sizeof buffer);
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
    uint64_t position = (uint64_t)getpid() * 7919;
    open_blocking(&load->peer, &connection);
    say_ready(connection.ssl);
    await_line();
    double start = now();
    if (is_upload)
        upload(&connection, total, position);
    else
        download(&connection, total, position);
    say_done(total, now() - start);
    await_line();
}

/* Connections that do nothing, and are asked at the end whether they still could. */

static void run_idle(struct load *load)
{
    enum { LIMIT = 100000 };
    struct connection *connections = calloc(LIMIT, sizeof *connections);
    size_t count = 0;
    char line[64];
    if (!connections)
        die("out of memory");
    while (fgets(line, sizeof line, stdin)) {
        size_t wanted = strtoul(line, NULL, 10);
        for (; count < wanted && count < LIMIT; count++) {
            open_blocking(&load->peer, &connections[count]);
            greet(&connections[count], (unsigned char)('a' + count % 26));
        }
        printf("OPEN %zu\n", count);
        fflush(stdout);
    }
    for (size_t i = 0; i < count; i++)
        greet(&connections[i], (unsigned char)('A' + i % 26));
    say_done(count, 0);
}

int main(int argc, char **argv)
{
    end_with_parent();
    make_pattern();
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "backend") && argc == 3)
        return serve_backend(atoi(argv[2]));
    int is_pair = !strcmp(mode, "handshakes") || !strcmp(mode, "echo");
    int is_bulk = !strcmp(mode, "upload") || !strcmp(mode, "download");
    int is_paced = !strcmp(mode, "paced");
    if (argc != (is_paced ? 9 : is_pair ? 8 : is_bulk ? 7 : 6) || !(is_paced || is_pair || is_bulk || !strcmp(mode, "idle")))
        die("usage: load backend PORT | handshakes|echo|upload|download|paced|idle HOST:PORT CERT KEY CA [COUNT]...");
    struct load load = {.peer = {make_context(argv[3], argv[4], argv[5]), parse_address(argv[2])}};
    if (is_paced)
        run_paced(&load.peer, (unsigned)parse_count(argv[6]), (double)parse_count(argv[7]), (double)parse_count(argv[8]));
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.is_fresh = !strcmp(mode, "handshakes");
    if (is_pair)
        run_units(&load, parse_count(argv[6]), (size_t)parse_count(argv[7]));
    else if (is_bulk)
        run_bulk(&load, parse_count(argv[6]), !strcmp(mode, "upload"));
    else
        run_idle(&load);
    return 0;
}
