//! Files and folders that a config names.

use std::io;
use std::path::Path;

use ocelli_protocol::decode_device::DecodeDevice;
use rustix::fs::{Access, access};

use super::Finding;
use crate::api::Server;
use crate::config::source::{Source, TlsTrust};
use crate::config::{Camera, Config, ConfigFile, DirectoryError, OciReference};
use crate::deploy::{find_named, find_pipeline};
use crate::util::authorities;

/// The faults of all files and folders. The folder of models is left to the catalog. May block.
pub(crate) fn files(file: &ConfigFile) -> Vec<Finding> {
    let config = &file.config;
    let mut findings = of_host(file, config);
    for (index, camera) in config.cameras.iter().enumerate() {
        findings.extend(of_camera(file, index, camera));
    }
    findings
}

fn of_host(file: &ConfigFile, config: &Config) -> Vec<Finding> {
    let mut faults: Vec<(String, String)> = Vec::new();
    if let Some(tls) = &config.server.tls
        && let Err(error) = Server::check_certificate(tls)
    {
        faults.push(("server.tls".into(), format!("{error:#}")));
    }
    if let Some(library) = &config.inference.library
        && !library.is_file()
    {
        let shown = library.display();
        let fault = format!(
            "ONNX Runtime is not at {shown}: name its library, or leave the key out for that of \
             `./x setup`"
        );
        faults.push(("inference.library".into(), fault));
    }
    let folders = [
        ("logs.directory", Some(&config.logs.directory)),
        ("store.directory", Some(&config.store.directory)),
        ("store.cache", config.store.cache.as_ref()),
    ];
    for (key, folder) in folders {
        faults.extend(
            folder.and_then(|folder| fault_of_folder(folder)).map(|fault| (key.into(), fault)),
        );
    }
    for (index, kept) in config.analyze.pipelines.iter().enumerate() {
        if let Err(error) = find_named(&kept.name, config) {
            faults.push((format!("analyze.pipelines[{index}].name"), error.to_string()));
        }
    }
    let findings = faults.into_iter();
    let findings = findings.map(|(key, fault)| Finding::of_host(file.problem(key, fault)));
    let sinks = of_webhooks(file).chain(of_mqtt(file));
    let sinks = sinks.chain(of_cameras_file(file));
    let findings = findings.chain(of_registries(file)).chain(sinks).chain(of_collector(file));
    findings.chain(of_site(file)).collect()
}

/// The files by which a host and its site know each other. Without them it is no member, for good.
fn of_site(file: &ConfigFile) -> Vec<Finding> {
    let Some(cluster) = &file.config.cluster else { return Vec::new() };
    let ca = cluster.ca.as_deref().and_then(authorities::fault_of_file).map(|fault| ("ca", fault));
    let others = [
        ("certificate", &cluster.certificate),
        ("key", &cluster.key),
        ("secret_file", &cluster.secret_file),
    ];
    let others =
        others.into_iter().filter_map(|(key, path)| Some((key, fault_of_file(path.as_deref()?)?)));
    let faults = ca.into_iter().chain(others);
    let finding = |(key, fault)| Finding::of_host(file.problem(format!("cluster.{key}"), fault));
    faults.map(finding).collect()
}

/// The folder of the file of cameras, in which the host makes the file and exchanges it. The host
/// starts without: it changes no camera then.
fn of_cameras_file(file: &ConfigFile) -> Option<Finding> {
    let server = &file.config.server;
    let folder = server.cameras_file.as_ref().filter(|_| server.edit_config)?.parent()?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let shown = folder.display();
    let fault = match folder.metadata() {
        Ok(about) if about.is_dir() => {
            let error = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
            format!("this user cannot write the folder {shown}: {error}")
        }
        Ok(_) => format!("{shown} is a file, not a folder"),
        Err(error) => format!("its folder {shown}: {error}"),
    };
    Some(Finding::tolerable(file.problem("server.cameras_file", fault)))
}

