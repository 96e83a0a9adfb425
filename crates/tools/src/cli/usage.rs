//! What the client says about itself.

/// The version that users' scripts look for is the reference's.
pub const VERSION: &str = "9.1.2";

pub const INTERACTIVE_HELP: &str = "\
kara-cli (valkey-cli 9.1.2)
Help about commands:
      \"help @<group>\"   the commands of a group
      \"help <command>\"  one command
      \"help <tab>\"      what there is help for
      \"quit\"            leaves

Preferences, also as lines of ~/.valkeyclirc:
      \":set hints\"      shows hints while you type
      \":set nohints\"    doesn't
";

pub const USAGE: &str = "\
kara-cli (valkey-cli 9.1.2)

Usage: valkey-cli [OPTIONS] [cmd [arg [arg ...]]]
       kara-cli migrate --from URL --to URL [OPTIONS]   (kara-cli migrate --help)

Where to:
  -h <hostname>      Host (default: $VALKEYCLI_HOST, else 127.0.0.1).
  -p <port>          Port (default: $VALKEYCLI_PORT, else 6379).
  -s <socket>        Unix socket, instead of host and port.
  -u <uri>           valkey://user:password@host:port/db (or redis://), unix:///path?db=N.
  -n <db>            Database.
  -t <timeout>       Seconds to wait for a connection; 0 leaves it to the system.
  -4, -6             IPv4 or IPv6 addresses first.
  -c                 Cluster: follow MOVED and ASK.
As whom:
  -a, --pass <password>  Better in the environment: $VALKEYCLI_AUTH (or $REDISCLI_AUTH).
  --user <username>  Needs a password.
  --askpass          Asks for the password.
  --no-auth-warning  Says nothing about passwords on command lines.
How:
  -2, -3             RESP2 or RESP3 from the start.
  -r <repeat>        Runs the command that often (-1: for ever).
  -i <interval>      Seconds between repetitions, and between steps of --scan and --stat; of --bigkeys,
                     --memkeys and --hotkeys after each 100 steps. Decimals allowed.
  -x                 The last argument comes from standard input.
  -X <tag>           The argument that is called so comes from standard input.
  --quoted-input     Arguments are quoted words: \"null-\\x00-separated\".
  -e                 An error reply ends the program with an error code.
What is shown:
  --raw, --no-raw    Plain replies (the default where no terminal reads), or with types and indices.
  --csv, --json, --quoted-json
  -d <delimiter>     Between the elements of raw replies (default: a new line).
  -D <delimiter>     Behind each raw reply (default: a new line).
  --show-pushes <yn> Messages that came beside replies; the default on terminals.
Instead of a command:
  --scan             All keys. --pattern <pat>, --quoted-pattern <pat>, --type <type>, --count <n>
  --bigkeys          The keys with most elements, per type.
  --memkeys          The keys that take most memory. --memkeys-samples <n>
  --hotkeys          The keys that are read most (needs an LFU policy). --hotkeys-count <n>
  --stat             A line of figures each second.
  --latency          Round trips of PING. --latency-history: a line each 15 seconds (-i).
  --intrinsic-latency <sec>  How long this machine leaves a program waiting.
  --pipe             The protocol from standard input, as it is. --pipe-timeout <seconds> (30)
  --replica          Shows what a replica is sent.
  --rdb <file>       Fetches an RDB file; - is standard output. --functions-rdb <file>: functions only.
  --eval <file> [key ... , arg ...]  Runs a script.
  --help, --version

Without a command and on a terminal, a prompt; \"help\" there says more.
";

pub const MIGRATE_USAGE: &str = "\
Usage: kara-cli migrate --from URL --to URL [OPTIONS]

Copies keys from one server to another, by SCAN, DUMP and RESTORE (type by type where the target doesn't take the
source's payloads). Times to live are kept. What is written to the source meanwhile may be missed: stop writing, or
take REPLICAOF.

  --from URL, --to URL   valkey://user:password@host:port (or redis://), unix:///path. The passwords may come from
                         $KARA_FROM_AUTH and $KARA_TO_AUTH instead.
  --db N[,N...]          These databases only (default: all that have keys).
  --pattern PATTERN      Keys that match only.
  --replace              Overwrites keys that the target has (default: they are left as they are, and counted).
  --state FILE           Notes what is done; called again with it, goes on there.
  --rate N               At most N keys a second.
  --pipeline N           Keys on their way at once (default 128).
  --verify yes|no|only   Compares all keys afterwards (default yes).
  --no-functions         Leaves libraries of functions out (they also stay where --db or --pattern chooses).
  --quiet                No progress.

Ends with 0 where every key is there and equal, 1 where one is missing, different or could not be copied.
";
