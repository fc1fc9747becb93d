#define _GNU_SOURCE
#include "client.h"

#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void note(struct durations *durations, double seconds)
{
    if (durations->count == durations->room) {
        durations->room = durations->room ? 2 * durations->room : 1024;
        durations->values = realloc(durations->values, durations->room * sizeof(double));
        if (!durations->values)
            die("out of memory");
    }
    durations->values[durations->count++] = seconds;
}

static int compare(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

/* The 50th, 99th and 99.9th percentile and the maximum, in milliseconds. */
void print_percentiles(struct durations *durations)
{
    size_t count = durations->count;
    static const double shares[] = {0.5, 0.99, 0.999, 1.0};
    qsort(durations->values, count, sizeof(double), compare);
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        size_t index = (size_t)((double)count * shares[i]);
        printf(" %.4f", count ? durations->values[index < count ? index : count - 1] * 1e3 : 0.0);
    }
    durations->count = 0;
}

void die_tls(const char *what)
{
    int system_error = errno;
    unsigned long error = ERR_get_error();
    die("%s: %s", what, error ? ERR_error_string(error, NULL) : system_error ? strerror(system_error) : "end of file");
}

struct sockaddr_in parse_address(const char *text)
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

/* NULL if there is no certificate: plain TCP. */
SSL_CTX *make_context(const char *certificate, const char *key, const char *authorities)
{
    if (!strcmp(certificate, "-"))
        return NULL;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) || !SSL_CTX_set1_groups_list(context, "X25519"))
        die_tls("context");
    if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256")) /* one for all peers, whatever each prefers */
        die_tls("cipher");
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        die_tls(certificate);
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        die_tls(key);
    if (SSL_CTX_load_verify_locations(context, authorities, NULL) != 1)
        die_tls(authorities);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return context;
}

void set_patience(int fd, int seconds)
{
    struct timeval patience = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

/* Connects and waits for it; a loopback connect is only ever slow when the proxy's backlog is full. */
void dial(const struct peer *peer, struct connection *connection)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&peer->address, sizeof peer->address) < 0)
        die("connect: %s", strerror(errno));
    set_nodelay(fd);
    set_patience(fd, PATIENCE_SECONDS);
    connection->fd = fd;
    if (!peer->context)
        return;
    connection->ssl = SSL_new(peer->context);
    if (!connection->ssl || !SSL_set_fd(connection->ssl, fd))
        die_tls("connection");
}

void hang_up(struct connection *connection)
{
    SSL_free(connection->ssl);
    close(connection->fd);
    connection->ssl = NULL;
    connection->state = IDLE;
}

/* From now on nothing blocks. */
void watch(int epoll, struct connection *connection, uint32_t events)
{
    struct epoll_event wish = {.events = events, .data.ptr = connection};
    if (fcntl(connection->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &wish) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

void check_handshake(SSL *ssl)
{
    if (SSL_session_reused(ssl))
        die("a session was resumed, and a full handshake was wanted");
    if (SSL_get_verify_result(ssl) != X509_V_OK)
        die("the server's chain does not verify");
}

/* 1, BLOCKED or FAILED. */
int shake_hands(struct connection *connection)
{
    int result = connection->ssl ? SSL_connect(connection->ssl) : 1;
    if (result == 1) {
        if (connection->ssl)
            check_handshake(connection->ssl);
        return 1;
    }
    return SSL_get_error(connection->ssl, result) == SSL_ERROR_WANT_READ ? BLOCKED : FAILED;
}

static int outcome(struct connection *connection, int count)
{
    switch (SSL_get_error(connection->ssl, count)) {
    case SSL_ERROR_ZERO_RETURN:
        return ENDED;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return BLOCKED;
    default:
        return FAILED;
    }
}

int read_some(struct connection *connection, unsigned char *bytes, size_t size)
{
    if (connection->ssl) {
        int count = SSL_read(connection->ssl, bytes, (int)size);
        return count > 0 ? count : outcome(connection, count);
    }
    ssize_t count = read(connection->fd, bytes, size);
    return count >= 0 ? (int)count : errno == EAGAIN ? BLOCKED : FAILED;
}

int write_some(struct connection *connection, const unsigned char *bytes, size_t size)
{
    if (connection->ssl) {
        int count = SSL_write(connection->ssl, bytes, (int)size);
        return count > 0 ? count : outcome(connection, count);
    }
    ssize_t count = write(connection->fd, bytes, size);
    return count >= 0 ? (int)count : errno == EAGAIN ? BLOCKED : FAILED;
}

/* close_notify and FIN; 0 if it failed. */
int send_end(struct connection *connection)
{
    return (!connection->ssl || SSL_shutdown(connection->ssl) >= 0) && shutdown(connection->fd, SHUT_WR) == 0;
}

/* 1 if the proxy has ended its side with close_notify and FIN, BLOCKED or FAILED. */
int is_closed(struct connection *connection)
{
    unsigned char byte;
    int count = read_some(connection, &byte, 1);
    if (count > 0)
        die("more came back than was sent");
    if (count == ENDED && connection->ssl && recv(connection->fd, &byte, 1, 0) < 0 && errno == EAGAIN)
        return BLOCKED; /* close_notify is here, the FIN is not: there will be an event for it */
    return count == ENDED ? 1 : count;
}

/* 0 if it failed; a message that does not fit at once is a failure. */
int send_message(struct connection *connection, const unsigned char *bytes, size_t size)
{
    connection->expected = bytes;
    connection->size = size;
    connection->got = 0;
    connection->state = WAITING;
    return write_some(connection, bytes, size) == (int)size;
}

/* 1 if all of the message is back, else ENDED, BLOCKED or FAILED; wrong bytes end the program. */
int take_answer(struct connection *connection)
{
    static unsigned char seen[RECORD];
    while (connection->got < connection->size) {
        size_t left = connection->size - connection->got;
        int count = read_some(connection, seen, left < sizeof seen ? left : sizeof seen);
        if (count <= 0)
            return count;
        if (memcmp(seen, connection->expected + connection->got, (size_t)count))
            die("wrong bytes came back");
        connection->got += (size_t)count;
    }
    return 1;
}

/* A small letter, which asks the backend for an echo. */
const unsigned char *letter(uint64_t number)
{
    return (const unsigned char *)"abcdefghijklmnopqrstuvwxyz" + number % 26;
}

void write_blocking(struct connection *connection, const unsigned char *bytes, size_t size)
{
    for (size_t sent = 0; sent < size;) {
        int count = write_some(connection, bytes + sent, size - sent);
        if (count <= 0)
            die_tls("write");
        sent += (size_t)count;
    }
}

void read_blocking(struct connection *connection, unsigned char *bytes, size_t size)
{
    for (size_t got = 0; got < size;) {
        int count = read_some(connection, bytes + got, size - got);
        if (count <= 0)
            die_tls("read");
        got += (size_t)count;
    }
}

void greet(struct connection *connection, const unsigned char *byte)
{
    unsigned char back;
    write_blocking(connection, byte, 1);
    read_blocking(connection, &back, 1);
    if (back != *byte)
        die("wrong byte: sent 0x%02x, got 0x%02x back", *byte, back);
}

void open_blocking(const struct peer *peer, struct connection *connection)
{
    dial(peer, connection);
    if (shake_hands(connection) != 1)
        die_tls("handshake");
}
