//! Requests to a running host.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use ocelli_client::{Client, Error, Problem, Request};
use serde_json::Value;

use super::suggest::suggestion;
use super::table::printable;

/// Where the host listens unless its config says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8001";

/// The variable with the token.
const TOKEN: &str = "OCELLI_TOKEN";

/// The names in a request: a refusal may say that one of them does not exist.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked<'a> {
    session: Option<&'a str>,
    pipeline: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub(super) fn nothing() -> Self {
        Self::default()
    }

    pub(super) fn session(session: &'a str) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    pub(super) fn pipeline(self, pipeline: &'a str) -> Self {
        Self { pipeline: Some(pipeline), ..self }
    }

    /// What to do after a refusal with this code; empty where its own words say all.
    pub(super) async fn suggestion(self, client: &Client, code: &str) -> String {
        let (name, list, key, command) = match (code, self) {
            ("unknown_session", Self { session: Some(session), .. }) => {
                (session, "sessions", "id", "sessions")
            }
            ("unknown_pipeline", Self { pipeline: Some(pipeline), .. }) => {
                (pipeline, "pipelines", "name", "pipelines")
            }
            ("not_running", Self { session: Some(session), .. }) => {
                return format!("; `ocelli logs {}` says why", printable(session));
            }
            ("no_queries", _) => return "; `ocelli command` may do".to_owned(),
            _ => return String::new(),
        };
        // What there is instead is a help, and nothing is lost without it.
        let Ok(mut answer) = client.ask(&Request::get(&[list])).await else { return String::new() };
        let found = answer.get_mut(list).map(Value::take).unwrap_or_default();
        let found = found.as_array().into_iter().flatten().filter_map(|one| one.get(key)?.as_str());
        let names: Vec<String> = found.map(str::to_owned).collect();
        match suggestion(name, &names) {
            said if said.is_empty() => format!("; `ocelli {command}` lists them"),
            said => said,
        }
    }
}

/// The host of a request, and the form of the answer.
#[derive(Args)]
pub(super) struct HostArgs {
    /// Where the host is.
    #[arg(long, value_name = "URL", env = "OCELLI_URL", default_value = DEFAULT_URL)]
    pub(super) url: String,
    /// The file with the token. Left out: the variable OCELLI_TOKEN, if it is there.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate, in PEM, of those who vouch for an https:// host. Left out: the well-known
    /// ones.
    #[arg(long, value_name = "FILE", env = "OCELLI_CA")]
    ca: Option<PathBuf>,
    /// Print the host's own JSON, for programs.
    #[arg(long)]
    pub(super) json: bool,
}

impl HostArgs {
    #[cfg(test)]
    pub(super) fn for_url(url: &str) -> Self {
        Self { url: url.into(), token_file: None, ca: None, json: false }
    }

    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let name = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let mut client = Client::new(&self.url)?.with_user_agent(name)?;
        if let Some(token) = self.token()? {
            client = client.with_token(&token)?;
        }
        if let Some(file) = &self.ca {
            let pem = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            client = client
                .with_certificates(&pem)
                .map_err(|_| anyhow!("{} holds no certificate in PEM", file.display()))?;
        }
        Ok(client)
    }

    /// The token. It is no argument: other users of the machine see those.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let token = match &self.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .with_context(|| format!("reading {}", file.display()))?,
            ),
            None => std::env::var(TOKEN).ok(),
        };
        Ok(token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()))
    }

    /// Asks for a deployment and follows it: each step that takes longer than a second is told on
    /// standard error. `to_end`: to the end of its probation, else until it is active.
    pub(super) fn follow_deployment(
        &self,
        session: &str,
        request: &Request<'_>,
        to_end: bool,
    ) -> anyhow::Result<Result<Value, Problem>> {
        let client = self.client()?;
        match block_on(followed_deployment(&client, session, request, to_end))? {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => self.refused(error).map(Err),
        }
    }

    /// The host's answer. Its refusal is an error that says what to do; with `--json` standard
    /// output has it, too.
    pub(super) fn answer(&self, request: &Request<'_>, asked: Asked<'_>) -> anyhow::Result<Value> {
        let client = self.client()?;
        match block_on(client.ask(request))? {
            Ok(answer) => Ok(answer),
            Err(error) => Err(block_on(self.explained(&client, error, asked))?),
        }
    }

    /// Why a request failed, with what to do.
    pub(super) async fn explained(
        &self,
        client: &Client,
        error: Error,
        asked: Asked<'_>,
    ) -> anyhow::Error {
        let problem = match self.refused(error) {
            Ok(problem) => problem,
            Err(error) => return error,
        };
        self.print_refusal(&problem);
        let detail = if problem.detail.is_empty() {
            format!("{} answers {}", self.url, status(&problem))
        } else {
            printable(&problem.detail)
        };
        anyhow!("{detail}{}", asked.suggestion(client, &problem.code).await)
    }

    /// What to do after a refusal; empty without one.
    pub(super) fn suggestion(&self, asked: Asked<'_>, answer: &Result<Value, Problem>) -> String {
        let (Err(problem), Ok(client)) = (answer, self.client()) else { return String::new() };
        block_on(asked.suggestion(&client, &problem.code)).unwrap_or_default()
    }

    /// With `--json`, the refusal is the answer.
    fn print_refusal(&self, problem: &Problem) {
        if let (true, Ok(text)) = (self.json, serde_json::to_string(problem)) {
            println!("{text}");
        }
    }

    /// The host's refusal. An error if the host is not reached, or does not know the token.
    pub(super) fn refused(&self, error: Error) -> anyhow::Result<Problem> {
        let url = &self.url;
        match error {
            Error::Problem(problem) if problem.status == 401 => bail!(
                "{url}: {}. {TOKEN} or --token-file says which; `ocelli token new` makes one",
                printable(&problem.detail)
            ),
            Error::Problem(problem) if problem.status == 403 && problem.code == "forbidden" => {
                let detail = printable(&problem.detail);
                bail!("{url}: {detail}: use another token ({TOKEN} or --token-file)")
            }
            Error::Problem(problem) => Ok(*problem),
            Error::InvalidAnswer(why) => {
                bail!("{url} does not answer as an Ocelli host does: {why}")
            }
            error => Err(anyhow!(error).context(format!(
                "cannot reach {url}; does `ocelli serve` run there? OCELLI_URL names another \
                    address"
            ))),
        }
    }

    /// Tells what was done; with `--json` the answer says it.
    pub(super) fn told(&self, answer: &Value, line: &str) {
        if self.json {
            println!("{answer}");
        } else {
            println!("{line}");
        }
    }

    /// Asks for a list, which is the member `key` of the answer. With `--json` it prints the answer
    /// and returns `None`.
    pub(super) fn list(
        &self,
        request: &Request<'_>,
        key: &str,
        asked: Asked<'_>,
    ) -> anyhow::Result<Option<Vec<Value>>> {
        let mut body = self.answer(request, asked)?;
        if self.json {
            println!("{body}");
            return Ok(None);
        }
        match body.get_mut(key).map(Value::take) {
            Some(Value::Array(list)) => Ok(Some(list)),
            _ => bail!("{} does not answer as an Ocelli host does", self.url),
        }
    }
}

