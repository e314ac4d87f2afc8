//! Key files: one base64url line each; and the certificate of TLS, which others make.
//!
//! Owns making, writing and reading the three kinds of keys, and the advice
//! where one is missing. Invariants: a secret is written with mode 0600 and
//! never over another one by accident; no error shows what was in a file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway::front::tls::{BadCertificate, Certificate};
use pasetors::keys::{AsymmetricKeyPair, Generate as _};
use pasetors::version4::V4;
use protocol::handshake::StaticKey;
use uplink::{Identity, PublicKey};

use crate::args::KeyKind;
use crate::config::{BEARER_EXPECTED, RoleConfig, TlsFiles, usable_as_bearer};

/// The longest key file is 87 bytes; anything much longer is another file.
const KEY_FILE_BYTES_MAX: u64 = 4_096;

/// A chain of certificates has some thousand bytes.
const PEM_FILE_BYTES_MAX: u64 = 1 << 18;

/// Bytes of a secret that signs tokens: seed, then public key.
pub const TOKEN_SECRET_BYTES: usize = 64;

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none yet.
    #[error("{}: no such file; make it with `sallyport keygen {kind} --out {}`", path.display(), path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// The kind, as `keygen` takes it.
        kind: &'static str,
    },
    /// There is no certificate yet.
    #[error("{}: no such file; it is to hold the {what} of TLS in PEM", path.display())]
    TlsMissing {
        /// Where it should be.
        path: PathBuf,
        /// What it is to hold.
        what: &'static str,
    },
    /// The certificate or its key can't be used.
    #[error("{} and {}: {error}", files.certificate.display(), files.key.display())]
    Tls {
        /// Which files.
        files: TlsFiles,
        /// Why.
        error: BadCertificate,
    },
    /// It cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something else stands in it.
    #[error("{}: {expected}; `sallyport keygen` makes such files", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// It exists.
    #[error("{}: exists already; --force overwrites it, and what was made with the old key is lost", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
}

/// A key pair as text.
pub struct KeyPair {
    /// What goes into the file.
    pub secret: String,
    /// What the others are given.
    pub public: String,
}

/// Makes a key.
///
/// # Errors
/// The machine gives no random numbers.
pub fn generate(kind: KeyKind) -> io::Result<KeyPair> {
    Ok(match kind {
        KeyKind::Gateway => {
            let key = StaticKey::from_secret(random32()?);
            KeyPair {
                secret: URL_SAFE_NO_PAD.encode(key.secret()),
                public: URL_SAFE_NO_PAD.encode(key.public()),
            }
        }
        KeyKind::Identity => {
            let identity = Identity::generate()?;
            KeyPair {
                secret: identity.secret_text(),
                public: identity.public_key().to_string(),
            }
        }
        KeyKind::Token => {
            let pair = AsymmetricKeyPair::<V4>::generate()
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
            KeyPair {
                secret: URL_SAFE_NO_PAD.encode(pair.secret.as_bytes()),
                public: URL_SAFE_NO_PAD.encode(pair.public.as_bytes()),
            }
        }
    })
}

/// Writes a secret, readable by its owner alone.
///
/// # Errors
/// The file exists and `force` is false, or it cannot be written.
pub fn write_secret(path: &Path, secret: &str, force: bool) -> Result<(), KeyFileError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            KeyFileError::Exists {
                path: path.to_owned(),
            }
        } else {
            KeyFileError::Io {
                path: path.to_owned(),
                error,
            }
        }
    };
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(path).map_err(failed)?;
    // An older file keeps its mode when it is opened.
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(failed)?;
    file.write_all(format!("{secret}\n").as_bytes())
        .map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Reads the secret that a gateway shows itself with to clients.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_gateway(path: &Path) -> Result<StaticKey, KeyFileError> {
    let expected = "32 bytes of base64url in one line are expected (a gateway's secret)";
    Ok(StaticKey::from_secret(bytes32(path, "gateway", expected)?))
}

/// Reads who a process is to the others of its cluster.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_identity(path: &Path) -> Result<Identity, KeyFileError> {
    let expected = "32 bytes of base64url in one line are expected (the seed of an identity)";
    Ok(Identity::from_seed(bytes32(path, "identity", expected)?))
}

