//! quiche's C interface, re-exported, and the calls the engine needs that it lacks.
//!
//! Every function takes a connection or configuration made by quiche's own C functions. None keeps a
//! pointer. Declared in `quiche_more.h`.

#![deny(missing_docs)]

use std::sync::OnceLock;
use std::time::Instant;

use boring::ssl::{SslContextBuilder, SslMethod};

pub use quiche::*;

/// An `Instant` and the nanoseconds of CLOCK_MONOTONIC at the same time: Rust does not say what an
/// `Instant` counts from.
fn epoch(now_ns: u64) -> (Instant, u64) {
    static EPOCH: OnceLock<(Instant, u64)> = OnceLock::new();
    *EPOCH.get_or_init(|| (Instant::now(), now_ns))
}

/// When the connection's next timer is due, in nanoseconds of CLOCK_MONOTONIC, `u64::MAX` for never.
///
/// quiche's own `quiche_conn_timeout_as_nanos` gives what is left, by reading the clock once more.
/// `now_ns` is the caller's reading of the same clock; only its first value is used.
#[no_mangle]
pub extern "C" fn qgq_conn_timeout_at_ns(conn: &Connection, now_ns: u64) -> u64 {
    let (instant, ns) = epoch(now_ns);
    match conn.timeout_instant() {
        None => u64::MAX,
        Some(due) => match due.checked_duration_since(instant) {
            Some(after) => ns + after.as_nanos() as u64,
            None => ns.saturating_sub(instant.duration_since(due).as_nanos() as u64),
        },
    }
}

/// A configuration of transport settings, null when there is no memory. The TLS of its connections is the
/// engine's own.
///
/// quiche's own `quiche_config_new` reads the system's trusted certificates first, which takes 4 to 10 ms.
#[no_mangle]
pub extern "C" fn qgq_config_new() -> *mut Config {
    SslContextBuilder::new(SslMethod::tls())
        .ok()
        .and_then(|tls| Config::with_boring_ssl_ctx_builder(PROTOCOL_VERSION, tls).ok())
        .map_or(std::ptr::null_mut(), |config| {
            Box::into_raw(Box::new(config))
        })
}

/// Let a connection take more stream data than its congestion window has room for, by this factor, so
/// that acknowledgements can be answered with data before the application runs again.
#[no_mangle]
pub extern "C" fn qgq_config_set_send_capacity_factor(config: &mut Config, factor: f64) {
    config.set_send_capacity_factor(factor);
}

/// The idle timeout that the peer announced, in milliseconds; 0 for none, and before it was heard of.
///
/// quiche's C function for all transport parameters fills a struct whose layout it does not fix.
#[no_mangle]
pub extern "C" fn qgq_conn_peer_idle_timeout_ms(conn: &Connection) -> u64 {
    conn.peer_transport_params()
        .map_or(0, |params| params.max_idle_timeout)
}

/// As `quiche_conn_stream_capacity`, with the code of a peer that stopped reading in `code`. Other
/// errors are `QUICHE_ERR_INVALID_STREAM_STATE`.
///
/// Whoever is told so first is told last: quiche may forget the stream with it.
#[no_mangle]
pub extern "C" fn qgq_conn_stream_capacity(
    conn: &mut Connection,
    stream_id: u64,
    code: &mut u64,
) -> i64 {
    match conn.stream_capacity(stream_id) {
        Ok(bytes) => bytes as i64,
        Err(Error::StreamStopped(reason)) => {
            *code = reason;
            -15
        }
        Err(_) => -7,
    }
}
