/* The floor: what acquire and release on N nodes cost when nothing but the bytes is left.
 *
 * One non-blocking connection per node, one epoll, one send per node and round, return at the majority's answer. It
 * checks no validity, gives nothing back, and admits any node: a yardstick, not a lock.
 *
 *   floor plain                          SET NX PX and a compare-and-delete script: the commands of the Redlock page
 *   floor ballot TAKE_SHA FREE_SHA       the scripts of this project, so that the servers' share can be told apart
 *
 * Speaks the workers' protocol: one JSON object per line on stdin and stdout ("open", "pairs", "first").
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NODES_MAX 16
#define BUFFER 8192
#define PAIRS_MAX 1000000
#define RELEASE "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end"

struct node {
  int fd, port;
  int unanswered; /* Questions on their way; the answer that brings this to 0 is this round's. */
  size_t have;
  char inbox[BUFFER];
  char marker[512]; /* Already a bulk string; only "ballot" needs it. */
};

static struct node nodes[NODES_MAX];
static int count_nodes, poller, ballot;
static const char *take_sha, *free_sha;
static char release_sha[64];
static long ttl_ms;

static void fail(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
  exit(1);
}

static long long clock_ns(clockid_t clock) {
  struct timespec at;
  clock_gettime(clock, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static long long cpu_ns(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
}

/* The size of the whole reply at *at*, or 0 if it is not all there. */
static size_t reply_size(const char *at, size_t have) {
  const char *end = memchr(at, '\n', have);
  if (!end) return 0;
  size_t size = (size_t)(end - at) + 1;
  if (*at == '$') {
    long body = strtol(at + 1, NULL, 10);
    if (body >= 0) size += (size_t)body + 2;
    return size <= have ? size : 0;
  }
  if (*at == '*') {
    for (long left = strtol(at + 1, NULL, 10); left > 0; left--) {
      size_t element = size < have ? reply_size(at + size, have - size) : 0;
      if (!element) return 0;
      size += element;
    }
  }
  return size;
}

static void send_all(struct node *node, const char *data, size_t size) {
  if (send(node->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) fail("send");
  node->unanswered++;
}

/* One question at set-up, waited for behind whatever else is still unanswered; the answer's text without its type byte. */
static void ask(struct node *node, const char *data, char *answer, size_t room) {
  send_all(node, data, strlen(data));
  size_t at = 0, size = 0;
  while (node->unanswered) {
    if ((size = reply_size(node->inbox + at, node->have - at))) {
      if (--node->unanswered) at += size;
      continue;
    }
    ssize_t got = recv(node->fd, node->inbox + node->have, BUFFER - node->have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) { usleep(50); continue; }
    if (got <= 0) fail("recv");
    node->have += (size_t)got;
  }
  const char *body = node->inbox + at;
  if (*body == '$') body = memchr(body, '\n', node->have - at);
  body++;
  size = strcspn(body, "\r\n");
  if (size >= room) size = room - 1;
  memcpy(answer, body, size);
  answer[size] = 0;
  node->have = 0;
}

static void open_nodes(const char *line) {
  poller = epoll_create1(0);
  count_nodes = 0;
  for (const char *at = line; (at = strstr(at, "127.0.0.1:")) && count_nodes < NODES_MAX;) {
    at += strlen("127.0.0.1:");
    struct node *node = &nodes[count_nodes++];
    memset(node, 0, sizeof *node);
    node->port = atoi(at);
    node->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)node->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(node->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
    int on = 1;
    setsockopt(node->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = (uint32_t)(count_nodes - 1)};
    epoll_ctl(poller, EPOLL_CTL_ADD, node->fd, &event);
  }
  struct epoll_event events[NODES_MAX];
  for (int left = count_nodes; left;) {
    int ready = epoll_wait(poller, events, NODES_MAX, 5000);
    if (ready <= 0) fail("connecting");
    for (int i = 0; i < ready; i++, left--) {
      struct epoll_event event = {.events = EPOLLIN, .data = events[i].data};
      epoll_ctl(poller, EPOLL_CTL_MOD, nodes[events[i].data.u32].fd, &event);
    }
  }
}

/* The scripts and, for "ballot", every node's marker. */
static void prepare_nodes(void) {
  char load[512], marker[400];
  snprintf(load, sizeof load, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%zu\r\n%s\r\n", strlen(RELEASE), RELEASE);
  for (int i = 0; i < count_nodes; i++) {
    ask(&nodes[i], load, release_sha, sizeof release_sha);
    if (!ballot) continue;
    ask(&nodes[i], "*2\r\n$3\r\nGET\r\n$12\r\nredlock:node\r\n", marker, sizeof marker);
    snprintf(nodes[i].marker, sizeof nodes[i].marker, "$%zu\r\n%s\r\n", strlen(marker), marker);
  }
}

static void close_nodes(void) {
  for (int i = 0; i < count_nodes; i++) close(nodes[i].fd);
  close(poller);
  count_nodes = 0;
}

static int is_yes(const char *reply, int releasing) {
  if (releasing) return reply[0] == ':' && reply[1] == '1';
  return reply[0] == (ballot ? ':' : '+');
}

/* Everything that *node* said; counts its answer to this round into *yes* or *no*. */
static void hear(struct node *node, int releasing, int *yes, int *no) {
  ssize_t got = recv(node->fd, node->inbox + node->have, BUFFER - node->have, 0);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) fail("recv");
  node->have += (size_t)got;
  size_t at = 0, size;
  while (at < node->have && (size = reply_size(node->inbox + at, node->have - at))) {
    if (--node->unanswered == 0) ++*(is_yes(node->inbox + at, releasing) ? yes : no);
    at += size;
  }
  memmove(node->inbox, node->inbox + at, node->have - at);
  node->have -= at;
}

/* One question to all nodes; 1 at the majority's yes, 0 as soon as there can be none. */
static int go_round(const char *data, size_t size, int marked, int releasing) {
  char whole[1024];
  for (int i = 0; i < count_nodes; i++) {
    if (!marked) { send_all(&nodes[i], data, size); continue; }
    size_t tail = strlen(nodes[i].marker);
    memcpy(whole, data, size);
    memcpy(whole + size, nodes[i].marker, tail);
    send_all(&nodes[i], whole, size + tail);
  }
  int yes = 0, no = 0, needed = count_nodes / 2 + 1;
  struct epoll_event events[NODES_MAX];
  while (yes < needed && no <= count_nodes - needed) {
    int ready = epoll_wait(poller, events, NODES_MAX, 10000);
    if (ready == 0) fail("no majority in 10 s");
    for (int i = 0; i < ready; i++) hear(&nodes[events[i].data.u32], releasing, &yes, &no);
  }
  return yes >= needed;
}

static void new_owner(char *owner) {
  unsigned char random[16];
  if (getrandom(random, sizeof random, 0) != sizeof random) fail("getrandom");
  for (int i = 0; i < 16; i++) sprintf(owner + 2 * i, "%02x", random[i]);
}

static size_t acquire_text(char *data, size_t room, const char *key, const char *owner, long long token) {
  if (!ballot) {
    char ttl[24];
    snprintf(ttl, sizeof ttl, "%ld", ttl_ms);
    return (size_t)snprintf(data, room, "*6\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$32\r\n%s\r\n$2\r\nNX\r\n$2\r\nPX\r\n$%zu\r\n%s\r\n",
                            strlen(key), key, owner, strlen(ttl), ttl);
  }
  char number[24], ttl[24];
  snprintf(number, sizeof number, "%lld", token);
  snprintf(ttl, sizeof ttl, "%ld", ttl_ms);
  return (size_t)snprintf(data, room,
                          "*14\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n4\r\n$%zu\r\n%s\r\n$%zu\r\n%s:fence\r\n$12\r\nredlock:node\r\n"
                          "$%zu\r\n%s:lock-queue\r\n$32\r\n%s\r\n$%zu\r\n%s\r\n$1\r\n-\r\n$%zu\r\n%s\r\n$9\r\n604800000\r\n"
                          "$7\r\nacquire\r\n",
                          take_sha, strlen(key), key, strlen(key) + 6, key, strlen(key) + 11, key, owner, strlen(number), number,
                          strlen(ttl), ttl);
}

static size_t release_text(char *data, size_t room, const char *key, const char *owner, long long token) {
  if (!ballot)
    return (size_t)snprintf(data, room, "*5\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n1\r\n$%zu\r\n%s\r\n$32\r\n%s\r\n", release_sha,
                            strlen(key), key, owner);
  char number[24];
  snprintf(number, sizeof number, "%lld", token);
  return (size_t)snprintf(data, room,
                          "*10\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$1\r\n3\r\n$%zu\r\n%s\r\n$%zu\r\n%s:fence\r\n$%zu\r\n%s:lock-queue\r\n"
                          "$32\r\n%s\r\n$%zu\r\n%s\r\n$1\r\n-\r\n$9\r\n604800000\r\n",
                          free_sha, strlen(key), key, strlen(key) + 6, key, strlen(key) + 11, key, owner, strlen(number), number);
}

/* The tokens of this program rise by themselves, and stay past the fence that a release raises by one. */
static long long next_token(void) {
  static long long last;
  long long token = clock_ns(CLOCK_REALTIME) / 1000;
  last = token > last + 1 ? token : last + 2;
  return last;
}

struct pair { long long acquired, released; int granted; };

static struct pair one_pair(const char *key) {
  char owner[33], data[1024];
  long long began = clock_ns(CLOCK_MONOTONIC);
  new_owner(owner);
  long long token = ballot ? next_token() : 0;
  int granted = go_round(data, acquire_text(data, sizeof data, key, owner, token), ballot, 0);
  long long between = clock_ns(CLOCK_MONOTONIC);
  go_round(data, release_text(data, sizeof data, key, owner, token), 0, 1);
  return (struct pair){between - began, clock_ns(CLOCK_MONOTONIC) - between, granted};
}

/* A number or a string of a flat JSON object that our own driver wrote. */
static double number_in(const char *line, const char *name, double otherwise) {
  char quoted[40];
  snprintf(quoted, sizeof quoted, "\"%s\": ", name);
  const char *at = strstr(line, quoted);
  return at ? strtod(at + strlen(quoted), NULL) : otherwise;
}

static void text_in(const char *line, const char *name, char *text, size_t room) {
  char quoted[40];
  snprintf(quoted, sizeof quoted, "\"%s\": \"", name);
  const char *at = strstr(line, quoted);
  if (!at) fail(name);
  at += strlen(quoted);
  size_t size = strcspn(at, "\"");
  if (size >= room) fail(name);
  memcpy(text, at, size);
  text[size] = 0;
}

static void pairs(const char *line) {
  static long long acquired[PAIRS_MAX], released[PAIRS_MAX];
  char resource[128], key[160];
  text_in(line, "resource", resource, sizeof resource);
  long count = (long)number_in(line, "count", 1), warm = (long)number_in(line, "warm", 0);
  int fresh = strstr(line, "\"fresh\": true") != NULL;
  long long give_up_at = clock_ns(CLOCK_MONOTONIC) + (long long)(number_in(line, "seconds", 3600) * 1e9);
  long done = 0, failed = 0;
  snprintf(key, sizeof key, "%s", resource);
  for (long i = 0; i < warm; i++) one_pair(key);
  long long cpu = cpu_ns();
  for (long i = 0; i < count && done < PAIRS_MAX && clock_ns(CLOCK_MONOTONIC) < give_up_at; i++) {
    if (fresh) snprintf(key, sizeof key, "%s-%ld", resource, i);
    struct pair pair = one_pair(key);
    if (!pair.granted) { failed++; continue; }
    acquired[done] = pair.acquired;
    released[done++] = pair.released;
  }
  cpu = cpu_ns() - cpu;
  printf("{\"cpu\": %lld, \"failed\": %ld, \"acquire\": [", cpu, failed);
  for (long i = 0; i < done; i++) printf(i ? ", %lld" : "%lld", acquired[i]);
  printf("], \"release\": [");
  for (long i = 0; i < done; i++) printf(i ? ", %lld" : "%lld", released[i]);
  printf("]}\n");
}

static void first(const char *line) {
  char resource[128], owner[33], data[1024];
  text_in(line, "resource", resource, sizeof resource);
  long long began = clock_ns(CLOCK_MONOTONIC);
  open_nodes(line);
  if (ballot) prepare_nodes();
  new_owner(owner);
  long long token = ballot ? next_token() : 0;
  int granted = go_round(data, acquire_text(data, sizeof data, resource, owner, token), ballot, 0);
  long long ready = clock_ns(CLOCK_MONOTONIC) - began;
  prepare_nodes();
  go_round(data, release_text(data, sizeof data, resource, owner, token), 0, 1);
  close_nodes();
  printf("{\"ready\": %lld, \"granted\": %s}\n", ready, granted ? "true" : "false");
}

int main(int argc, char **argv) {
  ballot = argc == 4 && !strcmp(argv[1], "ballot");
  if (!ballot && !(argc == 2 && !strcmp(argv[1], "plain"))) fail("usage: floor plain | ballot TAKE_SHA FREE_SHA");
  if (ballot) take_sha = argv[2], free_sha = argv[3];
  char *line = NULL;
  size_t room = 0;
  ttl_ms = 10000;
  while (getline(&line, &room, stdin) > 0) {
    if (strstr(line, "\"do\": \"open\"")) {
      ttl_ms = (long)(number_in(line, "ttl", 10) * 1000);
      open_nodes(line);
      prepare_nodes();
      printf("{\"version\": \"C, epoll\"}\n");
    } else if (strstr(line, "\"do\": \"pairs\"")) {
      pairs(line);
    } else if (strstr(line, "\"do\": \"first\"")) {
      first(line);
    } else {
      printf("{\"error\": \"the floor cannot do this\"}\n");
    }
    fflush(stdout);
  }
  free(line);
  return 0;
}
