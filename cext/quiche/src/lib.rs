//! quiche's C interface, re-exported, and the calls the engine needs that it lacks.
//!
//! Every function takes a connection or configuration made by quiche's own C functions. None keeps a
//! pointer. Declared in `quiche_more.h`.

#![deny(missing_docs)]

use std::ffi::{c_char, c_void, CStr};
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

/// Where a connection's qlog goes: memory of the caller's, which outlives the connection.
struct QlogWriter {
    write: extern "C" fn(*mut c_void, *const u8, usize),
    context: *mut c_void,
}

// quiche asks for both. An engine, and all that it owns, is one thread's (quicgreen.h, rule 2).
unsafe impl Send for QlogWriter {}
unsafe impl Sync for QlogWriter {}

impl std::io::Write for QlogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.write)(self.context, bytes.as_ptr(), bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Begin a connection's qlog, in JSON-SEQ (RFC 7464): every piece of it is given to `write`, with
/// `context`, until the connection has ended, is freed, or `qgq_conn_end_qlog`. A second one takes the
/// first one's place.
///
/// quiche's own functions write to a file or a descriptor, in the middle of whatever happens.
///
/// # Safety
///
/// `title` and `description` are C strings of UTF-8.
#[no_mangle]
pub unsafe extern "C" fn qgq_conn_set_qlog(
    conn: &mut Connection,
    title: *const c_char,
    description: *const c_char,
    write: extern "C" fn(*mut c_void, *const u8, usize),
    context: *mut c_void,
) {
    let text = |s| unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned();
    let writer = Box::new(QlogWriter { write, context });
    conn.set_qlog_with_level(writer, text(title), text(description), QlogLevel::Extra);
}

/// Write no more of a connection's qlog.
#[no_mangle]
pub extern "C" fn qgq_conn_end_qlog(conn: &mut Connection) {
    if let Some(streamer) = conn.qlog_streamer() {
        streamer.finish_log().ok();
    }
}
