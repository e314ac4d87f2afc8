//! The table of reasons in PROTOCOL §9, from the two enums that everything else
//! uses.

use anyhow::Context;
use protocol::reason::{CloseReason, DropReason, Fault};

use crate::artifact::{Artifact, read};

const PAGE: &str = "docs/PROTOCOL.md";
const BEGIN: &str = "<!-- reasons:begin (written by cargo xtask docs) -->\n";
const END: &str = "<!-- reasons:end -->";

/// The page with its table.
pub fn artifacts() -> anyhow::Result<Vec<Artifact>> {
    let page = read(PAGE)?;
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("{PAGE} has no line {BEGIN:?}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{PAGE} has no line {END:?}"))?;
    let content = format!("{before}{BEGIN}{}{END}{after}", table());
    Ok(vec![Artifact::new(PAGE, content)])
}

fn table() -> String {
    let closes = CloseReason::ALL.iter().map(|&reason| {
        row(
            &(reason as u16).to_string(),
            reason.label(),
            "closes",
            reason.fault(),
            reason.text(),
        )
    });
    // A drop is never on the wire, so it has no code.
    let drops = DropReason::ALL
        .iter()
        .map(|reason| row("", reason.label(), "drops", reason.fault(), reason.text()));
    [
        "| code | label | what it does | whose fault | meaning |\n|---|---|---|---|---|\n"
            .to_owned(),
    ]
    .into_iter()
    .chain(closes)
    .chain(drops)
    .collect()
}

fn row(code: &str, label: &str, action: &str, fault: Fault, text: &str) -> String {
    let fault = match fault {
        Fault::Peer => "the peer's",
        Fault::Nobody => "nobody's",
        Fault::Ours => "ours",
    };
    format!("| {code} | `{label}` | {action} | {fault} | {text} |\n")
}
