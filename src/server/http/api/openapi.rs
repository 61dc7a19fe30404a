//! The API's description for programs, made from the handlers and their types.
//!
//! Invariant: every address below `/api/v1` that the router knows is described; the test below holds that.

use axum::Json;
use utoipa::OpenApi;
use utoipa::openapi;

/// All calls.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "flashmob",
        description = "Terminals introduce themselves, take jobs and report; people look and decide. Whoever \
            decides brings 'Authorization: Bearer TOKEN', or calls from the server's loopback address."
    ),
    tags(
        (name = "terminals", description = "Calls of terminals, each for itself"),
        (name = "views", description = "For people; nothing changes"),
        (name = "decisions", description = "Of administrators and teachers"),
        (name = "jobs", description = "What is imaged, where and when"),
        (name = "people", description = "Tokens, and the audit of what was done")
    ),
    paths(
        super::backup::backup,
        super::captures::create,
        super::captures::end,
        super::captures::lending,
        super::captures::watch,
        super::changes::changes,
        super::decisions::admit,
        super::decisions::cancel,
        super::decisions::forget,
        super::decisions::retry,
        super::hello::hello,
        super::history::attempts,
        super::history::run,
        super::jobs::cancel,
        super::jobs::cancel_several,
        super::jobs::create,
        super::jobs::job,
        super::jobs::jobs,
        super::jobs::report,
        super::jobs::retry,
        super::logs::hand_over,
        super::logs::read,
        super::people::audit,
        super::people::create_token,
        super::people::revoke_token,
        super::people::tokens,
        super::personal::booted,
        super::personal::report,
        super::registry::describe,
        super::registry::describe_terminals,
        super::registry::export,
        super::registry::import,
        super::reports::outcome,
        super::reports::progress,
        super::take::take,
        super::together::cancel_terminals,
        super::together::forget_terminals,
        super::together::retry_terminals,
        super::views::lab,
        super::views::terminal,
        super::views::terminals,
        super::wake::wake,
        super::wake::wake_terminals,
        openapi,
    )
)]
struct Document;

/// `GET /api/v1/openapi.json`.
#[utoipa::path(get, path = "/api/v1/openapi.json", summary = "This description", tag = "views",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)))]
pub async fn openapi() -> Json<openapi::OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Addresses and methods below `/api/v1` as the router's source has them.
    fn routes(source: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for route in source.split(".route(\"").skip(1).filter(|route| route.starts_with("/api/v1/")) {
            let (path, rest) = route.split_once('"').expect("a text");
            // The methods of this route end where the next call of the router begins.
            let methods = rest.split("\n").next().expect("a line");
            for method in ["get", "post", "put", "patch", "delete"] {
                let called = [format!(" {method}("), format!(".{method}(")];
                if called.iter().any(|call| methods.contains(call)) {
                    found.insert(format!("{method} {path}"));
                }
            }
        }
        found
    }

    #[test]
    fn every_route_of_the_router_is_described_and_no_other() {
        let document = serde_json::to_value(Document::openapi()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<String> = paths
            .iter()
            .flat_map(|(path, calls)| {
                calls.as_object().expect("calls").keys().map(move |method| format!("{method} {path}"))
            })
            .collect();
        let routes = routes(include_str!("../router.rs"));
        assert!(routes.len() > 10, "the router was read: {routes:?}");
        assert_eq!(described, routes);
    }

    #[test]
    fn no_two_calls_have_one_name_in_generated_clients() {
        let document = serde_json::to_value(Document::openapi()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let calls = paths.values().flat_map(|calls| calls.as_object().expect("calls").values());
        let mut names: Vec<&str> = calls.map(|call| call["operationId"].as_str().expect("a name")).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn every_named_shape_is_described() {
        let text = serde_json::to_string(&Document::openapi()).expect("JSON");
        let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let named = text.match_indices("#/components/schemas/");
        for (at, mark) in named {
            let name = text[at + mark.len()..].split('"').next().expect("a name");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
