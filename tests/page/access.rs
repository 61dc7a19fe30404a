//! The page by keyboard, for screen readers, and in colours that can be read.

use crate::browser::Browser;
use crate::lab::{Lab, mac};

/// Controls without a name, and ids that are there twice.
const NAMELESS: &str = "
    const bad = [];
    for (const n of document.querySelectorAll('a[href], button, input, select, summary, [role]')) {
        if (!n.checkVisibility()) continue;
        const label = n.closest('label');
        const region = n.matches('[role=alert], [role=status], [role=search]') && 'region';
        const name = n.getAttribute('aria-label') || n.innerText || label && label.innerText
            || n.getAttribute('aria-labelledby') || region;
        if (!name || !name.trim()) bad.push(n.outerHTML.slice(0, 100));
    }
    const ids = [...document.querySelectorAll('[id]')].map(n => n.id);
    bad.push(...ids.filter((id, i) => ids.indexOf(id) !== i));
    for (const n of document.querySelectorAll('[aria-labelledby]:not([hidden])'))
        if (!ids.includes(n.getAttribute('aria-labelledby'))) bad.push(n.outerHTML.slice(0, 100));
    if (document.querySelector('ul > :not(li)')) bad.push('a list has more than items');
    for (const one of ['h1', 'main', 'nav'])
        if (document.querySelectorAll(one).length !== 1) bad.push(one);
    return bad;";

/// Colours of words that have less contrast to the card below them than 4.5 to 1 (WCAG 2.1).
const FAINT: &str = "
    const style = getComputedStyle(document.documentElement), probe = document.createElement('i');
    document.body.append(probe);
    const light = name => {
        probe.style.color = style.getPropertyValue(name);
        const rgb = getComputedStyle(probe).color.match(/[\\d.]+/g).map(n => n / 255)
            .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
    };
    const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const words = ['ink', 'soft', 'link', 'idle', 'planned', 'waiting', 'imaging', 'interrupted', 'done',
        'failed', 'asleep', 'missed', 'cancelled', 'new'];
    const faint = (word, ground) => contrast(light('--' + word), light('--' + ground)) < 4.5;
    return words.flatMap(word => ['card', 'paper', 'hover'].filter(ground => faint(word, ground))
        .map(ground => word + ' on ' + ground));";

/// One address of each view.
const VIEWS: [&str; 5] = ["/", "/#view=list", "/#view=jobs", "/#view=swarm", "/#terminal=pc-101-02&job=1"];

/// A lab with something to show in each view, because a terminal has failed.
async fn lab_with_a_failure() -> Lab {
    let mut lab = Lab::of(40).await;
    lab.order().await;
    lab.begin(1).await;
    lab.fail(1).await;
    lab
}

/// Opens a view of that lab.
async fn show(page: &Browser, lab: &Lab, address: &str) {
    page.visit(&lab.url(address)).await;
    page.reload().await;
    page.until("document.querySelector('#needs li')").await;
}

#[tokio::test]
async fn each_control_has_a_name_and_each_colour_can_be_read() {
    let lab = lab_with_a_failure().await;
    let page = Browser::open(1280, 800).await;
    for scheme in ["light", "dark"] {
        page.scheme(scheme).await;
        for address in VIEWS {
            show(&page, &lab, address).await;
            assert_eq!(page.run(NAMELESS).await.to_string(), "[]", "{address}");
        }
        assert_eq!(page.run(FAINT).await.to_string(), "[]", "{scheme}");
    }
    let paper = page.run("return getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(paper, "rgb(18, 21, 26)", "dark, as the system asks");
    drop(page);
    lab.stop().await;
}

/// Serious findings of axe-core (WCAG), which Debian does not have: AXE names its file axe.min.js.
#[tokio::test]
#[ignore = "needs axe-core: AXE=/path/to/axe.min.js"]
async fn axe_finds_nothing_serious() {
    const RUN: &str = "
        return axe.run(document).then(found => found.violations
            .filter(one => ['serious', 'critical'].includes(one.impact))
            .map(one => one.id + ': ' + one.nodes.map(node => node.html.slice(0, 150)).join(' | '))
            .concat(found.passes.length < 10 ? 'axe looked at nothing' : []));";
    let axe = std::fs::read_to_string(std::env::var("AXE").expect("AXE names the file")).expect("a file");
    let lab = lab_with_a_failure().await;
    for width in [1280, 390] {
        let page = Browser::open(width, 800).await;
        for scheme in ["light", "dark"] {
            page.scheme(scheme).await;
            for address in VIEWS {
                show(&page, &lab, address).await;
                page.run(&axe).await;
                assert_eq!(page.run(RUN).await.to_string(), "[]", "{scheme} {address} at {width}");
            }
        }
        drop(page);
    }
    lab.stop().await;
}

#[tokio::test]
async fn arrow_keys_walk_over_the_seats_and_enter_opens_one() {
    let lab = Lab::of(80).await;
    let page = Browser::open(1280, 800).await;
    page.visit(&lab.url("/")).await;
    page.until("document.querySelectorAll('a.cell').length === 80").await;
    page.run("document.querySelector('a.cell').focus(); return 1").await;
    // From A1 right to A2, down to B2, Tab to the next room.
    for (key, n) in [("\u{e014}", 1), ("\u{e015}", 11), ("\u{e012}", 10), ("\u{e013}", 0), ("\u{e004}", 40)] {
        page.press(key).await;
        page.until(&format!("document.activeElement.dataset.id === '{}'", mac(n))).await;
    }
    page.press("\u{e007}").await;
    page.until("document.activeElement.id === 'onename'").await;
    page.until("document.querySelector('#onename').innerText.startsWith('pc-102-01')").await;
    drop(page);
    lab.stop().await;
}
