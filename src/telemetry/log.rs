//! Logging by `tracing` to standard error, never waiting for whoever reads it (P9).
//!
//! Owns: the subscriber, its level, and the thread that writes lines. Info is for changes of state only. Never: blocks
//! a caller: lines that find the queue full are dropped and counted, and the count is told when the pipe moves again.
//! NODE-30 to NODE-32 give the levels.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// Lines that may wait for the pipe.
const QUEUE: usize = 1024;

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the level comes from.
#[derive(Clone, PartialEq, Debug)]
pub enum LogLevel {
    /// Set by flag or environment: stays.
    Fixed(Targets),
    /// Follows `logSeverityScreen` of the BGPConfiguration; info until that is known.
    Followed,
}

/// Reads a level word, or a list such as `info,calico_bgpd::net=debug`.
pub fn parse_level(text: &str) -> Result<Targets, String> {
    let mut filter = targets(LevelFilter::INFO);
    for part in text.split(',').map(str::trim) {
        let (target, word) = part.split_once('=').map_or((None, part), |(target, word)| (Some(target), word));
        let level = word
            .to_ascii_lowercase()
            .parse::<LevelFilter>()
            .map_err(|_| format!("{word:?} is no log level (off, error, warn, info, debug, trace)"))?;
        filter = match target {
            Some(target) => filter.with_target(target.trim(), level),
            None => targets(level),
        };
    }
    Ok(filter)
}

/// The level of Calico's severity words (NODE-30): Debug and Info are themselves; what only asks for less is honoured
/// as warnings and errors, for nobody wants to lose those.
pub fn severity(word: &str) -> LevelFilter {
    match word.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    }
}

/// [`severity`] as a filter.
pub fn severity_targets(word: &str) -> Targets {
    targets(severity(word))
}

fn targets(level: LevelFilter) -> Targets {
    // The libraries' own lines are rarely of use to an operator below warn.
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("calico_bgpd", level)
        .with_target("bgp_proto", level)
}

/// Handle of the running log.
pub struct Log {
    level: reload::Handle<Targets, Registry>,
    follows: bool,
    lines: SyncSender<Line>,
}

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

impl Log {
    /// Installs the subscriber and starts the writing thread. Call once.
    pub fn start(level: &LogLevel, format: LogFormat) -> io::Result<Log> {
        let (lines, queue) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = LineWriter { lines: lines.clone(), dropped: dropped.clone() };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&queue, &dropped, format, &mut io::stderr()))?;

        let (first, follows) = match level {
            LogLevel::Fixed(targets) => (targets.clone(), false),
            LogLevel::Followed => (targets(LevelFilter::INFO), true),
        };
        let (filter, handle) = reload::Layer::new(first);
        let registry = tracing_subscriber::registry().with(filter);
        let fmt = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false).with_ansi(false);
        let installed = match format {
            LogFormat::Text => registry.with(fmt).try_init(),
            LogFormat::Json => registry.with(fmt.json().flatten_event(true)).try_init(),
        };
        installed.map_err(io::Error::other)?;
        Ok(Log { level: handle, follows, lines })
    }

    /// The datastore's wish; ignored where a flag or the environment decided.
    pub fn follow(&self, word: Option<&str>) {
        if self.follows {
            let wanted = targets(word.map_or(LevelFilter::INFO, severity));
            let same = self.level.with_current(|now| *now == wanted).unwrap_or(true);
            if !same && let Err(error) = self.level.reload(wanted) {
                tracing::warn!(%error, "cannot change the log level");
            }
        }
    }

    /// Waits until what was said is written, for `limit` at most: a dead pipe must not keep the process from ending.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        let end = Instant::now() + limit;
        let mut request = Line::Flush(done);
        loop {
            match self.lines.try_send(request) {
                Ok(()) => break,
                Err(std::sync::mpsc::TrySendError::Full(back)) if Instant::now() < end => {
                    request = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return,
            }
        }
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn write_lines(queue: &Receiver<Line>, dropped: &AtomicU64, format: LogFormat, out: &mut impl Write) {
    loop {
        match queue.recv_timeout(Duration::from_secs(60)) {
            // A broken pipe is nobody's fault here and cannot be told anywhere.
            Ok(Line::Text(line)) => {
                let _ = out.write_all(&line);
            }
            Ok(Line::Flush(done)) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let message = "log lines were dropped: the reader of standard error was too slow";
            let _ = match format {
                LogFormat::Text => writeln!(out, "{lost} {message}"),
                LogFormat::Json => {
                    let line = serde_json::json!({ "level": "WARN", "message": message, "dropped": lost });
                    writeln!(out, "{line}")
                }
            };
        }
    }
}

/// Has panics logged with their backtrace. The usual hook writes to standard error by itself, and would wait where
/// nobody reads (P9).
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!("{panic}\n{trace}");
    }));
}

/// Collects one line and hands it to the thread.
#[derive(Clone)]
struct LineWriter {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

struct LineBuffer<'a> {
    writer: &'a LineWriter,
    line: Vec<u8>,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = LineBuffer<'a>;

    fn make_writer(&'a self) -> LineBuffer<'a> {
        LineBuffer { writer: self, line: Vec::new() }
    }
}

impl Write for LineBuffer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineBuffer<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && self.writer.lines.try_send(Line::Text(line)).is_err() {
            self.writer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_stopped_costs_lines_and_no_time() {
        let (lines, queue) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = LineWriter { lines, dropped: dropped.clone() };
        // Nobody reads: the fourth write would block for ever on a waiting writer.
        for text in ["one\n", "two\n", "three\n", "four\n"] {
            writer.make_writer().write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        drop(writer);
        let mut out = Vec::new();
        write_lines(&queue, &dropped, LogFormat::Text, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("one\n") && text.contains("two\n") && !text.contains("three"), "{text}");
        assert!(text.contains("2 log lines were dropped"), "{text}");
    }

    #[test]
    fn what_was_dropped_is_told_in_the_format_of_the_log() {
        let (lines, queue) = sync_channel(1);
        lines.try_send(Line::Text(b"{}\n".to_vec())).unwrap();
        drop(lines);
        let mut out = Vec::new();
        write_lines(&queue, &AtomicU64::new(7), LogFormat::Json, &mut out);
        let text = String::from_utf8(out).unwrap();
        let told: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!((&told["dropped"], &told["level"]), (&7.into(), &"WARN".into()));
    }

    #[test]
    fn calicos_severity_words_become_levels() {
        assert_eq!(severity("Debug"), LevelFilter::DEBUG);
        assert_eq!(severity("INFO"), LevelFilter::INFO);
        assert_eq!(severity("Fatal"), LevelFilter::ERROR);
        assert_eq!(severity("nonsense"), LevelFilter::INFO);
        assert!(parse_level("loud").is_err());
        assert!(parse_level("info,calico_bgpd::net=debug").is_ok());
    }
}
