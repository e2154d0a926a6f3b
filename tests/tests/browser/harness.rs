//! The browser under test does what the other tests have it do.

use ocelli_testkit::BrowserPage;
use ocelli_testkit::browser::Browser;

const PAGE: &str = "<!doctype html><title>A page</title>
<meta name=viewport content='width=device-width'>
<style>:root { color-scheme: light dark } body { height: 3000px }</style>
<button id=late disabled>Press</button> <input id=name aria-label=Name> <output id=out></output>
<div id=pad style='position: absolute; top: 2000px; width: 100px; height: 100px'>pad</div>
<script>
  const say = text => { document.querySelector('#out').textContent += text + ';'; };
  setTimeout(() => { document.querySelector('#late').disabled = false; }, 300);
  document.querySelector('#late').addEventListener('click', event => say('click ' + event.isTrusted));
  document.addEventListener('keydown', event => say('key ' + event.key + ' ' + event.shiftKey));
  document.querySelector('#pad').addEventListener('click', () => say('pad'));
  if (location.search === '?throws') setTimeout(() => { throw new Error('on purpose'); });
</script>";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_clicks_types_and_strokes_keys_and_sees_the_page_change() {
    let page = BrowserPage::serve(PAGE.to_owned()).await;
    let browser = Browser::start().await;
    let window = browser.open(&page.origin()).await;
    window.press("button", "Press").await;
    window.until_text("click true;").await;
    window.fill("#name", "gate").await;
    assert_eq!(window.evaluate("document.querySelector('#name').value").await, "gate");
    window.key("Shift+Tab").await;
    window.until_text("key Tab true;").await;
    window.click("#pad").await;
    window.until_text("pad;").await;
    assert!(window.has("textbox", "Name").await && !window.has("button", "Name").await);
    assert_eq!(window.faults(), [""; 0]);

    let dark = "matchMedia('(prefers-color-scheme: dark)').matches";
    window.prefer(&[("prefers-color-scheme", "dark")]).await;
    assert_eq!(window.evaluate(dark).await, true);
    window.resize(360, 640, true).await;
    assert_eq!(window.until("innerWidth === 360 && devicePixelRatio").await, 2);
    let picture = window.screenshot("png").await;
    assert_eq!(picture.get(..4), Some(b"\x89PNG".as_slice()));
    window.reload().await;
    assert_eq!(window.evaluate("document.querySelector('#out').textContent").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_a_page_is_known_and_people_have_cookies_of_their_own() {
    let page = BrowserPage::serve(PAGE.to_owned()).await;
    let browser = Browser::start().await;
    let one = browser.open(&format!("{}/?throws", page.origin())).await;
    let other = browser.open(&page.origin()).await;
    one.evaluate("document.cookie = 'who=one'").await;
    // An exception is told before the answer to what is asked after it.
    one.until("document.cookie.includes('who') && document.readyState === 'complete'").await;
    assert_eq!(other.evaluate("document.cookie").await, "");
    assert_eq!(one.evaluate("new Promise(resolve => setTimeout(() => resolve(7)))").await, 7);
    assert!(one.faults().iter().any(|fault| fault.contains("on purpose")), "{:?}", one.faults());
    assert_eq!(other.faults(), [""; 0]);
    assert!(browser.cpu_seconds().await > 0.0);
    one.close().await;
    assert_eq!(other.evaluate("1 + 1").await, 2);
}
