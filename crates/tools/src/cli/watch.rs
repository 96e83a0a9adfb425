//! Watching a server from outside: `--stat`, `--latency`, `--latency-history`, and `--intrinsic-latency`, which
//! watches the machine instead.

use super::link::{Fault, Link};
use super::options::{Options, Output};
use super::session::{Exit, Session, emit, emit_line};
use kara_resp::Value;
use signal_hook::consts::SIGINT;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between two PINGs.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);
const HISTORY_EVERY: Duration = Duration::from_secs(15);

/// A command whose lost connection is made anew, once a second.
fn ask(session: &mut Session, words: &[&str]) -> Result<Value, Exit> {
    let mut tries = 0u32;
    loop {
        match session.link.as_mut().map(|link| link.ask(words)) {
            Some(Ok(value)) => {
                if tries > 0 {
                    emit(b"\r\x1b[0K")?;
                }
                return Ok(value);
            }
            Some(Err(fault @ Fault::Protocol(_))) => {
                eprintln!("Error: {fault}");
                return Err(Exit(1));
            }
            _ => {}
        }
        tries += 1;
        emit(format!("\r\x1b[0KReconnecting... {tries}\r").as_bytes())?;
        session.connect(true);
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[derive(Default)]
struct Samples {
    lowest_ms: u128,
    highest_ms: u128,
    total_ms: u128,
    count: u64,
}

impl Samples {
    fn add(&mut self, latency_ms: u128) {
        self.lowest_ms = if self.count == 0 { latency_ms } else { self.lowest_ms.min(latency_ms) };
        self.highest_ms = self.highest_ms.max(latency_ms);
        self.total_ms += latency_ms;
        self.count += 1;
    }

    fn print(&self, output: Output) -> Result<(), Exit> {
        let Samples { lowest_ms: min, highest_ms: max, count, .. } = self;
        let average = if self.count > 0 { self.total_ms as f64 / self.count as f64 } else { 0.0 };
        emit(
            match output {
                Output::Standard => format!("min: {min}, max: {max}, avg: {average:.2} ({count} samples)"),
                Output::Csv => format!("{min},{max},{average:.2},{count}\n"),
                Output::Raw => format!("{min} {max} {average:.2} {count}\n"),
                Output::Json | Output::QuotedJson => {
                    format!("{{\"min\": {min}, \"max\": {max}, \"avg\": {average:.2}, \"count\": {count}}}\n")
                }
            }
            .as_bytes(),
        )
    }
}

/// `--latency`: for ever on a terminal, elsewhere one line after a second.
pub fn latency(session: &mut Session) -> Result<(), Exit> {
    let Options { output, interval, modes, .. } = session.options.clone();
    let once_after = if interval.is_zero() { Duration::from_secs(1) } else { interval };
    let history_every = if interval.is_zero() { HISTORY_EVERY } else { interval };
    let mut samples = Samples::default();
    let mut began = Instant::now();
    loop {
        let asked = Instant::now();
        ask(session, &["PING"])?;
        samples.add(asked.elapsed().as_millis());
        if output == Output::Standard {
            emit(b"\x1b[0G\x1b[2K")?;
            samples.print(output)?;
        } else if modes.latency_history {
            samples.print(output)?;
        } else if began.elapsed() > once_after {
            return samples.print(output);
        }
        if modes.latency_history && began.elapsed() > history_every {
            emit_line(&format!(" -- {:.2} seconds range", began.elapsed().as_secs_f32()))?;
            began = Instant::now();
            samples = Samples::default();
        }
        std::thread::sleep(SAMPLE_EVERY);
    }
}

/// How long this machine leaves a busy program waiting.
pub fn intrinsic_latency(seconds: u64) -> Result<(), Exit> {
    let stopped = Arc::new(AtomicBool::new(false));
    let _ = signal_hook::flag::register(SIGINT, Arc::clone(&stopped));
    let limit = Duration::from_secs(seconds);
    let began = Instant::now();
    let (mut runs, mut worst_us) = (0u64, 0u128);
    loop {
        let before = Instant::now();
        busy_work(runs);
        let took_us = before.elapsed().as_micros();
        runs += 1;
        if took_us > worst_us {
            worst_us = took_us;
            emit_line(&format!("Max latency so far: {worst_us} microseconds."))?;
        }
        if stopped.load(Ordering::Relaxed) || began.elapsed() >= limit {
            break;
        }
    }
    let average_us = limit.as_micros() as f64 / runs as f64;
    emit_line(&format!(
        "\n{runs} total runs (avg latency: {average_us:.4} microseconds / {:.2} nanoseconds per run).",
        average_us * 1000.0
    ))?;
    let worse = if average_us > 0.0 { worst_us as f64 / average_us } else { 0.0 };
    emit_line(&format!("Worst run took {worse:.0}x longer than the average latency."))
}

/// Less than a microsecond of work that the compiler can't drop.
fn busy_work(seed: u64) {
    let mut state = seed;
    for _ in 0..64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    std::hint::black_box(state);
}

/// A field of INFO as a number; the first place where its name stands counts.
fn field(info: &str, name: &str) -> Option<i64> {
    let (_, rest) = info.split_once(name)?;
    let value = rest.get(1..)?;
    let end = value.find(['\r', ',']).unwrap_or(value.len());
    value.get(..end)?.parse().ok()
}

fn human_bytes(bytes: i64) -> String {
    let size = bytes.unsigned_abs() as f64;
    let sign = if bytes < 0 { "-" } else { "" };
    for (unit, scale) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        let scale = (1u64 << scale) as f64;
        if size >= scale {
            return format!("{sign}{:.2}{unit}", size / scale);
        }
    }
    format!("{bytes}B")
}

fn databases(link: &mut Link) -> u32 {
    let reply = link.ask(&["CONFIG", "GET", "databases"]);
    let value = match &reply {
        Ok(Value::Map(pairs)) => pairs.first().map(|(_, value)| value),
        Ok(Value::Array(items)) => items.get(1),
        Ok(Value::Error(text)) => {
            let text = String::from_utf8_lossy(text);
            eprintln!("CONFIG GET databases fails: {text}, use default value 16 instead");
            None
        }
        _ => None,
    };
    let text = value.and_then(Value::as_bytes).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(16)
}

/// `--stat`: one line each interval, a heading each 20 lines.
pub fn stat(session: &mut Session) -> Result<(), Exit> {
    let every = match session.options.interval {
        interval if interval.is_zero() => Duration::from_secs(1),
        interval => interval,
    };
    let databases = session.link.as_mut().map_or(16, databases);
    let mut requests_before = None;
    for line in 0u64.. {
        let reply = ask(session, &["INFO"])?;
        if let Value::Error(text) = &reply {
            eprintln!("ERROR: {}", String::from_utf8_lossy(text));
            return Err(Exit(1));
        }
        let info = String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned();
        if line % 20 == 0 {
            emit_line(
                "------- data ------ --------------------- load -------------------- - child -\n\
                 keys       mem      clients blocked requests            connections          ",
            )?;
        }
        let number = |name: &str| field(&info, name).unwrap_or(0);
        let keys: i64 = (0..databases).map(|db| number(&format!("db{db}:keys"))).sum();
        let requests = number("total_commands_processed");
        let more = requests_before.map_or(0, |before: i64| requests - before);
        requests_before = Some(requests);
        let busy =
            number("bgsave_in_progress") | number("aof_rewrite_in_progress") << 1 | number("loading") << 2;
        let child = ["", "SAVE", "AOF", "SAVE+AOF", "LOAD"];
        emit_line(&format!(
            "{keys:<11}{:<8} {:<8}{:<8}{:<19} {:<12}{}",
            human_bytes(number("used_memory")),
            number("connected_clients"),
            number("blocked_clients"),
            format!("{requests} (+{more})"),
            number("total_connections_received"),
            usize::try_from(busy).ok().and_then(|busy| child.get(busy)).unwrap_or(&"")
        ))?;
        std::thread::sleep(every);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_sizes() {
        let info = "used_memory:123\r\nused_memory_rss:9\r\ndb0:keys=5,expires=1\r\n";
        assert_eq!(field(info, "used_memory"), Some(123));
        assert_eq!(field(info, "db0:keys"), Some(5));
        assert_eq!(field(info, "db1:keys"), None);
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(1536), "1.50K");
        assert_eq!(human_bytes(3 << 30), "3.00G");
    }
}
