//! The arguments of `sallyport loadtest`. Owns names, defaults and help; does
//! nothing with them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `sallyport loadtest`: a run, or something else with the results of runs.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LoadtestCommand {
    /// The run.
    #[command(flatten)]
    pub run: Option<LoadtestArgs>,
    /// Something else.
    #[command(subcommand)]
    pub other: Option<OtherCommand>,
}

/// What can be done besides a run.
#[derive(Debug, Clone, Subcommand)]
pub enum OtherCommand {
    /// Compare the results of two runs, as --json wrote them
    #[command(after_help = "Examples:\n  \
        sallyport loadtest compare before.json after.json\n\n\
        Prints each figure with the ratio of B to A, and names those that got worse by more than\n\
        10 %. Exits 1 if one of the runs lost, doubled or reordered messages or had errors, 2 if a\n\
        file is no result, else 0.")]
    Compare(CompareArgs),
}

/// Arguments of `sallyport loadtest compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// The result to compare with
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// The result that is compared
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
}

/// Arguments of `sallyport loadtest`.
#[derive(Debug, Clone, Args)]
pub struct LoadtestArgs {
    /// Address of the gateway
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The gateway's public key
    #[arg(long, value_name = "BASE64URL", allow_hyphen_values = true)]
    pub key: String,
    /// The secret that signs login tokens
    #[arg(long, value_name = "BASE64URL", allow_hyphen_values = true)]
    pub token_key: String,
    /// The gateway's token audience
    #[arg(long, default_value = "sallyport")]
    pub audience: String,
    /// Clients
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: u32,
    /// Sends a second, over all clients [default: 1000; in walk as many as clients, in chat 200, in
    /// broadcast 10]; in login-storm, clients that set out in a second
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// Seconds that are measured; login-storm lasts until all have been in
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 10.0,
        allow_negative_numbers = true
    )]
    pub duration: f64,
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Scenario::Echo)]
    pub scenario: Scenario,
    /// How they connect
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub transport: Transport,
    /// In echo, requests go over `reliable`, and over the other lanes messages that come back; in
    /// walk, the lane of the moves; mixed takes all of them
    #[arg(long, value_enum, default_value_t = LaneName::Reliable)]
    pub lane: LaneName,
    /// Over tcp and ws: messages of the unreliable and the sequenced lane go as datagrams beside the
    /// connection where these get through
    #[arg(long)]
    pub side_path: bool,
    /// The group that they talk to [default: 1; in walk 2, in chat and broadcast 3, as in `dev`]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub group: Option<u16>,
    /// In echo: bytes of a payload; in mixed: of one that is no request
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub payload: u32,
    /// In walk: others in view of a client, on average [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub visible: Option<f64>,
    /// In login-storm: seconds that a client stays once it is in [default: 1]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub stay: Option<f64>,
    /// Seed of the order of sends, of their content and of the ways of walkers
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Worker processes; as many as the open-file limit and the rate ask for if left out
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub processes: Option<u32>,
    /// Admin port of a server process, for its figures (repeatable)
    #[arg(long, value_name = "URL")]
    pub admin: Vec<String>,
    /// File with the admin ports' bearer token
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the result as one page with plots, which loads nothing from elsewhere
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Exit 1 if this holds for the result, such as 'p99_us > 50000' (repeatable)
    #[arg(long, value_name = "EXPR")]
    pub fail_if: Vec<String>,
    /// I/O engine of the clients
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto, hide = true)]
    pub engine: EngineChoice,
    /// Longest wait for replies after the last send
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, hide = true)]
    pub drain: f64,
}

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Each send comes back
    Echo,
    /// Clients walk on a map; who was seen where is compared with a brute-force answer
    Walk,
    /// As echo, and every client loses its connection again and again and comes back
    ReconnectStorm,
    /// All at once: every lane, payloads of 16 to 2048 bytes, a third of the clients is cut again
    /// and again, and all log out and in anew at some time
    Mixed,
    /// Each send reaches the members of its client's channel, 20 of them
    Chat,
    /// Each send reaches all clients, which are members of one channel
    Broadcast,
    /// Clients come one after the other, wait in the queue if there is one, ask one thing, stay and
    /// log out; the order in which they get in is verified
    LoginStorm,
}

impl Scenario {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Walk => "walk",
            Self::ReconnectStorm => "reconnect-storm",
            Self::Mixed => "mixed",
            Self::Chat => "chat",
            Self::Broadcast => "broadcast",
            Self::LoginStorm => "login-storm",
        }
    }
}

/// How the clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP, a socket of its own for each
    Udp,
    /// WebSocket, on the same port
    Ws,
}

impl Transport {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Ws => "ws",
        }
    }
}

/// A lane by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneName {
    /// In order, none lost
    Reliable,
    /// In any order
    Unreliable,
    /// Never an older one after a newer one
    Sequenced,
}

impl LaneName {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reliable => "reliable",
            Self::Unreliable => "unreliable",
            Self::Sequenced => "sequenced",
        }
    }

    /// The lane of the wire.
    pub const fn lane(self) -> protocol::body::Lane {
        match self {
            Self::Reliable => protocol::body::Lane::Reliable,
            Self::Unreliable => protocol::body::Lane::Unreliable,
            Self::Sequenced => protocol::body::Lane::Sequenced,
        }
    }
}

/// Which engine carries the clients' sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// io_uring where it is allowed
    Auto,
    /// io_uring
    Uring,
    /// epoll
    Epoll,
}
