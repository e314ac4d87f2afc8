//! The command line: what can be asked for, and the help texts.
//!
//! Owns names, flags and examples, which people script against. Does nothing
//! with them. Invariant: every command's help ends with examples.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A gateway for online games, with the backends behind it.
#[derive(Debug, Parser)]
#[command(
    name = "sallyport",
    version,
    about = "A gateway for online games, with the backends behind it",
    after_help = "Examples:\n  \
        sallyport dev --clients 500          everything in one process, with clients\n  \
        sallyport doctor                     what this machine lacks\n  \
        sallyport gateway --config gateway.toml\n\n\
        Exit codes: 0 done and good, 1 ran and found something wrong, 2 could not run."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run gateway, center and game in one process on loopback
    #[command(after_help = "Examples:\n  \
        sallyport dev\n  \
        sallyport dev --clients 2000\n  \
        sallyport dev --port 0 --data /tmp/sallyport\n\n\
        The last line of its start is a load test that can be pasted. Ctrl-C ends it.")]
    Dev(DevArguments),
    /// Run a gateway
    #[command(after_help = "Examples:\n  \
        sallyport gateway --config /etc/sallyport/gateway.toml\n  \
        sallyport gateway --config gateway.toml --set engine.kind=epoll --set log.level=debug\n\n\
        SIGHUP takes over what can change live (limits, token keys, versions, certificates, ...) and\n\
        says which keys need a restart; SIGTERM drains, a second one ends at once.")]
    Gateway(RoleArguments),
    /// Run center: accounts, sessions, fences
    #[command(after_help = "Examples:\n  \
        sallyport center --config /etc/sallyport/center.toml\n  \
        SALLYPORT__LISTEN__QUIC=127.0.0.1:7100 sallyport center --config center.toml")]
    Center(RoleArguments),
    /// Run a game process
    #[command(after_help = "Examples:\n  \
        sallyport game --config /etc/sallyport/game.toml\n  \
        sallyport game --config game.toml --set game.group=2")]
    Game(RoleArguments),
    /// Put load on a gateway and verify what comes back
    #[command(after_help = "Examples:\n  \
        sallyport loadtest 127.0.0.1:7000 --key KEY --token-key KEY --clients 1000 --rate 10000\n  \
        sallyport loadtest 127.0.0.1:7000 --key KEY --token-key KEY --duration 30 \\\n      \
        --admin http://127.0.0.1:7001 --json out.json --fail-if 'p99_us > 50000'\n  \
        sallyport loadtest 127.0.0.1:7000 --key KEY --token-key KEY \\\n      \
        --scenario walk --clients 2000 --visible 4 --admin http://127.0.0.1:7001 --html out.html\n  \
        sallyport loadtest 127.0.0.1:7000 --key KEY --token-key KEY \\\n      \
        --scenario reconnect-storm --clients 2000 --rate 4000 --fail-if 'back_p99_us > 500000'\n  \
        sallyport loadtest 127.0.0.1:7000 --key KEY --token-key KEY \\\n      \
        --scenario mixed --transport ws --side-path --clients 2000 --rate 10000 --html out.html\n  \
        sallyport loadtest compare before.json after.json\n\n\
        Exits 0 only if all clients connected and nothing was lost, doubled, reordered or wrong.")]
    Loadtest(Box<loadtest::LoadtestCommand>),
    /// Be a bad network between clients and a gateway, for tests
    #[command(after_help = "Examples:\n  \
        sallyport impair 127.0.0.1:7000 --listen 127.0.0.1:7900 --delay-ms 50 --jitter-ms 20 --loss 5\n  \
        sallyport impair 127.0.0.1:7000 --protocol udp --reorder 10 --duplicate 2 --rate 50000\n  \
        sallyport impair 127.0.0.1:7000 --cut-every 10 --cut-silent 2 --duration 300\n\n\
        Clients connect to the address that its first line tells. It ends by --duration, SIGTERM or\n\
        Ctrl-C, says what it has seen, and exits 0.")]
    Impair(impair::ImpairArgs),
    /// Ask the admin port of a running process
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7101 ban --account mallory --text 'you cheated'\n  \
        sallyport admin http://127.0.0.1:7101 ban --network 192.0.2.0/24 --for-seconds 3600\n  \
        sallyport admin http://127.0.0.1:7101 unban --account mallory\n  \
        sallyport admin http://127.0.0.1:7101 bans\n  \
        sallyport admin http://127.0.0.1:7001 sessions\n  \
        sallyport admin http://127.0.0.1:7001 sessions --account alice\n  \
        sallyport admin http://127.0.0.1:7001 kick --account mallory --text 'be nice'\n  \
        sallyport admin http://127.0.0.1:7001 top\n\n\
        Bans are center's; sessions, kick, top and limits are a gateway's; broadcast is a game's; drain\n\
        ends any process in order. Exits 1 if there is no such thing, 2 if nobody can be asked.")]
    Admin(AdminArguments),
    /// Make a key
    #[command(after_help = "Examples:\n  \
        sallyport keygen gateway --out gateway.key       clients pin what it prints\n  \
        sallyport keygen identity --out center.identity  the other processes pin what it prints\n  \
        sallyport keygen token --out token.secret        what it prints goes to token.keys")]
    Keygen(KeygenArguments),
    /// Issue a login token, or explain one
    #[command(after_help = "Examples:\n  \
        sallyport token issue --key-file token.secret --account alice\n  \
        sallyport token show v4.public.… --key PUBLIC_KEY")]
    Token(TokenArguments),
    /// Check a configuration file
    #[command(after_help = "Examples:\n  \
        sallyport check --config gateway.toml\n\n\
        Key files that do not exist yet are a warning. Exits 1 if anything is wrong.")]
    Check(RoleArguments),
    /// Print a configuration with all defaults, secrets redacted
    #[command(after_help = "Examples:\n  \
        sallyport config --config gateway.toml --effective\n  \
        sallyport config --config gateway.toml --effective --set limits.frames_per_second=60")]
    Config(ConfigArguments),
    /// Say what this machine lacks, and how to fix it
    #[command(after_help = "Examples:\n  \
        sallyport doctor\n\n\
        Exits 0 if nothing is in the way, else 1.")]
    Doctor,
    /// A process of a running load test; started by it, never by hand
    #[command(name = loadtest::WORKER_SUBCOMMAND, hide = true)]
    LoadtestWorker,
}

