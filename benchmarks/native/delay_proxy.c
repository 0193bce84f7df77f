/* Round trips of a chosen length in front of servers on this machine, whose kernel may have no netem.
 *
 *   delay_proxy [--late SHARE LATE_US SEED] PORT:ROUND_TRIP_US ...
 *
 * For each server it listens on a port of 127.0.0.1 that the kernel chose, and passes every chunk on after half the round
 * trip, in order; a SHARE (0 to 1) of them LATE_US later still, as after a retransmission, and what follows waits behind.
 * TCP's own handshake is not delayed. It prints {"ports": [...]}, answers every line on stdin with
 * {"connections": [...]}, how many it accepted since the line before, and ends with stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SERVERS_MAX 16
#define CHUNK 16384
#define QUEUED_MAX (8 << 20) /* Bytes under way in one direction; a client that sends more is hung up on. */

struct chunk {
  struct chunk *next;
  long long due;
  size_t size, sent;
  char data[];
};

struct connection;

/* One direction of one connection. */
struct stream {
  struct connection *of;
  int from, to;
  struct chunk *head, *tail;
  long long last_due;
  size_t queued;
  int ended; /* Nothing more will come; hang up when the queue is empty. */
};

struct connection {
  struct connection *next;
  struct stream up, down;
  int server, dead;
};

static struct { int listener, port, accepted; long long delay; } servers[SERVERS_MAX];
static int count_servers, poller, timer;
static struct connection *connections;
static double late_share;
static long long late_ns;
static unsigned long long dice = 88172645463325252ULL;

static void fail(const char *what) {
  fprintf(stderr, "delay_proxy: %s: %s\n", what, strerror(errno));
  exit(1);
}

static long long now_ns(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static double throw_dice(void) { /* xorshift64, so that a seed gives the same lateness again */
  dice ^= dice << 13;
  dice ^= dice >> 7;
  dice ^= dice << 17;
  return (double)(dice >> 11) / 9007199254740992.0;
}

static void watch(int fd, void *whose) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = whose};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event)) fail("epoll_ctl");
}

static void no_delay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static struct sockaddr_in loopback(int port) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_anywhere(int *port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in here = loopback(0);
  socklen_t size = sizeof here;
  if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 512) || getsockname(fd, (struct sockaddr *)&here, &size))
    fail("listen");
  *port = ntohs(here.sin_port);
  return fd;
}

static void take_in(int server) {
  int client = accept4(servers[server].listener, NULL, NULL, SOCK_CLOEXEC);
  if (client < 0) return;
  int upstream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in to = loopback(servers[server].port);
  if (upstream < 0 || connect(upstream, (struct sockaddr *)&to, sizeof to)) {
    close(client);
    if (upstream >= 0) close(upstream);
    return;
  }
  no_delay(client);
  no_delay(upstream);
  struct connection *connection = calloc(1, sizeof *connection);
  if (!connection) fail("calloc");
  connection->server = server;
  connection->up = (struct stream){.of = connection, .from = client, .to = upstream};
  connection->down = (struct stream){.of = connection, .from = upstream, .to = client};
  connection->next = connections;
  connections = connection;
  watch(client, &connection->up);
  watch(upstream, &connection->down);
  servers[server].accepted++;
}

static void take_chunk(struct stream *stream) {
  struct chunk *chunk = malloc(sizeof *chunk + CHUNK);
  if (!chunk) fail("malloc");
  ssize_t got = recv(stream->from, chunk->data, CHUNK, 0);
  if (got <= 0) {
    free(chunk);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    stream->ended = 1;
    epoll_ctl(poller, EPOLL_CTL_DEL, stream->from, NULL);
    return;
  }
  long long due = now_ns() + servers[stream->of->server].delay;
  if (late_share > 0 && throw_dice() < late_share) due += late_ns;
  if (due < stream->last_due) due = stream->last_due;
  *chunk = (struct chunk){.due = due, .size = (size_t)got};
  stream->last_due = due;
  stream->queued += (size_t)got;
  if (stream->tail) stream->tail->next = chunk; else stream->head = chunk;
  stream->tail = chunk;
  if (stream->queued > QUEUED_MAX) stream->of->dead = 1;
}

