/* What the load generator and its backend share: the stream of bytes both can tell by heart, and how they give up. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stddef.h>
#include <stdint.h>

/* A prime, so that a stream shifted by a record or by a buffer matches nowhere. */
#define PERIOD 262147u
/* How many bytes may be looked at from any one position. */
#define SPAN 262144u
/* Nothing here takes this long unless something hangs. */
#define PATIENCE_SECONDS 30
/* 'U' or 'D', a count, a position in the stream; both numbers little-endian. */
#define HEAD 17
/* 'K' for right or 'X' for wrong, and how many bytes came. */
#define ANSWER 9

void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void make_pattern(void);
const unsigned char *pattern_at(uint64_t position);
int is_pattern(const unsigned char *seen, uint64_t position, size_t size);
void put_u64(unsigned char *to, uint64_t value);
uint64_t take_u64(const unsigned char *from);
void set_nodelay(int fd);
void end_with_parent(void);

int serve_backend(int port);

#endif
