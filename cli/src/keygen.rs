//! `sallyport keygen`: makes a key, keeps the secret, prints the public half.
//!
//! With `--out`, standard output is the public key and nothing else, so that
//! scripts can take it.

use crate::Verdict;
use crate::args::KeygenArguments;
use crate::keys;
use crate::output::say;

/// Runs the command.
///
/// # Errors
/// The file exists (without `--force`) or cannot be written.
pub fn run(arguments: &KeygenArguments) -> anyhow::Result<Verdict> {
    let pair = keys::generate(arguments.kind)?;
    match &arguments.out {
        Some(path) => {
            keys::write_secret(path, &pair.secret, arguments.force)?;
            say!("{}", pair.public);
        }
        None => {
            say!("secret {}", pair.secret);
            say!("public {}", pair.public);
        }
    }
    Ok(Verdict::Good)
}
