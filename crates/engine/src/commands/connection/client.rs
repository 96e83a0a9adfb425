//! CLIENT and its subcommands.

use super::filter::{Filter, describe};
use super::handshake::check_name;
use crate::clients::ClientId;
use crate::commands::prelude::*;
use crate::session::ReplyMode;
use crate::shared::{Message, PauseMode};
use std::sync::atomic::Ordering::Relaxed;

pub(super) const CLIENT: Spec = Spec {
    name: "client",
    arity: Arity::AtLeast(2),
    group: Group::Connection,
    since: "2.4.0",
    summary: "Holds the commands about client connections.",
    complexity: "Depends on the subcommand.",
    subcommands: &[
        Spec {
            name: "capa",
            arity: Arity::AtLeast(3),
            flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "8.0.0",
            summary: "Tells the server what the client can handle.",
            complexity: "O(1)",
            args: &[Arg { name: "capability", kind: ArgKind::String, multiple: true, ..Arg::NEW }],
            handler: Some(client_capa),
            ..Spec::NEW
        },
        Spec {
            name: "getname",
            arity: Arity::Exactly(2),
            flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "2.6.9",
            summary: "Returns the connection's name.",
            complexity: "O(1)",
            handler: Some(client_getname),
            ..Spec::NEW
        },
        Spec {
            name: "help",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "5.0.0",
            summary: "Shows how to use CLIENT.",
            complexity: "O(1)",
            handler: Some(client_help),
            ..Spec::NEW
        },
        Spec {
            name: "id",
            arity: Arity::Exactly(2),
            flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "5.0.0",
            summary: "Returns the connection's number.",
            complexity: "O(1)",
            handler: Some(client_id),
            ..Spec::NEW
        },
        Spec {
            name: "import-source",
            arity: Arity::Exactly(3),
            flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "8.1.0",
            summary: "Marks the connection as a source of imported keys.",
            complexity: "O(1)",
            args: &[Arg {
                name: "enabled",
                kind: ArgKind::Oneof,
                args: &[
                    Arg { name: "on", kind: ArgKind::PureToken, token: Some("ON"), ..Arg::NEW },
                    Arg { name: "off", kind: ArgKind::PureToken, token: Some("OFF"), ..Arg::NEW },
                ],
                ..Arg::NEW
            }],
            handler: Some(client_import_source),
            ..Spec::NEW
        },
        Spec {
            name: "info",
            arity: Arity::Exactly(2),
            flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "6.2.0",
            summary: "Describes this connection.",
            complexity: "O(1)",
            tips: &["nondeterministic_output"],
            handler: Some(client_info),
            ..Spec::NEW
        },
        Spec {
            name: "kill",
            arity: Arity::AtLeast(3),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "2.4.0",
            summary: "Closes connections that fit all filters.",
            complexity: "O(N) for N connections",
            args: &[Arg {
                name: "filter",
                kind: ArgKind::Oneof,
                args: &[
                    Arg {
                        name: "old-format",
                        kind: ArgKind::String,
                        display: "ip:port",
                        deprecated_since: "2.8.12",
                        ..Arg::NEW
                    },
                    Arg {
                        name: "new-format",
                        kind: ArgKind::Oneof,
                        multiple: true,
                        args: &[
                            Arg {
                                name: "client-id",
                                kind: ArgKind::Integer,
                                token: Some("ID"),
                                since: "2.8.12",
                                optional: true,
                                multiple: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "client-type",
                                kind: ArgKind::Oneof,
                                token: Some("TYPE"),
                                since: "2.8.12",
                                optional: true,
                                args: &[
                                    Arg {
                                        name: "normal",
                                        kind: ArgKind::PureToken,
                                        token: Some("NORMAL"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "master",
                                        kind: ArgKind::PureToken,
                                        token: Some("MASTER"),
                                        since: "3.2.0",
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "primary",
                                        kind: ArgKind::PureToken,
                                        token: Some("PRIMARY"),
                                        since: "8.0.0",
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "slave",
                                        kind: ArgKind::PureToken,
                                        token: Some("SLAVE"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "replica",
                                        kind: ArgKind::PureToken,
                                        token: Some("REPLICA"),
                                        since: "5.0.0",
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "pubsub",
                                        kind: ArgKind::PureToken,
                                        token: Some("PUBSUB"),
                                        ..Arg::NEW
                                    },
                                ],
                                ..Arg::NEW
                            },
                            Arg {
                                name: "username",
                                kind: ArgKind::String,
                                token: Some("USER"),
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "addr",
                                kind: ArgKind::String,
                                display: "ip:port",
                                token: Some("ADDR"),
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "laddr",
                                kind: ArgKind::String,
                                display: "ip:port",
                                token: Some("LADDR"),
                                since: "6.2.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "skipme",
                                kind: ArgKind::Oneof,
                                token: Some("SKIPME"),
                                optional: true,
                                args: &[
                                    Arg {
                                        name: "yes",
                                        kind: ArgKind::PureToken,
                                        token: Some("YES"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "no",
                                        kind: ArgKind::PureToken,
                                        token: Some("NO"),
                                        ..Arg::NEW
                                    },
                                ],
                                ..Arg::NEW
                            },
                            Arg {
                                name: "maxage",
                                kind: ArgKind::Integer,
                                token: Some("MAXAGE"),
                                since: "8.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "name",
                                kind: ArgKind::String,
                                token: Some("NAME"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "idle",
                                kind: ArgKind::Integer,
                                token: Some("IDLE"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "flags",
                                kind: ArgKind::String,
                                token: Some("FLAGS"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "lib-name",
                                kind: ArgKind::String,
                                token: Some("LIB-NAME"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "lib-ver",
                                kind: ArgKind::String,
                                token: Some("LIB-VER"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "db",
                                kind: ArgKind::Integer,
                                token: Some("DB"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "capa",
                                kind: ArgKind::String,
                                token: Some("CAPA"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "ip",
                                kind: ArgKind::String,
                                token: Some("IP"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-client-type",
                                kind: ArgKind::Oneof,
                                token: Some("NOT-TYPE"),
                                since: "9.0.0",
                                optional: true,
                                args: &[
                                    Arg {
                                        name: "normal",
                                        kind: ArgKind::PureToken,
                                        token: Some("NORMAL"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "master",
                                        kind: ArgKind::PureToken,
                                        token: Some("MASTER"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "primary",
                                        kind: ArgKind::PureToken,
                                        token: Some("PRIMARY"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "slave",
                                        kind: ArgKind::PureToken,
                                        token: Some("SLAVE"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "replica",
                                        kind: ArgKind::PureToken,
                                        token: Some("REPLICA"),
                                        ..Arg::NEW
                                    },
                                    Arg {
                                        name: "pubsub",
                                        kind: ArgKind::PureToken,
                                        token: Some("PUBSUB"),
                                        ..Arg::NEW
                                    },
                                ],
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-client-id",
                                kind: ArgKind::Integer,
                                token: Some("NOT-ID"),
                                since: "9.0.0",
                                optional: true,
                                multiple: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-username",
                                kind: ArgKind::String,
                                token: Some("NOT-USER"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-addr",
                                kind: ArgKind::String,
                                display: "ip:port",
                                token: Some("NOT-ADDR"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-laddr",
                                kind: ArgKind::String,
                                display: "ip:port",
                                token: Some("NOT-LADDR"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-name",
                                kind: ArgKind::String,
                                token: Some("NOT-NAME"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-flags",
                                kind: ArgKind::String,
                                token: Some("NOT-FLAGS"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-lib-name",
                                kind: ArgKind::String,
                                token: Some("NOT-LIB-NAME"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-lib-ver",
                                kind: ArgKind::String,
                                token: Some("NOT-LIB-VER"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-db",
                                kind: ArgKind::Integer,
                                token: Some("NOT-DB"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-capa",
                                kind: ArgKind::String,
                                token: Some("NOT-CAPA"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                            Arg {
                                name: "not-ip",
                                kind: ArgKind::String,
                                token: Some("NOT-IP"),
                                since: "9.0.0",
                                optional: true,
                                ..Arg::NEW
                            },
                        ],
                        ..Arg::NEW
                    },
                ],
                ..Arg::NEW
            }],
            handler: Some(client_kill),
            ..Spec::NEW
        },
        Spec {
            name: "list",
            arity: Arity::AtLeast(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "2.4.0",
            summary: "Describes the connections that fit all filters.",
            complexity: "O(N) for N connections",
            tips: &["nondeterministic_output"],
            args: &[
                Arg {
                    name: "client-type",
                    kind: ArgKind::Oneof,
                    token: Some("TYPE"),
                    since: "5.0.0",
                    optional: true,
                    args: &[
                        Arg { name: "normal", kind: ArgKind::PureToken, token: Some("NORMAL"), ..Arg::NEW },
                        Arg { name: "master", kind: ArgKind::PureToken, token: Some("MASTER"), ..Arg::NEW },
                        Arg { name: "replica", kind: ArgKind::PureToken, token: Some("REPLICA"), ..Arg::NEW },
                        Arg { name: "pubsub", kind: ArgKind::PureToken, token: Some("PUBSUB"), ..Arg::NEW },
                    ],
                    ..Arg::NEW
                },
                Arg {
                    name: "client-id",
                    kind: ArgKind::Integer,
                    token: Some("ID"),
                    since: "6.2.0",
                    optional: true,
                    multiple: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "username",
                    kind: ArgKind::String,
                    token: Some("USER"),
                    since: "8.1.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "addr",
                    kind: ArgKind::String,
                    display: "ip:port",
                    token: Some("ADDR"),
                    since: "8.1.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "laddr",
                    kind: ArgKind::String,
                    display: "ip:port",
                    token: Some("LADDR"),
                    since: "8.1.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "skipme",
                    kind: ArgKind::Oneof,
                    token: Some("SKIPME"),
                    since: "8.1.0",
                    optional: true,
                    args: &[
                        Arg { name: "yes", kind: ArgKind::PureToken, token: Some("YES"), ..Arg::NEW },
                        Arg { name: "no", kind: ArgKind::PureToken, token: Some("NO"), ..Arg::NEW },
                    ],
                    ..Arg::NEW
                },
                Arg {
                    name: "maxage",
                    kind: ArgKind::Integer,
                    token: Some("MAXAGE"),
                    since: "8.1.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "name",
                    kind: ArgKind::String,
                    token: Some("NAME"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "idle",
                    kind: ArgKind::Integer,
                    token: Some("IDLE"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "flags",
                    kind: ArgKind::String,
                    token: Some("FLAGS"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "lib-name",
                    kind: ArgKind::String,
                    token: Some("LIB-NAME"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "lib-ver",
                    kind: ArgKind::String,
                    token: Some("LIB-VER"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "db",
                    kind: ArgKind::Integer,
                    token: Some("DB"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "capa",
                    kind: ArgKind::String,
                    token: Some("CAPA"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "ip",
                    kind: ArgKind::String,
                    token: Some("IP"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-client-type",
                    kind: ArgKind::Oneof,
                    token: Some("NOT-TYPE"),
                    since: "9.0.0",
                    optional: true,
                    args: &[
                        Arg { name: "normal", kind: ArgKind::PureToken, token: Some("NORMAL"), ..Arg::NEW },
                        Arg { name: "master", kind: ArgKind::PureToken, token: Some("MASTER"), ..Arg::NEW },
                        Arg { name: "replica", kind: ArgKind::PureToken, token: Some("REPLICA"), ..Arg::NEW },
                        Arg { name: "pubsub", kind: ArgKind::PureToken, token: Some("PUBSUB"), ..Arg::NEW },
                    ],
                    ..Arg::NEW
                },
                Arg {
                    name: "not-client-id",
                    kind: ArgKind::Integer,
                    token: Some("NOT-ID"),
                    since: "9.0.0",
                    optional: true,
                    multiple: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-username",
                    kind: ArgKind::String,
                    token: Some("NOT-USER"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-addr",
                    kind: ArgKind::String,
                    display: "ip:port",
                    token: Some("NOT-ADDR"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-laddr",
                    kind: ArgKind::String,
                    display: "ip:port",
                    token: Some("NOT-LADDR"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-name",
                    kind: ArgKind::String,
                    token: Some("NOT-NAME"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-flags",
                    kind: ArgKind::String,
                    token: Some("NOT-FLAGS"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-lib-name",
                    kind: ArgKind::String,
                    token: Some("NOT-LIB-NAME"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-lib-ver",
                    kind: ArgKind::String,
                    token: Some("NOT-LIB-VER"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-db",
                    kind: ArgKind::Integer,
                    token: Some("NOT-DB"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-capa",
                    kind: ArgKind::String,
                    token: Some("NOT-CAPA"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
                Arg {
                    name: "not-ip",
                    kind: ArgKind::String,
                    token: Some("NOT-IP"),
                    since: "9.0.0",
                    optional: true,
                    ..Arg::NEW
                },
            ],
            handler: Some(client_list),
            ..Spec::NEW
        },
        Spec {
            name: "no-evict",
            arity: Arity::Exactly(3),
            flags: Flags::ADMIN
                .union(Flags::ALLOW_BUSY)
                .union(Flags::LOADING)
                .union(Flags::NOSCRIPT)
                .union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "7.0.0",
            summary: "Exempts the connection from client eviction.",
            complexity: "O(1)",
            args: &[Arg {
                name: "enabled",
                kind: ArgKind::Oneof,
                args: &[
                    Arg { name: "on", kind: ArgKind::PureToken, token: Some("ON"), ..Arg::NEW },
                    Arg { name: "off", kind: ArgKind::PureToken, token: Some("OFF"), ..Arg::NEW },
                ],
                ..Arg::NEW
            }],
            handler: Some(client_no_evict),
            ..Spec::NEW
        },
        Spec {
            name: "no-touch",
            arity: Arity::Exactly(3),
            flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "7.2.0",
            summary: "Keeps the connection's reads from counting as accesses.",
            complexity: "O(1)",
            args: &[Arg {
                name: "enabled",
                kind: ArgKind::Oneof,
                args: &[
                    Arg { name: "on", kind: ArgKind::PureToken, token: Some("ON"), ..Arg::NEW },
                    Arg { name: "off", kind: ArgKind::PureToken, token: Some("OFF"), ..Arg::NEW },
                ],
                ..Arg::NEW
            }],
            handler: Some(client_no_touch),
            ..Spec::NEW
        },
        Spec {
            name: "pause",
            arity: Arity::AtLeast(3),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "3.0.0",
            summary: "Holds back clients' commands for some time.",
            complexity: "O(1)",
            args: &[
                Arg { name: "timeout", kind: ArgKind::Integer, ..Arg::NEW },
                Arg {
                    name: "mode",
                    kind: ArgKind::Oneof,
                    since: "6.2.0",
                    optional: true,
                    args: &[
                        Arg { name: "write", kind: ArgKind::PureToken, token: Some("WRITE"), ..Arg::NEW },
                        Arg { name: "all", kind: ArgKind::PureToken, token: Some("ALL"), ..Arg::NEW },
                    ],
                    ..Arg::NEW
                },
            ],
            handler: Some(client_pause),
            ..Spec::NEW
        },
        Spec {
            name: "reply",
            arity: Arity::Exactly(3),
            flags: Flags::ALLOW_BUSY
                .union(Flags::LOADING)
                .union(Flags::NO_MULTI)
                .union(Flags::NOSCRIPT)
                .union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "3.2.0",
            summary: "Says whether commands are answered.",
            complexity: "O(1)",
            args: &[Arg {
                name: "action",
                kind: ArgKind::Oneof,
                args: &[
                    Arg { name: "on", kind: ArgKind::PureToken, token: Some("ON"), ..Arg::NEW },
                    Arg { name: "off", kind: ArgKind::PureToken, token: Some("OFF"), ..Arg::NEW },
                    Arg { name: "skip", kind: ArgKind::PureToken, token: Some("SKIP"), ..Arg::NEW },
                ],
                ..Arg::NEW
            }],
            handler: Some(client_reply),
            ..Spec::NEW
        },
        Spec {
            name: "setinfo",
            arity: Arity::Exactly(4),
            flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "7.2.0",
            summary: "Names the client library or its version.",
            complexity: "O(1)",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[Arg {
                name: "attr",
                kind: ArgKind::Oneof,
                args: &[
                    Arg { name: "libname", kind: ArgKind::String, token: Some("LIB-NAME"), ..Arg::NEW },
                    Arg { name: "libver", kind: ArgKind::String, token: Some("LIB-VER"), ..Arg::NEW },
                ],
                ..Arg::NEW
            }],
            handler: Some(client_setinfo),
            ..Spec::NEW
        },
        Spec {
            name: "setname",
            arity: Arity::Exactly(3),
            flags: Flags::ALLOW_BUSY.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "2.6.9",
            summary: "Names the connection.",
            complexity: "O(1)",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[Arg { name: "connection-name", kind: ArgKind::String, ..Arg::NEW }],
            handler: Some(client_setname),
            ..Spec::NEW
        },
        Spec {
            name: "unpause",
            arity: Arity::Exactly(2),
            flags: Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            acl: Acl::CONNECTION,
            group: Group::Connection,
            since: "6.2.0",
            summary: "Ends a pause.",
            complexity: "O(1)",
            handler: Some(client_unpause),
            ..Spec::NEW
        },
    ],
    ..Spec::NEW
};

fn client_capa(cx: &mut Cx) -> Outcome {
    // What isn't known is ignored: a newer client may claim more than this server can use.
    if cx.args[2..].iter().any(|word| word.eq_ignore_ascii_case(b"REDIRECT")) {
        cx.session.info.capa_redirect.store(true, Relaxed);
    }
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_getname(cx: &mut Cx) -> Outcome {
    let name = cx.session.info.names.lock().name.clone();
    if name.is_empty() {
        cx.reply.null()
    } else {
        cx.reply.bulk(&name)
    }
    Ok(Effect::None)
}

fn client_id(cx: &mut Cx) -> Outcome {
    let ClientId(id) = cx.session.id();
    cx.reply.integer(id as i64);
    Ok(Effect::None)
}

fn client_info(cx: &mut Cx) -> Outcome {
    let line = describe(&cx.session.info, cx.shared, cx.now_ms);
    cx.reply.verbatim("txt", line.as_bytes());
    Ok(Effect::None)
}

fn client_list(cx: &mut Cx) -> Outcome {
    let filter = Filter::parse(cx, 2, false)?;
    let mut text = String::new();
    for client in cx.shared.clients.all() {
        if filter.matches(&client, cx.session.id(), cx.now_ms) {
            text.push_str(&describe(&client, cx.shared, cx.now_ms));
        }
    }
    cx.reply.verbatim("txt", text.as_bytes());
    Ok(Effect::None)
}

fn client_kill(cx: &mut Cx) -> Outcome {
    // The old form names one address, and answers with an error where nobody has it.
    let old_form = cx.args.len() == 3;
    let filter = if old_form { Filter::by_address(cx.arg(2)) } else { Filter::parse(cx, 2, true)? };
    let mut killed = 0;
    for client in cx.shared.clients.all() {
        if !filter.matches(&client, cx.session.id(), cx.now_ms) {
            continue;
        }
        killed += 1;
        if client.id == cx.session.id() {
            cx.session.close_after_reply = true;
        } else {
            client.kill.store(true, Relaxed);
            cx.shared.host.post(client.worker, Message::Kill { client: client.id });
        }
    }
    if !old_form {
        cx.reply.integer(killed);
    } else if killed > 0 {
        cx.reply.ok();
    } else {
        return Err(CommandError::text("ERR No such client"));
    }
    Ok(Effect::None)
}

/// `ON` or `OFF`.
fn switch(cx: &Cx) -> Result<bool, CommandError> {
    match () {
        () if cx.is_word(2, "ON") => Ok(true),
        () if cx.is_word(2, "OFF") => Ok(false),
        () => Err(CommandError::Syntax),
    }
}

fn client_no_evict(cx: &mut Cx) -> Outcome {
    let on = switch(cx)?;
    cx.session.set_no_evict(on);
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_no_touch(cx: &mut Cx) -> Outcome {
    let on = switch(cx)?;
    cx.session.set_no_touch(on);
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_import_source(cx: &mut Cx) -> Outcome {
    if !cx.config.import_mode {
        return Err(CommandError::text("ERR Server is not in import mode"));
    }
    let on = switch(cx)?;
    cx.session.set_import_source(on);
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_pause(cx: &mut Cx) -> Outcome {
    let mode = match () {
        () if cx.args.len() == 3 || cx.is_word(3, "ALL") => PauseMode::All,
        () if cx.is_word(3, "WRITE") => PauseMode::Writes,
        () => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let out_of_range = CommandError::text("ERR timeout is not an integer or out of range");
    let timeout_ms = parse_int(cx.arg(2)).map_err(|_| out_of_range.clone())?;
    if timeout_ms < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    let until_ms = cx.now_ms.checked_add(timeout_ms).ok_or(out_of_range)?;
    cx.shared.pause.set(mode, until_ms, cx.now_ms);
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_unpause(cx: &mut Cx) -> Outcome {
    cx.shared.pause.clear();
    for worker in 0..cx.shared.workers {
        cx.shared.host.post(worker, Message::Resume);
    }
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_reply(cx: &mut Cx) -> Outcome {
    match () {
        () if cx.is_word(2, "ON") => {
            cx.session.reply_mode = ReplyMode::On;
            cx.reply.ok();
        }
        () if cx.is_word(2, "OFF") => cx.session.reply_mode = ReplyMode::Off,
        () if cx.is_word(2, "SKIP") => {
            if cx.session.reply_mode == ReplyMode::On {
                cx.session.reply_mode = ReplyMode::SkipNext;
            }
        }
        () => return Err(CommandError::Syntax),
    }
    Ok(Effect::None)
}

fn client_setname(cx: &mut Cx) -> Outcome {
    let name = cx.arg(2);
    check_name(name, "Client names")?;
    cx.session.info.names.lock().name = name.to_vec();
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_setinfo(cx: &mut Cx) -> Outcome {
    let value = cx.arg(3);
    if cx.is_word(2, "LIB-NAME") {
        check_name(value, "lib-name")?;
        cx.session.info.names.lock().lib_name = value.to_vec();
    } else if cx.is_word(2, "LIB-VER") {
        check_name(value, "lib-ver")?;
        cx.session.info.names.lock().lib_ver = value.to_vec();
    } else {
        let option = String::from_utf8_lossy(cx.arg(2)).into_owned();
        return Err(CommandError::owned(format!("ERR Unrecognized option '{option}'")));
    }
    cx.reply.ok();
    Ok(Effect::None)
}

fn client_help(cx: &mut Cx) -> Outcome {
    cx.reply_help(&[
        "CAPA <option> [options...]",
        "    Tell what this client can handle. Options are:",
        "    * REDIRECT",
        "      Redirections while roles change in standalone mode.",
        "GETNAME",
        "    Return the name of the current connection.",
        "ID",
        "    Return the ID of the current connection.",
        "IMPORT-SOURCE (ON|OFF)",
        "    Mark this connection as a source of imported keys, in import mode.",
        "INFO",
        "    Describe the current connection.",
        "KILL <ip:port>",
        "    Close the connection from this address.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Close the connections that fit all options: ID, NOT-ID (several numbers each), and with or without NOT-",
        "    before them ADDR, LADDR, TYPE (NORMAL|PRIMARY|REPLICA|PUBSUB), USER, FLAGS, NAME, LIB-NAME, LIB-VER, DB,",
        "    CAPA, IP; MAXAGE and IDLE in seconds; SKIPME (YES|NO), yes unless given.",
        "LIST [options ...]",
        "    Describe the connections that fit all options, which are KILL's; SKIPME is no unless given.",
        "NO-EVICT (ON|OFF)",
        "    Exempt this connection from client eviction.",
        "NO-TOUCH (ON|OFF)",
        "    Keep this connection's reads from counting as accesses.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Hold back all clients' commands, or their writes, for this many milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Say whether commands of this connection are answered.",
        "SETINFO <option> <value>",
        "    Name the client library (LIB-NAME) or its version (LIB-VER).",
        "SETNAME <name>",
        "    Name the current connection.",
        "UNPAUSE",
        "    End a pause.",
    ]);
    Ok(Effect::None)
}
