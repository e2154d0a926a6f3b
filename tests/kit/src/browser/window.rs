//! A window: a page, and what a person does with it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::devtools::{DevTools, exception};
use super::keys;
use crate::DEADLINE;

/// Between two looks at a page, which tells nobody when it changes, in milliseconds.
const LOOK_AGAIN_MS: u64 = 50;

/// How much of a page's text is shown when what was waited for does not come.
const SHOWN: usize = 2000;

/// Whether the element is where a click would meet it, and takes it.
const IS_HIT: &str = "function(x, y) {
    const hit = document.elementFromPoint(x, y);
    const met = hit !== null && (this.contains(hit) || hit.contains(this));
    return met && !this.disabled && this.ariaDisabled !== 'true';
}";

/// A window. It stays open until its browser ends or it is closed.
#[derive(Debug)]
pub struct Window {
    devtools: DevTools,
    session: String,
    target: Value,
    faults: Arc<Mutex<Vec<String>>>,
}

impl Window {
    pub(super) async fn new(devtools: DevTools, session: String, target: Value) -> Self {
        let faults = devtools.faults(&session);
        let window = Self { devtools, session, target, faults };
        // Not Network: the browser would tell of every message of a WebSocket, pictures too.
        for domain in ["Page", "Runtime", "Log", "Inspector"] {
            window.call(&format!("{domain}.enable"), json!({})).await;
        }
        window
    }

