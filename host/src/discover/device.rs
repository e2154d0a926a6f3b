//! A camera that is asked for its streams, by ONVIF's device and media services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_auth::{PasswordClient, PasswordParams};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha1::{Digest, Sha1};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::{
    CameraLogin, DiscoveredCamera, DiscoveredStream, ProbeMatch, StreamProposal, envelope, escaped,
    find, host, parse, text_of,
};
use crate::util::line::line;

/// How long one request to a camera may take.
const REQUEST: Duration = Duration::from_secs(3);

/// Streams of a camera: main, sub, and some of a camera with several lenses.
const MAX_STREAMS: usize = 8;

/// Bytes of an answer: profiles of a camera with several lenses.
const MAX_ANSWER: usize = 256 << 10;

/// Why a camera is not asked, or does not tell.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("it does not answer in time")]
    Late,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it wants a user name and a password, or others")]
    Unauthorized,
    #[error("it answers with HTTP status {0}")]
    Status(StatusCode),
    #[error("its answer is not understood")]
    Answer,
    #[error("it names another machine: {0}")]
    Elsewhere(String),
}

/// Asks a camera for its streams.
pub(super) async fn ask(
    found: ProbeMatch,
    login: Option<&CameraLogin>,
    deadline: Instant,
) -> DiscoveredCamera {
    let ProbeMatch { address, service, name, hardware } = found;
    let streams = match service {
        Some(service) => {
            let device = Device { address, login, ahead: SignedDuration::ZERO };
            let asked = timeout_at(deadline, device.streams(&service)).await;
            asked.unwrap_or(Err(AskError::Late))
        }
        None => Err(AskError::Elsewhere("its service is at no address of its own".to_owned())),
    };
    let (streams, fault) = match streams {
        Ok(streams) => (streams, None),
        Err(error) => (Vec::new(), Some(line(&error.to_string()))),
    };
    let proposal = StreamProposal::of(&streams, None);
    DiscoveredCamera { address: address.to_string(), name, hardware, streams, proposal, fault }
}

/// A camera, and what it must be told to be believed.
struct Device<'a> {
    address: IpAddr,
    login: Option<&'a CameraLogin>,
    /// By how much its clock is ahead of this machine's: it refuses a digest of another time.
    ahead: SignedDuration,
}

impl Device<'_> {
    async fn streams(mut self, service: &Url) -> Result<Vec<DiscoveredStream>, AskError> {
        if self.login.is_some() {
            self.ahead = self.clock(service).await.unwrap_or_default();
        }
        let body = "<v:GetCapabilities><v:Category>Media</v:Category></v:GetCapabilities>";
        let answer = self.request(service, body).await?;
        let media = {
            let document = parse(&answer).ok_or(AskError::Answer)?;
            let media = find(document.root_element(), "Media").ok_or(AskError::Answer)?;
            let media = text_of(media, "XAddr").and_then(|url| Url::parse(&url).ok());
            media.ok_or(AskError::Answer)?
        };
        let answer = self.request(&media, "<m:GetProfiles/>").await?;
        let profiles = profiles(&answer).ok_or(AskError::Answer)?;
        let mut streams = Vec::new();
        for (token, stream) in profiles {
            let token = escaped(&token);
            let body = format!(
                "<m:GetStreamUri><m:StreamSetup><t:Stream>RTP-Unicast</t:Stream><t:Transport>\
             <t:Protocol>RTSP</t:Protocol></t:Transport></m:StreamSetup>\
             <m:ProfileToken>{token}</m:ProfileToken></m:GetStreamUri>"
            );
            let answer = match self.request(&media, &body).await {
                // A profile that is not set up has no stream; the others have theirs.
                Err(AskError::Status(_)) => continue,
                answer => answer?,
            };
            let uri = parse(&answer).and_then(|document| text_of(document.root_element(), "Uri"));
            // Some cameras put credentials into it.
            let url = uri.and_then(|uri| Url::parse(&uri).ok()).and_then(|mut url| {
                url.set_username("").and_then(|()| url.set_password(None)).ok()?;
                matches!(url.scheme(), "rtsp" | "rtsps").then(|| url.to_string())
            });
            streams.extend(url.map(|source| DiscoveredStream { source: line(&source), ..stream }));
        }
        Ok(streams)
    }

    /// By how much the camera's clock is ahead. Every user may ask for the time.
    async fn clock(&self, service: &Url) -> Option<SignedDuration> {
        let message = envelope("", "<v:GetSystemDateAndTime/>");
        let answer = self.exchange(service, &message, None).await.ok()?;
        let body = text(&answer);
        let document = parse(&body)?;
        let utc = find(document.root_element(), "UTCDateTime")?;
        let number = |name: &str| text_of(utc, name)?.parse::<i8>().ok();
        let year = text_of(utc, "Year")?.parse::<i16>().ok()?;
        let (month, day) = (number("Month")?, number("Day")?);
        let (hour, minute, second) = (number("Hour")?, number("Minute")?, number("Second")?);
        let told = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let told = TimeZone::UTC.to_timestamp(told).ok()?;
        Some(told.duration_since(Timestamp::now()))
    }

    /// Sends a SOAP request to a service of the camera. A user is known by the message's header, or
    /// by HTTP's where the camera asks for that.
    async fn request(&self, service: &Url, body: &str) -> Result<String, AskError> {
        let header = self.login.map(|login| security(login, self.ahead)).unwrap_or_default();
        let mut answer = self.exchange(service, &envelope(&header, body), None).await?;
        if let Some(login) = self.login
            && answer.status() == StatusCode::UNAUTHORIZED
            && let Some(said) = credentials(&answer, login, service.path())
        {
            answer = self.exchange(service, &envelope("", body), Some(said)).await?;
        }
        let status = answer.status();
        let answer = text(&answer);
        match status {
            StatusCode::OK => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(AskError::Unauthorized),
            _ if answer.contains("NotAuthorized") => Err(AskError::Unauthorized),
            other => Err(AskError::Status(other)),
        }
    }

    /// A request on a connection of its own, at the camera's own address alone.
    async fn exchange(
        &self,
        service: &Url,
        message: &str,
        authorization: Option<String>,
    ) -> Result<Response<Bytes>, AskError> {
        if service.scheme() != "http" || host(service) != Some(self.address) {
            return Err(AskError::Elsewhere(service.host_str().unwrap_or_default().to_owned()));
        }
        let place = SocketAddr::new(self.address, service.port_or_known_default().unwrap_or(80));
        let mut request = Request::post(service.path())
            .header(HOST, place.to_string())
            .header(CONTENT_TYPE, "application/soap+xml; charset=utf-8");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Body::from(message.to_owned())).map_err(|_| AskError::Answer)?;
        let exchanged = timeout(REQUEST, async {
            let stream = TcpStream::connect(place).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let answered = async {
                let answer = sender.send_request(request).await?;
                let (head, body) = answer.into_parts();
                let body = to_bytes(Body::new(body), MAX_ANSWER).await;
                Ok(Response::from_parts(head, body.map_err(|_| AskError::Answer)?))
            };
            // What goes wrong before the answer is whole is the answer's error too. What goes wrong
            // after it is none: some cameras send a line break more, or reset the connection.
            let driven = async {
                connection.await.ok();
                std::future::pending().await
            };
            tokio::select! {
                answered = answered => answered,
                never = driven => never,
            }
        });
        exchanged.await.map_err(|_| AskError::Late)?
    }
}

