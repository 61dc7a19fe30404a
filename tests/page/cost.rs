//! What the page costs the browser.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::browser::Browser;
use crate::lab::Lab;

/// Processor seconds of the browser's main thread since it began, however busy the machine is.
async fn worked(page: &Browser) -> f64 {
    let told = page.devtools("Performance.getMetrics", json!({})).await;
    let metrics = told["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == "TaskDuration").unwrap()["value"].as_f64().unwrap()
}

/// Prints the work of the main thread while terminals image for 20 s (120, or `TERMINALS`) with 4 % in each
/// second (or `PERCENT`), and while nothing happens.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of 50 s; docs/bench.md has its result"]
async fn main_thread() {
    let count = std::env::var("TERMINALS").map_or(120, |text| text.parse().unwrap());
    let percent = std::env::var("PERCENT").map_or(4.0, |text| text.parse().unwrap());
    let mut lab = Lab::of(count).await;
    lab.order().await;
    let page = Browser::open(1280, 800).await;
    page.devtools("Performance.enable", json!({ "timeDomain": "threadTicks" })).await;
    let begin = Instant::now();
    page.visit(&lab.url("/")).await;
    page.until(&format!("document.querySelectorAll('a.cell').length === {count}")).await;
    let (shown, first) = (begin.elapsed(), worked(&page).await);
    let height = page.run("return document.documentElement.scrollHeight").await;
    println!("{count} cells after {shown:?} and {first:.2} s of the main thread, {height} pixels tall");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = worked(&page).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let idle = worked(&page).await - before;
    for n in 0..count {
        lab.begin(n).await;
    }
    for view in ["grid", "list"] {
        page.visit(&lab.url(&format!("/#view={view}"))).await;
        lab.progress(0, 1.0).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, begin) = (worked(&page).await, Instant::now());
        let mut reports = 0;
        for second in 1..=20u32 {
            let next = begin + Duration::from_secs(second.into());
            // Of many terminals, those that can within a second.
            for n in (0..count).cycle().skip(reports % count).take(count) {
                if Instant::now() >= next {
                    break;
                }
                lab.progress(n, f64::from(second) * percent + 0.1).await;
                reports += 1;
            }
            tokio::time::sleep_until(next.into()).await;
        }
        let busy = worked(&page).await - before;
        println!("{view}: the main thread works {busy:.2} of 20 s, with {reports} reports");
        assert!(busy <= 2.0 || count > 120, "{view}: {busy}");
    }
    println!("idle: the main thread works {idle:.3} of 20 s while nothing happens");
    drop(page);
    lab.stop().await;
}
