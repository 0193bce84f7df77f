// redsync as a contender: the protocol of benchmarks/worker.py, one JSON object per line.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	client "github.com/redis/go-redis/v9"
)

type question struct {
	Do       string   `json:"do"`
	Urls     []string `json:"urls"`
	TTL      float64  `json:"ttl"`
	Resource string   `json:"resource"`
	Count    int      `json:"count"`
	Warm     int      `json:"warm"`
	Seconds  float64  `json:"seconds"`
	Section  float64  `json:"section"`
	Fresh    bool     `json:"fresh"`
}

type locks struct {
	clients []*client.Client
	sync    *redsync.Redsync
	ttl     time.Duration
}

// CLOCK_MONOTONIC, the clock of every contender: Go's own does not give the instant.
func clock() int64 {
	var at syscall.Timespec
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func cpu() int64 {
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return used.Utime.Nano() + used.Stime.Nano()
}

func open(urls []string, ttl float64) (*locks, error) {
	made := &locks{ttl: time.Duration(ttl * float64(time.Second))}
	pools := []redis.Pool{}
	for _, url := range urls {
		options, err := client.ParseURL(url)
		if err != nil {
			return nil, err
		}
		one := client.NewClient(options)
		made.clients = append(made.clients, one)
		pools = append(pools, goredis.NewPool(one))
	}
	made.sync = redsync.New(pools...)
	return made, nil
}

func (l *locks) take(resource string) *redsync.Mutex {
	mutex := l.sync.NewMutex(resource, redsync.WithExpiry(l.ttl), redsync.WithTries(1))
	if mutex.TryLock() != nil {
		return nil
	}
	return mutex
}

func (l *locks) close() {
	for _, one := range l.clients {
		one.Close()
	}
}

func (l *locks) pairs(q question) any {
	for i := 0; i < q.Warm; i++ {
		if held := l.take(q.Resource); held != nil {
			held.Unlock()
		}
	}
	acquired, released, failed := []int64{}, []int64{}, 0
	before := cpu()
	giveUpAt := clock() + int64(q.Seconds*1e9)
	for i := 0; i < q.Count; i++ {
		name := q.Resource
		if q.Fresh {
			name = fmt.Sprintf("%s-%d", q.Resource, i)
		}
		began := clock()
		if began > giveUpAt {
			break
		}
		held := l.take(name)
		between := clock()
		if held == nil {
			failed++
			continue
		}
		held.Unlock()
		released = append(released, clock()-between)
		acquired = append(acquired, between-began)
	}
	return map[string]any{"acquire": acquired, "release": released, "failed": failed, "cpu": cpu() - before}
}

func first(q question) any {
	began := clock()
	made, err := open(q.Urls, 10)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	held := made.take(q.Resource)
	ready := clock() - began
	if held != nil {
		held.Unlock()
	}
	made.close()
	return map[string]any{"ready": ready, "granted": held != nil}
}

func (l *locks) contend(q question) any {
	turns := [][3]int64{}
	before := cpu()
	until := clock() + int64(q.Seconds*1e9)
	for {
		asked := clock()
		if asked >= until {
			break
		}
		mutex := l.sync.NewMutex(q.Resource, redsync.WithExpiry(l.ttl))
		if mutex.Lock() != nil {
			continue
		}
		entered := clock()
		time.Sleep(time.Duration(q.Section * 1e9))
		left := clock()
		mutex.Unlock()
		turns = append(turns, [3]int64{asked, entered, left})
	}
	return map[string]any{"turns": turns, "cpu": cpu() - before}
}

func versions() string {
	found := []string{}
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if strings.Contains(module.Path, "redsync") || strings.Contains(module.Path, "go-redis/v9") {
			parts := strings.Split(strings.TrimSuffix(strings.TrimSuffix(module.Path, "/v4"), "/v9"), "/")
			found = append(found, parts[len(parts)-1]+" "+strings.TrimPrefix(module.Version, "v"))
		}
	}
	return strings.Join(append(found, "Go "+strings.TrimPrefix(info.GoVersion, "go")), ", ")
}

func main() {
	var held *locks
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var q question
		var answer any = map[string]any{"error": "redsync's adapter does not know this question"}
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			answer = map[string]any{"error": err.Error()}
		} else if q.Do == "open" {
			if made, err := open(q.Urls, q.TTL); err != nil {
				answer = map[string]any{"error": err.Error()}
			} else {
				held, answer = made, map[string]any{"version": versions()}
			}
		} else if q.Do == "pairs" {
			answer = held.pairs(q)
		} else if q.Do == "first" {
			answer = first(q)
		} else if q.Do == "contend" {
			answer = held.contend(q)
		}
		out.Encode(answer)
	}
}