/// `dev`.
#[derive(Debug, Args)]
pub struct DevArguments {
    /// Clients to start, in child processes that end with it
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub clients: u32,
    /// Port of the gateway; 0 takes free ports everywhere
    #[arg(long, default_value_t = 7000, value_name = "P")]
    pub port: u16,
    /// Where keys and journals are kept; a temporary directory if left out
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// A role, or what looks at its configuration.
#[derive(Debug, Args)]
pub struct RoleArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Override a key (repeatable)
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

/// `config`.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The configuration file and what lies over it.
    #[command(flatten)]
    pub role: RoleArguments,
    /// Print every key with the value in force
    #[arg(long, required = true)]
    pub effective: bool,
}

/// `admin`.
#[derive(Debug, Args)]
pub struct AdminArguments {
    /// The admin port, such as http://127.0.0.1:7101
    #[arg(value_name = "URL")]
    pub url: String,
    /// File with the token that the port wants
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    /// What to ask.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// The commands of `admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Keep somebody out: sessions end at once
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7101 ban --account mallory --text 'you cheated'\n  \
        sallyport admin http://127.0.0.1:7101 ban --device 4e1c77 --for-seconds 86400")]
    Ban {
        /// Whom.
        #[command(flatten)]
        whom: WhomArguments,
        /// For how long; without it, until it is lifted
        #[arg(long, value_name = "SECONDS")]
        for_seconds: Option<u64>,
        /// What the player is told, at most 128 bytes
        #[arg(long, default_value = "")]
        text: String,
    },
    /// Lift a ban
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7101 unban --account mallory")]
    Unban {
        /// Whose.
        #[command(flatten)]
        whom: WhomArguments,
    },
    /// Say who is online at a center, by version, channel and gateway, and how long the queue is
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7101 online\n\n\
        With --json one object.")]
    Online {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the bans in force, one JSON object a line
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7101 bans")]
    Bans,
    /// List a gateway's sessions, or tell one's story: connection, queue, channels, credits, events
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7001 sessions\n  \
        sallyport admin http://127.0.0.1:7001 sessions --account alice\n  \
        sallyport admin http://127.0.0.1:7001 sessions 4711 --json")]
    Sessions {
        /// Whose.
        #[command(flatten)]
        whom: SessionArguments,
        /// Go on where a list ended
        #[arg(long, value_name = "PLACE")]
        after: Option<String>,
        /// How many to list
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a gateway's busiest sessions, again and again on a terminal
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7001 top\n  \
        sallyport admin http://127.0.0.1:7001 top --by queue --once")]
    Top {
        /// What makes a session busy: bytes or frames a second, or bytes that wait for it
        #[arg(long, default_value = "bytes", value_parser = ["bytes", "frames", "queue"])]
        by: String,
        /// How many to show
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
        /// Once, and no more
        #[arg(long)]
        once: bool,
        /// One JSON object a line, once
        #[arg(long)]
        json: bool,
    },
    /// End a session on a gateway
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7001 kick --account mallory --text 'be nice'\n  \
        sallyport admin http://127.0.0.1:7001 kick 4711\n\n\
        Its player may log in again: `ban` keeps out.")]
    Kick {
        /// Whose.
        #[command(flatten)]
        whom: SessionArguments,
        /// What the player is told, at most 128 bytes
        #[arg(long, default_value = "")]
        text: String,
    },
    /// Show how full a gateway's tables of limits are, and who is above the limits most
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7001 limits")]
    Limits {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell all players of a game process something, over their gateways
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7201 broadcast 'a new version comes in ten minutes'")]
    Broadcast {
        /// What, at most 1024 bytes
        text: String,
    },
    /// End a process in order, and say what is left until it has ended
    #[command(after_help = "Examples:\n  \
        sallyport admin http://127.0.0.1:7001 drain\n\n\
        A gateway stops accepting and tells its clients to go to another one.")]
    Drain,
}

/// Which session is meant.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct SessionArguments {
    /// By its id
    #[arg(value_name = "SESSION")]
    pub session: Option<u64>,
    /// By its account
    #[arg(long)]
    pub account: Option<String>,
}

/// Whom a ban is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct WhomArguments {
    /// An account
    #[arg(long)]
    pub account: Option<String>,
    /// A device, as its client names it
    #[arg(long)]
    pub device: Option<String>,
    /// An address, or a network such as 192.0.2.0/24
    #[arg(long)]
    pub network: Option<String>,
}

/// `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArguments {
    /// What the key is for
    #[arg(value_enum)]
    pub kind: KeyKind,
    /// Write the secret to this file (mode 0600) and print the public key only
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyKind {
    /// X25519: what clients pin of a gateway
    Gateway,
    /// ed25519: what the processes of a cluster pin of each other
    Identity,
    /// ed25519: signs login tokens
    Token,
}

/// `token`.
#[derive(Debug, Args)]
pub struct TokenArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// The commands of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a login token
    #[command(after_help = "Examples:\n  \
        sallyport token issue --key-file token.secret --account alice --life-seconds 30")]
    Issue {
        /// File with the secret of `sallyport keygen token`
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
        /// Who logs in with it, 1 to 64 bytes
        #[arg(long)]
        account: String,
        /// The gateway's `token.audience`
        #[arg(long, default_value = "sallyport")]
        audience: String,
        /// How long it can be used
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=60))]
        life_seconds: u64,
    },
    /// Explain a token, and verify it where the key is given
    #[command(after_help = "Examples:\n  \
        sallyport token show v4.public.…\n  \
        sallyport token show v4.public.… --key PUBLIC_KEY\n\n\
        Exits 1 if the token would be refused.")]
    Show {
        /// The token
        token: String,
        /// The public key that signed it
        #[arg(long, value_name = "BASE64URL", allow_hyphen_values = true)]
        key: Option<String>,
        /// The audience it has to carry
        #[arg(long, default_value = "sallyport")]
        audience: String,
    },
}