/// Certificate authorities of registries. The host starts without: what came from a registry before
/// is stored.
fn of_registries(file: &ConfigFile) -> impl Iterator<Item = Finding> {
    let registries = file.config.deploy.registries.iter().enumerate();
    registries.filter_map(|(index, registry)| {
        let fault = registry.ca.as_deref().and_then(authorities::fault_of_file)?;
        let problem = file.problem(format!("deploy.registries[{index}].ca"), fault);
        Some(Finding::tolerable(problem))
    })
}

/// The broker's certificate authorities. The host starts without: events wait in the journal.
fn of_mqtt(file: &ConfigFile) -> Option<Finding> {
    let ca = file.config.mqtt.as_ref()?.ca.as_deref()?;
    let fault = authorities::fault_of_file(ca)?;
    let problem = file.problem("mqtt.ca".to_owned(), fault);
    Some(Finding::tolerable(problem))
}

/// Certificate authorities of webhooks. The host starts without: events wait in the journal.
fn of_webhooks(file: &ConfigFile) -> impl Iterator<Item = Finding> {
    file.config.webhooks.iter().enumerate().filter_map(|(index, hook)| {
        let fault = hook.ca.as_deref().and_then(authorities::fault_of_file)?;
        let problem = file.problem(format!("webhooks[{index}].ca"), fault);
        Some(Finding::tolerable(problem))
    })
}

/// Certificate authorities of the collector of traces. The host starts without.
fn of_collector(file: &ConfigFile) -> Option<Finding> {
    let collector = file.config.otlp.as_ref()?;
    let fault = collector.ca.as_deref().and_then(authorities::fault_of_file)?;
    let problem = file.problem("otlp.ca", fault);
    Some(Finding::tolerable(problem))
}

fn of_camera(file: &ConfigFile, index: usize, camera: &Camera) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finding = |key: &str, fault: String| {
        Finding::of_camera(file.problem(format!("cameras[{index}].{key}"), fault), camera)
    };
    match &camera.source {
        Source::File(source) => {
            findings.extend(fault_of_file(&source.path).map(|fault| finding("source", fault)));
        }
        Source::Rtsp(source) => {
            if let Some(TlsTrust::Authorities(file_of_authorities)) = &source.tls {
                let fault = authorities::fault_of_file(file_of_authorities);
                findings.extend(fault.map(|fault| finding("ca", fault)));
            }
        }
    }
    if let DecodeDevice::Vaapi(node) = &camera.decode_device
        && let Err(error) = Path::new(node).metadata()
    {
        findings.push(finding("decode_device", format!("{node}: {error}")));
    }
    // A pipeline must not read the credentials in the config either.
    let secrets: Vec<_> = file.config.secrets().into_iter().chain([file.path.clone()]).collect();
    for (place, directory) in camera.directories.iter().enumerate() {
        if let Err(error) = directory.open(&secrets) {
            let shared = matches!(error, DirectoryError::Shared { .. });
            let fault = finding(&format!("directories[{place}].host"), error.to_string());
            // The worker's start looks at all secrets but the config file.
            findings.push(Finding { stops_start: shared, ..fault });
        }
    }
    // A registry is asked when the camera starts, and only if what it gave before is not stored.
    if !OciReference::is_meant_by(&camera.pipeline)
        && let Err(error) = find_pipeline(&camera.pipeline, &file.config)
    {
        let missing = finding("pipeline", error.to_string());
        findings.push(Finding { stops_start: true, ..missing });
    }
    findings
}

/// Why a recording cannot be read.
fn fault_of_file(path: &Path) -> Option<String> {
    let shown = path.display();
    let error = match path.metadata() {
        Ok(about) if about.is_file() => access(path, Access::READ_OK).err()?.into(),
        Ok(_) => return Some(format!("{shown} is not a regular file")),
        Err(error) => error,
    };
    Some(match error.kind() {
        io::ErrorKind::NotFound if path.is_relative() => {
            format!("{shown}: no such file; a relative path starts from the working directory")
        }
        io::ErrorKind::NotFound => format!("{shown}: no such file"),
        _ => format!("{shown} cannot be read by this user: {error}"),
    })
}

