//! The author's login to a registry: two variables, or what `docker login` or `podman login` has
//! stored. Passwords are no arguments: other users of the machine see those.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::registry::RegistryUser;

/// The variables with the user's name and the password, or an access token.
pub(super) const USER: &str = "OCELLI_REGISTRY_USER";
pub(super) const PASSWORD: &str = "OCELLI_REGISTRY_PASSWORD";

/// The name under which logins to Docker Hub are stored, and its registry's.
const HUB: (&str, &str) = ("index.docker.io", "docker.io");

/// What is known of a login.
#[derive(Default)]
pub(super) struct RegistryLogin {
    pub(super) login: Option<RegistryUser>,
    /// A program that would have it, and is not asked.
    pub(super) helper: Option<String>,
}

/// The file of stored logins, as containers-auth.json(5) has it and Docker its config.json.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stored {
    auths: BTreeMap<String, StoredLogin>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StoredLogin {
    /// `USER:PASSWORD` in Base64.
    auth: String,
}

/// Looks for a login.
pub(super) fn find(registry: &str) -> anyhow::Result<RegistryLogin> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (variable(USER), variable(PASSWORD)) {
        (Some(user), Some(password)) => {
            return Ok(RegistryLogin {
                login: Some(RegistryUser { user, password }),
                helper: None,
            });
        }
        (None, None) => {}
        _ => bail!("{USER} and {PASSWORD}: one is set, the other is not"),
    }
    let home = |below: &str| std::env::home_dir().map(|home| home.join(below));
    let below = |name: &str, file: &str| variable(name).map(|folder| Path::new(&folder).join(file));
    let places = [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        below("DOCKER_CONFIG", "config.json").or_else(|| home(".docker/config.json")),
        below("XDG_RUNTIME_DIR", "containers/auth.json"),
    ];
    let mut found = RegistryLogin::default();
    for place in places.into_iter().flatten().filter(|place| place.is_file()) {
        let text = std::fs::read_to_string(&place).with_context(|| place.display().to_string())?;
        let stored = stored(&text, registry).with_context(|| place.display().to_string())?;
        if stored.login.is_some() {
            return Ok(stored);
        }
        found.helper = found.helper.or(stored.helper);
    }
    Ok(found)
}

/// What a file of logins has of a registry.
fn stored(text: &str, registry: &str) -> anyhow::Result<RegistryLogin> {
    let stored: Stored = serde_json::from_str(text).context("no file of logins")?;
    let is_it = |key: &str| {
        let host = key.split_once("://").map_or(key, |(_, host)| host);
        let host = host.split('/').next().unwrap_or_default();
        host == registry || (host == HUB.0 && registry == HUB.1)
    };
    let auth = stored.auths.iter().find(|(key, login)| is_it(key) && !login.auth.is_empty());
    let helper = stored.cred_helpers.iter().find(|(key, _)| is_it(key));
    let helper = helper.map(|(_, helper)| helper.clone()).or(stored.creds_store);
    let Some((_, StoredLogin { auth })) = auth else {
        return Ok(RegistryLogin { login: None, helper });
    };
    let plain = BASE64_STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let plain = plain.as_deref().and_then(|plain| plain.split_once(':'));
    // What is there may be the password, and is not repeated.
    let (user, password) = plain.context("its login is not USER:PASSWORD in Base64")?;
    let login = RegistryUser { user: user.to_owned(), password: password.to_owned() };
    Ok(RegistryLogin { login: Some(login), helper: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read_as_docker_stores_them() {
        let text = r#"{"auths": {"https://registry.example": {"auth": "YW5uOmE6Yg=="},
            "https://index.docker.io/v1/": {"auth": "Ym9iOmM="}, "helped.example": {}},
            "credHelpers": {"helped.example": "pass"}, "detachKeys": "x"}"#;
        let login = |registry: &str| {
            let found = stored(text, registry).unwrap();
            (found.login.map(|login| (login.user, login.password)), found.helper)
        };
        assert_eq!(login("registry.example"), (Some(("ann".into(), "a:b".into())), None));
        assert_eq!(login("docker.io"), (Some(("bob".into(), "c".into())), None));
        assert_eq!(login("helped.example"), (None, Some("pass".into())));
        assert_eq!(login("registry.example:5000"), (None, None));
        assert_eq!(
            stored("{\"credsStore\": \"desktop\"}", "a").unwrap().helper.unwrap(),
            "desktop"
        );
    }

    #[test]
    fn a_login_that_is_none_is_not_repeated() {
        let error = stored(r#"{"auths": {"a": {"auth": "aHVudGVyMg=="}}}"#, "a").err().unwrap();
        assert!(!format!("{error:#}").contains("aHVudGVy"), "{error:#}");
        assert!(stored("hunter2", "a").is_err());
    }
}
