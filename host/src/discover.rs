//! ONVIF cameras in this machine's networks: who answers WS-Discovery, and which streams each
//! offers.
//!
//! A probe goes out of each of the machine's IPv4 addresses. What answers is a stranger: answers,
//! their size and their number have bounds, XML is read without entities of its own, and a camera
//! is asked further at the address alone that its answer came from.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, stream};
use roxmltree::{Document, Node, ParsingOptions};
use schemars::JsonSchema;
use serde::Serialize;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::util::line::line;

/// Where devices listen for probes (WS-Discovery 1.1, 2.4).
const MULTICAST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 3702);

/// How long answers are awaited: devices wait up to half a second at random before they answer.
const WAIT: Duration = Duration::from_secs(3);

/// How long all cameras that were found may take together. Those that have not answered by then are
/// listed without their streams.
const ALL: Duration = Duration::from_secs(20);

/// How long one request to a camera may take.
const REQUEST: Duration = Duration::from_secs(3);

/// Addresses of this machine that probes go out of.
const MAX_OWN: usize = 16;

/// Cameras in an answer: those of a large site's network.
const MAX_CAMERAS: usize = 256;

/// Cameras that are asked at the same time.
const ASKED: usize = 16;

/// Streams of a camera: main, sub, and some of a camera with several lenses.
const MAX_STREAMS: usize = 8;

/// Bytes of an answer, and nodes of its XML: profiles of a camera with several lenses.
const MAX_ANSWER: usize = 256 << 10;
const MAX_NODES: u32 = 20_000;

/// The beginnings of scopes that say something to a person.
const SCOPE: &str = "onvif://www.onvif.org/";

/// A camera that has answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct DiscoveredCamera {
    /// Where it is.
    pub address: String,
    /// Its own name; null: it says none.
    pub name: Option<String>,
    /// Its model; null: it says none.
    pub hardware: Option<String>,
    /// Its streams, if it tells them.
    pub streams: Vec<DiscoveredStream>,
    /// Why it does not tell its streams; null: it does.
    pub fault: Option<String>,
}

/// A stream of a camera.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct DiscoveredStream {
    /// The camera's name for it.
    pub profile: String,
    /// Its URL, without credentials: the source of a camera of the config.
    pub source: String,
    /// How its pictures are coded, in the camera's words; null: it does not say.
    pub encoding: Option<String>,
    /// Width and height in pixels; null: it does not say.
    pub size: Option<(u32, u32)>,
}

/// User name and password of cameras. Without `Debug`: it holds a secret.
#[derive(Clone)]
pub(crate) struct CameraLogin {
    pub user: String,
    pub password: String,
}

/// Why a camera is not asked, or does not tell.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("it does not answer in time")]
    Late,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it wants a user name and a password, or others")]
    Unauthorized,
    #[error("it answers with HTTP status {0}")]
    Status(String),
    #[error("its answer is not understood")]
    Answer,
    #[error("it names another machine: {0}")]
    Elsewhere(String),
}

/// The cameras that answer, by their addresses.
pub(crate) async fn discover(login: Option<&CameraLogin>) -> io::Result<Vec<DiscoveredCamera>> {
    let text = tokio::fs::read_to_string("/proc/net/fib_trie").await.unwrap_or_default();
    let found = probe(MULTICAST, &own_addresses(&text), WAIT).await?;
    let deadline = Instant::now() + ALL;
    let asked = found.into_values().map(|match_| ask(match_, login, deadline));
    Ok(stream::iter(asked).buffered(ASKED).collect().await)
}

/// This machine's own addresses but those of loopback, by the kernel's table of routes.
fn own_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut own = Vec::new();
    let mut last = None;
    for line in fib_trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if let Some(address) = last.filter(|_| line == "/32 host LOCAL")
            && !address.is_loopback()
            && !own.contains(&address)
        {
            own.push(address);
        }
    }
    own.truncate(MAX_OWN);
    own
}

/// A device's answer to a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ProbeMatch {
    address: IpAddr,
    service: Option<Url>,
    name: Option<String>,
    hardware: Option<String>,
}

/// Sends a probe out of each address, and takes the answers that come in time.
async fn probe(
    to: SocketAddr,
    own: &[Ipv4Addr],
    wait: Duration,
) -> io::Result<BTreeMap<IpAddr, ProbeMatch>> {
    let id = format!("uuid:{:032x}", rand::random::<u128>());
    let message = envelope(
        &format!(
            "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>\
             <a:MessageID>{id}</a:MessageID>\
             <a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>"
        ),
        "<d:Probe><d:Types>n:NetworkVideoTransmitter</d:Types></d:Probe>",
    );
    let mut listening = Vec::new();
    for address in own {
        // An interface that is down, or takes no multicast, is skipped.
        let Ok(socket) = UdpSocket::bind((*address, 0)).await else { continue };
        if socket.send_to(message.as_bytes(), to).await.is_ok() {
            listening.push(socket);
        }
    }
    let deadline = Instant::now() + wait;
    let heard = listening.into_iter().map(|socket| listen(socket, &id, deadline));
    let heard = futures_util::future::join_all(heard).await;
    Ok(heard.into_iter().flatten().take(MAX_CAMERAS).map(|it| (it.address, it)).collect())
}

async fn listen(socket: UdpSocket, id: &str, deadline: Instant) -> Vec<ProbeMatch> {
    let mut found = Vec::new();
    let mut datagram = vec![0; 64 << 10];
    while found.len() < MAX_CAMERAS {
        let Ok(received) = timeout_at(deadline, socket.recv_from(&mut datagram)).await else {
            break;
        };
        let Ok((length, from)) = received else { continue };
        let text = datagram.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        found.extend(text.and_then(|text| probe_match(text, id, from.ip())));
    }
    found
}