/// Why the host can make no files in a folder, or cannot make the folder itself.
fn fault_of_folder(folder: &Path) -> Option<String> {
    let shown = folder.display();
    // The first part of the path that is there.
    let mut existing = folder;
    while let Err(error) = existing.metadata() {
        if error.kind() != io::ErrorKind::NotFound {
            return Some(format!("{}: {error}", existing.display()));
        }
        existing = match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    if !existing.is_dir() {
        return Some(format!("{} is a file, not a folder", existing.display()));
    }
    access(existing, Access::WRITE_OK | Access::EXEC_OK).err()?;
    Some(if existing == folder {
        format!("{shown} cannot be written by this user")
    } else {
        format!("{shown} is not there, and this user cannot make it in {}", existing.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<(usize, String, String, bool)> {
        let file = ConfigFile::from_text(Path::new("test.toml"), text, &[]).unwrap();
        let mut findings: Vec<_> = files(&file)
            .into_iter()
            .map(|finding| {
                let shown = finding.shown(&file);
                (shown.line.unwrap_or(0), shown.key, shown.message, finding.stops_start)
            })
            .collect();
        findings.sort();
        findings
    }

    #[test]
    fn everything_that_is_missing_is_told_at_once_with_its_line() {
        let site = tempfile::tempdir().unwrap();
        let at = |name: &str| site.path().join(name).display().to_string();
        std::fs::write(at("file"), "no folder").unwrap();
        std::fs::write(at("ca.pem"), "no certificate").unwrap();
        let text = format!(
            "[server.tls]\ncertificate = {:?}\nkey = {:?}\n[logs]\ndirectory = {:?}\n\
             [store]\ndirectory = {:?}\n[[cameras]]\nid = \"a\"\nsource = \"file:{}\"\n\
             pipeline = \"nowhere\"\n[[cameras]]\nid = \"b\"\nsource = \"rtsps://h/\"\nca = {:?}\n\
             pipeline = {:?}\n[[cameras]]\nid = \"c\"\nsource = \"file:{}\"\npipeline = {:?}\n",
            at("cert.pem"),
            at("key.pem"),
            at("file"),
            at("file/data"),
            at("clip.mp4"),
            at("ca.pem"),
            at("gone.wasm"),
            site.path().display(),
            at("gone.wasm"),
        );
        let found = findings(&text);
        let keys: Vec<_> =
            found.iter().map(|(line, key, _, stops)| (*line, key.as_str(), *stops)).collect();
        assert_eq!(
            keys,
            [
                (1, "server.tls", true),
                (5, "logs.directory", true),
                (7, "store.directory", true),
                (10, "cameras[0].source", false),
                (11, "cameras[0].pipeline", true),
                (15, "cameras[1].ca", false),
                (16, "cameras[1].pipeline", true),
                (19, "cameras[2].source", false),
                (20, "cameras[2].pipeline", true),
            ],
            "{found:#?}"
        );
        let said = |key: &str| &found.iter().find(|one| one.1 == key).unwrap().2;
        assert!(said("server.tls").contains("cert.pem"), "{found:?}");
        assert!(said("logs.directory").contains("is a file, not a folder"), "{found:?}");
        assert!(said("cameras[0].source").contains("no such file"), "{found:?}");
        assert!(said("cameras[2].source").contains("not a regular file"), "{found:?}");
    }

    #[test]
    fn folders_that_the_host_makes_itself_are_no_fault() {
        let site = tempfile::tempdir().unwrap();
        assert_eq!(fault_of_folder(&site.path().join("a/b/c")), None);
        assert_eq!(fault_of_folder(site.path()), None);
        assert_eq!(fault_of_folder(Path::new("made-by-the-host")), None);
    }
}