fn text(answer: &Response<Bytes>) -> String {
    String::from_utf8_lossy(answer.body()).into_owned()
}

/// What a user says to the challenge of an answer (RFC 7616).
fn credentials(answer: &Response<Bytes>, login: &CameraLogin, path: &str) -> Option<String> {
    let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
    let challenges: Vec<_> = challenges.iter().filter_map(|value| value.to_str().ok()).collect();
    let mut client = PasswordClient::try_from(challenges.join(", ").as_str()).ok()?;
    // Whoever answers a search may ask for it: the password itself is told to nobody.
    if !matches!(client, PasswordClient::Digest(_)) {
        return None;
    }
    let said = client.respond(&PasswordParams {
        username: &login.user,
        password: &login.password,
        uri: path,
        method: "POST",
        body: None,
    });
    said.ok()
}

/// The header by which a user is known: a digest of the password (WS-Security, UsernameToken
/// Profile 1.0).
fn security(login: &CameraLogin, ahead: SignedDuration) -> String {
    let nonce: [u8; 16] = rand::random();
    let created = format!("{:.0}", Timestamp::now().saturating_add(ahead).unwrap_or_default());
    let digest = Sha1::new().chain_update(nonce).chain_update(&created);
    let digest = BASE64_STANDARD.encode(digest.chain_update(&login.password).finalize());
    let (user, nonce) = (escaped(&login.user), BASE64_STANDARD.encode(nonce));
    let name = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss";
    format!(
        "<w:Security xmlns:w=\"{name}-wssecurity-secext-1.0.xsd\" \
         xmlns:u=\"{name}-wssecurity-utility-1.0.xsd\"><w:UsernameToken>\
         <w:Username>{user}</w:Username><w:Password \
         Type=\"{name}-username-token-profile-1.0#PasswordDigest\">{digest}</w:Password>\
         <w:Nonce>{nonce}</w:Nonce><u:Created>{created}</u:Created></w:UsernameToken></w:Security>"
    )
}

/// The tokens of a camera's profiles, with what they say of their streams.
fn profiles(answer: &str) -> Option<Vec<(String, DiscoveredStream)>> {
    let document = parse(answer)?;
    let nodes = document.descendants().filter(|node| node.tag_name().name() == "Profiles");
    let profiles = nodes.take(MAX_STREAMS).filter_map(|node| {
        let token = node.attribute("token")?.to_owned();
        let encoder = find(node, "VideoEncoderConfiguration");
        let number = |name: &str| text_of(encoder?, name)?.parse::<u32>().ok();
        Some((
            token.clone(),
            DiscoveredStream {
                profile: line(&text_of(node, "Name").unwrap_or(token)),
                source: String::new(),
                encoding: encoder.and_then(|it| text_of(it, "Encoding")).map(|it| line(&it)),
                size: number("Width").zip(number("Height")),
            },
        ))
    });
    Some(profiles.collect())
}
