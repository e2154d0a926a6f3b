//! The tokens that all hosts of a site know: documents `token/NAME`, of which each host has a copy.
//!
//! A document has the hash of a token, never its text. The copy also lies in a file of the data
//! directory: a host that is started while etcd is away lets in whom it let in before, and does not
//! take the site for one without tokens.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ocelli_cluster::documents::{DocumentMap, Documents, Expect};
use ocelli_cluster::member::CoordError;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::{Role, Token, TokenHash, check_token_name, text};
use crate::event::{rfc3339, unix_ns};
use crate::util::folder::Folder;

/// The folder of tokens among the site's documents.
const FOLDER: &str = "token/";

/// The format of a token's document that this version writes, and the latest that it knows.
const FORMAT: u32 = 1;

/// Most tokens of a site: each request is compared with all of them, and each host reads all.
const MAX_TOKENS: usize = 1000;

/// Most bytes of a token's document, so that all of them fill 16 MB at most: the names of some
/// hundred sessions.
const MAX_BYTES: usize = 16 << 10;

/// Most bytes of the file: what JSON adds to [`MAX_TOKENS`] documents, and some that etcd was given
/// by other means.
const MAX_FILE: u64 = 32 << 20;

/// The copy's name in the data directory.
const FILE: &str = "site-tokens.json";

/// How long a change of this host waits until its own copy has it: far longer than a watch takes.
const KNOWN: Duration = Duration::from_secs(2);

/// A token of the site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteToken {
    pub token: Token,
    /// Who made it.
    pub by: String,
    /// When: RFC 3339 in UTC, with milliseconds.
    pub made: String,
}

impl SiteToken {
    /// Whether a host whose config has these tokens goes by one of them instead: who may write a
    /// host's files decides who gets in there.
    pub fn is_overridden(&self, own: &[Token]) -> bool {
        let same = |it: &Token| it.name == self.token.name || it.hash == self.token.hash;
        own.iter().any(same)
    }
}

/// The tokens of a site, by their names.
pub type SiteTokenList = Arc<Vec<SiteToken>>;

/// The tokens that are in force at a host: those of its config, and those of its site, if it has
/// one, that the config does not override.
pub fn tokens_in_force(own: &[Token], site: Option<&SiteTokenList>) -> Vec<Token> {
    let site = site.into_iter().flat_map(|site| site.iter());
    let added = site.filter(|site| !site.is_overridden(own)).map(|site| &site.token);
    own.iter().chain(added).cloned().collect()
}

/// Why a token of the site is not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum SiteTokenError {
    #[error("the site has a token {0:?} already")]
    Exists(String),
    #[error("the site has {0} tokens, and {MAX_TOKENS} are the most")]
    TooMany(usize),
    #[error("the token has {0} bytes with the names of its sessions, and {MAX_BYTES} are the most")]
    TooLarge(usize),
    #[error(transparent)]
    Site(#[from] CoordError),
}

/// A token as its document has it; the name is the key's. Members that are not known here are left
/// alone.
#[derive(Debug, Serialize, Deserialize)]
struct TokenRecord {
    format: u32,
    #[serde(with = "text")]
    hash: TokenHash,
    role: Role,
    #[serde(default)]
    sessions: Option<Vec<String>>,
    #[serde(default, with = "text::optional")]
    expires: Option<Timestamp>,
    by: String,
    made: String,
}

impl TokenRecord {
    fn new(token: &SiteToken) -> Self {
        let SiteToken { token, by, made } = token.clone();
        let Token { hash, role, sessions, expires, .. } = token;
        Self { format: FORMAT, hash, role, sessions, expires, by, made }
    }

    /// `None` for one of a format to come: what it may do is not known here.
    fn token(self, name: &str) -> Option<SiteToken> {
        let Self { format, hash, role, sessions, expires, by, made } = self;
        let name = check_token_name(name).ok().map(|()| name.to_owned())?;
        let token = Token { name, hash, role, sessions, expires };
        (format <= FORMAT).then_some(SiteToken { token, by, made })
    }
}