/// Between two looks at a deployment that is under way.
const LOOK: Duration = Duration::from_secs(1);

/// Deployments that are looked at: those that wait for one session, and the one under way.
const LOOKED_AT: u32 = 10;

/// Asks for a deployment, tells its steps and returns its record; see
/// [`HostArgs::follow_deployment`].
pub(super) async fn followed_deployment(
    client: &Client,
    session: &str,
    request: &Request<'_>,
    to_end: bool,
) -> Result<Value, Error> {
    let mut progress = DeployProgress::new(client, session);
    let mut answer = {
        let asked = client.ask(request);
        tokio::pin!(asked);
        loop {
            tokio::select! {
                answer = &mut asked => break answer?,
                () = tokio::time::sleep(LOOK) => progress.tell().await,
            }
        }
    };
    let on_probation =
        |record: &Value| record.get("state").is_some_and(|state| state == "probation");
    while to_end && on_probation(&answer) {
        tokio::time::sleep(LOOK).await;
        let number = answer.get("number").and_then(Value::as_u64);
        // Absent: many deployments have followed, and superseded it.
        let Some(record) = progress.record(number).await? else { break };
        answer = record;
    }
    Ok(answer)
}

/// What was told of a deployment that is under way.
struct DeployProgress<'a> {
    client: &'a Client,
    session: &'a str,
    told: String,
}

impl<'a> DeployProgress<'a> {
    fn new(client: &'a Client, session: &'a str) -> Self {
        Self { client, session, told: String::new() }
    }

    /// Tells the step, unless it was told before. A host that does not answer is left to the
    /// request itself.
    async fn tell(&mut self) {
        let Ok(list) = self.list().await else { return };
        let Some(record) = list.iter().find(|record| record["state"] == "pending") else { return };
        let step = record["step"].as_str().unwrap_or_default();
        let line = format!("deployment {}: {}", record["number"], printable(step));
        if line != self.told {
            eprintln!("ocelli: {line}");
            self.told = line;
        }
    }

    /// The deployment as it is now.
    async fn record(&self, number: Option<u64>) -> Result<Option<Value>, Error> {
        let list = self.list().await?;
        Ok(list.into_iter().find(|record| record["number"].as_u64() == number))
    }

    async fn list(&self) -> Result<Vec<Value>, Error> {
        let request = Request::deployments(self.session, LOOKED_AT);
        match self.client.ask(&request).await?.get_mut("deployments").map(Value::take) {
            Some(Value::Array(list)) => Ok(list),
            _ => Ok(Vec::new()),
        }
    }
}

/// Runs a request on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("starting the runtime")?.block_on(future))
}

/// The HTTP status in digits and words.
pub(super) fn status(problem: &Problem) -> String {
    format!("{} {}", problem.status, printable(&problem.title))
}
