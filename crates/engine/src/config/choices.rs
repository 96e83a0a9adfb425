//! The settings whose value is one word of a closed list.

use super::value::{Any, Fault, Setting, Source, single};

macro_rules! choices {
    ($( $(#[$doc:meta])* $name:ident { $( $variant:ident = $word:literal $(| $synonym:literal)? ),+ $(,)? } )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( #[doc = concat!("`", $word, "`")] $variant, )+ }

        impl $name {
            /// Every accepted word, in the order in which the reference lists them.
            pub const ALL: &'static [(&'static str, $name)] = &[
                $( ($word, $name::$variant), $( ($synonym, $name::$variant), )? )+
            ];

            /// The word that stands for this value in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $word, )+ }
            }
        }

        impl Setting for $name {
            type Rule = Any;

            fn assign(&mut self, _: &Any, args: &[&[u8]], _: Source) -> Result<(), Fault> {
                let arg = single(args)?;
                match Self::ALL.iter().find(|(word, _)| word.as_bytes().eq_ignore_ascii_case(arg)) {
                    Some((_, value)) => *self = *value,
                    None => {
                        let words: Vec<&str> = Self::ALL.iter().map(|(word, _)| *word).collect();
                        return Err(one_of(&words));
                    }
                }
                Ok(())
            }

            fn show(&self) -> Vec<u8> {
                self.as_str().as_bytes().to_vec()
            }

            fn lines(&self, _: &Any) -> Vec<Vec<u8>> {
                vec![self.show()]
            }
        }
    )+};
}

/// The complaint that lists what would have been accepted.
pub(super) fn one_of(words: &[&str]) -> Fault {
    format!("argument(s) must be one of the following: {}", words.join(", ")).into()
}

choices! {
    /// What a new user may subscribe to.
    AclPubsubDefault { AllChannels = "allchannels", ResetChannels = "resetchannels" }

    /// When the append-only file is flushed to disk.
    AppendFsync { EverySec = "everysec", Always = "always", No = "no" }

    /// Whether a failure to write the cluster's file stops the node.
    ClusterConfigSave { Sync = "sync", BestEffort = "best-effort" }

    /// What a cluster node calls itself in redirections.
    EndpointType { Ip = "ip", Hostname = "hostname", Unknown = "unknown-endpoint" }

    /// Who may use a guarded facility.
    Access { No = "no", Yes = "yes", Local = "local" }

    /// The shape of a log line.
    LogFormat { Legacy = "legacy", Logfmt = "logfmt", Json = "json" }

    /// The shape of the time in a log line.
    LogTimestamp { Legacy = "legacy", Iso8601 = "iso8601", Milliseconds = "milliseconds" }

    /// How much is logged; ordered from the most to the least.
    LogLevel {
        Debug = "debug", Verbose = "verbose", Notice = "notice", Warning = "warning", Nothing = "nothing",
    }

    /// What gives way when `maxmemory` is reached.
    MaxmemoryPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        NoEviction = "noeviction",
    }

    /// Whether the kernel's OOM score is adjusted, and whether relative to the one at start.
    OomScoreAdj { No = "no", Relative = "yes" | "relative", Absolute = "absolute" }

    /// What an error in the replication stream or the append-only file does.
    PropagationError { Ignore = "ignore", Panic = "panic", PanicOnReplicas = "panic-on-replicas" }

    /// Whether RDB files of unknown versions are tried.
    RdbVersionCheck { Strict = "strict", Relaxed = "relaxed" }

    /// When a replica loads a full sync straight from the socket.
    DisklessLoad {
        Disabled = "disabled", OnEmptyDb = "on-empty-db", SwapDb = "swapdb", FlushBeforeLoad = "flush-before-load",
    }

    /// Which init system watches the process.
    Supervised { Upstart = "upstart", Systemd = "systemd", Auto = "auto", No = "no" }

    /// Where syslog files the messages.
    SyslogFacility {
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }

    /// Whether TLS clients must show a certificate.
    TlsAuthClients { No = "no", Yes = "yes", Optional = "optional" }

    /// Which field of a client's certificate names its user.
    TlsClientUser { CommonName = "CN", Uri = "URI", Off = "off" }
}

impl MaxmemoryPolicy {
    /// Whether access times count.
    pub fn is_lru(self) -> bool {
        matches!(self, Self::VolatileLru | Self::AllkeysLru)
    }

    /// Whether access frequencies count.
    pub fn is_lfu(self) -> bool {
        matches!(self, Self::VolatileLfu | Self::AllkeysLfu)
    }

    /// Whether keys without expiry may go as well.
    pub fn is_allkeys(self) -> bool {
        matches!(self, Self::AllkeysLru | Self::AllkeysLfu | Self::AllkeysRandom)
    }
}
