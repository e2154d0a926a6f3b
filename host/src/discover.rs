//! ONVIF cameras in this machine's networks: who answers WS-Discovery, and which streams each
//! offers.
//!
//! A probe goes out of each of the machine's IPv4 addresses. What answers is a stranger: answers,
//! their size and their number have bounds, XML is read without entities of its own, and a camera
//! is asked further at the address alone that its answer came from.

mod device;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use roxmltree::{Document, Node, ParsingOptions};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::util::line::line;

/// Where devices listen for probes (WS-Discovery 1.1, 2.4).
const MULTICAST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 3702);

/// How long answers are awaited: devices wait up to half a second at random before they answer.
const WAIT: Duration = Duration::from_secs(3);

/// How long all cameras that were found may take together. Those that have not answered by then are
/// listed without their streams.
const ALL: Duration = Duration::from_secs(20);

/// Addresses of this machine that probes go out of.
const MAX_OWN: usize = 16;

/// Cameras in an answer: those of a large site's network.
const MAX_CAMERAS: usize = 256;

/// Cameras that are asked at the same time.
const ASKED: usize = 16;

/// Nodes of an answer's XML: profiles of a camera with several lenses.
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
    /// The keys `source` and `substream` of a camera of the config; null: there are no two streams
    /// of which one is much smaller.
    pub proposal: Option<StreamProposal>,
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

/// Two streams of a camera: one for viewers and a smaller one to analyse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct StreamProposal {
    /// The URL of the largest stream, without credentials.
    pub source: String,
    /// The URL of the smaller one.
    pub substream: String,
}

/// Width in pixels down to which a stream is rather analysed than a larger one: models take
/// pictures of 320 to 640.
const ENOUGH: u32 = 640;

impl StreamProposal {
    /// Of streams of one camera. The larger has to be `viewed`, where that is known.
    pub(crate) fn of(streams: &[DiscoveredStream], viewed: Option<&str>) -> Option<Self> {
        let pixels = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
        let sized = || streams.iter().filter_map(|stream| Some((stream, stream.size?)));
        let (main, size) = match viewed {
            Some(viewed) => sized().find(|(stream, _)| stream.source == viewed)?,
            None => sized().max_by_key(|(_, size)| pixels(*size))?,
        };
        // A stream that is hardly smaller saves nothing.
        let smaller = sized().filter(|(_, other)| pixels(*other) * 2 <= pixels(size));
        let (substream, _) = smaller.min_by_key(|(_, (width, height))| {
            let is_enough = *width >= ENOUGH;
            // The smallest that is enough, or the largest that is not.
            let pixels = pixels((*width, *height));
            (!is_enough, if is_enough { pixels } else { u64::MAX - pixels })
        })?;
        Some(Self { source: main.source.clone(), substream: substream.source.clone() })
    }
}

/// The two streams that a camera offers which is known by one: asked by ONVIF, at the address that
/// its name has, where the standard puts the service (ONVIF Core, 5.1.1).
pub(crate) async fn propose(
    viewed: &Url,
    address: IpAddr,
    login: Option<&CameraLogin>,
) -> Option<StreamProposal> {
    let place = SocketAddr::new(address, 80);
    let service = Url::parse(&format!("http://{place}/onvif/device_service")).ok()?;
    let found = ProbeMatch { address, service: Some(service), name: None, hardware: None };
    let camera = device::ask(found, login, Instant::now() + WAIT).await;
    // The camera has a host of its own in its URLs, and often other options behind them.
    let is_viewed = |source: &&DiscoveredStream| {
        Url::parse(&source.source).is_ok_and(|url| {
            url.path() == viewed.path()
                && (url.query() == viewed.query() || viewed.query().is_none())
        })
    };
    let viewed = camera.streams.iter().find(is_viewed)?.source.clone();
    StreamProposal::of(&camera.streams, Some(&viewed))
}

/// User name and password of cameras. Without `Debug`: it holds a secret.
#[derive(Clone)]
pub(crate) struct CameraLogin {
    pub user: String,
    pub password: String,
}

/// The cameras that answer, by their addresses.
pub(crate) async fn discover(login: Option<&CameraLogin>) -> io::Result<Vec<DiscoveredCamera>> {
    let text = tokio::fs::read_to_string("/proc/net/fib_trie").await.unwrap_or_default();
    let found = probe(MULTICAST, &own_addresses(&text), WAIT).await?;
    let deadline = Instant::now() + ALL;
    let asked = found.into_values().map(|found| device::ask(found, login, deadline));
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
