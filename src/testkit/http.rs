//! An HTTP server with one answer for every request, and one that is not there.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use tokio::net::{TcpListener, TcpSocket};

/// Serves until the runtime ends: `answer(path, body)` gives status and body. Whoever is refused
/// for a while may come again at once. Returns the server's URL.
pub(crate) async fn serve(answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let handler = move |uri: Uri, body: String| {
        let (status, body) = answer(&uri.to_string(), &body);
        let mut headers = HeaderMap::new();
        if status == 429 {
            headers.insert(header::RETRY_AFTER, 0.into());
        }
        std::future::ready((StatusCode::from_u16(status).unwrap(), headers, body))
    };
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(handler)).await });
    url
}

/// A URL at which nobody answers for as long as the socket lives: its port belongs to the socket, which does
/// not listen, so no test beside this one gets the port.
pub(crate) fn nobody() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}
