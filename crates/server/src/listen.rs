//! Listening sockets: TCP (IPv4, IPv6) and Unix. The first worker accepts and deals connections out in turn.

use crate::host::{Mail, ServerHost};
use crate::transport::Transport;
use kara_engine::config::Config;
use kara_engine::shared::Shared;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Tokens of listeners begin here and count up.
const FIRST_TOKEN: usize = usize::MAX / 2;
/// Connections accepted in one turn, so that a flood doesn't keep the first worker from its clients.
const ACCEPT_PER_TURN: usize = 100;

#[derive(Debug)]
enum Listener {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener, PathBuf),
}

/// All listening sockets.
#[derive(Debug)]
pub struct Listeners {
    list: Vec<Listener>,
    next_worker: usize,
    backlog: bool,
}

impl Listeners {
    /// Opens what the configuration names. An address with a leading `-` may fail to bind.
    pub fn open(config: &Config) -> io::Result<Self> {
        let mut list = Vec::new();
        if config.port > 0 {
            for address in &config.bind.0 {
                let address = &*String::from_utf8_lossy(address);
                let optional = address.starts_with('-');
                match listen_tcp(address.trim_start_matches('-'), config) {
                    Ok(listener) => list.push(Listener::Tcp(listener)),
                    Err(e) if optional && is_unavailable(&e) => {}
                    Err(e) => {
                        let text = format!(
                            "Could not create server TCP listening socket {address}:{}: {e}",
                            config.port
                        );
                        return Err(io::Error::new(e.kind(), text));
                    }
                }
            }
        }
        if !config.unixsocket.is_empty() {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&config.unixsocket));
            let listener = listen_unix(&path, config.unixsocketperm.0, config.tcp_backlog as i32)?;
            list.push(Listener::Unix(listener, path));
        }
        Ok(Listeners { list, next_worker: 0, backlog: false })
    }

    /// Whether nothing listens.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Watches all listeners.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for (i, listener) in self.list.iter_mut().enumerate() {
            let token = Token(FIRST_TOKEN + i);
            match listener {
                Listener::Tcp(l) => registry.register(l, token, Interest::READABLE)?,
                Listener::Unix(l, _) => registry.register(l, token, Interest::READABLE)?,
            }
        }
        Ok(())
    }

    /// The last turn left connections waiting.
    pub fn has_backlog(&self) -> bool {
        self.backlog
    }

    /// Accepts a bounded number of connections. A failed accept is that connection's misfortune alone.
    pub fn accept(&mut self, host: &ServerHost, shared: &Arc<Shared>, config: &Config) {
        let mut left = ACCEPT_PER_TURN;
        self.backlog = false;
        for listener in &self.list {
            loop {
                if left == 0 {
                    self.backlog = true;
                    return;
                }
                left -= 1;
                match listener.accept(config) {
                    Ok((transport, addr, laddr, remote)) => {
                        admit(transport, addr, laddr, remote, host, shared, config, &mut self.next_worker);
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if is_passing(&e) => {}
                    Err(e) => {
                        host.log_warning(&format!("Accepting client connection: {e}"));
                        // Out of descriptors or memory: the event won't come again by itself.
                        self.backlog = true;
                        break;
                    }
                }
            }
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for listener in &self.list {
            if let Listener::Unix(_, path) = listener {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Listener {
    /// A connection, its peer's address, ours, and whether the peer is another host.
    fn accept(&self, config: &Config) -> io::Result<(Transport, String, String, bool)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                let socket = socket2::SockRef::from(&stream);
                let _ = socket.set_tcp_nodelay(true);
                if config.tcp_keepalive > 0 {
                    let idle = Duration::from_secs(config.tcp_keepalive);
                    let keepalive = TcpKeepalive::new()
                        .with_time(idle)
                        .with_interval((idle / 3).max(Duration::from_secs(1)))
                        .with_retries(3);
                    let _ = socket.set_tcp_keepalive(&keepalive);
                }
                let local = stream.local_addr().map(address_text).unwrap_or_default();
                let remote = !is_loopback(peer.ip());
                Ok((Transport::Tcp(stream), address_text(peer), local, remote))
            }
            Listener::Unix(listener, path) => {
                let (stream, _) = listener.accept()?;
                let name = format!("{}:0", path.display());
                Ok((Transport::Unix(stream), name.clone(), name, false))
            }
        }
    }
}

/// Hands a connection to a worker, or turns it away.
fn admit(
    mut transport: Transport,
    addr: String,
    laddr: String,
    remote: bool,
    host: &ServerHost,
    shared: &Shared,
    config: &Config,
    next_worker: &mut usize,
) {
    let refusal = if shared.clients.len() as u64 >= config.maxclients {
        Some("-ERR max number of clients reached\r\n")
    } else if config.protected_mode && config.requirepass.is_empty() && remote {
        Some(
            "-DENIED Kara is running in protected mode because protected mode is enabled and no password is set for \
             the default user. In this mode connections are only accepted from the loopback interface. To connect \
             from elsewhere: set a password for the default user (CONFIG SET requirepass, or --requirepass), or \
             turn protected mode off (CONFIG SET protected-mode no) if nobody else can reach this port.\r\n",
        )
    } else {
        None
    };
    if let Some(text) = refusal {
        shared.stats.worker(0).rejected_connections.add(1);
        // One attempt: whoever doesn't take it loses only the explanation.
        let _ = transport.write(text.as_bytes());
        return;
    }
    *next_worker = (*next_worker + 1) % host.workers();
    host.send(*next_worker, Mail::Connection(transport, addr, laddr));
}

fn listen_tcp(address: &str, config: &Config) -> io::Result<mio::net::TcpListener> {
    let ip: IpAddr = match address {
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        text => match text.parse() {
            Ok(ip) => ip,
            Err(_) => resolve(text)?,
        },
    };
    let socket_address = SocketAddr::new(ip, config.port);
    let domain = if ip.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(socket_address))?;
    socket.listen(config.tcp_backlog as i32)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

fn resolve(name: &str) -> io::Result<IpAddr> {
    let mut found = std::net::ToSocketAddrs::to_socket_addrs(&(name, 0))?;
    found.next().map(|a| a.ip()).ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// The permissions are in force before anybody can connect: the socket is bound under a private name, given its
/// mode, set to listen, and only then moved to where clients look for it.
fn listen_unix(path: &Path, mode: u32, backlog: i32) -> io::Result<mio::net::UnixListener> {
    let mut private = path.as_os_str().to_owned();
    private.push(format!(".{}", std::process::id()));
    let private = PathBuf::from(private);
    let _ = std::fs::remove_file(&private);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&private)?)?;
    let result = (|| {
        if mode != 0 {
            std::fs::set_permissions(&private, std::fs::Permissions::from_mode(mode))?;
        }
        socket.listen(backlog)?;
        std::fs::rename(&private, path)
    })();
    if let Err(e) = result {
        let _ = std::fs::remove_file(&private);
        return Err(e);
    }
    Ok(mio::net::UnixListener::from_std(socket.into()))
}

fn address_text(address: SocketAddr) -> String {
    address.to_string()
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4_mapped().is_some_and(|v4| v4.is_loopback()),
    }
}

/// The address doesn't exist on this host (IPv6 switched off, say).
fn is_unavailable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT
                | libc::EPROTONOSUPPORT
                | libc::ENOPROTOOPT
                | libc::EPFNOSUPPORT
        )
    ) || error.kind() == ErrorKind::AddrNotAvailable
}

/// Errors of the one connection that was to be accepted.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::TimedOut
    ) || matches!(
        error.raw_os_error(),
        Some(
            libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}
