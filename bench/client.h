/* One client connection, with TLS or without, and the blocking steps with it; in a blocking step every failure ends the program. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#define MESSAGE 64
#define RECORD 16384
#define EVENTS 64

enum state { IDLE, HANDSHAKING, WAITING, CLOSING };
enum { ENDED = 0, BLOCKED = -1, FAILED = -2 }; /* instead of a number of bytes */

struct peer {
    SSL_CTX *context; /* NULL: plain TCP */
    struct sockaddr_in address;
};

struct connection {
    int fd;
    SSL *ssl;
    enum state state;
    const unsigned char *expected;
    size_t size, got;
    double began; /* or when it should have begun, if there is a schedule */
};

struct durations {
    double *values;
    size_t count, room;
};

double now(void);
void note(struct durations *durations, double seconds);
void print_percentiles(struct durations *durations);

void die_tls(const char *what) __attribute__((noreturn));
struct sockaddr_in parse_address(const char *text);
SSL_CTX *make_context(const char *certificate, const char *key, const char *authorities);
void set_patience(int fd, int seconds);
void dial(const struct peer *peer, struct connection *connection);
void hang_up(struct connection *connection);
void watch(int epoll, struct connection *connection, uint32_t events);
void check_handshake(SSL *ssl);
int shake_hands(struct connection *connection);
int read_some(struct connection *connection, unsigned char *bytes, size_t size);
int write_some(struct connection *connection, const unsigned char *bytes, size_t size);
int send_end(struct connection *connection);
int is_closed(struct connection *connection);
int send_message(struct connection *connection, const unsigned char *bytes, size_t size);
int take_answer(struct connection *connection);
const unsigned char *letter(uint64_t number);
void write_blocking(struct connection *connection, const unsigned char *bytes, size_t size);
void read_blocking(struct connection *connection, unsigned char *bytes, size_t size);
void greet(struct connection *connection, const unsigned char *byte);
void open_blocking(const struct peer *peer, struct connection *connection);

void run_paced(const struct peer *peer, unsigned ports, size_t open_count, double connections_per_second,
               double messages_per_second) __attribute__((noreturn));
double run_streams(const struct peer *peer, uint64_t total, size_t count, void (*ready)(SSL *));

#endif