/// Reads documents. Whoever has a token that is not understood is not let in.
fn read(documents: &DocumentMap) -> Vec<SiteToken> {
    let token = |(key, document): (&String, &ocelli_cluster::documents::Document)| {
        let name = key.strip_prefix(FOLDER)?;
        let record = serde_json::from_slice::<TokenRecord>(&document.value);
        let token = record.ok().and_then(|record| record.token(name));
        if token.is_none() {
            tracing::warn!(target: "ocelli::cluster", key, "is no token of this version: it is not in force");
        }
        token
    };
    documents.iter().filter_map(token).collect()
}

/// The tokens of a site, and the way to change them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct SiteTokens {
    documents: Documents,
    known: watch::Receiver<SiteTokenList>,
}

impl SiteTokens {
    /// The tokens of the last time, and the task that follows the site's.
    pub(super) fn start(
        documents: Documents,
        site: &str,
        directory: &Path,
    ) -> Result<(Self, TokenFollower), CoordError> {
        let file = TokenFile { directory: directory.into(), site: site.to_owned() };
        let known = file.read().unwrap_or_else(|error| {
            tracing::warn!(target: "ocelli::cluster", "the copy of the site's tokens: {error}");
            Vec::new()
        });
        let (told, known) = watch::channel(Arc::new(known));
        let follower = TokenFollower { documents: documents.watch(FOLDER)?, told, file };
        Ok((Self { documents, known }, follower))
    }

    /// The tokens as they are known here.
    pub(super) fn known(&self) -> watch::Receiver<SiteTokenList> {
        self.known.clone()
    }

    /// Makes a token. It is in force here once this returns, elsewhere as the watch tells it.
    pub(super) async fn make(&self, token: Token, by: String) -> Result<(), SiteTokenError> {
        let (name, hash) = (token.name.clone(), token.hash.clone());
        let made = rfc3339(unix_ns(SystemTime::now()));
        let record = TokenRecord::new(&SiteToken { token, by, made });
        // Strings and numbers: it can be written.
        let value = serde_json::to_vec(&record).unwrap_or_default();
        if value.len() > MAX_BYTES {
            return Err(SiteTokenError::TooLarge(value.len()));
        }
        // Where several hosts make one at the same time, it may be a few more.
        let count = self.documents.list(FOLDER).await?.len();
        if count >= MAX_TOKENS {
            return Err(SiteTokenError::TooMany(count));
        }
        match self.documents.put(&key(&name), &value, Expect::Nothing).await {
            Err(CoordError::Changed { .. }) => return Err(SiteTokenError::Exists(name)),
            put => put?,
        };
        self.wait(|known| known.iter().any(|it| it.token.hash == hash)).await;
        Ok(())
    }

    /// Revokes a token: false where there is none. It is over here once this returns, elsewhere as
    /// the watch tells it.
    pub(super) async fn revoke(&self, name: &str) -> Result<bool, SiteTokenError> {
        let deleted = self.documents.delete(&key(name), Expect::Anything).await?;
        self.wait(|known| known.iter().all(|it| it.token.name != name)).await;
        Ok(deleted)
    }

    /// Waits until the copy is so. It is written already: a copy that is late changes nothing of it.
    async fn wait(&self, so: impl FnMut(&SiteTokenList) -> bool) {
        let mut known = self.known.clone();
        if tokio::time::timeout(KNOWN, known.wait_for(so)).await.is_err() {
            tracing::warn!(target: "ocelli::cluster", "the copy of the site's tokens is late");
        }
    }
}

fn key(name: &str) -> String {
    format!("{FOLDER}{name}")
}

/// Follows the site's tokens.
pub(super) struct TokenFollower {
    documents: watch::Receiver<Option<Arc<DocumentMap>>>,
    told: watch::Sender<SiteTokenList>,
    file: TokenFile,
}

impl TokenFollower {
    /// Until it is dropped. A revocation waits for no disk.
    pub(super) async fn run(self) {
        let Self { documents, told, file } = self;
        tokio::join!(keep(told.subscribe(), file), follow(documents, told));
    }
}

async fn follow(
    mut documents: watch::Receiver<Option<Arc<DocumentMap>>>,
    told: watch::Sender<SiteTokenList>,
) {
    loop {
        if let Some(documents) = documents.borrow_and_update().clone() {
            let tokens = Arc::new(read(&documents));
            told.send_if_modified(|known| {
                let changed = *known != tokens;
                *known = tokens;
                changed
            });
        }
        if documents.changed().await.is_err() {
            return;
        }
    }
}

