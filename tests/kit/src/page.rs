//! A web site of one page, for a browser under test: it serves the page and hears what the page
//! reports.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::DEADLINE;

/// The site; gone when dropped.
#[derive(Debug)]
pub struct BrowserPage {
    address: SocketAddr,
    reports: mpsc::UnboundedReceiver<Value>,
    serving: JoinHandle<()>,
}

impl BrowserPage {
    /// Serves a page at `/`, whatever the query, and takes what is posted to `/report`, which is
    /// JSON.
    pub async fn serve(page: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(answer(connection, page.clone(), sender.clone()));
            }
        });
        Self { address, reports, serving }
    }

    /// Its origin.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next report.
    pub async fn report(&mut self) -> Value {
        let report = timeout(DEADLINE, self.reports.recv()).await;
        report.expect("the page reports in time").expect("the site is there")
    }
}

impl Drop for BrowserPage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request. Browsers send the length of what they post.
async fn answer(
    mut connection: TcpStream,
    page: String,
    reports: mpsc::UnboundedSender<Value>,
) -> Option<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        connection.read_buf(&mut request).await.ok().filter(|count| *count > 0)?;
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let (status, text) = if head.starts_with("POST /report ") {
        reports.send(serde_json::from_str(&body).unwrap()).ok()?;
        ("204 No Content", String::new())
    } else if head.starts_with("GET / ") || head.starts_with("GET /?") {
        ("200 OK", page)
    } else {
        ("404 Not Found", String::new())
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}", text.len());
    connection.write_all(format!("{head}\r\nConnection: close\r\n\r\n{text}").as_bytes()).await.ok()
}
