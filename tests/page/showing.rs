//! What the page shows.

use crate::browser::Browser;
use crate::lab::{Lab, mac};

/// 120 terminals of three rooms: two failed, one is done, the others image; and one that nobody registered.
async fn morning() -> Lab {
    let mut lab = Lab::of(120).await;
    lab.order().await;
    for n in 0..120 {
        lab.begin(n).await;
        lab.progress(n, 42.0).await;
    }
    for n in [17, 64] {
        lab.fail(n).await;
    }
    lab.finish(3).await;
    lab.hello("aa:bb:cc:00:00:01").await;
    lab
}

#[tokio::test]
async fn a_room_is_a_grid_by_seat_and_what_needs_a_person_comes_first() {
    let lab = morning().await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/")).await;
    page.until("document.querySelectorAll('a.cell').length === 121").await;
    let rooms = page.run("return [...document.querySelectorAll('.room h3')].map(h => h.textContent)").await;
    assert_eq!(rooms.to_string(), r#"["room 101 40","room 102 40","room 103 40","without a room 1"]"#);
    // Terminal 17 sits at B8: row 2, column 8.
    let cell = format!("document.querySelector('a.cell[data-id=\"{}\"]')", mac(17));
    let place = format!("getComputedStyle({cell}.parentNode)");
    let place = page.run(&format!("return {place}.gridRowStart + ' ' + {place}.gridColumnStart")).await;
    assert_eq!(place, "2 8");
    let label = page.run(&format!("return {cell}.getAttribute('aria-label')")).await;
    assert_eq!(label, "pc-101-18, room 101 B8, failed, writing sda failed");
    let letters = page.run(&format!("return {cell}.querySelector('.sign').textContent")).await;
    assert_eq!(letters, "✕", "the state is no matter of colour alone");
    let needs = page.run("return [...document.querySelectorAll('#needs li')].map(li => li.innerText)").await;
    let needs: Vec<&str> = needs.as_array().unwrap().iter().map(|need| need.as_str().unwrap()).collect();
    assert!(needs[0].contains("2 failed") && needs[0].contains("writing sda failed"), "{needs:?}");
    assert!(needs[0].contains("pc-101-18") && needs[0].contains("pc-102-25"), "{needs:?}");
    assert!(needs[1].contains("new") && needs[1].contains("aa:bb:cc:00:00:01"), "{needs:?}");

    page.visit(&lab.url("/#view=list")).await;
    page.until("document.querySelectorAll('#rows tr').length === 121").await;
    let first = page.run("return document.querySelector('#rows tr').innerText").await.to_string();
    assert!(first.contains("pc-101-18") && first.contains("failed"), "{first}");
    assert_eq!(page.complaints().await, [""; 0]);
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn what_happens_is_shown_without_a_reload() {
    let mut lab = Lab::of(2).await;
    lab.order().await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/#view=jobs")).await;
    page.until("document.querySelector('#joblist .counts').innerText.includes('0 of 2 done')").await;
    page.visit(&lab.url("/#view=")).await;
    page.until("document.querySelectorAll('a.cell.waiting').length === 2").await;
    lab.begin(0).await;
    lab.progress(0, 42.0).await;
    page.until("document.querySelector('a.cell.imaging').innerText.includes('42 %')").await;
    page.until("document.querySelector('a.cell.imaging').innerText.includes('80 MB/s')").await;
    lab.finish(0).await;
    page.until("document.querySelector('a.cell.done')").await;
    page.visit(&lab.url("/#view=jobs&job=1")).await;
    page.until("document.querySelector('#report table').innerText.includes('done')").await;
    page.until("document.querySelector('#joblist .counts').innerText.includes('1 of 2 done')").await;
    lab.stop().await;
    page.until("document.querySelector('#link.lost')").await;
}

#[tokio::test]
async fn a_terminal_shows_the_stages_of_its_attempts_with_begin_and_duration() {
    let mut lab = Lab::of(2).await;
    lab.order().await;
    lab.begin(0).await;
    lab.stage(0, "manifest").await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    lab.stage(0, "fetch").await;
    lab.fail(0).await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url(&format!("/#terminal={}", mac(0)))).await;
    page.until("document.querySelectorAll('#attempts details[open] .stages li').length === 2").await;
    let first = page.run("return document.querySelector('.stages li').innerText").await;
    let words: Vec<&str> = first.as_str().unwrap().split_whitespace().collect();
    assert!(words.join(" ").contains("reading the manifest"), "{first}");
    let took = words.windows(2).find(|pair| pair[1] == "s").map(|pair| pair[0].parse::<u64>().unwrap());
    assert!(took.is_some_and(|seconds| seconds >= 1), "{first}");
    let began = page.run("return document.querySelector('.stages time').dateTime").await;
    assert!(began.as_str().unwrap().ends_with('Z'), "{began}");
    let head = page.run("return document.querySelector('#attempts summary').innerText").await.to_string();
    assert!(head.contains("attempt 1, job 1, golden@format-1") && head.ends_with("failed\""), "{head}");

    // A second attempt comes first, and the failed one stays as it was.
    lab.retry(0).await;
    lab.begin(0).await;
    lab.stage(0, "verify").await;
    page.until("document.querySelectorAll('#attempts details').length === 2").await;
    page.until("document.querySelector('#attempts details').innerText.includes('verifying from the disk')")
        .await;
    page.click("#language").await;
    page.until("document.querySelector('#attempts').innerText.includes('从磁盘校验')").await;
    let older = "document.querySelector('#attempts details:nth-child(2)')";
    page.until(&format!("{older}.innerText.includes('读取清单')")).await;
    page.click("#attempts details:nth-child(2) summary").await;
    page.until(&format!("!{older}.open")).await;
    assert_eq!(page.complaints().await, [""; 0]);
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn filters_live_in_the_address_and_survive_a_reload() {
    let lab = morning().await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/#room=102&q=pc-102-2")).await;
    let ten = "document.querySelectorAll('a.cell').length === 10";
    page.until(ten).await;
    page.reload().await;
    page.until(ten).await;
    assert_eq!(page.run("return document.querySelector('#room').value").await, "102");
    assert_eq!(page.run("return document.querySelector('#search').value").await, "pc-102-2");
    page.click(".chip.failed").await;
    page.until("document.querySelectorAll('a.cell').length === 1").await;
    assert_eq!(page.run("return location.hash").await, "#room=102&q=pc-102-2&state=failed");
    page.write("#search", "5").await;
    page.until("location.hash.includes('q=pc-102-25')").await;
    page.click("a.cell.failed").await;
    page.until("document.querySelector('#facts').innerText.includes('writing sda failed')").await;
    let log = "return document.querySelector('#oneactions a').getAttribute('href')";
    assert!(
        page.run(log).await.as_str().unwrap().starts_with("/api/v1/attempts/"),
        "its log is a click away"
    );
    page.reload().await;
    page.until("document.querySelector('#onename').innerText.startsWith('pc-102-25')").await;
    page.press("\u{e00c}").await;
    page.until("document.querySelector('#one').hidden").await;
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn the_page_speaks_chinese() {
    let lab = morning().await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/")).await;
    page.until("document.querySelector('#needs li')").await;
    page.click("#language").await;
    let chinese = "document.querySelector('#needing').innerText.startsWith('需要处理')";
    page.until(chinese).await;
    page.reload().await;
    page.until(chinese).await;
    page.until("document.querySelector('.need.failed').innerText.includes('2 失败')").await;
    assert_eq!(page.run("return document.documentElement.lang").await, "zh-CN");
    assert_eq!(page.run("return document.querySelector('.room h3').textContent").await, "机房 101 40");
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn nothing_scrolls_sideways_on_a_phone() {
    let lab = morning().await;
    let page = Browser::open(390, 844).await;
    for address in ["/", "/#view=list", "/#view=jobs", "/#view=swarm", "/#terminal=pc-101-18", "/#job=1"] {
        page.visit(&lab.url(address)).await;
        page.reload().await;
        page.until("document.querySelector('#needs li')").await;
        if address.contains("terminal=") {
            page.until("document.querySelector('#facts dd')").await;
        }
        if address.contains("job=") {
            page.until("document.querySelector('#report table')").await;
        }
        let wide = page.run("return document.documentElement.scrollWidth").await;
        assert!(wide.as_u64().unwrap() <= 390, "{address} is {wide} pixels wide");
        let beyond = "[...document.querySelectorAll('main *')].filter(n => n.offsetParent \
            && getComputedStyle(n).position !== 'absolute' && !n.closest('thead') \
            && n.getBoundingClientRect().right > 391).map(n => n.outerHTML.slice(0, 90))";
        assert_eq!(page.run(&format!("return {beyond}")).await.to_string(), "[]", "{address}");
    }
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn a_thousand_terminals_fit_on_two_screens() {
    let lab = Lab::of(1000).await;
    lab.order().await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/")).await;
    page.until("document.querySelectorAll('a.cell').length === 1000").await;
    let size = page.run("return [document.body.scrollHeight, document.documentElement.scrollWidth]").await;
    assert!(size[0].as_u64().unwrap() <= 1600 && size[1].as_u64().unwrap() <= 1280, "{size}");
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn a_report_that_changes_no_whole_percent_leaves_a_small_cell_alone() {
    let mut lab = Lab::of(160).await;
    lab.order().await;
    for n in 0..2 {
        lab.begin(n).await;
        lab.progress(n, 42.1).await;
    }
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/")).await;
    let cell = |n: usize| format!("document.querySelector('a.cell[data-id=\"{}\"]')", mac(n));
    page.until(&format!("{}.querySelector('.pc').textContent === '42'", cell(0))).await;
    let watch = "window.touched = new Set(); new MutationObserver(all => all.forEach(one => \
        touched.add(one.target.closest('a.cell').dataset.id))) \
        .observe(document.querySelector('#rooms'), { subtree: true, childList: true, attributes: true })";
    page.run(watch).await;
    lab.progress(0, 42.9).await;
    lab.progress(1, 43.1).await;
    page.until(&format!("{}.querySelector('.pc').textContent === '43'", cell(1))).await;
    assert_eq!(page.run("return [...touched]").await, serde_json::json!([mac(1)]));
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn a_row_far_below_the_window_follows_when_it_comes_near_or_changes_its_state() {
    let mut lab = Lab::of(80).await;
    lab.order().await;
    for n in 0..80 {
        lab.begin(n).await;
        lab.progress(n, 1.0).await;
    }
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/#view=list")).await;
    let row = |n: usize| format!("document.querySelector('#rows tr[data-id=\"{}\"]')", mac(n));
    page.until(&format!("{}.innerText.includes('1.0 %')", row(79))).await;
    // The browser calls observers in the order in which they were made: after this one the page's own has
    // heard that the row is far away.
    let observe = format!("new IntersectionObserver(done).observe({})", row(79));
    assert_eq!(page.run(&format!("return new Promise(done => {observe}).then(() => true)")).await, true);
    lab.progress(79, 42.0).await;
    lab.progress(0, 42.0).await;
    page.until(&format!("{}.innerText.includes('42.0 %')", row(0))).await;
    let far = page.run(&format!("return {}.innerText", row(79))).await.to_string();
    assert!(far.contains("1.0 %"), "nobody sees it: {far}");
    page.run(&format!("{}.scrollIntoView()", row(79))).await;
    page.until(&format!("{}.innerText.includes('42.0 %')", row(79))).await;
    lab.fail(0).await;
    page.until(&format!("{}.innerText.includes('failed')", row(0))).await;
    assert_eq!(page.complaints().await, [""; 0]);
    drop(page);
    lab.stop().await;
}
