//! rslock as a contender: the protocol of `benchmarks/worker.py`, one JSON object per line.

use rslock::{Lock, LockManager};
use serde_json::{json, Value};
use std::io::{BufRead, Write};
use std::time::Duration;

/// CLOCK_MONOTONIC, the clock of every contender, in nanoseconds.
fn clock() -> i64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    at.tv_sec * 1_000_000_000 + at.tv_nsec
}

fn cpu() -> i64 {
    let mut used: libc::rusage = unsafe { std::mem::zeroed() };
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut used) };
    let nanos = |at: libc::timeval| at.tv_sec * 1_000_000_000 + at.tv_usec * 1_000;
    nanos(used.ru_utime) + nanos(used.ru_stime)
}

struct Locks {
    once: LockManager,
    waits: LockManager,
    ttl: Duration,
}

impl Locks {
    fn new(question: &Value, ttl: f64) -> Locks {
        let urls: Vec<String> = question["urls"]
            .as_array()
            .map(|urls| urls.iter().filter_map(Value::as_str).map(String::from).collect())
            .unwrap_or_default();
        let waits = LockManager::new(urls);
        let mut once = waits.clone();
        once.set_retry(1, Duration::from_millis(1));
        Locks { once, waits, ttl: Duration::from_secs_f64(ttl) }
    }

    async fn take(&self, resource: &str) -> Option<Lock> {
        self.once.lock(resource, self.ttl).await.ok()
    }

    async fn pairs(&self, question: &Value) -> Value {
        let resource = question["resource"].as_str().unwrap_or_default();
        for _ in 0..question["warm"].as_u64().unwrap_or(0) {
            if let Some(held) = self.take(resource).await {
                held.release().await;
            }
        }
        let fresh = question["fresh"].as_bool().unwrap_or(false);
        let (mut acquire, mut release, mut failed) = (vec![], vec![], 0);
        let before = cpu();
        let give_up_at = clock() + (question["seconds"].as_f64().unwrap_or(3600.0) * 1e9) as i64;
        for number in 0..question["count"].as_u64().unwrap_or(1) {
            let began = clock();
            if began > give_up_at {
                break;
            }
            let held = if fresh {
                self.take(&format!("{resource}-{number}")).await
            } else {
                self.take(resource).await
            };
            let between = clock();
            match held {
                None => failed += 1,
                Some(lock) => {
                    lock.release().await;
                    release.push(clock() - between);
                    acquire.push(between - began);
                }
            }
        }
        json!({"acquire": acquire, "release": release, "failed": failed, "cpu": cpu() - before})
    }

    async fn contend(&self, question: &Value) -> Value {
        let resource = question["resource"].as_str().unwrap_or_default();
        let section = Duration::from_secs_f64(question["section"].as_f64().unwrap_or(0.001));
        let mut turns = vec![];
        let before = cpu();
        let until = clock() + (question["seconds"].as_f64().unwrap_or(1.0) * 1e9) as i64;
        loop {
            let asked = clock();
            if asked >= until {
                break;
            }
            let Ok(lock) = self.waits.lock(resource, self.ttl).await else { continue };
            let entered = clock();
            tokio::time::sleep(section).await;
            let left = clock();
            lock.release().await;
            turns.push([asked, entered, left]);
        }
        json!({"turns": turns, "cpu": cpu() - before})
    }
}

async fn first(question: &Value) -> Value {
    let began = clock();
    let made = Locks::new(question, 10.0);
    let held = made.take(question["resource"].as_str().unwrap_or_default()).await;
    let ready = clock() - began;
    let granted = held.is_some();
    if let Some(lock) = held {
        lock.release().await;
    }
    json!({"ready": ready, "granted": granted})
}

#[tokio::main]
async fn main() {
    let mut locks = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let question: Value = serde_json::from_str(&line).unwrap_or_default();
        let answer = match (question["do"].as_str(), &locks) {
            (Some("open"), _) => {
                locks = Some(Locks::new(&question, question["ttl"].as_f64().unwrap_or(10.0)));
                json!({"version": concat!("rslock 0.10.0, Rust ", env!("RUSTC_RELEASE"))})
            }
            (Some("pairs"), Some(locks)) => locks.pairs(&question).await,
            (Some("contend"), Some(locks)) => locks.contend(&question).await,
            (Some("first"), _) => first(&question).await,
            _ => json!({"error": "rslock's adapter does not know this question"}),
        };
        println!("{answer}");
        let _ = std::io::stdout().flush();
    }
}
