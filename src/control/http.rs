//! HTTP for machines: `/metrics`, `/healthz`, `/readyz`, `/debug/peers`, `/debug/status`.
//!
//! Owns: the listening socket of these, and what each path answers. Never: changes anything; takes a body; answers at
//! more than a few connections at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::ready::Readiness;
use super::server::Views;
use super::{accept, metrics};

/// Connections at once; others wait.
const CLIENTS: usize = 32;
/// How long a connection may last.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(5);
/// A table that does not answer for so long is not well.
const ALIVE: Duration = Duration::from_secs(5);
/// Between two attempts to bind.
const AGAIN: Duration = Duration::from_secs(5);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Serves until `stop`. An address that cannot be bound is tried again.
pub async fn run(address: SocketAddr, views: Views, stop: CancellationToken) {
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if !told => {
                warn!(%address, %error, "no HTTP for now");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    };
    serve(listener, views, stop).await;
}

/// Serves at a socket that is bound.
pub async fn serve(listener: TcpListener, views: Views, stop: CancellationToken) {
    accept::serve(&listener, CLIENTS, "http", stop, |stream| {
        let views = views.clone();
        async move {
            let service = service_fn(|request: Request<Incoming>| {
                let views = &views;
                async move { Ok::<_, Infallible>(answer(views, request.method(), request.uri().path()).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .serve_connection(TokioIo::new(stream), service);
            timeout(PATIENCE, served).await?.map_err(std::io::Error::other)
        }
    })
    .await;
}

async fn answer(views: &Views, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET is answered\n".into());
    }
    match path {
        "/metrics" => match metrics::scrape(views).await {
            Ok(text) => response(StatusCode::OK, OPENMETRICS, text),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/healthz" => match timeout(ALIVE, views.core.look(|_| ())).await {
            Ok(Ok(())) => response(StatusCode::OK, TEXT, "ok\n".into()),
            Ok(Err(error)) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{error}\n")),
            Err(_) => {
                let why = format!("the table has not answered for {} s\n", ALIVE.as_secs());
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, why)
            }
        },
        "/readyz" => {
            let reasons = Readiness::at(views).reasons();
            if reasons.is_empty() {
                response(StatusCode::OK, TEXT, "ok\n".into())
            } else {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons.join("\n") + "\n")
            }
        }
        "/debug/peers" => json(&views.peers().await),
        "/debug/status" => json(&views.status().await),
        _ => {
            let known = "/metrics\n/healthz\n/readyz\n/debug/peers\n/debug/status\n";
            let status = if path == "/" { StatusCode::OK } else { StatusCode::NOT_FOUND };
            response(status, TEXT, known.into())
        }
    }
}

fn json(answer: &super::answer::Answer) -> Response<Full<Bytes>> {
    match serde_json::to_string(answer) {
        Ok(text) => response(StatusCode::OK, JSON, text + "\n"),
        Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
