//! `kara-benchmark`: the reference's load generator: its tests, its options, its report.

mod histogram;
mod options;
mod run;

use crate::cli::link::Link;
use crate::cli::usage::VERSION;
use kara_resp::Value;
use options::{BenchOptions, Refusal, USAGE};
use run::{Outcome, Request};
use std::io::{Read, Write};
use std::process::ExitCode;

/// The program.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    let options = match BenchOptions::parse(args) {
        Ok(options) => options,
        Err(Refusal::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Version) => {
            println!("valkey-benchmark {VERSION}");
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Wrong(why)) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// A test: what it is called, and by which names of `-t` it is wanted.
struct Test {
    title: String,
    request: Request,
}

fn start(mut options: BenchOptions) -> Result<(), String> {
    if options.last_from_stdin {
        let mut text = Vec::new();
        std::io::stdin()
            .read_to_end(&mut text)
            .map_err(|fault| format!("Reading from standard input: {fault}"))?;
        options.command.push(text);
    }
    if options.idle {
        return idle(&options);
    }
    let server = Settings::of(&mut run::connect(&options)?);
    if server.is_none() {
        eprintln!("WARNING: Could not fetch server CONFIG");
    }
    if options.csv {
        println!(
            "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
             \"p99_latency_ms\",\"max_latency_ms\""
        );
    }
    loop {
        for test in tests(&options) {
            one(&options, &test, server.as_ref())?;
        }
        if !options.csv && options.command.is_empty() {
            println!();
        }
        if !options.forever {
            return Ok(());
        }
    }
}

