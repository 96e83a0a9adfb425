//! What changed in commands since they came, for COMMAND DOCS: which version brought what.

/// A version and what it brought.
pub(super) type Change = (&'static str, &'static str);

/// The changes of a command, by its full name; mostly none.
pub(super) fn changes(full_name: &str) -> &'static [Change] {
    let found = HISTORY.iter().find(|(names, _)| names.split(' ').any(|name| name == full_name));
    found.map_or(&[], |(_, changes)| changes)
}

const CONDITIONS: &str = "NX, XX, GT and LT.";
const SEVERAL: &str = "More than one at a time.";
const UNITS: &str = "Names of units in any case.";
const NEWER_FILTERS: &str =
    "Filters NAME, IDLE, FLAGS, LIB-NAME, LIB-VER, DB, CAPA, IP, and negative ones (NOT-ID, NOT-TYPE, ...).";
const PRIMARY: &str = "TYPE primary; master still means the same.";

/// Names that share a row have the same history.
const HISTORY: &[(&str, &[Change])] = &[
    (
        "acl|getuser",
        &[
            ("6.2.0", "Patterns of channels."),
            ("7.0.0", "Selectors; patterns of keys and channels as rules instead of lists."),
            ("9.1.0", "Rules for databases."),
        ],
    ),
    ("acl|log", &[("7.2.0", "Entries have ids and the times of their first and last occurrence.")]),
    (
        "acl|setuser",
        &[
            ("6.2.0", "Patterns of channels."),
            ("7.0.0", "Selectors, and separate rights to read and to write keys."),
            ("9.1.0", "Rules for databases."),
        ],
    ),
    ("auth", &[("6.0.0", "A user's name in front of the password.")]),
    ("bgsave", &[("3.2.2", "SCHEDULE."), ("8.1.0", "CANCEL.")]),
    (
        "bitcount",
        &[("7.0.0", "BYTE and BIT."), ("8.0.0", "The end may be left out: it is the last byte then.")],
    ),
    ("bitpos", &[("7.0.0", "BYTE and BIT.")]),
    ("blpop brpop brpoplpush bzpopmax bzpopmin", &[("6.0.0", "Timeouts in fractions of a second.")]),
    (
        "client|list",
        &[
            ("2.8.12", "The field id."),
            ("5.0.0", "TYPE."),
            ("6.0.0", "The field user."),
            ("6.2.0", "Fields argv-mem, tot-mem, laddr and redir; ID."),
            ("7.0.0", "Fields resp, multi-mem, rbs and rbp."),
            ("7.0.3", "The field ssub."),
            ("8.0.0", PRIMARY),
            ("8.1.0", "USER, ADDR, LADDR, SKIPME and MAXAGE."),
            ("9.0.0", NEWER_FILTERS),
        ],
    ),
    (
        "client|kill",
        &[
            ("2.8.12", "Filters by name and value."),
            ("2.8.12", "ID."),
            ("3.2.0", "TYPE master."),
            ("5.0.0", "TYPE replica; slave still means the same."),
            ("6.2.0", "LADDR."),
            ("8.0.0", "MAXAGE."),
            ("8.0.0", PRIMARY),
            ("8.1.0", "ID with more than one."),
            ("9.0.0", NEWER_FILTERS),
        ],
    ),
    ("client|pause", &[("6.2.0", "The mode: writes only, or everything.")]),
    ("cluster|meet", &[("4.0.0", "The port of the cluster's bus.")]),
    ("cluster|setslot", &[("8.0.0", "TIMEOUT.")]),
    ("cluster|shards", &[("9.1.0", "Shards have ids, nodes an availability-zone.")]),
    ("cluster|count-failure-reports", &[("9.0.0", "Reports on a node that is failed already don't count.")]),
    (
        "cluster|slots",
        &[
            ("4.0.0", "Ids of nodes."),
            ("7.0.0", "More about a node's network."),
            ("9.1.0", "availability-zone, beside the network's data."),
        ],
    ),
    ("cluster|replicate", &[("9.0.0", "NO ONE makes a replica leave its primary.")]),
    ("command|info", &[("7.0.0", "Without names: all commands.")]),
    ("config|get config|set", &[("7.0.0", SEVERAL)]),
    ("exists", &[("3.0.3", SEVERAL)]),
    ("expire expireat pexpire pexpireat", &[("7.0.0", CONDITIONS)]),
    ("flushall flushdb", &[("4.0.0", "ASYNC."), ("6.2.0", "SYNC.")]),
    ("geoadd", &[("6.2.0", "CH, NX and XX.")]),
    (
        "georadius georadius_ro georadiusbymember georadiusbymember_ro",
        &[("6.2.0", "ANY behind COUNT."), ("7.0.0", UNITS)],
    ),
    ("geosearch geosearchstore", &[("7.0.0", UNITS), ("9.0.0", "BYPOLYGON.")]),
    ("hdel", &[("2.4.0", SEVERAL)]),
    (
        "hello",
        &[
            ("8.1.0", "Shows availability_zone where that is configured."),
            ("6.2.0", "The version may be left out: the connection stays as it is."),
        ],
    ),
    ("hset", &[("4.0.0", SEVERAL)]),
    ("info", &[("7.0.0", "More than one section.")]),
    ("lpop rpop", &[("6.2.0", "A count.")]),
    ("lpush rpush", &[("2.4.0", SEVERAL)]),
    ("lpushx rpushx", &[("4.0.0", SEVERAL)]),
    (
        "migrate",
        &[("3.0.0", "COPY and REPLACE."), ("3.0.6", "KEYS."), ("4.0.7", "AUTH."), ("6.0.0", "AUTH2.")],
    ),
    ("ttl pttl", &[("2.8.0", "-2 for a missing key.")]),
    ("renamenx", &[("3.2.0", "The same name twice is no error.")]),
    (
        "restore restore-asking",
        &[("3.0.0", "REPLACE."), ("5.0.0", "ABSTTL."), ("5.0.0", "IDLETIME and FREQ.")],
    ),
    ("sadd srem", &[("2.4.0", SEVERAL)]),
    ("scan", &[("6.0.0", "TYPE.")]),
    ("script|flush", &[("6.2.0", "ASYNC and SYNC.")]),
    (
        "set",
        &[
            ("2.6.12", "EX, PX, NX and XX."),
            ("6.0.0", "KEEPTTL."),
            ("6.2.0", "GET, EXAT and PXAT."),
            ("7.0.0", "NX together with GET."),
            ("8.1.0", "IFEQ."),
        ],
    ),
    ("shutdown", &[("7.0.0", "NOW, FORCE and ABORT."), ("9.0.0", "SAFE and FAILOVER.")]),
    ("slowlog|get", &[("4.0.0", "The client's address and name.")]),
    ("spop", &[("3.2.0", "A count.")]),
    ("srandmember", &[("2.6.0", "A count.")]),
    (
        "xadd",
        &[
            ("6.2.0", "NOMKSTREAM, MINID and LIMIT."),
            ("7.0.0", "Ids of which only the time is given: <ms>-*."),
        ],
    ),
    ("xautoclaim", &[("7.0.0", "The reply names entries that were deleted and are pending no more.")]),
    ("xgroup|create xgroup|setid", &[("7.0.0", "ENTRIESREAD.")]),
    ("xinfo|consumers", &[("7.2.0", "The field inactive; idle counts attempts, too.")]),
    ("xinfo|groups", &[("7.0.0", "Fields entries-read and lag.")]),
    (
        "xinfo|stream",
        &[
            ("6.0.0", "FULL."),
            (
                "7.0.0",
                "Fields max-deleted-entry-id, entries-added, recorded-first-entry-id, entries-read, lag.",
            ),
            ("7.2.0", "The field active-time; seen-time counts attempts, too."),
        ],
    ),
    ("xpending", &[("6.2.0", "IDLE; ranges without their ends.")]),
    ("xrange xrevrange", &[("6.2.0", "Ranges without their ends.")]),
    ("xsetid", &[("7.0.0", "ENTRIESADDED and MAXDELETEDID.")]),
    ("xtrim", &[("6.2.0", "MINID and LIMIT.")]),
    ("zadd", &[("2.4.0", SEVERAL), ("3.0.2", "XX, NX, CH and INCR."), ("6.2.0", "GT and LT.")]),
    ("zrange", &[("6.2.0", "REV, BYSCORE, BYLEX and LIMIT.")]),
    ("zrangebyscore", &[("2.0.0", "WITHSCORES.")]),
    ("zrank zrevrank", &[("7.2.0", "WITHSCORE.")]),
    ("zrem", &[("2.4.0", SEVERAL)]),
    ("zrevrangebyscore", &[("2.1.6", "Ranges without their ends.")]),
    ("zscan", &[("8.0.0", "NOSCORES.")]),
];