fn probe_match(text: &str, id: &str, address: IpAddr) -> Option<ProbeMatch> {
    let document = parse(text)?;
    let root = document.root_element();
    // An answer to somebody else's probe, or none.
    text_of(root, "RelatesTo").filter(|about| about == id)?;
    let found = find(root, "ProbeMatch")?;
    let addresses = text_of(found, "XAddrs").unwrap_or_default();
    let is_here = |url: &Url| host(url) == Some(address);
    let service = addresses.split_whitespace().filter_map(|url| Url::parse(url).ok());
    let scopes = text_of(found, "Scopes").unwrap_or_default();
    let scope = |name: &str| {
        let mut all = scopes.split_whitespace().filter_map(|scope| scope.strip_prefix(SCOPE));
        let value = all.find_map(|scope| scope.strip_prefix(name)?.strip_prefix('/'))?;
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        Some(line(&value)).filter(|value| !value.is_empty())
    };
    Some(ProbeMatch {
        address,
        service: service.into_iter().find(is_here),
        name: scope("name"),
        hardware: scope("hardware"),
    })
}

/// Asks a camera for its streams.
async fn ask(
    found: ProbeMatch,
    login: Option<&CameraLogin>,
    deadline: Instant,
) -> DiscoveredCamera {
    let ProbeMatch { address, service, name, hardware } = found;
    let streams = match service {
        Some(service) => {
            let asked = timeout_at(deadline, streams(&service, address, login)).await;
            asked.unwrap_or(Err(AskError::Late))
        }
        None => Err(AskError::Elsewhere("its service is at no address of its own".to_owned())),
    };
    let (streams, fault) = match streams {
        Ok(streams) => (streams, None),
        Err(error) => (Vec::new(), Some(line(&error.to_string()))),
    };
    DiscoveredCamera { address: address.to_string(), name, hardware, streams, fault }
}

async fn streams(
    service: &Url,
    address: IpAddr,
    login: Option<&CameraLogin>,
) -> Result<Vec<DiscoveredStream>, AskError> {
    let body = "<v:GetCapabilities><v:Category>Media</v:Category></v:GetCapabilities>";
    let answer = request(service, address, login, body).await?;
    let media = {
        let document = parse(&answer).ok_or(AskError::Answer)?;
        let media = find(document.root_element(), "Media").ok_or(AskError::Answer)?;
        let media = text_of(media, "XAddr").and_then(|url| Url::parse(&url).ok());
        media.ok_or(AskError::Answer)?
    };
    let answer = request(&media, address, login, "<m:GetProfiles/>").await?;
    let profiles = profiles(&answer).ok_or(AskError::Answer)?;
    let mut streams = Vec::new();
    for (token, stream) in profiles {
        let token = escaped(&token);
        let body = format!(
            "<m:GetStreamUri><m:StreamSetup><t:Stream>RTP-Unicast</t:Stream><t:Transport>\
             <t:Protocol>RTSP</t:Protocol></t:Transport></m:StreamSetup>\
             <m:ProfileToken>{token}</m:ProfileToken></m:GetStreamUri>"
        );
        let answer = request(&media, address, login, &body).await?;
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

/// Sends a SOAP request to a service of a camera, at the camera's own address alone.
async fn request(
    service: &Url,
    address: IpAddr,
    login: Option<&CameraLogin>,
    body: &str,
) -> Result<String, AskError> {
    if service.scheme() != "http" || host(service) != Some(address) {
        return Err(AskError::Elsewhere(service.host_str().unwrap_or_default().to_owned()));
    }
    let header = login.map(security).unwrap_or_default();
    let message = envelope(&header, body);
    let port = service.port_or_known_default().unwrap_or(80);
    let exchange = async {
        let mut stream = TcpStream::connect((address, port)).await?;
        let (host, path) = (SocketAddr::new(address, port), service.path());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: \
             application/soap+xml; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            message.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(message.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER as u64).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(REQUEST, exchange).await.map_err(|_| AskError::Late)??;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(AskError::Answer)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => {}
        "400" | "401" | "500" if body.contains("NotAuthorized") => {
            return Err(AskError::Unauthorized);
        }
        "401" => return Err(AskError::Unauthorized),
        other => return Err(AskError::Status(line(other))),
    }
    // The XML alone counts: the sizes of chunks stand outside of it, or split it.
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    if chunked { unchunked(body).ok_or(AskError::Answer) } else { Ok(body.to_owned()) }
}

/// The chunks of a body, together.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let (chunk, rest) = rest.split_at_checked(size)?;
        whole.push_str(chunk);
        body = rest.strip_prefix("\r\n")?;
    }
}

/// The header by which a user is known: a digest of the password (WS-Security, UsernameToken
/// Profile 1.0).
fn security(login: &CameraLogin) -> String {
    let nonce: [u8; 16] = rand::random();
    let created = format!("{:.0}", jiff::Timestamp::now());
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

fn envelope(header: &str, body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\" \
         xmlns:n=\"http://www.onvif.org/ver10/network/wsdl\" \
         xmlns:v=\"http://www.onvif.org/ver10/device/wsdl\" \
         xmlns:m=\"http://www.onvif.org/ver10/media/wsdl\" \
         xmlns:t=\"http://www.onvif.org/ver10/schema\">\
         <s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// XML without a document type, and of so many nodes at most.
fn parse(text: &str) -> Option<Document<'_>> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text.trim(), options).ok()
}

/// The first element of a name, whatever its namespace: cameras take liberties there.
fn find<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.descendants().find(|it| it.is_element() && it.tag_name().name() == name)
}

fn text_of(node: Node<'_, '_>, name: &str) -> Option<String> {
    find(node, name)?.text().map(|text| text.trim().to_owned())
}

fn host(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests;
