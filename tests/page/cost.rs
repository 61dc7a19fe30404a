//! What the page costs the browser.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::browser::Browser;
use crate::lab::Lab;

/// Seconds that the browser's main thread worked since it began.
async fn worked(page: &Browser) -> f64 {
    let told = page.devtools("Performance.getMetrics", json!({})).await;
    let metrics = told["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == "TaskDuration").unwrap()["value"].as_f64().unwrap()
}

/// Prints the work of the main thread while 120 terminals image for 20 s, and while nothing happens.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of 50 s; docs/bench.md has its result"]
async fn main_thread() {
    let mut lab = Lab::of(120).await;
    lab.order().await;
    let page = Browser::open(1280, 800).await;
    page.devtools("Performance.enable", json!({})).await;
    page.visit(&lab.url("/")).await;
    page.until("document.querySelectorAll('a.cell').length === 120").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = worked(&page).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let idle = worked(&page).await - before;
    for n in 0..120 {
        lab.begin(n).await;
    }
    for view in ["grid", "list"] {
        page.visit(&lab.url(&format!("/#view={view}"))).await;
        lab.progress(0, 1.0).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, begin) = (worked(&page).await, Instant::now());
        for second in 1..=20u32 {
            for n in 0..120 {
                lab.progress(n, f64::from(second) * 4.0 + 0.1).await;
            }
            tokio::time::sleep_until((begin + Duration::from_secs(second.into())).into()).await;
        }
        let busy = worked(&page).await - before;
        println!("{view}: the main thread works {busy:.2} of 20 s while 120 terminals image");
        assert!(busy <= 2.0, "{view}: {busy}");
    }
    println!("idle: the main thread works {idle:.3} of 20 s while nothing happens");
    drop(page);
    lab.stop().await;
}
