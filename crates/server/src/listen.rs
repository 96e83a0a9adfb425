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

/// All listeners share a token: whichever is ready, all are asked.
const TOKEN: Token = Token(usize::MAX / 2);
/// Connections accepted in one turn, so that a flood doesn't keep the first worker from its clients.
const ACCEPT_PER_TURN: usize = 100;

#[derive(Debug)]
enum Listener {
    /// With the address of `bind` that it stands for, without its dash, and the port.
    Tcp(mio::net::TcpListener, String, u16),
    Unix(mio::net::UnixListener, PathBuf),
}

/// All listening sockets.
#[derive(Debug)]
pub struct Listeners {
    list: Vec<Listener>,
    next_worker: usize,
    /// The accepting worker's, once it runs: sockets that are opened later are watched there, too.
    registry: Option<Registry>,
}

impl Listeners {
    /// Opens what the configuration names. An address with a leading `-` may fail to bind.
    pub fn open(config: &Config) -> io::Result<Self> {
        let mut list = open_tcp(config, &mut Vec::new(), &[])?;
        if !config.unixsocket.is_empty() {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&config.unixsocket));
            let listener = listen_unix(&path, config.unixsocketperm.0, config.tcp_backlog as i32)?;
            list.push(Listener::Unix(listener, path));
        }
        Ok(Listeners { list, next_worker: 0, registry: None })
    }

    /// Listens where the configuration says now. What it still names stays open; after an error the sockets that
    /// were not in the way do, too.
    pub fn reopen(&mut self, config: &Config) -> io::Result<()> {
        let wanted = wanted_tcp(config);
        let stays = |listener: &Listener| match listener {
            Listener::Tcp(_, address, port) => {
                wanted.iter().any(|(name, _)| name == address) && *port == config.port
            }
            Listener::Unix(..) => true,
        };
        let (mut kept, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.list).into_iter().partition(stays);
        match open_tcp(config, &mut others, &kept) {
            Ok(mut opened) => {
                let watched = match &self.registry {
                    Some(registry) => opened.iter_mut().try_for_each(|listener| listener.register(registry)),
                    None => Ok(()),
                };
                kept.extend(opened);
                self.list = kept;
                watched
            }
            Err(error) => {
                kept.extend(others);
                self.list = kept;
                Err(error)
            }
        }
    }

    /// What INFO says of the listeners: a line for TCP with all its addresses, one for the Unix socket.
    pub fn described(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let (mut addresses, mut tcp_port) = (String::new(), None);
        for listener in &self.list {
            match listener {
                Listener::Tcp(_, address, port) => {
                    addresses.push_str(&format!(",bind={address}"));
                    tcp_port = Some(*port);
                }
                Listener::Unix(_, path) => lines.push(format!("name=unix,bind={}", path.display())),
            }
        }
        if let Some(port) = tcp_port {
            lines.insert(0, format!("name=tcp{addresses},port={port}"));
        }
        lines
    }

    /// The kinds of connections there are, for the log.
    pub fn kinds(&self) -> Vec<&'static str> {
        let has = |wanted: fn(&Listener) -> bool| self.list.iter().any(wanted);
        let tcp = has(|l| matches!(l, Listener::Tcp(..))).then_some("tcp");
        let unix = has(|l| matches!(l, Listener::Unix(..))).then_some("unix");
        tcp.into_iter().chain(unix).collect()
    }

    /// Whether nothing listens.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Accepts no more; for the process's end.
    pub fn close(&mut self) {
        self.list.clear();
    }

    /// Watches all listeners, also those that are opened later.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        self.list.iter_mut().try_for_each(|listener| listener.register(registry))?;
        self.registry = Some(registry.try_clone()?);
        Ok(())
    }

    /// Accepts a bounded number of connections; returns whether more may wait. A failed accept is that connection's
    /// misfortune alone.
    pub fn accept(&mut self, host: &ServerHost, shared: &Arc<Shared>, config: &Config) -> bool {
        let mut left = ACCEPT_PER_TURN;
        let mut backlog = false;
        for listener in &self.list {
            loop {
                if left == 0 {
                    return true;
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
                        backlog = true;
                        break;
                    }
                }
            }
        }
        backlog
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
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Tcp(l, ..) => registry.register(l, TOKEN, Interest::READABLE),
            Listener::Unix(l, _) => registry.register(l, TOKEN, Interest::READABLE),
        }
    }

    /// A connection, its peer's address, ours, and whether the peer is another host.
    fn accept(&self, config: &Config) -> io::Result<(Transport, String, String, bool)> {
        match self {
            Listener::Tcp(listener, ..) => {
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
    } else if config.protected_mode && remote && shared.acl.has_no_password() {
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
    // CONFIG SET io-threads: fewer workers get the new connections; more than were started need a new start.
    let workers = usize::try_from(config.io_threads).unwrap_or(usize::MAX).clamp(1, host.workers());
    *next_worker = (*next_worker + 1) % workers;
    host.send(*next_worker, Mail::Connection(transport, addr, laddr));
}

/// The addresses to listen on.
fn wanted_tcp(config: &Config) -> Vec<(String, bool)> {
    wanted_addresses(if config.port > 0 { config.bind.0.as_slice() } else { &[] })
}

/// The addresses without their dash, and whether the dash excuses their absence.
fn wanted_addresses(addresses: &[Vec<u8>]) -> Vec<(String, bool)> {
    addresses
        .iter()
        .map(|address| {
            let address = String::from_utf8_lossy(address);
            match address.strip_prefix('-') {
                Some(name) => (name.to_owned(), true),
                None => (address.into_owned(), false),
            }
        })
        .collect()
}

/// Opens the sockets that `kept` lacks. `others` are ours and on their way out: if one of them is in the way (an
/// address within `*`), they are closed first.
fn open_tcp(config: &Config, others: &mut Vec<Listener>, kept: &[Listener]) -> io::Result<Vec<Listener>> {
    let mut opened = Vec::new();
    for (address, optional) in wanted_tcp(config) {
        if kept.iter().any(|listener| matches!(listener, Listener::Tcp(_, name, _) if *name == address)) {
            continue;
        }
        let mut result = listen_tcp(&address, config);
        if result.as_ref().is_err_and(|e| e.kind() == ErrorKind::AddrInUse) && !others.is_empty() {
            others.clear();
            result = listen_tcp(&address, config);
        }
        match result {
            Ok(listener) => opened.push(Listener::Tcp(listener, address, config.port)),
            Err(e) if optional && is_unavailable(&e) => {}
            Err(e) => {
                let reason = kara_engine::config::os_text(&e);
                let port = config.port;
                let text = format!("Could not create server TCP listening socket {address}:{port}: {reason}");
                return Err(io::Error::new(e.kind(), text));
            }
        }
    }
    Ok(opened)
}

/// Sockets for another purpose, by the rules of `bind`.
pub(crate) fn open_at(
    addresses: &[Vec<u8>],
    port: u16,
    backlog: i32,
) -> io::Result<Vec<mio::net::TcpListener>> {
    let mut opened = Vec::new();
    for (address, optional) in wanted_addresses(addresses) {
        match listen_at(&address, port, backlog) {
            Ok(listener) => opened.push(listener),
            Err(e) if optional && is_unavailable(&e) => {}
            Err(e) => {
                let text = format!("Can't listen on {address}:{port}: {}", kara_engine::config::os_text(&e));
                return Err(io::Error::new(e.kind(), text));
            }
        }
    }
    Ok(opened)
}

fn listen_tcp(address: &str, config: &Config) -> io::Result<mio::net::TcpListener> {
    listen_at(address, config.port, config.tcp_backlog as i32)
}

fn listen_at(address: &str, port: u16, backlog: i32) -> io::Result<mio::net::TcpListener> {
    let ip: IpAddr = match address {
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        text => match text.parse() {
            Ok(ip) => ip,
            Err(_) => resolve(text)?,
        },
    };
    let socket_address = SocketAddr::new(ip, port);
    let domain = if ip.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(socket_address))?;
    socket.listen(backlog)?;
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
pub(crate) fn is_passing(error: &io::Error) -> bool {
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
