//! `kara-health`: whether the server of this machine answers, for HEALTHCHECK and exec probes in images without a shell.
//!
//! It asks `/healthz` where metrics are served, and where they aren't, the server itself: any answer to PING is one,
//! a demand for a password included.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

const METRICS_PORT: u16 = 9121;
const PORT: u16 = 6379;
const PATIENCE: Duration = Duration::from_secs(2);

/// `[--metrics-port N] [--port N]`; 0 leaves one out.
pub fn main(args: &[Vec<u8>]) -> ExitCode {
    let (mut metrics, mut port) = (METRICS_PORT, PORT);
    let mut words = args.iter().map(|arg| String::from_utf8_lossy(arg));
    while let Some(word) = words.next() {
        let number = words.next().and_then(|number| number.parse().ok());
        match (&*word, number) {
            ("--metrics-port", Some(number)) => metrics = number,
            ("--port", Some(number)) => port = number,
            _ => {
                eprintln!("usage: kara-health [--metrics-port N] [--port N]");
                return ExitCode::from(2);
            }
        }
    }
    let http = |port| ask(port, b"GET /healthz HTTP/1.0\r\n\r\n", b"HTTP/1.1 200 ");
    // `+PONG`, or an error: both are answers.
    let resp = |port| ask(port, b"PING\r\n", b"+").or_else(|_| ask(port, b"PING\r\n", b"-"));
    let mut last = io::Error::other("nothing to ask");
    for (port, question) in [(metrics, &http as &dyn Fn(u16) -> io::Result<()>), (port, &resp)] {
        if port == 0 {
            continue;
        }
        match question(port) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => last = error,
        }
    }
    eprintln!("kara-health: {last}");
    ExitCode::FAILURE
}

/// Sends a question; the answer must begin as it should.
fn ask(port: u16, question: &[u8], wanted: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(question)?;
    let mut answer = vec![0; wanted.len()];
    stream.read_exact(&mut answer)?;
    if answer == wanted { Ok(()) } else { Err(io::Error::other("another answer than expected")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A server that answers each connection with that.
    fn answering(text: &'static [u8]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                let mut request = [0; 64];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(text);
            }
        });
        port
    }

    fn check(metrics: u16, port: u16) -> ExitCode {
        let words = ["--metrics-port".into(), metrics.to_string(), "--port".into(), port.to_string()];
        main(&words.map(String::into_bytes))
    }

    #[test]
    fn either_answer_will_do() {
        let (http, resp, error) =
            (answering(b"HTTP/1.1 200 OK\r\n\r\n"), answering(b"+PONG\r\n"), answering(b"-NOAUTH x\r\n"));
        let broken = answering(b"HTTP/1.1 500 Oh\r\n\r\n");
        let ok = format!("{:?}", ExitCode::SUCCESS);
        for (metrics, port) in [(http, 0), (0, resp), (0, error), (broken, resp)] {
            assert_eq!(format!("{:?}", check(metrics, port)), ok, "{metrics} {port}");
        }
        for (metrics, port) in [(broken, 0), (0, 0), (0, http)] {
            assert_ne!(format!("{:?}", check(metrics, port)), ok, "{metrics} {port}");
        }
    }
}