/// Writes each change into the file.
async fn keep(mut known: watch::Receiver<SiteTokenList>, file: TokenFile) {
    while known.changed().await.is_ok() {
        let (tokens, file) = (Arc::clone(&known.borrow_and_update()), file.clone());
        let written = tokio::task::spawn_blocking(move || file.write(&tokens)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(target: "ocelli::cluster", "the copy of the site's tokens: {error}");
        }
    }
}

/// The copy in the data directory.
#[derive(Debug, Clone)]
struct TokenFile {
    directory: Arc<Path>,
    site: String,
}

/// The text of the file.
#[derive(Serialize, Deserialize)]
struct TokenCopy {
    /// The site that they are of.
    site: String,
    tokens: BTreeMap<String, TokenRecord>,
}

impl TokenFile {
    /// The tokens of the last time; none where there was none, or another site.
    fn read(&self) -> io::Result<Vec<SiteToken>> {
        let mut bytes = Vec::new();
        match Folder::private(&self.directory)?.read(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?.take(MAX_FILE).read_to_end(&mut bytes)?,
        };
        let TokenCopy { site, tokens } = serde_json::from_slice(&bytes)?;
        if site != self.site {
            return Ok(Vec::new());
        }
        Ok(tokens.into_iter().filter_map(|(name, record)| record.token(&name)).collect())
    }

    fn write(&self, tokens: &[SiteToken]) -> io::Result<()> {
        let tokens =
            tokens.iter().map(|it| (it.token.name.clone(), TokenRecord::new(it))).collect();
        let text = serde_json::to_vec(&TokenCopy { site: self.site.clone(), tokens })?;
        let mut draft = Folder::private(&self.directory)?.draft()?;
        draft.file.write_all(&text)?;
        draft.file.sync_all()?;
        draft.persist(FILE)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;
    use ocelli_cluster::documents::{Document, Revision};
    use serde_json::json;

    use super::*;

    fn token(name: &str) -> SiteToken {
        let token = Token {
            name: name.into(),
            hash: TokenHash::of(&format!("secret of {name}")),
            role: Role::Viewer,
            sessions: Some(vec!["gate".into()]),
            expires: Some(Timestamp::UNIX_EPOCH),
        };
        SiteToken { token, by: "ann".into(), made: "2026-11-30T12:00:00.000Z".into() }
    }

    fn documents(all: &[(&str, serde_json::Value)]) -> DocumentMap {
        let document = |(key, value): &(&str, serde_json::Value)| {
            let value = Bytes::from(value.to_string());
            ((*key).to_owned(), Document { value, revision: Revision(7) })
        };
        all.iter().map(document).collect()
    }

    #[test]
    fn a_document_has_the_hash_alone_and_what_later_versions_add_is_tolerated() {
        let mut value = serde_json::to_value(TokenRecord::new(&token("a b/c"))).unwrap();
        assert!(!value.to_string().contains("secret"), "{value}");
        value["later"] = json!({"x": 1});
        assert_eq!(read(&documents(&[("token/a b/c", value)])), [token("a b/c")]);
    }

    #[test]
    fn a_token_that_is_not_understood_is_not_in_force() {
        let good = serde_json::to_value(TokenRecord::new(&token("x"))).unwrap();
        let with = |key: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            changed[key] = value;
            changed
        };
        let all = [
            ("token/format", with("format", json!(FORMAT + 1))),
            ("token/hash", with("hash", json!("secret of x"))),
            ("token/local", good.clone()),
            ("token/odd\u{200b}", good.clone()),
            ("token/role", with("role", json!("owner"))),
            ("token/x", good.clone()),
        ];
        assert_eq!(read(&documents(&all)), [token("x")]);
    }

    #[test]
    fn the_copy_is_of_one_site_and_for_the_host_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = |site: &str| TokenFile { directory: folder.path().into(), site: site.into() };
        assert_eq!(file("hall").read().unwrap(), []);
        file("hall").write(&[token("a"), token("b")]).unwrap();
        file("hall").write(&[token("b")]).unwrap();
        assert_eq!(file("hall").read().unwrap(), [token("b")]);
        assert_eq!(file("yard").read().unwrap(), []);
        let about = std::fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(file("hall").read().is_err());
    }
}