/// Reads a public key that signs tokens.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_token_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let expected = "43 letters of base64url are expected (the public key that \
                    `sallyport keygen token` prints)";
    Ok(PublicKey(bytes32(path, "token", expected)?))
}

/// Reads the secret that signs tokens.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_token_secret(path: &Path) -> Result<[u8; TOKEN_SECRET_BYTES], KeyFileError> {
    let line = read_line(path, "token")?;
    URL_SAFE_NO_PAD
        .decode(line)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| KeyFileError::Content {
            path: path.to_owned(),
            expected: "64 bytes of base64url in one line are expected (the secret that signs tokens)",
        })
}

/// Reads the bearer token of an admin port.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_admin_token(path: &Path) -> Result<String, KeyFileError> {
    // Any random line will do, so the key generators' output is as good as others.
    let line = read_line(path, "token")?;
    if !usable_as_bearer(&line) {
        return Err(KeyFileError::Content {
            path: path.to_owned(),
            expected: BEARER_EXPECTED,
        });
    }
    Ok(line)
}

/// Reads what a gateway shows to clients that come over TLS.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read_certificate(files: &TlsFiles) -> Result<Certificate, KeyFileError> {
    let chain = read_pem(&files.certificate, "certificate chain")?;
    let key = read_pem(&files.key, "private key")?;
    Certificate::from_pem(&chain, &key).map_err(|error| KeyFileError::Tls {
        files: files.clone(),
        error,
    })
}

fn read_pem(path: &Path, what: &'static str) -> Result<Vec<u8>, KeyFileError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileError::TlsMissing {
            path: path.to_owned(),
            what,
        },
        _ => KeyFileError::Io {
            path: path.to_owned(),
            error,
        },
    };
    if fs::metadata(path).map_err(failed)?.len() > PEM_FILE_BYTES_MAX {
        return Err(failed(io::Error::other("too long for a file in PEM")));
    }
    fs::read(path).map_err(failed)
}

/// Every key file that a configuration names and that cannot be used.
pub fn check(role: &RoleConfig) -> Vec<KeyFileError> {
    let mut found = Vec::new();
    if let Some(path) = &role.admin().token_file {
        found.extend(read_admin_token(path).err());
    }
    match role {
        RoleConfig::Gateway(config) => {
            found.extend(read_gateway(&config.listen.key_file).err());
            found.extend(read_identity(&config.identity_file).err());
            for path in &config.token.key_files {
                found.extend(read_token_public(path).err());
            }
            if let Some(files) = &config.listen.tls {
                found.extend(read_certificate(files).err());
            }
        }
        RoleConfig::Center(config) => {
            found.extend(read_identity(&config.listen.identity_file).err())
        }
        RoleConfig::Game(config) => found.extend(read_identity(&config.listen.identity_file).err()),
    }
    found
}

fn bytes32(
    path: &Path,
    kind: &'static str,
    expected: &'static str,
) -> Result<[u8; 32], KeyFileError> {
    let line = read_line(path, kind)?;
    URL_SAFE_NO_PAD
        .decode(line)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| KeyFileError::Content {
            path: path.to_owned(),
            expected,
        })
}

fn read_line(path: &Path, kind: &'static str) -> Result<String, KeyFileError> {
    let failed = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            KeyFileError::Missing {
                path: path.to_owned(),
                kind,
            }
        } else {
            KeyFileError::Io {
                path: path.to_owned(),
                error,
            }
        }
    };
    if fs::metadata(path).map_err(failed)?.len() > KEY_FILE_BYTES_MAX {
        let expected = "a key of one line is expected";
        return Err(KeyFileError::Content {
            path: path.to_owned(),
            expected,
        });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Ok(text.trim().to_owned())
}

/// 32 bytes from the kernel's generator.
///
/// # Errors
/// There are none to be had.
pub fn random32() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    let read = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    // Up to 256 bytes come whole (getrandom(2)).
    if read == bytes.len() {
        Ok(bytes)
    } else {
        Err(io::Error::other("too few random bytes"))
    }
}
