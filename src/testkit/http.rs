//! An HTTP server with one answer for every request.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use tokio::net::TcpListener;

/// Serves until the runtime ends: `answer(path, body)` gives status and body. Returns the server's URL.
pub(crate) async fn serve(answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let handler = move |uri: Uri, body: String| {
        let (status, body) = answer(&uri.to_string(), &body);
        std::future::ready((StatusCode::from_u16(status).unwrap(), body))
    };
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(handler)).await });
    url
}
