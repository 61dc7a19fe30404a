//! `/`: the lab in a browser.
//!
//! Invariant: no resource comes from another host, and no script or style is inline, which the policy header
//! enforces. The page's data comes from `/api/v1`, and is inserted as text, never as markup.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::digest;
use crate::server::domain::tickets::hex;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the page by name. Their texts are part of the program.
const FILES: [(&str, &str); 16] = [
    ("index.html", include_str!("index.html")),
    ("style.css", include_str!("style.css")),
    ("parts.css", include_str!("parts.css")),
    ("narrow.css", include_str!("narrow.css")),
    ("act.js", include_str!("act.js")),
    ("attempts.js", include_str!("attempts.js")),
    ("grid.js", include_str!("grid.js")),
    ("jobs.js", include_str!("jobs.js")),
    ("lab.js", include_str!("lab.js")),
    ("list.js", include_str!("list.js")),
    ("main.js", include_str!("main.js")),
    ("needs.js", include_str!("needs.js")),
    ("one.js", include_str!("one.js")),
    ("swarm.js", include_str!("swarm.js")),
    ("tools.js", include_str!("tools.js")),
    ("words.js", include_str!("words.js")),
];

/// `GET /`.
pub async fn page(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// `GET /page/{file}`.
pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, text)) = FILES.iter().find(|(file, _)| *file == name) else {
        return (StatusCode::NOT_FOUND, "the page has no such file\n").into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "text/html; charset=utf-8",
    };
    let tag = format!("W/\"{}\"", hex(&digest::sha256(text.as_bytes()).0[..8]));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, kind)], *text).into_response(),
    };
    let answers = response.headers_mut();
    answers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_the_page_names_is_one_of_its_files() {
        for (file, text) in FILES {
            let imports = text.split("from \"./").skip(1).map(|rest| rest.split('"').next());
            let links = text.split("=\"/page/").skip(1).map(|rest| rest.split('"').next());
            for name in imports.chain(links).flatten() {
                assert!(FILES.iter().any(|(known, _)| *known == name), "{file} names {name}");
            }
        }
    }

    #[test]
    fn nothing_comes_from_foreign_hosts_and_nothing_moves_by_itself() {
        for (file, text) in FILES {
            for foreign in ["https://", "//cdn", "@import", "innerHTML", "insertAdjacentHTML", "transition:"]
            {
                assert!(!text.contains(foreign), "{file} has {foreign}");
            }
            let hosts = text.matches("http://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(hosts, 0, "{file}");
            assert!(
                !text.contains(" style=\"") && !text.contains("<script>"),
                "{file}: the policy refuses it"
            );
        }
    }

    #[test]
    fn every_word_is_there_in_both_languages() {
        let words = FILES.iter().find(|(name, _)| *name == "words.js").expect("there").1;
        let known = |key: &str| words.contains(&format!("\"{key}\": ["));
        for (file, text) in FILES {
            let marks = ["data-w=\"", "data-label=\"", "data-hint=\"", "w(\""];
            for mark in marks {
                let keys = text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
                for key in keys {
                    assert!(known(key), "{file} has no word for '{key}'");
                }
            }
        }
        for state in crate::api::TerminalState::ALL {
            assert!(known(state.word()), "{}", state.word());
        }
    }
}