/// `-I`: connections that do nothing, until one ends.
fn idle(options: &BenchOptions) -> Result<(), String> {
    println!("Creating {} idle connections and waiting forever (Ctrl+C when done)", options.clients);
    let mut links = Vec::new();
    for _ in 0..options.clients {
        links.push(run::connect(options)?);
    }
    loop {
        for link in &mut links {
            if link.is_readable_within(std::time::Duration::ZERO) {
                return match link.read() {
                    Ok(Value::Error(text)) => Err(format!("Error: {}", String::from_utf8_lossy(&text))),
                    Ok(_) => Err("Error: an idle connection was sent something".into()),
                    Err(fault) => Err(format!("Error: {fault}")),
                };
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn tests(options: &BenchOptions) -> Vec<Test> {
    if !options.command.is_empty() {
        let shown = options.command.iter().map(|word| String::from_utf8_lossy(word).into_owned());
        let title = shown.collect::<Vec<_>>().join(" ");
        return vec![Test { title, request: Request::new(&options.command) }];
    }
    let value: String =
        (0..options.data_size).map(|at| char::from(b'A' + u8::try_from(at % 26).unwrap_or(0))).collect();
    let ranges = ["lrange", "lrange_100", "lrange_300", "lrange_500", "lrange_600"];
    let range = |count: usize| format!("LRANGE mylist 0 {}", count - 1);
    let score = if options.random.is_some() { "__rand_int__" } else { "0" };
    let table: [(&str, &[&str], String); 20] = [
        ("PING_MBULK", &["ping", "ping_mbulk"], "PING".into()),
        ("SET", &["set"], format!("SET key:__rand_int__ {value}")),
        ("GET", &["get"], "GET key:__rand_int__".into()),
        ("INCR", &["incr"], "INCR counter:__rand_int__".into()),
        ("LPUSH", &["lpush"], format!("LPUSH mylist {value}")),
        ("RPUSH", &["rpush"], format!("RPUSH mylist {value}")),
        ("LPOP", &["lpop"], "LPOP mylist".into()),
        ("RPOP", &["rpop"], "RPOP mylist".into()),
        ("SADD", &["sadd"], "SADD myset element:__rand_int__".into()),
        ("HSET", &["hset"], format!("HSET myhash element:__rand_int__ {value}")),
        ("SPOP", &["spop"], "SPOP myset".into()),
        ("ZADD", &["zadd"], format!("ZADD myzset {score} element:__rand_int__")),
        ("ZPOPMIN", &["zpopmin"], "ZPOPMIN myzset".into()),
        ("LPUSH (needed to benchmark LRANGE)", &ranges, format!("LPUSH mylist {value}")),
        ("LRANGE_100 (first 100 elements)", &["lrange", "lrange_100"], range(100)),
        ("LRANGE_300 (first 300 elements)", &["lrange", "lrange_300"], range(300)),
        ("LRANGE_500 (first 500 elements)", &["lrange", "lrange_500"], range(500)),
        ("LRANGE_600 (first 600 elements)", &["lrange", "lrange_600"], range(600)),
        ("MSET (10 keys)", &["mset"], format!("MSET{}", format!(" key:__rand_int__ {value}").repeat(10))),
        ("XADD", &["xadd"], format!("XADD mystream * myfield {value}")),
    ];
    let inline = Test { title: "PING_INLINE".into(), request: Request::raw(b"PING\r\n".to_vec()) };
    let wanted = table.iter().filter(|(_, names, _)| options.wants(names));
    let chosen =
        wanted.map(|(title, _, line)| Test { title: (*title).into(), request: Request::new(&words(line)) });
    options.wants(&["ping", "ping_inline"]).then_some(inline).into_iter().chain(chosen).collect()
}

/// What the report says of the server.
struct Settings {
    save: String,
    appendonly: String,
}

impl Settings {
    fn of(link: &mut Link) -> Option<Settings> {
        let mut ask = |name: &str| match link.ask(&["CONFIG", "GET", name]).ok()? {
            Value::Map(pairs) => pairs.first().and_then(|(_, value)| value.as_bytes().map(<[u8]>::to_vec)),
            other => other.as_elements()?.get(1)?.as_bytes().map(<[u8]>::to_vec),
        };
        let (save, appendonly) = (ask("save")?, ask("appendonly")?);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Some(Settings { save: text(save), appendonly: text(appendonly) })
    }
}

fn one(options: &BenchOptions, test: &Test, server: Option<&Settings>) -> Result<(), String> {
    let mut width = 0;
    let (mut before_s, mut before, mut before_us) = (0.0, 0, 0);
    let outcome = run::run(options, &test.request, |seconds, done, latency_us| {
        if options.csv {
            return;
        }
        let rate = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let mean = |us: u64, count: u64| if count > 0 { us as f64 / count as f64 / 1000.0 } else { 0.0 };
        let line = format!(
            "{}: rps={:.1} (overall: {:.1}) avg_msec={:.3} (overall: {:.3})",
            test.title,
            rate(done - before, seconds - before_s),
            rate(done, seconds),
            mean(latency_us - before_us, done - before),
            mean(latency_us, done)
        );
        (before_s, before, before_us) = (seconds, done, latency_us);
        let padded = line.len().max(width);
        print!("{line:padded$}\r");
        width = line.len();
        let _ = std::io::stdout().flush();
    })?;
    if !options.csv {
        print!("{:width$}\r", "");
    }
    report(options, &test.title, &outcome, server);
    Ok(())
}

fn report(options: &BenchOptions, title: &str, outcome: &Outcome, server: Option<&Settings>) {
    let Outcome { histogram, seconds } = outcome;
    let rate = histogram.count as f64 / seconds.max(1e-6);
    let at = |percent| histogram.percentile_ms(percent);
    let figures = [histogram.mean_ms(), histogram.min_ms(), at(50.0), at(95.0), at(99.0), histogram.max_ms()];
    if options.csv {
        let figures = figures.map(|figure| format!("\"{figure:.3}\"")).join(",");
        println!("\"{title}\",\"{rate:.2}\",{figures}");
        return;
    }
    if options.quiet {
        println!("{title}: {rate:.2} requests per second, p50={:.3} msec", at(50.0));
        return;
    }
    println!("====== {title} ======");
    println!("  {} requests completed in {seconds:.2} seconds", histogram.count);
    println!("  {} parallel clients", options.clients);
    println!("  {} bytes payload", options.data_size);
    println!("  keep alive: {}", u8::from(options.keep_alive));
    if let Some(server) = server {
        println!("  host configuration \"save\": {}", server.save);
        println!("  host configuration \"appendonly\": {}", server.appendonly);
    }
    println!("  multi-thread: {}", if options.threads > 0 { "yes" } else { "no" });
    if options.threads > 0 {
        println!("  threads: {}", options.threads);
    }
    println!("\nLatency by percentile distribution:\n{}", histogram.by_percentile().join("\n"));
    println!("\nCumulative distribution of latencies:\n{}", histogram.cumulative().join("\n"));
    println!("\nSummary:\n  throughput summary: {rate:.2} requests per second\n  latency summary (msec):");
    let heads = ["avg", "min", "p50", "p95", "p99", "max"].map(|head| format!("{head:>9}")).join(" ");
    println!("    {heads}\n    {}", figures.map(|figure| format!("{figure:>9.3}")).join(" "));
}
