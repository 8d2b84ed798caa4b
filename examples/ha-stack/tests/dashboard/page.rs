//! The dashboard as a person meets it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::browser::Browser;
use crate::scripted::{self, serve};
use crate::up::Up;

const TOKEN: &str = "0123456789abcdef0123";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
#[ignore = "needs chromium: ./test.sh runs it"]
async fn a_lost_host_is_shown_with_the_reason_and_its_recovery() {
    let (told, address) = serve(scripted::well()).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{address}/"), 1280, "light").await;
    browser.wait_for("#verdict", "All is well").await;
    browser.wait_for("#verdict", "3 of 3 hosts up, 3 of 3 replicas in use").await;

    told.tell(Ok(scripted::without_h2(now())));
    browser.wait_for("[data-key=h2]", "no power").await;
    browser.wait_for("[data-key=h2]", "2 failed probes in a row · tried again in 3.4 s").await;
    browser.wait_for("#endpoints", "2 failed probes in a row, for 1.2 s, tried again in 3.4 s").await;
    browser.wait_for("#gateways", "silent").await;
    browser.wait_for("#timeline", "host h2 has no power or no network").await;
    browser.wait_for("#timeline", "ejected until a probe passes").await;
    browser.wait_for("#decisions", "2 → 3").await;
    browser.wait_for("#curve", "2→3").await;
    assert_eq!(browser.count("#curve .outage").await, 1);
    assert!(browser.run("return document.title", vec![]).await.as_str().unwrap().starts_with('⚠'));

    told.tell(Ok(scripted::well()));
    browser.wait_for("#verdict", "All is well").await;
    browser.wait_for("#timeline", "host h2 is well again, after about").await;
    // The band ends, and stays on the curve.
    assert_eq!(browser.count("#curve .outage").await, 1);

    told.tell(Err("no manager of the Swarm answers".into()));
    browser.wait_for("#verdict", "no manager of the Swarm answers").await;
    browser.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium: ./test.sh runs it"]
async fn no_width_scrolls_sideways_and_no_other_host_is_asked() {
    let (_told, address) = serve(scripted::without_h2(now())).await;
    let browser = Browser::start().await;
    browser.listen().await;
    for (width, scheme) in
        [(320, "light"), (360, "dark"), (360, "light"), (768, "dark"), (1280, "light"), (1280, "dark")]
    {
        browser.open(&format!("http://{address}/"), width, scheme).await;
        browser.wait_for("#endpoints", "2 failed probes").await;
        let wide = "const root = document.documentElement; return [root.scrollWidth, innerWidth]";
        let seen = browser.run(wide, vec![]).await;
        assert_eq!(seen, json!([width, width]), "in {scheme}");
        let dark = browser.run("return getComputedStyle(document.body).backgroundColor", vec![]).await;
        assert_eq!(dark == json!("rgb(13, 16, 21)"), scheme == "dark", "{dark} in {scheme}");
        let asked = "return performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.startsWith(origin))";
        assert_eq!(browser.run(asked, vec![]).await, json!([]));
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.picture(&format!("{width}-{scheme}")).await;
    }
    browser.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium: ./test.sh runs it"]
async fn the_curve_reads_single_moments_with_keys() {
    let (_told, address) = serve(scripted::without_h2(now())).await;
    let browser = Browser::start().await;
    browser.open(&format!("http://{address}/"), 1280, "light").await;
    browser.wait_for("#curve", "2→3").await;
    browser.run("document.querySelector('#curve svg').focus()", vec![]).await;
    browser.tab.active_element().await.unwrap().send_keys(thirtyfour::Key::Left + "").await.unwrap();
    browser.wait_for(".tip", "2 of 3 replicas in use").await;
    browser.click("[data-metric=latency]").await;
    browser.wait_for("#legend", "p99").await;
    browser.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium: ./test.sh runs it"]
async fn without_a_token_the_page_offers_no_change() {
    let up = Up::start(&[], None);
    let browser = Browser::start().await;
    browser.open(&up.url(), 1280, "light").await;
    browser.wait_for("#verdict", "2 of 2 replicas in use").await;
    assert_eq!(browser.count("[data-action]").await, 0);
    browser.click("#lock").await;
    browser.wait_for("#dialog", "Started without a token").await;
    assert_eq!(browser.count("#dialog input").await, 0);
    browser.stop().await;
}

#[tokio::test]
#[ignore = "needs chromium: ./test.sh runs it"]
async fn with_the_token_a_person_scales_pauses_and_drains() {
    let up = Up::start(&["--calm", "2"], Some(TOKEN));
    let browser = Browser::start().await;
    browser.listen().await;
    browser.open(&up.url(), 1280, "light").await;
    browser.wait_for("#verdict", "2 of 2 replicas in use").await;
    assert_eq!(browser.count("[data-action]").await, 0);

    browser.click("#lock").await;
    browser.fill("#dialog input", "not the token at all").await;
    browser.click("#dialog .solid").await;
    browser.wait_for("#dialog", "That is not the token.").await;
    browser.fill("#dialog input", TOKEN).await;
    browser.click("#dialog .solid").await;
    browser.wait_for("#lock", "Unlocked").await;

    browser.click("[data-action=more]").await;
    browser.click("[data-action=scale]").await;
    browser.wait_for("#toast", "3 replicas asked for").await;
    browser.wait_for("#verdict", "3 of 3 replicas in use").await;
    browser.wait_for("#verdict", "Scaler paused: scaled by hand").await;

    // Nothing asks for three: the scaler takes one away as soon as it may.
    browser.click("[data-action=resume]").await;
    browser.wait_for("#verdict", "2 of 2 replicas in use").await;
    browser.click("[data-action=pause]").await;
    browser.wait_for("#verdict", "Scaler paused").await;

    browser.click("[data-key=h1] [data-action=drain]").await;
    browser.wait_for("#dialog", "Drain h1?").await;
    browser.click("#dialog .solid").await;
    browser.wait_for("[data-key=h1]", "drained").await;
    browser.wait_for("[data-key=h1]", "no replica here").await;
    browser.wait_for("#verdict", "2 of 2 replicas in use").await;
    browser.click("[data-key=h1] [data-action=drain]").await;
    browser.wait_for("#toast", "h1 is in use again").await;
    browser.wait_for("[data-key=h1] header", "up").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());

    // The stack ends: the page says that it knows nothing new.
    drop(up);
    browser.wait_for("#live", "reconnecting").await;
    browser.stop().await;
}
