//! The Rust types of `control.proto`, without protoc: protox parses, prost-build
//! writes.

use anyhow::Context;
use prost_build::Module;

use crate::artifact::{Artifact, absolute};

const HEADER: &str =
    "// Written by `cargo xtask generate` from proto/control.proto; do not edit.\n";

/// The generated file.
pub fn artifacts() -> anyhow::Result<Vec<Artifact>> {
    let folder = absolute("protocol/proto");
    let parsed = protox::compile([folder.join("control.proto")], [folder])
        .context("parsing protocol/proto/control.proto")?;
    let requests = parsed
        .file
        .into_iter()
        .map(|file| (Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let code = prost_build::Config::new()
        .generate(requests)
        .context("generating the control types")?
        .into_values()
        .collect::<String>();
    Ok(vec![Artifact::new(
        "protocol/src/control/generated.rs",
        format!("{HEADER}{code}"),
    )])
}
