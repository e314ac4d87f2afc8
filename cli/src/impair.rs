//! `sallyport impair`: runs the proxy until it is told to end, and says what it has seen.
//!
//! Owns the lines that it prints, which scripts read: the first tells where it listens, the last
//! what it has counted.

use ::impair::{Impair, ImpairArgs};
use anyhow::anyhow;

use crate::Verdict;
use crate::output::say;
use crate::run::raise_open_files;
use crate::signals::Signals;

/// Runs the proxy.
///
/// # Errors
/// The target is no address, or the address to listen on can't be had.
pub fn run(arguments: &ImpairArgs) -> anyhow::Result<Verdict> {
    raise_open_files();
    let settings = arguments.settings().map_err(|wrong| anyhow!(wrong))?;
    let duration = arguments.duration;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let target = settings.target;
        let proxy = Impair::bind(settings).await?;
        let mut signals = Signals::new()?;
        say!("impair listen={} target={target}", proxy.address());
        let ended = async {
            tokio::select! {
                _ = signals.next() => {}
                () = async {
                    match duration {
                        Some(duration) => tokio::time::sleep(duration).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        };
        let counts = proxy.run(ended).await;
        say!("impair {counts}");
        Ok(Verdict::Good)
    })
}