/* Write what is due; gives when to look again. */
static long long pass_on(struct stream *stream, long long now) {
  while (stream->head && stream->head->due <= now) {
    struct chunk *chunk = stream->head;
    ssize_t put = send(stream->to, chunk->data + chunk->sent, chunk->size - chunk->sent, MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN) { stream->of->dead = 1; return 0; }
    if (put > 0) chunk->sent += (size_t)put;
    if (chunk->sent < chunk->size) return now + 1000000; /* Its reader is slow. */
    stream->head = chunk->next;
    if (!stream->head) stream->tail = NULL;
    stream->queued -= chunk->size;
    free(chunk);
  }
  if (stream->ended && !stream->head) stream->of->dead = 1;
  return stream->head ? stream->head->due : 0;
}

static void drop(struct stream *stream) {
  while (stream->head) {
    struct chunk *chunk = stream->head;
    stream->head = chunk->next;
    free(chunk);
  }
  close(stream->from);
}

/* Everything that is due, on all connections; arms the timer for what is next. */
static void turn(void) {
  long long now = now_ns(), next = 0;
  for (struct connection **at = &connections; *at;) {
    struct connection *connection = *at;
    struct stream *streams[] = {&connection->up, &connection->down};
    for (int i = 0; i < 2 && !connection->dead; i++) {
      long long due = pass_on(streams[i], now);
      if (due && (!next || due < next)) next = due;
    }
    if (!connection->dead) { at = &connection->next; continue; }
    *at = connection->next;
    drop(&connection->up);
    drop(&connection->down);
    free(connection);
  }
  struct itimerspec when = {.it_value = {next / 1000000000LL, next % 1000000000LL}};
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* 0 when stdin ended. */
static int answer(void) {
  char line[256];
  if (read(STDIN_FILENO, line, sizeof line) <= 0) return 0;
  printf("{\"connections\": [");
  for (int i = 0; i < count_servers; i++) {
    printf(i ? ", %d" : "%d", servers[i].accepted);
    servers[i].accepted = 0;
  }
  printf("]}\n");
  fflush(stdout);
  return 1;
}

static void set_up(int argc, char **argv) {
  int at = 1;
  if (argc > 4 && !strcmp(argv[1], "--late")) {
    late_share = strtod(argv[2], NULL);
    late_ns = strtoll(argv[3], NULL, 10) * 1000;
    dice ^= strtoull(argv[4], NULL, 10) * 0x9E3779B97F4A7C15ULL;
    at = 5;
  }
  for (; at < argc && count_servers < SERVERS_MAX; at++) {
    char *rest;
    int server = count_servers++;
    servers[server].port = (int)strtol(argv[at], &rest, 10);
    servers[server].delay = *rest == ':' ? strtoll(rest + 1, NULL, 10) * 1000 / 2 : 0;
  }
  printf("{\"ports\": [");
  for (int i = 0; i < count_servers; i++) {
    int port;
    servers[i].listener = listen_anywhere(&port);
    printf(i ? ", %d" : "%d", port);
  }
  printf("]}\n");
  fflush(stdout);
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  poller = epoll_create1(EPOLL_CLOEXEC);
  timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  set_up(argc, argv);
  watch(timer, &timer);
  watch(STDIN_FILENO, &poller);
  for (int i = 0; i < count_servers; i++) watch(servers[i].listener, &servers[i]);
  struct epoll_event events[64];
  for (;;) {
    int ready = epoll_wait(poller, events, 64, -1);
    if (ready < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < ready; i++) {
      void *whose = events[i].data.ptr;
      if (whose == &timer) {
        unsigned long long ticks;
        if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) fail("read");
      } else if (whose == &poller) {
        if (!answer()) return 0;
      } else if (whose >= (void *)servers && whose < (void *)(servers + SERVERS_MAX)) {
        take_in((int)((char *)whose - (char *)servers) / (int)sizeof servers[0]);
      } else {
        take_chunk(whose); /* Connections are freed in `turn` alone, so none of these events is stale. */
      }
    }
    turn();
  }
}
