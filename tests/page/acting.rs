//! People act from the page.

use crate::browser::Browser;
use crate::lab::Lab;

#[tokio::test]
async fn acting_needs_a_token_which_stays_in_the_tab() {
    let mut lab = Lab::of(2).await;
    lab.order().await;
    lab.begin(1).await;
    lab.fail(1).await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/")).await;
    page.until("document.querySelector('.need.failed .do')").await;
    page.click(".need.failed .do").await;
    page.until("document.querySelector('#said.bad').innerText === 'Paste a token first.'").await;
    page.until("document.activeElement.id === 'token'").await;
    page.write("#token", "nonsense\u{e007}").await;
    page.until("!document.querySelector('#acting').open").await;
    page.click(".need.failed .do").await;
    page.until("document.querySelector('#said.bad').innerText.includes('this token is not valid')").await;
    assert_eq!(lab.state(1).await, "failed", "without a good token nothing happens");

    page.write("#token", &format!("{}\u{e007}", lab.token().await)).await;
    page.until("!document.querySelector('#acting').open").await;
    page.click(".need.failed .do").await;
    page.until("document.querySelector('#said.good').innerText.startsWith('Accepted')").await;
    page.until("document.querySelectorAll('a.cell.waiting').length === 2").await;
    assert_eq!(lab.state(1).await, "waiting");
    assert_eq!(page.run("return [localStorage.length, sessionStorage.length].join()").await, "0,1");

    page.visit(&lab.url("/#terminal=pc-101-01")).await;
    page.until("document.querySelector('#oneactions button')").await;
    page.run("window.confirm = () => true; return 1").await;
    page.click("#oneactions button").await;
    page.until("document.querySelectorAll('a.cell.cancelled').length === 1").await;
    drop(page);
    lab.stop().await;
}

#[tokio::test]
async fn a_job_is_tried_before_it_is_created() {
    let lab = Lab::of(3).await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/#view=jobs")).await;
    page.until("document.querySelector('#new-image option')").await;
    let token = lab.token().await;
    page.click("#acting summary").await;
    page.write("#token", &format!("{token}\u{e007}")).await;
    page.click("#creating summary").await;
    page.write("#new-targets", "room:999").await;
    page.click("#newjob button").await;
    page.until("document.querySelector('#said.bad').innerText.includes('999')").await;
    page.run("document.querySelector('#new-targets').value = ''; return 1").await;
    page.write("#new-targets", "room:101").await;
    page.click("#newjob button").await;
    page.until("document.querySelector('#create').innerText === 'Create it for 3 terminals'").await;
    assert!(page.run("return document.querySelector('#plan').innerText").await.to_string().contains("loses"));
    assert_eq!(lab.state(0).await, "idle", "a dry run creates nothing");
    page.write("#new-limit_mbit", "200").await;
    page.until("!document.querySelector('#create')").await;
    page.click("#newjob button").await;
    page.until("document.querySelector('#create')").await;
    page.click("#create").await;
    page.until("document.querySelector('#joblist h3').innerText.includes('job 1')").await;
    page.until("document.querySelector('#joblist').innerText.includes('200 Mbit/s of each link')").await;
    assert_eq!(lab.state(0).await, "waiting");
    drop(page);
    lab.stop().await;
}
