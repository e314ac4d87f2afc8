//! The files of a dev cluster: keys, and a configuration for each role.
//!
//! Owns what differs between dev and the defaults, and why. Invariant: each
//! file passes `sallyport check` and can be given to its role by hand.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::args::KeyKind;
use crate::keys::{self, KeyFileError, TOKEN_SECRET_BYTES};

/// The directory of a dev cluster with its keys.
pub struct Files {
    directory: PathBuf,
    /// What clients pin.
    pub gateway_key: String,
    /// What signs tokens, secret.
    pub token_secret: String,
    token_key: String,
    gateway_identity: String,
    center_identity: String,
    echo_identity: String,
    walk_identity: String,
    chat_identity: String,
}

impl Files {
    /// Takes the keys that lie in the directory, and makes those that do not.
    ///
    /// # Errors
    /// A file cannot be written, or is no key.
    pub fn make(directory: &Path) -> anyhow::Result<Self> {
        let at = |name: &str| directory.join(name);
        for (name, kind) in [
            ("gateway.key", KeyKind::Gateway),
            ("token.secret", KeyKind::Token),
            ("gateway.identity", KeyKind::Identity),
            ("center.identity", KeyKind::Identity),
            ("game.identity", KeyKind::Identity),
            ("game-walk.identity", KeyKind::Identity),
            ("game-chat.identity", KeyKind::Identity),
        ] {
            match keys::write_secret(&at(name), &keys::generate(kind)?.secret, false) {
                Ok(()) | Err(KeyFileError::Exists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let identity = |name: &str| -> Result<String, KeyFileError> {
            Ok(keys::read_identity(&at(name))?.public_key().to_string())
        };
        let token_secret = keys::read_token_secret(&at("token.secret"))?;
        Ok(Self {
            directory: directory.to_owned(),
            gateway_key: URL_SAFE_NO_PAD.encode(keys::read_gateway(&at("gateway.key"))?.public()),
            // The public key is the second half of the secret.
            token_key: URL_SAFE_NO_PAD.encode(&token_secret[TOKEN_SECRET_BYTES / 2..]),
            token_secret: URL_SAFE_NO_PAD.encode(token_secret),
            gateway_identity: identity("gateway.identity")?,
            center_identity: identity("center.identity")?,
            echo_identity: identity("game.identity")?,
            walk_identity: identity("game-walk.identity")?,
            chat_identity: identity("game-chat.identity")?,
        })
    }

    /// Writes center's configuration. However busy the shards are, clients are let in: a load
    /// test is to find out what they can do.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn center(&self) -> anyhow::Result<PathBuf> {
        self.write(
            "center.toml",
            &format!(
                "role = \"center\"\nname = \"center\"\ndata_dir = \"center-data\"\n\n\
             [listen]\nquic = \"127.0.0.1:0\"\ngateway_keys = [\"{}\"]\n\n\
             [admission]\nbusy_percent = 0\n",
                self.gateway_identity
            ),
        )
    }

    /// Writes the configuration of the game that echoes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn echo(&self) -> anyhow::Result<PathBuf> {
        self.write(
            "game.toml",
            &format!(
                "role = \"game\"\nname = \"game\"\n\n\
             [listen]\nquic = \"127.0.0.1:0\"\ngateway_keys = [\"{}\"]\n\n\
             [game]\nkind = \"echo\"\ngroup = 1\n",
                self.gateway_identity
            ),
        )
    }

    /// Writes the configuration of the game with a map. The default one has room for the
    /// largest number of clients of a dev cluster, with 4 others in view of each.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn walk(&self) -> anyhow::Result<PathBuf> {
        self.write(
            "game-walk.toml",
            &format!(
                "role = \"game\"\nname = \"game-walk\"\n\n\
             [listen]\nquic = \"127.0.0.1:0\"\nidentity_file = \"game-walk.identity\"\n\
             gateway_keys = [\"{}\"]\n\n\
             [game]\nkind = \"walk\"\ngroup = 2\n\n\
             [admin]\nlisten = \"127.0.0.1:7202\"\n",
                self.gateway_identity
            ),
        )
    }

    /// Writes the configuration of the game with channels.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn chat(&self) -> anyhow::Result<PathBuf> {
        self.write(
            "game-chat.toml",
            &format!(
                "role = \"game\"\nname = \"game-chat\"\n\n\
             [listen]\nquic = \"127.0.0.1:0\"\nidentity_file = \"game-chat.identity\"\n\
             gateway_keys = [\"{}\"]\n\n\
             [game]\nkind = \"chat\"\ngroup = 3\n\n\
             [admin]\nlisten = \"127.0.0.1:7203\"\n",
                self.gateway_identity
            ),
        )
    }

    /// Writes the gateway's configuration.
    ///
    /// The rates of a connection are not limited: a few clients may be made to
    /// send all that this machine can do, which no player does.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn gateway(
        &self,
        port: u16,
        admin_port: u16,
        center: SocketAddr,
        [echo, walk, chat]: [SocketAddr; 3],
    ) -> anyhow::Result<PathBuf> {
        self.write(
            "gateway.toml",
            &format!(
                "role = \"gateway\"\nname = \"gateway\"\n\n\
             [listen]\ntcp = \"127.0.0.1:{port}\"\nkey_file = \"gateway.key\"\n\n\
             [limits]\nframes_per_second = 0\nbytes_per_second = 0\n\n\
             [token]\nkeys = [\"{}\"]\n\n\
             [uplink]\nidentity_file = \"gateway.identity\"\n\n\
             [center]\naddress = \"{center}\"\nkey = \"{}\"\n\n\
             [[group]]\nid = 1\nname = \"echo\"\n\
             instances = [{{ address = \"{echo}\", key = \"{}\" }}]\n\n\
             [[group]]\nid = 2\nname = \"walk\"\n\
             instances = [{{ address = \"{walk}\", key = \"{}\" }}]\n\n\
             [[group]]\nid = 3\nname = \"chat\"\n\
             instances = [{{ address = \"{chat}\", key = \"{}\" }}]\n\n\
             [admin]\nlisten = \"127.0.0.1:{admin_port}\"\n",
                self.token_key,
                self.center_identity,
                self.echo_identity,
                self.walk_identity,
                self.chat_identity
            ),
        )
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        Ok(path)
    }
}
