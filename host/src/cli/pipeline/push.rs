//! `ocelli pipeline push`: puts a component into a registry, from where hosts fetch it.

mod credentials;

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use wasmparser::{Parser, Payload};

use crate::config::{DeployConfig, OciReference, Sandbox};
use crate::deploy::check_component;
use crate::registry::{Interfaces, Registry, RegistryAccess};
use crate::worker::Programs;
use credentials::RegistryLogin;

/// The largest component in MiB that any host may admit (`deploy.max_component_mb`).
const MAX_COMPONENT_MB: u32 = 128;

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelinePushCommand {
    /// The component. It is checked as a deployment does.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where it goes.
    #[arg(value_name = "oci://HOST[:PORT]/REPOSITORY:TAG")]
    to: String,
    /// The certificate authorities, in PEM, that vouch for the registry. Left out: the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Without TLS, as a registry at a loopback address is asked anyway.
    #[arg(long, conflicts_with = "ca")]
    plain_http: bool,
}

impl PipelinePushCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self { file, to, ca, plain_http } = self;
        let reference: OciReference = to.parse().context("the reference")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let limits = DeployConfig { max_component_mb: MAX_COMPONENT_MB, ..DeployConfig::default() };
        let program = Programs::find()?.compile;
        runtime.block_on(check_component(program, Sandbox::BestEffort, &file, &limits))?;
        let component = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let interfaces = interfaces(&component).with_context(|| file.display().to_string())?;
        let RegistryLogin { login, helper } = credentials::find(&reference.registry)?;
        let plain_http = plain_http.then_some(true);
        let registry = Registry::new(&reference, RegistryAccess { login, ca, plain_http })?;
        let size = component.len();
        match runtime.block_on(registry.push(Bytes::from(component), &interfaces)) {
            Ok(digest) => println!("{reference}@sha256:{digest} ({size} bytes)"),
            Err(error) if error.wants_login() => match helper {
                Some(helper) => bail!(
                    "{error}; the credential helper {helper:?} is not asked: set {}, {}",
                    credentials::USER,
                    credentials::PASSWORD
                ),
                None => bail!(
                    "{error}: set {}, {}, or log in with `docker login`",
                    credentials::USER,
                    credentials::PASSWORD
                ),
            },
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// What a component exports and imports, itself and not by its parts.
fn interfaces(component: &[u8]) -> anyhow::Result<Interfaces> {
    let mut found = Interfaces::default();
    let mut inside = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            // The parser goes into it, and says when it ends.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => inside += 1,
            Payload::End(_) => inside = inside.saturating_sub(1),
            Payload::ComponentImportSection(imports) if inside == 0 => {
                for import in imports {
                    found.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if inside == 0 => {
                for export in exports {
                    found.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_are_those_of_the_component_and_not_of_its_parts() {
        let text = r#"(component
            (import "a:b/c@0.1.0" (instance $c))
            (component (import "x:y/z" (instance)) (export "p:q/r" (instance 0)))
            (core module (import "m" "f" (func)))
            (export "a:b/d@0.1.0" (instance $c)))"#;
        let found = interfaces(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!(
            (found.imports, found.exports),
            (vec!["a:b/c@0.1.0".into()], vec!["a:b/d@0.1.0".into()])
        );
        assert!(interfaces(b"\0asm").is_err());
    }
}