    /// Goes to a page. Returns when its document is there; [`until`](Self::until) waits for more.
    pub async fn go(&self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url})).await;
        assert_eq!(went["errorText"], Value::Null, "{url}: {went}");
        self.until("document.readyState !== 'loading'").await;
    }

    /// Loads the page anew, as the button does.
    pub async fn reload(&self) {
        self.evaluate("window.__before_reload = true").await;
        self.call("Page.reload", json!({})).await;
        self.until("!window.__before_reload && document.readyState === 'complete'").await;
    }

    /// The value of an expression in the page; promises are waited for.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let value = self.try_evaluate(expression).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    async fn try_evaluate(&self, expression: &str) -> Result<Value, String> {
        let parameters = json!({"expression": expression, "awaitPromise": true,
            "returnByValue": true, "userGesture": true});
        let mut answer = self.devtools.call(&self.session, "Runtime.evaluate", parameters).await?;
        match &answer["exceptionDetails"] {
            Value::Null => Ok(answer["result"]["value"].take()),
            details => Err(exception(details)),
        }
    }

    /// Waits until an expression is true in the page, whatever page that is by then; its value. An
    /// expression that throws is not true yet.
    pub async fn until(&self, expression: &str) -> Value {
        self.until_within(DEADLINE, expression).await
    }

    /// As [`until`](Self::until), for what takes long by itself.
    pub async fn until_within(&self, limit: Duration, expression: &str) -> Value {
        let begun = Instant::now();
        // The page looks by itself: a question for each look would cost more than the look.
        let looks = format!(
            "(async () => {{
                for (const end = Date.now() + 5000; Date.now() < end;) {{
                    const value = await (async () => ({expression}))().catch(() => false);
                    if (value) return value;
                    await new Promise(resolve => setTimeout(resolve, {LOOK_AGAIN_MS}));
                }}
                return false;
            }})()"
        );
        let mut last = Value::Null;
        while begun.elapsed() < limit {
            // It fails where the page goes meanwhile.
            match self.try_evaluate(&looks).await {
                Ok(Value::Bool(false)) => {}
                Ok(value) => return value,
                Err(error) => last = json!(error),
            }
        }
        let now = self.try_evaluate(expression).await;
        panic!("not in time: {expression}\nit is {now:?} ({last}) on {}", self.shown().await)
    }

    /// Waits until the page shows a text.
    pub async fn until_text(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// What the page shows and what went wrong in it, for the message of a test that fails.
    async fn shown(&self) -> String {
        let text = self.try_evaluate("location.href + '\\n' + document.body.innerText").await;
        let text = text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
        let text: String = text.chars().take(SHOWN).collect();
        format!("{text}\nfaults: {:?}", self.faults.lock())
    }

    /// What went wrong in the page so far: exceptions, errors that it logged, what it was refused.
    pub fn faults(&self) -> Vec<String> {
        self.faults.lock().clone()
    }

    /// Clicks on the first element that a selector finds, once it is there and takes clicks.
    pub async fn click(&self, selector: &str) {
        let found = format!("document.querySelector({})", json!(selector));
        self.click_on(selector, || async { self.object(&found).await }).await;
    }

    /// Clicks on the element with this role and this accessible name: what a person who does not
    /// see the page is told of it.
    pub async fn press(&self, role: &str, name: &str) {
        self.click_on(&format!("{role} {name:?}"), || async { self.by_role(role, name).await })
            .await;
    }

    /// Whether there is an element with this role and accessible name.
    pub async fn has(&self, role: &str, name: &str) -> bool {
        self.by_role(role, name).await.is_some()
    }

    async fn click_on<F>(&self, what: &str, find: impl Fn() -> F)
    where
        F: Future<Output = Option<Value>>,
    {
        let (x, y) = self.place_of(what, find).await;
        self.click_at(x, y).await;
    }

    /// Clicks at a place of the window.
    pub async fn click_at(&self, x: f64, y: f64) {
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let (button, held) = if kind == "mouseMoved" { ("none", 0) } else { ("left", 1) };
            let parameters = json!({"type": kind, "x": x, "y": y, "button": button,
                "buttons": held, "clickCount": held});
            self.call("Input.dispatchMouseEvent", parameters).await;
        }
    }

    /// The middle of an element, once a click would meet it there, it takes clicks, and it holds
    /// still: what comes into the page above it moves it.
    async fn place_of<F>(&self, what: &str, find: impl Fn() -> F) -> (f64, f64)
    where
        F: Future<Output = Option<Value>>,
    {
        let begun = Instant::now();
        let mut before = None;
        while begun.elapsed() < DEADLINE {
            let place = match find().await {
                Some(object) => self.hit(&object).await,
                None => None,
            };
            match place {
                Some(place) if before == Some(place) => return place,
                _ => before = place,
            }
            tokio::time::sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
        }
        panic!("{what} is not there, or takes no clicks, on {}", self.shown().await)
    }

    async fn hit(&self, object: &Value) -> Option<(f64, f64)> {
        let node = json!({"objectId": object});
        self.try_call("DOM.scrollIntoViewIfNeeded", node.clone()).await?;
        let quads = self.try_call("DOM.getContentQuads", node).await?;
        let corners: Vec<f64> =
            quads["quads"][0].as_array()?.iter().filter_map(Value::as_f64).collect();
        let middle = |first: usize| {
            corners.iter().skip(first).step_by(2).sum::<f64>() / (corners.len() / 2) as f64
        };
        let (x, y) = (middle(0), middle(1));
        let arguments = json!([{"value": x}, {"value": y}]);
        let parameters = json!({"functionDeclaration": IS_HIT, "objectId": object,
            "arguments": arguments, "returnByValue": true});
        let met = self.try_call("Runtime.callFunctionOn", parameters).await?;
        (met["result"]["value"] == true).then_some((x, y))
    }

    async fn object(&self, expression: &str) -> Option<Value> {
        let found = self.try_call("Runtime.evaluate", json!({"expression": expression})).await?;
        let id = found["result"]["objectId"].clone();
        id.is_string().then_some(id)
    }

    async fn by_role(&self, role: &str, name: &str) -> Option<Value> {
        let document = self.object("document").await?;
        let wanted = json!({"objectId": document, "role": role, "accessibleName": name});
        let found = self.try_call("Accessibility.queryAXTree", wanted).await?;
        let nodes = found["nodes"].as_array()?.iter();
        let node = nodes.filter(|node| node["ignored"] == false).find_map(|node| {
            let id = &node["backendDOMNodeId"];
            id.is_u64().then(|| id.clone())
        })?;
        let resolved = self.try_call("DOM.resolveNode", json!({"backendNodeId": node})).await?;
        Some(resolved["object"]["objectId"].clone())
    }

    /// Strokes a key: its name, a letter or a digit, after modifiers: `Shift+Tab`.
    pub async fn key(&self, stroke: &str) {
        for message in keys::stroke(stroke) {
            self.call("Input.dispatchKeyEvent", message).await;
        }
    }

    /// Types a text into what has the focus.
    pub async fn type_text(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Empties the field that a selector finds, and types a text into it.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.click(selector).await;
        self.evaluate(&format!("document.querySelector({}).select()", json!(selector))).await;
        self.type_text(text).await;
    }

    /// Gives a file to the file field that a selector finds.
    pub async fn choose_file(&self, selector: &str, file: &Path) {
        let found = format!("document.querySelector({})", json!(selector));
        self.until(&format!("{found} !== null")).await;
        let object = self.object(&found).await.expect("the field is there");
        self.call("DOM.setFileInputFiles", json!({"files": [file], "objectId": object})).await;
    }

    /// Makes it a screen of this size, in CSS pixels; `mobile` is one of a phone.
    pub async fn resize(&self, width: u32, height: u32, mobile: bool) {
        let scale = if mobile { 2 } else { 1 };
        let parameters = json!({"width": width, "height": height, "deviceScaleFactor": scale,
            "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", parameters).await;
    }

    /// Sets what the system asks pages for: `("prefers-color-scheme", "dark")`.
    pub async fn prefer(&self, features: &[(&str, &str)]) {
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// A picture of what is in the window: `png` or `webp`.
    pub async fn screenshot(&self, format: &str) -> Vec<u8> {
        let mut parameters = json!({"format": format});
        if format == "webp" {
            parameters["quality"] = json!(80);
        }
        let picture = self.call("Page.captureScreenshot", parameters).await;
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// A PNG of the first element that a selector finds, with all that lies over it: what is seen at
    /// one moment.
    pub async fn seen(&self, selector: &str) -> Vec<u8> {
        let rectangle = format!(
            "(({{x, y, width, height}}) => width > 0 && {{x, y, width, height, scale: 1}})\
             (document.querySelector({})?.getBoundingClientRect())",
            json!(selector)
        );
        let clip = self.until(&rectangle).await;
        let picture =
            self.call("Page.captureScreenshot", json!({"format": "png", "clip": clip})).await;
        BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// Runs a script in every page that the window goes to, before the page's own.
    pub async fn prepare(&self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await;
    }

    /// Bytes that the page's objects take, after those that nothing needs are gone.
    pub async fn heap_bytes(&self) -> f64 {
        self.call("HeapProfiler.collectGarbage", json!({})).await;
        self.call("Runtime.getHeapUsage", json!({})).await["usedSize"].as_f64().unwrap()
    }

    /// Closes the window.
    pub async fn close(self) {
        let closing = json!({"targetId": self.target});
        let closed = self.devtools.call("", "Target.closeTarget", closing).await;
        closed.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        let answer = self.devtools.call(&self.session, method, parameters).await;
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_call(&self, method: &str, parameters: Value) -> Option<Value> {
        self.devtools.call(&self.session, method, parameters).await.ok()
    }
}
